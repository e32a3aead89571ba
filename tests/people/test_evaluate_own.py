"""`run.py evaluate`: scores of your own images, the best threshold, and the calibration of the probabilities."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import binary_calibration_error

from experiments.evaluation import calibration
from experiments.evaluation.evaluator import COLUMNS
from experiments.evaluation.metrics import score
from tests.strangers import write_strangers_folder


@pytest.fixture
def evaluate(command, trained, tmp_path):
    def type_it(*words):
        where = ("--run", trained.name, "--output-dir", trained.parent.parent, "--output", tmp_path / "found")
        return command("evaluate", *words, *where)

    return type_it


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_runs_own_test_images_score_exactly_what_they_scored(evaluate, trained, made_cars, tmp_path):
    code, shown, complaint = evaluate("--data", "carvana", "--data-dir", made_cars)
    assert code == 0, complaint
    found, before = rows(tmp_path / "found" / "scores.csv"), rows(trained / "scores_last.csv")
    by_name = {row["image"]: row for row in found}
    assert [by_name[row["image"]] for row in before] == before and len(found) == 128
    result = json.loads((trained / "result.json").read_text())
    assert json.loads((tmp_path / "found" / "evaluation.json").read_text())["scores"] == result["test"]["last"]
    parts = {row["image"]: row["part"] for row in rows(trained / "split.csv")}
    assert all(row["set"] == parts[row["image"]] for row in found)
    left_out = sum(part != "test" for part in parts.values())
    assert f"Excluded: {left_out} images" in shown


def test_pairs_of_your_own_are_scored_by_their_groups(evaluate, tmp_path):
    folder = write_strangers_folder(tmp_path / "pairs")
    code, shown, complaint = evaluate("--data", "folder", "--data-dir", folder, "--group-pattern", "^([a-g]|[h-z])")
    assert code == 0, complaint
    found = rows(tmp_path / "found" / "scores.csv")
    assert list(found[0]) == list(COLUMNS) and len(found) == 12 and {row["set"] for row in found} == {"test"}
    assert "12 images in" in shown and len({row["group"] for row in found}) < 12


def test_a_score_on_training_images_alone_carries_a_leakage_warning(evaluate, trained, cars, tmp_path):
    parts = {row["image"]: row["part"] for row in rows(trained / "split.csv")}
    for path in (cars / "train").glob("*.jpg"):
        if parts[path.name] != "train":
            path.unlink()
    for path in (cars / "train_masks").glob("*"):
        if not (cars / "train" / path.name.replace("_mask.gif", ".jpg")).exists():
            path.unlink()
    code, shown, _ = evaluate("--data", "carvana", "--data-dir", cars, "--sweep")
    assert code == 0 and "data leakage" in shown
    assert json.loads((tmp_path / "found" / "evaluation.json").read_text())["fair"] is False


def test_without_output_the_scores_lie_under_evaluations(command, trained, tmp_path):
    folder = write_strangers_folder(tmp_path / "pairs")
    words = ("--run", trained / "best.ckpt", "--output-dir", tmp_path / "outputs", "--data-dir", folder)
    assert command("evaluate", *words, "--tta")[0] == 0
    (scores,) = (tmp_path / "outputs" / "evaluations").glob("*/scores.csv")
    assert scores.parent.name.startswith(trained.name) and len(rows(scores)) == 12


def test_sweep_and_calibration_are_written_when_asked_for(evaluate, trained, made_cars, tmp_path):
    code, shown, complaint = evaluate("--data", "carvana", "--data-dir", made_cars, "--sweep", "--calibration")
    assert code == 0, complaint
    swept = rows(tmp_path / "found" / "sweep.csv")
    assert [float(row["threshold"]) for row in swept] == [round(0.05 * n, 2) for n in range(1, 20)]
    at_half = next(row for row in swept if float(row["threshold"]) == 0.5)
    result = json.loads((trained / "result.json").read_text())["test"]["last"]
    assert float(at_half["dice"]) == pytest.approx(result["dice"], abs=2e-7)
    assert float(at_half["iou"]) == pytest.approx(result["iou"], abs=2e-7)
    assert "Highest Dice at the threshold" in shown and "Expected calibration error" in shown
    bins = rows(tmp_path / "found" / "reliability.csv")
    assert sum(int(row["pixels"]) for row in bins) == result["images"] * 96 * 64
    for name in ("sweep.png", "reliability.png"):
        assert (tmp_path / "found" / name).read_bytes().startswith(b"\x89PNG")


def made(seed, size=(40, 50), sharpness=2.0):
    rng = np.random.default_rng(seed)
    truth = rng.random(size) < 0.3
    return (sharpness * (rng.normal(0, 1, size) + 2 * truth - 1)).astype(np.float32), truth


def test_the_calibration_error_is_that_of_torchmetrics():
    for seed, sharpness in ((0, 0.3), (1, 2.0), (2, 20.0)):
        pairs = [made(seed, sharpness=sharpness), made(seed + 10, size=(31, 17), sharpness=sharpness)]
        bins = calibration.reliability(calibration.count_pixels(*pair) for pair in pairs)
        logits, truth = (torch.cat([torch.from_numpy(pair[i]).flatten() for pair in pairs]) for i in (0, 1))
        expected = binary_calibration_error(
            torch.sigmoid(logits.double()), truth.long(), n_bins=calibration.BINS, norm="l1"
        )
        assert calibration.expected_calibration_error(bins) == pytest.approx(float(expected), abs=1e-6)


def test_the_bins_are_fifteen_of_equal_width_that_hold_their_probabilities():
    bins = calibration.reliability([calibration.count_pixels(*made(0)), calibration.count_pixels(*made(1))])
    assert [round(one.low * 15) for one in bins] == list(range(15)) and [round(one.high * 15) for one in bins] == list(
        range(1, 16)
    )
    assert (
        all(one.low <= one.confidence <= one.high for one in bins if one.pixels)
        and sum(one.pixels for one in bins) == 4000
    )


def test_a_calibrated_forecast_has_no_calibration_error_and_a_bold_one_has():
    rng = np.random.default_rng(0)
    share = rng.uniform(0.02, 0.98, (700, 700))
    truth, logits = rng.random(share.shape) < share, np.log(share / (1 - share))
    right, bold = (
        calibration.expected_calibration_error(
            calibration.reliability([calibration.count_pixels((k * logits).astype(np.float32), truth)])
        )
        for k in (1, 4)
    )
    assert right < 0.005 < 0.1 < bold


def test_pixels_at_each_threshold_are_counted_as_by_the_scores():
    logits, truth = made(3)
    logits[0, :3] = 0.0  # exactly 0.5 is background
    found = calibration.count_pixels(logits, truth)
    for which, threshold in enumerate(calibration.THRESHOLDS):
        expected = score(logits > np.float32(np.log(threshold / (1 - threshold))), truth)
        assert (found.tp[which], found.fp[which], found.fn[which]) == (expected.tp, expected.fp, expected.fn)


def test_the_sweep_averages_within_a_group_first_and_counts_nothing_found_in_nothing_as_right():
    good = calibration.count_pixels(np.full((4, 4), 9.0, np.float32), np.ones((4, 4), bool))  # Dice 1 up to 0.95
    bad = calibration.count_pixels(np.full((4, 4), 9.0, np.float32), np.zeros((4, 4), bool))  # 0
    empty = calibration.count_pixels(np.full((4, 4), -9.0, np.float32), np.zeros((4, 4), bool))  # 1
    assert calibration.sweep([good, good, good, bad], ["a", "a", "a", "b"])[9] == (0.5, 0.5, 0.5)
    assert calibration.sweep([empty, bad], ["a", "b"])[9] == (0.5, 0.5, 0.5)


def test_invalid_arguments_are_refused_in_one_sentence(evaluate, made_cars, tmp_path):
    for words, sentence in (
        (["--data", "foldr"], "did you mean 'folder'"),
        (["--data-dir", tmp_path / "none"], "There is no folder"),
        (["--data", "carvana", "--data-dir", made_cars, "--group-pattern", "x"], "--data folder"),
    ):
        code, _, complaint = evaluate(*words)
        assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "found").exists()


def test_pairs_that_cannot_be_scored_are_named_and_skipped(evaluate, tmp_path):
    folder = write_strangers_folder(tmp_path / "pairs")
    images, masks = sorted((folder / "images").iterdir()), sorted((folder / "masks").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:60])
    masks[1].write_bytes(b"")
    masks[2].unlink()
    with Image.open(masks[3]) as mask:
        mask.crop((0, 0, 9, 7)).save(masks[3])
    images[4].unlink()
    images[4].symlink_to("nowhere")
    (images[5].parent / f"{images[5].stem}.bmp").write_bytes(images[5].read_bytes())
    code, shown, complaint = evaluate("--data-dir", folder)
    assert code == 1 and "6 images in" in shown and len(rows(tmp_path / "found" / "scores.csv")) == 6
    assert complaint.count("Skipped: ") == 6 and "Traceback" not in complaint
    for path in masks[:6]:
        path.unlink(missing_ok=True)
    for path in masks[6:]:
        path.write_bytes(b"no mask")
    code, _, complaint = evaluate("--data-dir", folder, "--output", tmp_path / "none")
    assert code == 2 and complaint.count("\n") == 1 and not (tmp_path / "none").exists()
