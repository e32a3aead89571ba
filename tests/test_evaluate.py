"""Scoring: at the ground truth's own size, one photograph at a time, in bounded memory."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from analysis.records.run_files import summarise_scores
from experiments.config.schema import RunConfig
from experiments.data import carvana, folder
from experiments.data.dataset import ImageDataset
from experiments.data.samples import read_mask
from experiments.evaluation import evaluator
from experiments.inference import evaluate_dataset
from experiments.inference.trained_model import TrainedModel
from experiments.training import pictures
from tests.test_data import write_pairs
from tests.test_reading import write_depths, write_turned


class Knows(torch.nn.Module):
    """A model that finds bright pixels: enough to predict something that depends on the photograph."""

    def __init__(self, threshold=0.45):
        super().__init__()
        self.threshold = threshold

    def forward(self, image):
        return 20 * (image.mean(1, keepdim=True) - self.threshold)


@pytest.fixture
def held_out(made_cars):
    return ImageDataset(carvana.build(made_cars)[:24], (48, 32))


def scored(photographs, *models, **options):
    return list(evaluator.evaluate(models or [Knows()], photographs, torch.device("cpu"), **options))


def test_scores_do_not_depend_on_the_batch_size_or_the_number_of_threads(held_out):
    expected = [one.rows for one in scored(held_out)]
    for batch_size, workers in ((1, 1), (5, 3), (24, 2)):
        assert [one.rows for one in scored(held_out, batch_size=batch_size, workers=workers)] == expected


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA error"), RuntimeError("not enough memory"), MemoryError()]
)
def test_where_memory_runs_out_fewer_images_are_scored_at_once(held_out, error):
    class Greedy(Knows):
        seen = ()

        def forward(self, image):
            self.seen = (*self.seen, len(image))
            if len(image) > 3:
                raise error
            return super().forward(image)

    greedy = Greedy()
    assert [one.rows for one in scored(held_out, greedy)] == [one.rows for one in scored(held_out)]
    assert greedy.seen == (8, 4, *12 * [2])  # what fitted is kept
    error = ValueError("another")
    with pytest.raises(ValueError, match="another"):
        scored(held_out, greedy, batch_size=4)


def test_one_image_that_does_not_fit_ends_the_scoring(held_out):
    class Greedy(Knows):
        def forward(self, image):
            raise torch.OutOfMemoryError(f"{len(image)} images")

    with pytest.raises(torch.OutOfMemoryError, match="1 images"):
        scored(held_out, Greedy())


def test_several_models_are_scored_as_each_alone(held_out):
    together = scored(held_out, Knows(0.4), Knows(0.5))
    for which, threshold in enumerate((0.4, 0.5)):
        assert [one.rows[which] for one in together] == [one.rows[0] for one in scored(held_out, Knows(threshold))]


def test_each_image_is_scored_at_its_own_size(tmp_path):
    write_pairs(tmp_path)
    for number, size in enumerate([(60, 40), (200, 30), (33, 90)]):
        name = ("a1", "a2", "b1")[number]
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.eye(size[1], size[0]).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    rows = [one.rows[0] for one in scored(ImageDataset(folder.build(tmp_path), (32, 32)))]
    assert [sum(row[c] for c in ("tp", "fp", "fn", "tn")) for row in rows[:3]] == [60 * 40, 200 * 30, 33 * 90]


def test_logits_are_enlarged_and_then_thresholded(held_out):
    """Against PyTorch's own interpolation."""
    (one, *_) = scored(held_out)
    truth = read_mask(held_out.samples[0].mask)
    with torch.no_grad():
        logits = Knows()(held_out[0][0][None])
    found = torch.nn.functional.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)[0, 0].numpy() > 0
    assert (found != one.predictions[0]).mean() < 1e-3


def test_memory_does_not_grow_with_the_number_of_images(made_cars, monkeypatch):
    """However many photographs there are, only so many are read ahead of the one in use."""
    begun, kept, ahead = [], evaluator._score, []
    monkeypatch.setattr(evaluator, "_score", lambda *given: begun.append(1) or kept(*given))
    photographs = ImageDataset(carvana.build(made_cars), (48, 32))
    for done, _ in enumerate(evaluator.evaluate([Knows()], photographs, torch.device("cpu"), batch_size=4, workers=2)):
        ahead.append(len(begun) - done)
    assert len(ahead) == 128 and max(ahead) <= 3 * 4 + 2


def test_the_ceiling_is_below_one_and_rises_with_the_size(made_cars):
    truth = read_mask(carvana.build(made_cars)[0].mask)
    values = [evaluator.ceiling(truth, size) for size in ((32, 32), (48, 32), (96, 64))]
    assert 0.8 < values[0] < values[1] < values[2] == 1.0
    assert evaluator.ceiling(np.zeros((40, 60), bool), (32, 32)) == 1.0


@pytest.mark.parametrize(
    ("dice", "shown"), [([0.9, 0.5, 0.7, 0.8, 0.6], [0, 2, 1]), ([0.9, 0.5], [0, 1]), ([0.9], [0])]
)
def test_the_examples_are_the_best_the_median_and_the_worst_image(held_out, monkeypatch, tmp_path, dice, shown):
    rows = []
    monkeypatch.setattr(pictures.panels, "panel_png", lambda found: rows.extend(found) or b"")

    def predict(images):
        assert images.shape[0] == 1
        return np.full(images.shape[:3], 1.0, np.float32)

    pictures.save_examples(tmp_path / "examples.png", held_out, dice, predict)
    words = [row[3].split(":")[0] for row in rows]
    assert words == {3: ["best", "median", "worst"], 2: ["best", "worst"], 1: ["worst"]}[len(shown)]
    for (image, truth, prediction, caption), index in zip(rows, shown, strict=True):
        assert (image == held_out.image(index)).all() and truth.shape == prediction.shape == (64, 96)
        assert prediction.all() and caption.endswith(f"Dice {dice[index]:.4f}  {held_out.samples[index].name}")


def test_numbers_are_averaged_over_the_images_of_a_car_and_then_over_cars():
    import pandas as pd

    columns = ["group", "tp", "fp", "fn", "dice", "iou", "precision", "recall", "boundary_iou", "hd95"]
    rows = [
        ("a", 5, 1, 1, 1.0, 1.0, 1, 1, 1, 1.0),
        ("a", 5, 1, 1, 0.0, 0.5, 1, 1, 1, 3.0),
        ("b", 0, 0, 9, 0.8, 0.6, 1, 1, 1, 50.0),
    ]
    numbers = summarise_scores(pd.DataFrame(rows, columns=columns))
    assert numbers["dice"] == pytest.approx((0.5 + 0.8) / 2) and numbers["iou"] == pytest.approx((0.75 + 0.6) / 2)
    assert (numbers["hd95_median"], numbers["hd95_failures"]) == (3.0, 1)
    assert numbers["pooled_iou"] == pytest.approx(10 / (10 + 2 + 11)) and (numbers["images"], numbers["cars"]) == (3, 2)


def test_images_without_an_object_do_not_hide_how_the_others_were_scored():
    import pandas as pd

    columns = ["group", "tp", "fp", "fn", "dice", "iou", "precision", "recall", "boundary_iou", "hd95"]
    empty = [(f"empty{n}", 0, 0, 0, 1.0, 1.0, 1, 1, 1, 0.0) for n in range(3)]
    there = [("a", 5, 1, 1, 0.8, 0.7, 1, 1, 1, 1.0), ("a", 5, 1, 1, 0.6, 0.5, 1, 1, 1, 3.0)]
    numbers = summarise_scores(pd.DataFrame([*empty, *there], columns=columns))
    assert numbers["dice"] == pytest.approx((3 + 0.7) / 4) and numbers["dice_with_object"] == pytest.approx(0.7)
    assert numbers["images_without_object"] == 3
    for rows in (empty, there):
        assert "dice_with_object" not in summarise_scores(pd.DataFrame(rows, columns=columns))


@pytest.mark.parametrize("objects", [0, 1])
def test_evaluate_warns_where_all_true_masks_are_empty(tmp_path, capsys, objects):
    row = {"set": "test", "group": "g", "image": "a", "fp": 9, "tn": 0, "hd95": 1.0, "boundary_iou": 0.0}
    row |= {"tp": objects, "fn": objects, "dice": 0.0, "iou": 0.0, "precision": 0.0, "recall": 0.0}
    evaluator.write_scores(tmp_path / "scores.csv", [row])
    evaluate_dataset._summarise(tmp_path, "")
    assert ("all true masks are empty" in capsys.readouterr().out) == (not objects)


def test_scores_are_written_the_same_each_time(tmp_path, held_out):
    for name in ("one.csv", "two.csv"):
        evaluator.write_scores(tmp_path / name, (one.rows[0] for one in scored(held_out)))
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert (tmp_path / "one.csv").read_text().splitlines()[0] == ",".join(evaluator.COLUMNS)


def to_evaluate(folder, run, **reading):
    """The samples that `evaluate` scores in a folder with a run that recorded no intensity scale."""
    args = ("x", "folder", folder, None, False, False, False, None, "cpu", 1, run)
    config, machine = RunConfig(data="folder"), {"data_dir": str(run / "own")}
    trained = TrainedModel(run / "last.ckpt", config, machine)
    return evaluate_dataset._samples(evaluate_dataset.EvaluateArgs(*args, reading=reading), trained, folder)[0]


def write_dark_and_bright(root, top):
    """Pairs of 16 bits with values up to `top`, and one of them that is dark."""
    write_depths(root, "uint16", 0, top, "png")
    assert cv2.imwrite(str(root / "images" / "p5.png"), np.full((48, 64), 200, np.uint16))
    return root


def test_evaluate_reads_images_of_12_bits_by_one_scale_where_the_run_has_none(tmp_path, capsys):
    samples = to_evaluate(write_dark_and_bright(tmp_path / "pairs", 4095), tmp_path)
    levels = {sample.name: sample.read_image().max() for sample in samples}
    assert levels["p4.png"] > 70 and levels["p7.png"] == 255 and levels["p5.png"] == round(200 / 4095 * 255)
    assert "values 0 to 4095 become 0 to 255. Choose other values with --intensity LOW:HIGH" in capsys.readouterr().out
    for sample in to_evaluate(tmp_path / "pairs", tmp_path, intensity=(0.0, 8190.0)):
        assert sample.read_image().max() <= 128 and "Intensity" not in capsys.readouterr().out


def test_evaluate_reads_darker_images_as_those_of_16_bits_that_the_run_learned_from(tmp_path, capsys):
    write_depths(tmp_path / "own", "uint16", 0, 65535, "png")
    manifest = ["image,group,part", *(f"p{number}.png,p{number},train" for number in range(12))]
    (tmp_path / "split.csv").write_text("\n".join(manifest) + "\n")
    samples = to_evaluate(write_dark_and_bright(tmp_path / "pairs", 20000), tmp_path)
    levels = {sample.name: sample.read_image().max() for sample in samples}
    assert levels["p7.png"] == round(20000 / 257) and levels["p5.png"] == 1, "not by a rule of its own"
    assert "values 0 to 65535 become 0 to 255" in capsys.readouterr().out
    (tmp_path / "pairs" / "images" / "p5.png").unlink()
    (tmp_path / "pairs" / "masks" / "p5.png").unlink()
    assert {sample.reading.intensity for sample in to_evaluate(tmp_path / "pairs", tmp_path)} == {None}


def test_evaluate_says_that_exif_turns_images_and_what_to_type_if_their_masks_are_not(tmp_path, capsys):
    folder = write_turned(tmp_path / "pairs", 3)
    to_evaluate(folder, tmp_path)
    assert "EXIF turns 12 images and not their masks" in (shown := capsys.readouterr().out)
    assert "type --mask-exif image" in shown
    to_evaluate(folder, tmp_path, mask_exif="image")
    assert capsys.readouterr().out == "EXIF turns 12 of 12 images.\n"


def test_evaluate_shows_the_dice_of_images_with_an_object_where_others_have_none(tmp_path, capsys):
    row = {"set": "test", "fp": 0, "tn": 9, "hd95": 0.0, "boundary_iou": 1.0, "iou": 1.0, "precision": 1, "recall": 1}
    there = {"group": "a", "image": "a", "tp": 5, "fn": 1, "dice": 0.7}
    empty = [{"group": name, "image": name, "tp": 0, "fn": 0, "dice": 1.0} for name in "bcd"]
    evaluator.write_scores(tmp_path / "scores.csv", [row | one for one in (there, *empty)])
    evaluate_dataset._summarise(tmp_path, "")
    assert "images with an object │ 0.7000 (3 of 4 have none)" in capsys.readouterr().out
    evaluator.write_scores(tmp_path / "scores.csv", [row | there])
    evaluate_dataset._summarise(tmp_path, "")
    assert "with an object" not in capsys.readouterr().out
