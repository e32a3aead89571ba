"""Every score against an oracle: MONAI, torchmetrics, the official boundary IoU, and slow twins in NumPy."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, astuple, fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from experiments.evaluation.metrics import Scores, pooled_iou, score
from tests.conftest import examples

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI warns about itself
RATIOS = ("dice", "iou", "precision", "recall", "boundary_iou")
CARVANA = Path(os.environ.get("CARVANA_DIR", "does not exist"))


# --- masks ---


def empty(height, width):
    return np.zeros((height, width), bool)


def full(height, width):
    return np.ones((height, width), bool)


def pixel(height, width, *places):
    mask = empty(height, width)
    for place in places:
        mask[place] = True
    return mask


def blobs(rng, height, width, level=0.5):
    """Smooth random shapes covering about `level` of the image, many of them cut by its border."""
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), max(1.0, min(height, width) / 12))
    return noise > np.quantile(noise, 1 - level)


def car(height, width, shift=0, grow=0):
    """Body, cabin, two wheels and an antenna: about as long an outline as a real car's, with thin parts."""
    mask, x, y = np.zeros((height, width), np.uint8), width / 100, height / 100
    for left, top, right, bottom in ((15, 45, 85, 75), (30, 25, 68, 45), (66, 12, 67, 30)):
        corners = (
            (round(left * x) + shift - grow, round(top * y) - grow),
            (round(right * x) + shift + grow, round(bottom * y)),
        )
        cv2.rectangle(mask, *corners, 1, -1)
    for centre in (30, 70):
        cv2.circle(mask, (round(centre * x) + shift, round(75 * y)), round(9 * y) + grow, 1, -1)
    return mask.astype(bool)


RNG = np.random.default_rng(0)
PAIRS = {
    "blobs": (blobs(RNG, 61, 97), blobs(RNG, 61, 97)),
    "few and many blobs": (blobs(RNG, 120, 80, 0.1), blobs(RNG, 120, 80, 0.7)),
    "white noise": (RNG.random((50, 70)) < 0.5, RNG.random((50, 70)) < 0.5),
    "specks over a car": (car(128, 192) ^ (RNG.random((128, 192)) < 0.002), car(128, 192)),
    "a car and its shifted copy": (car(256, 384, shift=5), car(256, 384)),
    "a car and a larger one": (car(256, 384, grow=3), car(256, 384)),
    "a car cut by the border": (car(128, 192, shift=70), car(128, 192, shift=64)),
    "equal masks": (car(128, 192), car(128, 192)),
    "full against full": (full(40, 60), full(40, 60)),
    "full against a car": (full(128, 192), car(128, 192)),
    "full against all but one pixel": (full(40, 60), ~pixel(40, 60, (20, 30))),
    "opposite halves": (np.arange(60) < np.full((40, 1), 30), np.arange(60) >= np.full((40, 1), 30)),
    "opposite corners": (pixel(90, 160, (0, 0)), pixel(90, 160, (89, 159))),
    "a border row and a border column": (pixel(40, 60, np.s_[0, :]), pixel(40, 60, np.s_[:, 59])),
    "diagonal neighbours": (pixel(9, 9, (3, 3), (4, 4), (5, 5)), pixel(9, 9, (4, 4))),
    "one row": (RNG.random((1, 50)) < 0.3, RNG.random((1, 50)) < 0.3),
    "two ends of one row": (pixel(1, 500, (0, 0)), pixel(1, 500, (0, 499))),
    "two ends of one column": (pixel(500, 1, (0, 0)), pixel(500, 1, (499, 0))),
    "one pixel": (full(1, 1), full(1, 1)),
    "two by two": (pixel(2, 2, (0, 0)), pixel(2, 2, (1, 1), (0, 1))),
}
every_pair = pytest.mark.parametrize(("prediction", "truth"), PAIRS.values(), ids=PAIRS.keys())


@st.composite
def mask_pairs(draw):
    """Two masks of one small size: unrelated, or the second a copy of the first with some pixels flipped."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))
    prediction = draw(hnp.arrays(bool, shape))
    other = draw(hnp.arrays(bool, shape, fill=st.just(False)))
    return prediction, other ^ prediction if draw(st.booleans()) else other


some_pairs = examples(150)


# --- oracles ---


def counts_twin(prediction, truth):
    pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
    return tuple(pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False)))


def ratios_twin(prediction, truth):
    """Dice, IoU, precision and recall from sets of pixels."""
    found, wanted = (set(map(tuple, np.argwhere(mask))) for mask in (prediction, truth))
    both, either = len(found & wanted), len(found | wanted)
    return 2 * both / (len(found) + len(wanted)), both / either, both / max(len(found), 1), both / max(len(wanted), 1)


def official_band(mask):
    """The boundary region as in the code of Cheng et al. (2021): pad by one pixel, erode by 3x3 `steps` times."""
    height, width = mask.shape
    steps = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
    eroded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    for _ in range(steps):  # one call a step, so that OpenCV cannot merge them into one large square as it does for us
        eroded = cv2.erode(eroded, np.ones((3, 3), np.uint8))
    return mask & ~eroded[1:-1, 1:-1].astype(bool)


def numpy_band(mask):
    """The same by its meaning: foreground with background, or the outside, within `steps` rows and columns."""
    steps = max(1, round(0.02 * math.hypot(*mask.shape)))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, steps), (2 * steps + 1, 2 * steps + 1))
    return mask & ~windows.all(axis=(2, 3))


def band_iou(band, prediction, truth):
    prediction, truth = band(prediction), band(truth)
    return (prediction & truth).sum() / (prediction | truth).sum()


def monai_hd95(prediction, truth):
    """MONAI's number; its float32 quantile places the percentile of a long outline to about 1e-4 of a pixel."""
    import torch
    from monai.metrics import compute_hausdorff_distance

    prediction, truth = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (prediction, truth))
    return compute_hausdorff_distance(prediction, truth, include_background=True, percentile=95).item()


def hd95_twin(prediction, truth):
    """All distances between all outline pixels, outlines found pixel by pixel."""

    def outline(mask):
        padded = np.pad(mask, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inside)

    distance = np.linalg.norm(outline(prediction)[:, None] - outline(truth)[None], axis=2).astype(np.float32)
    return max(np.percentile(distance.min(axis), 95) for axis in (0, 1))


# --- counts and overlap ---


@every_pair
def test_counts_and_overlap_equal_those_counted_pixel_by_pixel(prediction, truth):
    scores = score(prediction, truth)
    assert (scores.tp, scores.fp, scores.fn, scores.tn) == counts_twin(prediction, truth)
    assert (scores.dice, scores.iou, scores.precision, scores.recall) == pytest.approx(
        ratios_twin(prediction, truth), abs=1e-12
    )


@every_pair
def test_overlap_equals_torchmetrics(prediction, truth):
    import torch
    from torchmetrics.functional.classification import (
        binary_f1_score,
        binary_jaccard_index,
        binary_precision,
        binary_recall,
    )

    # The binary functions score the foreground alone; for one foreground class Dice is F1.
    found, wanted = torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))
    oracles = (binary_f1_score, binary_jaccard_index, binary_precision, binary_recall)
    scores = score(prediction, truth)
    expected = [oracle(found, wanted).item() for oracle in oracles]
    assert [scores.dice, scores.iou, scores.precision, scores.recall] == pytest.approx(expected, abs=1e-6)


@some_pairs
@given(mask_pairs())
def test_counts_of_any_two_masks_are_exact(pair):
    scores = score(*pair)
    assert (scores.tp, scores.fp, scores.fn, scores.tn) == counts_twin(*pair)


def test_pooled_iou_divides_the_summed_counts():
    each = [score(*pair) for pair in PAIRS.values()]
    tp, fp, fn = (np.array([getattr(scores, name) for scores in each]).sum() for name in ("tp", "fp", "fn"))
    together = pooled_iou(tp, fp, fn)
    found, wanted = (np.concatenate([pair[side].ravel() for pair in PAIRS.values()]) for side in (0, 1))
    assert together == pytest.approx((found & wanted).sum() / (found | wanted).sum(), abs=1e-12)
    assert type(together) is float


def test_pooled_iou_of_nothing_is_one():
    assert pooled_iou(0, 0, 0) == 1.0


# --- boundary IoU ---


@every_pair
@pytest.mark.parametrize("band", [official_band, numpy_band])
def test_boundary_iou_equals_its_slow_twins(prediction, truth, band):
    assert score(prediction, truth).boundary_iou == pytest.approx(band_iou(band, prediction, truth), abs=1e-12)


@some_pairs
@given(mask_pairs())
def test_boundary_iou_of_any_two_masks_equals_the_slow_twin(pair):
    if pair[0].any() and pair[1].any():
        assert score(*pair).boundary_iou == pytest.approx(band_iou(numpy_band, *pair), abs=1e-12)


@pytest.mark.parametrize("size", [(1280, 1918), (572, 572), (15, 20), (45, 60), (75, 100), (74, 101)])
def test_the_boundary_is_two_percent_of_the_diagonal_of_the_whole_image_wide(size):
    prediction, truth = car(*size, shift=2), car(*size)
    assert score(prediction, truth).boundary_iou == pytest.approx(band_iou(official_band, prediction, truth), abs=1e-12)


def test_boundary_iou_sees_what_iou_hardly_sees():
    truth = full(600, 600)
    truth[:20] = truth[-20:] = truth[:, :20] = truth[:, -20:] = False
    prediction = cv2.erode(truth.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    scores = score(prediction, truth)
    assert scores.iou > 0.98
    assert scores.boundary_iou < 0.8


# --- HD95 ---


@every_pair
def test_hd95_equals_monai(prediction, truth):
    assert score(prediction, truth).hd95 == pytest.approx(monai_hd95(prediction, truth), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_hd95_of_large_blobs_equals_monai(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(100, 500, 2)
    prediction, truth = (
        blobs(rng, height, width, rng.uniform(0.05, 0.9)),
        blobs(rng, height, width, rng.uniform(0.05, 0.9)),
    )
    assert score(prediction, truth).hd95 == pytest.approx(monai_hd95(prediction, truth), rel=1e-5, abs=1e-4)


@some_pairs
@given(mask_pairs())
@example((pixel(1, 20, (0, 0)), pixel(1, 20, (0, 19))))
def test_hd95_of_any_two_masks_equals_monai_and_the_slow_twin(pair):
    if pair[0].any() and pair[1].any():
        hd95 = score(*pair).hd95
        assert hd95 == pytest.approx(monai_hd95(*pair), rel=1e-5, abs=1e-5)
        assert hd95 == hd95_twin(*pair)


@pytest.mark.parametrize("size", [(1280, 1918), (1918, 1280), (1, 3000), (3000, 1), (3, 2500)])
def test_the_longest_distances_are_exact(size):
    height, width = size
    assert score(pixel(*size, (0, 0)), pixel(*size, (-1, -1))).hd95 == pytest.approx(
        math.hypot(height - 1, width - 1), rel=1e-6
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_hd95_is_the_same_to_the_last_bit_whatever_opencvs_threads_and_memory(threads):
    rng, before = np.random.default_rng(0), cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        for height, width in ((61, 97), (300, 400), (640, 960)):
            prediction, truth = (rng.random((height, width)) < 60 / height / width for _ in range(2))
            padding = [np.empty(rng.integers(1, 10**5), np.uint8) for _ in range(5)]  # moves what is allocated next
            assert {score(prediction, truth).hd95 for _ in padding} == {hd95_twin(prediction, truth)}
    finally:
        cv2.setNumThreads(before)


def test_hd95_forgives_a_stray_speck_that_is_less_than_five_percent_of_the_outline():
    truth = car(256, 384)
    assert score(truth | pixel(256, 384, (250, 380)), truth).hd95 == 0
    assert score(truth, truth | pixel(256, 384, (250, 380))).hd95 == 0


# --- conventions and properties ---


def test_nothing_to_find_and_nothing_found_is_perfect():
    assert score(empty(30, 40), empty(30, 40)) == Scores(0, 0, 0, 1200, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)


def test_a_missed_object_scores_zero_and_the_diagonal():
    assert score(empty(30, 40), pixel(30, 40, (3, 4))) == Scores(0, 0, 1, 1199, 0.0, 0.0, 0.0, 0.0, 0.0, 50.0)


def test_an_object_that_is_not_there_scores_zero_and_the_diagonal():
    assert score(full(30, 40), empty(30, 40)) == Scores(0, 1200, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 50.0)


def test_masks_that_do_not_touch_overlap_zero_and_keep_their_distance():
    scores = score(pixel(30, 40, (0, 0)), pixel(30, 40, (3, 4)))
    assert [getattr(scores, name) for name in RATIOS] == [0.0] * 5
    assert scores.hd95 == 5.0


@every_pair
def test_exchanging_the_masks_exchanges_precision_and_recall_and_nothing_else(prediction, truth):
    there, back = score(prediction, truth), score(truth, prediction)
    assert (there.fp, there.precision) == (back.fn, back.recall)
    for name in ("tp", "tn", "dice", "iou", "boundary_iou", "hd95"):
        assert getattr(there, name) == getattr(back, name)


@some_pairs
@given(mask_pairs(), st.integers(0, 3), st.booleans())
def test_turning_and_mirroring_both_masks_changes_nothing(pair, quarters, mirror):
    turned = [np.rot90(mask[:, ::-1] if mirror else mask, quarters) for mask in pair]
    assert astuple(score(*turned)) == pytest.approx(astuple(score(*pair)), rel=1e-6)


@some_pairs
@given(mask_pairs())
def test_scores_keep_their_ranges_and_only_equal_masks_are_perfect(pair):
    scores = score(*pair)
    assert all(0 <= getattr(scores, name) <= 1 for name in RATIOS)
    assert 0 <= scores.hd95 <= math.hypot(*pair[0].shape)
    assert scores.dice == pytest.approx(2 * scores.iou / (1 + scores.iou))
    assert (scores.iou == 1) == np.array_equal(*pair)
    if np.array_equal(*pair):
        assert (scores.dice, scores.boundary_iou, scores.hd95) == (1, 1, 0)


@every_pair
def test_empty_space_around_the_masks_changes_only_true_negatives_and_the_width_of_the_boundary(prediction, truth):
    there, wider = score(prediction, truth), score(np.pad(prediction, 7), np.pad(truth, 7))
    for field in fields(Scores):
        if field.name not in ("tn", "boundary_iou"):
            assert getattr(there, field.name) == getattr(wider, field.name)


STRIDED = {
    "mirrored": lambda mask: mask[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": lambda mask: mask.T.copy().T,
    "turned": lambda mask: np.rot90(np.rot90(mask, -1).copy()),
    "every third column": lambda mask: np.repeat(mask, 3, axis=1)[:, ::3],
    "a window": lambda mask: np.pad(mask, 5, constant_values=True)[5:-5, 5:-5],
    "one channel of three": lambda mask: np.stack([mask, ~mask, mask], axis=2)[:, :, 0],
    "a repeated row": lambda mask: np.broadcast_to(mask[:1], mask.shape),
}


@pytest.mark.parametrize("view", STRIDED.values(), ids=STRIDED.keys())
def test_strided_views_score_like_their_copies(view):
    for prediction, truth in PAIRS.values():
        for left, right in ((view(prediction), truth), (prediction, view(truth)), (view(prediction), view(truth))):
            assert score(left, right) == score(np.ascontiguousarray(left), np.ascontiguousarray(right))


def test_masks_that_cannot_be_written_to_are_scored_and_no_mask_is_changed():
    for prediction, truth in PAIRS.values():
        before = prediction.copy(), truth.copy()
        views = prediction.view(), truth.view()
        for view in views:
            view.flags.writeable = False
        assert score(*views) == score(prediction, truth)
        np.testing.assert_array_equal((prediction, truth), before)


@every_pair
def test_scores_are_plain_python_numbers_that_cannot_be_changed(prediction, truth):
    scores = score(prediction, truth)
    assert [type(value) for value in astuple(scores)] == [int] * 4 + [float] * 6
    with pytest.raises(FrozenInstanceError):
        scores.dice = 1.0


def test_many_threads_find_the_same_scores_as_one():
    pairs = list(PAIRS.values()) * 10
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: score(*pair), pairs))
    assert together == [score(*pair) for pair in pairs]


@pytest.mark.parametrize(("threads", "ipp"), [(1, True), (2, False), (3, True)])
def test_opencv_is_left_as_it_was_found(threads, ipp):
    def state():
        return cv2.getNumThreads(), cv2.ipp.useIPP(), cv2.useOptimized()

    before = state()
    try:
        cv2.setNumThreads(threads)
        cv2.ipp.setUseIPP(ipp)
        found = state()
        score(*PAIRS["blobs"])
        assert state() == found
    finally:
        cv2.setNumThreads(before[0])
        cv2.ipp.setUseIPP(before[1])


# --- errors ---


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 5), np.uint8), np.zeros((4, 5)), [[True]], None], ids=["uint8", "float64", "list", "none"]
)
def test_a_mask_that_is_not_boolean_is_refused(wrong):
    with pytest.raises(ValueError, match=r"prediction must be a boolean NumPy array, not .*threshold"):
        score(wrong, empty(4, 5))
    with pytest.raises(ValueError, match=r"ground truth must be a boolean NumPy array, not .*threshold"):
        score(empty(4, 5), wrong)


@pytest.mark.parametrize("shape", [(), (4,), (1, 4, 5), (4, 5, 1), (0, 5), (4, 0)])
def test_a_mask_that_is_not_height_by_width_is_refused(shape):
    with pytest.raises(ValueError, match="must be one mask"):
        score(np.zeros(shape, bool), np.zeros(shape, bool))
    with pytest.raises(ValueError, match=r"ground truth must be one mask \(H, W\)"):
        score(empty(4, 5), np.zeros(shape, bool))


@pytest.mark.parametrize("shape", [(5, 4), (4, 1), (1, 5), (1, 1)])
def test_masks_of_two_shapes_are_refused_even_where_numpy_would_broadcast(shape):
    with pytest.raises(ValueError, match="resize the prediction"):
        score(np.ones(shape, bool), full(4, 5))


# --- real masks ---


@pytest.mark.skipif(not (CARVANA / "train_masks").is_dir(), reason="CARVANA_DIR does not name Carvana's photographs")
def test_real_masks_at_full_size_agree_with_the_oracles():
    from PIL import Image

    for path in sorted((CARVANA / "train_masks").glob("*.gif"))[::150]:
        truth = np.array(Image.open(path)).astype(bool)
        small = cv2.resize(truth.astype(np.float32), (192, 128), interpolation=cv2.INTER_AREA)
        prediction = cv2.resize(small, truth.shape[::-1]) > 0.4
        scores = score(prediction, truth)
        assert scores.tp + scores.fp + scores.fn + scores.tn == truth.size
        assert scores.iou == pytest.approx((prediction & truth).sum() / (prediction | truth).sum(), abs=1e-12)
        assert scores.boundary_iou == pytest.approx(band_iou(official_band, prediction, truth), abs=1e-12)
        assert scores.hd95 == pytest.approx(monai_hd95(prediction, truth), rel=1e-5, abs=1e-4)
