"""Each loss against an independent oracle, and at the edges where losses usually break."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.losses import DiceFocalLoss, DiceLoss, TverskyLoss
from segmentation_models_pytorch import losses as smp_losses
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from experiments.training.losses import (
    _jaccard_steps,
    bce_dice_loss,
    bce_loss,
    dice_focal_loss,
    dice_loss,
    focal_loss,
    lovasz_loss,
    tversky_loss,
)
from tests.conftest import examples

pytestmark = pytest.mark.usefixtures("one_thread")

LOSSES = {
    "bce": bce_loss, "dice": dice_loss, "focal": focal_loss, "bce_dice": bce_dice_loss, "dice_focal": dice_focal_loss,
    "tversky": tversky_loss, "lovasz": lovasz_loss,
}  # fmt: skip
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
GAMMAS = [0.0, 1e-3, 0.3, 0.5, 0.99, 1.0, 2.0, 5.0, 50.0]


def batch(n: int = 3, height: int = 9, width: int = 7, seed: int = 0, scale: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, 1, height, width, generator=generator)
    mask = (torch.rand(n, 1, height, width, generator=generator) < 0.3).float()
    return logits, mask


def slow_loss(name: str, logits, mask, gamma=2.0, alpha=None, weight=1.0, smooth=1.0) -> float:
    """The same losses in float64, pixel by pixel, in Python: the twin to compare with."""
    if name == "bce_dice":
        return slow_loss("bce", logits, mask) + weight * slow_loss("dice", logits, mask, smooth=smooth)
    if name == "dice_focal":
        return slow_loss("dice", logits, mask, smooth=smooth) + weight * slow_loss("focal", logits, mask, gamma, alpha)
    if name == "tversky":
        return slow_tversky(logits, mask)
    if name == "lovasz":
        return slow_lovasz(logits, mask)
    scores = []
    for x_image, y_image in zip(np.asarray(logits, np.float64), np.asarray(mask, np.float64), strict=True):
        pixels = [(1 / (1 + math.exp(-x)), y) for x, y in zip(x_image.ravel(), y_image.ravel(), strict=True)]
        if name == "dice":
            overlap, total = sum(p * y for p, y in pixels), sum(p + y for p, y in pixels)
            scores.append(1 - (2 * overlap + smooth) / (total + smooth))
            continue
        gamma = 0 if name == "bce" else gamma
        on, off = (1, 1) if alpha is None else (alpha, 1 - alpha)
        terms = [-on * (1 - p) ** gamma * math.log(p) if y else -off * p**gamma * math.log(1 - p) for p, y in pixels]
        scores.append(sum(terms) / len(terms))
    return sum(scores) / len(scores)


def slow_tversky(logits, mask, alpha=0.3, beta=0.7, smooth=1.0) -> float:
    scores = []
    for x_image, y_image in zip(np.asarray(logits, np.float64), np.asarray(mask, np.float64), strict=True):
        pixels = [(1 / (1 + math.exp(-x)), y) for x, y in zip(x_image.ravel(), y_image.ravel(), strict=True)]
        hit, false, missed = (
            sum(f(p, y) for p, y in pixels)
            for f in (lambda p, y: p * y, lambda p, y: p * (1 - y), lambda p, y: (1 - p) * y)
        )
        scores.append(1 - (hit + smooth) / (hit + alpha * false + beta * missed + smooth))
    return sum(scores) / len(scores)


def slow_lovasz(logits, mask) -> float:
    """The Lovasz extension by definition: the Jaccard loss of growing sets of wrong pixels."""
    scores = []
    for x_image, y_image in zip(np.asarray(logits, np.float64), np.asarray(mask, np.float64), strict=True):
        truth, errors = y_image.ravel() > 0, (1 - x_image * (2 * y_image - 1)).ravel()
        wrong, score, before = np.zeros_like(truth), 0.0, 0.0
        for pixel in np.argsort(-errors):
            wrong[pixel] = True
            predicted = truth ^ wrong
            after = 1 - (truth & predicted).sum() / (truth | predicted).sum()
            score, before = score + max(errors[pixel], 0) * (after - before), after
        scores.append(score)
    return sum(scores) / len(scores)


@examples(40)
@given(name=st.sampled_from(sorted(LOSSES)), seed=st.integers(0, 10**6), n=st.integers(1, 4), scale=st.floats(0, 8))
def test_each_loss_equals_its_slow_twin_in_float64(name, seed, n, scale):
    logits, mask = batch(n=n, seed=seed, scale=scale)
    assert LOSSES[name](logits, mask).item() == pytest.approx(slow_loss(name, logits, mask), rel=2e-5, abs=1e-6)


@examples(25)
@given(gamma=st.floats(0, 6), alpha=st.none() | st.floats(0, 1), weight=st.floats(0, 5), smooth=st.floats(0.01, 100))
def test_each_option_does_what_the_slow_twin_does(gamma, alpha, weight, smooth):
    logits, mask = batch(seed=1)
    close = {"rel": 2e-5, "abs": 1e-6}
    assert dice_loss(logits, mask, smooth=smooth).item() == pytest.approx(
        slow_loss("dice", logits, mask, smooth=smooth), **close
    )
    focal = slow_loss("focal", logits, mask, gamma=gamma, alpha=alpha)
    assert focal_loss(logits, mask, gamma=gamma, alpha=alpha).item() == pytest.approx(focal, **close)
    both = slow_loss("bce_dice", logits, mask, weight=weight, smooth=smooth)
    assert bce_dice_loss(logits, mask, weight=weight, smooth=smooth).item() == pytest.approx(both, **close)


@EVERY_LOSS
def test_the_gradient_is_the_slope_of_the_slow_twin(loss):
    name = next(key for key, value in LOSSES.items() if value is loss)
    logits, mask = batch(n=2, height=2, width=3, scale=2.0)
    gradient = torch.autograd.grad(loss(leaf := logits.clone().requires_grad_(), mask), leaf)[0]
    exact = logits.double().numpy()
    for index in np.ndindex(*exact.shape):
        step = np.zeros_like(exact)
        step[index] = 1e-6
        slope = (slow_loss(name, exact + step, mask) - slow_loss(name, exact - step, mask)) / 2e-6
        assert gradient[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("smooth", [1e-3, 1.0, 20.0])
def test_dice_equals_that_of_monai(smooth):
    logits, mask = batch()
    monai = DiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth, reduction="mean")
    torch.testing.assert_close(dice_loss(logits, mask, smooth=smooth), monai(logits, mask))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
def test_focal_equals_that_of_torchvision(gamma, alpha):
    logits, mask = batch()
    other = sigmoid_focal_loss(logits, mask, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(focal_loss(logits, mask, gamma=gamma, alpha=alpha), other)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (0.5, 0.5), (2.0, 0.1)])
def test_tversky_equals_that_of_monai_and_of_smp(alpha, beta):
    logits, mask = batch()
    monai = TverskyLoss(sigmoid=True, alpha=alpha, beta=beta, smooth_nr=2.0, smooth_dr=2.0)
    torch.testing.assert_close(tversky_loss(logits, mask, alpha=alpha, beta=beta, smooth=2.0), monai(logits, mask))
    smp = smp_losses.TverskyLoss("binary", alpha=alpha, beta=beta, smooth=2.0)  # over the batch: one image at a time
    alone = torch.stack([smp(logits[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(tversky_loss(logits, mask, alpha=alpha, beta=beta, smooth=2.0), alone.mean())


def test_tversky_with_equal_prices_is_dice():
    logits, mask = batch()
    torch.testing.assert_close(
        tversky_loss(logits, mask, alpha=0.5, beta=0.5, smooth=1.5), dice_loss(logits, mask, smooth=3.0)
    )


def test_tversky_charges_beta_for_missed_and_alpha_for_false_foreground():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    blind, everywhere = torch.full_like(mask, -50.0), torch.full_like(mask, 50.0)
    assert tversky_loss(blind, mask, alpha=0.1, beta=0.9).item() == pytest.approx(1 - 1 / (0.9 * 8 + 1))
    assert tversky_loss(everywhere, mask, alpha=0.1, beta=0.9).item() == pytest.approx(1 - 9 / (8 + 0.1 * 8 + 1))


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_lovasz_equals_that_of_smp(scale):
    logits, mask = batch(scale=scale, height=40)
    mask[1], mask[2] = 0, 1
    theirs = smp_losses.LovaszLoss("binary", per_image=True)
    torch.testing.assert_close(lovasz_loss(logits, mask), theirs(logits, mask))


def test_lovasz_of_hard_mistakes_is_the_jaccard_loss():
    mask = torch.zeros(1, 1, 4, 5)
    mask[..., :2] = 1
    prediction = torch.zeros_like(mask)
    prediction[..., 1:3] = 1  # 4 right, 4 missed, 4 false: IoU 4 / 12
    logits = 2 * prediction - 1  # a wrong pixel has an error of 2, a right one of 0
    assert lovasz_loss(logits, mask).item() == pytest.approx(2 * (1 - 4 / 12))


def test_the_steps_of_lovasz_keep_their_digits_on_a_large_image():
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(1, 1_000_000, generator=generator) < 0.2).long()
    foreground, wrong = truth.double().sum(), truth.double().cumsum(1)
    exact = 1 - (foreground - wrong) / (foreground + (1 - truth).cumsum(1))
    steps = torch.diff(exact, prepend=torch.zeros(1, 1, dtype=torch.float64))
    torch.testing.assert_close(_jaccard_steps(truth).double(), steps, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_dice_focal_equals_that_of_monai_and_the_sum_of_its_parts(weight, alpha):
    logits, mask = batch()
    options = dict(gamma=1.5, alpha=alpha)
    ours = dice_focal_loss(logits, mask, weight=weight, smooth=2.0, **options)
    torch.testing.assert_close(ours, dice_loss(logits, mask, smooth=2.0) + weight * focal_loss(logits, mask, **options))
    torch.testing.assert_close(
        ours, DiceFocalLoss(sigmoid=True, smooth_nr=2.0, smooth_dr=2.0, lambda_focal=weight, **options)(logits, mask)
    )


def test_dice_per_batch_equals_that_of_smp_and_of_monai_over_the_batch():
    logits, mask = batch(n=4)
    mask[2] = 0
    over_batch = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    torch.testing.assert_close(dice_loss(logits, mask, per="batch"), over_batch(logits, mask))
    smp = smp_losses.DiceLoss("binary", smooth=1.0)  # it halves both sums before it adds the smooth
    torch.testing.assert_close(dice_loss(logits, mask, per="batch", smooth=2.0), smp(logits, mask))
    assert dice_loss(logits, mask, per="batch") != dice_loss(logits, mask)
    torch.testing.assert_close(dice_loss(logits[:1], mask[:1], per="batch"), dice_loss(logits[:1], mask[:1]))


@pytest.mark.parametrize("value", [-50.0, 50.0])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_dice_per_batch_has_finite_gradients_for_empty_and_full_masks(value, truth):
    logits = torch.full((2, 1, 4, 5), value, requires_grad=True)
    dice_loss(logits, torch.full_like(logits, truth), per="batch").backward()
    assert torch.isfinite(logits.grad).all()


def test_bce_equals_that_of_torch():
    logits, mask = batch()
    torch.testing.assert_close(
        bce_loss(logits, mask), F.binary_cross_entropy(logits.double().sigmoid(), mask.double()).float()
    )


def test_focal_with_gamma_0_is_bce():
    logits, mask = batch(scale=20)
    torch.testing.assert_close(focal_loss(logits, mask, gamma=0), bce_loss(logits, mask))


def test_alpha_weights_the_foreground_and_1_minus_alpha_the_background():
    logits, mask = batch()
    on_foreground, on_background = focal_loss(logits, mask, alpha=1.0), focal_loss(logits, mask, alpha=0.0)
    torch.testing.assert_close(focal_loss(logits, mask, alpha=0.2), 0.2 * on_foreground + 0.8 * on_background)
    assert focal_loss(logits.abs(), torch.ones_like(mask), alpha=0.0) == 0


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_bce_dice_is_the_sum_of_its_parts(weight):
    logits, mask = batch()
    parts = bce_loss(logits, mask) + weight * dice_loss(logits, mask, smooth=2.0)
    torch.testing.assert_close(bce_dice_loss(logits, mask, weight=weight, smooth=2.0), parts)


@EVERY_LOSS
def test_a_batch_scores_the_mean_of_its_images_alone(loss):
    logits, mask = batch(n=3)
    mask[1] = 0  # where a loss over the whole batch would differ most
    alone = torch.stack([loss(logits[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(loss(logits, mask), alone.mean())
    torch.testing.assert_close(loss(logits[[2, 0, 1]], mask[[2, 0, 1]]), loss(logits, mask))


@EVERY_LOSS
def test_the_order_of_the_pixels_does_not_matter(loss):
    logits, mask = batch()
    order = torch.randperm(logits.shape[-1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(logits[..., order], mask[..., order]), loss(logits, mask))
    torch.testing.assert_close(loss(logits.mT, mask.mT), loss(logits, mask))


@EVERY_LOSS
@pytest.mark.parametrize("value", [0.0, 0.1, 20.0, 50.0, 90.0, 1000.0])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_values_and_gradients_are_finite_at_extreme_logits(loss, value, truth):
    options = [{"gamma": gamma} for gamma in GAMMAS] if loss is focal_loss else [{}]
    for sign, option in [(sign, option) for sign in (-1, 1) for option in options]:
        logits = torch.full((2, 1, 4, 5), sign * value, requires_grad=True)
        score = loss(logits, torch.full_like(logits, truth), **option)
        score.backward()
        assert torch.isfinite(score), (sign, option)
        assert torch.isfinite(logits.grad).all(), (sign, option)


@examples(60)
@given(gamma=st.floats(0, 100), values=st.lists(st.floats(-1000, 1000, width=32), min_size=6, max_size=6))
def test_the_gradient_of_focal_is_finite_for_any_gamma(gamma, values):
    logits = torch.tensor(values * 2).view(1, 1, 4, 3).requires_grad_()
    mask = torch.tensor([0, 1]).repeat_interleave(6).view(1, 1, 4, 3)  # each value before either truth
    gradient = torch.autograd.grad(focal_loss(logits, mask, gamma=gamma), logits)[0]
    assert torch.isfinite(gradient).all()


@EVERY_LOSS
@pytest.mark.parametrize("value", [0.5, 3.0, 15.0, 50.0])
def test_on_an_empty_mask_confident_foreground_costs_more_than_none(loss, value):
    mask = torch.zeros(2, 1, 8, 8)
    shouting, silent = torch.full_like(mask, value), torch.full_like(mask, -value)
    assert loss(shouting, mask) > loss(silent, mask) + 0.01
    assert loss(silent, 1 - mask) > loss(shouting, 1 - mask)  # and the reverse for a full one


@EVERY_LOSS
def test_a_perfect_prediction_costs_nothing(loss):
    _, mask = batch()
    assert loss(100 * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)


@EVERY_LOSS
def test_the_loss_is_computed_in_float32_whatever_comes_in(loss):
    logits, mask = batch()
    low = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(low, mask.bool())
    assert (
        inside.dtype
        == loss(logits.half(), mask.byte()).dtype
        == loss(logits.double(), mask.double()).dtype
        == torch.float32
    )
    torch.testing.assert_close(inside, loss(low.float(), mask), rtol=0, atol=0)


@EVERY_LOSS
def test_no_step_waits_for_the_device(loss):
    logits = torch.empty(2, 1, 8, 8, device="meta", requires_grad=True)  # a meta tensor has no values to look at
    score = loss(logits, torch.empty(2, 1, 8, 8, device="meta"))
    score.backward()
    assert score.shape == ()


@pytest.mark.parametrize(
    ("loss", "option"),
    [
        (dice_loss, {"smooth": 0.0}),
        (dice_loss, {"smooth": -1.0}),
        (dice_loss, {"smooth": math.nan}),
        (focal_loss, {"gamma": -0.1}),
        (focal_loss, {"gamma": math.inf}),
        (focal_loss, {"alpha": 1.1}),
        (focal_loss, {"alpha": -0.1}),
        (dice_loss, {"per": "volume"}),
        (tversky_loss, {"alpha": 0.0}),
        (tversky_loss, {"beta": -0.1}),
        (tversky_loss, {"smooth": math.nan}),
        (dice_focal_loss, {"weight": -1.0}),
        (dice_focal_loss, {"gamma": -1.0}),
        (dice_focal_loss, {"smooth": 0.0}),
        (bce_dice_loss, {"weight": -1.0}),
        (bce_dice_loss, {"smooth": 0.0}),
    ],
)
def test_an_option_out_of_range_is_named(loss, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        loss(*batch(), **option)


@EVERY_LOSS
def test_shapes_that_would_broadcast_are_refused(loss):
    logits, mask = batch(n=2)
    with pytest.raises(ValueError, match="same shape"):
        loss(logits, mask[:1])
