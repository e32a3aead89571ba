"""`run.py score`: a CSV of scores from anybody's masks, which `judge` reads."""

import csv
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.evaluation import score
from tests.conftest import ROOT


@pytest.fixture
def masks(tmp_path):
    """Six true masks of three patients, and predictions of two methods: one good, one shifted far."""
    rng = np.random.default_rng(0)
    for name in ("truth", "good", "poor"):
        (tmp_path / name).mkdir()
    for number in range(6):
        truth = np.zeros((40, 50), bool)
        truth[8:30, 10:30] = True
        stem = f"pat{number // 2}_{number}"
        for folder, shift in (("truth", 0), ("good", 1), ("poor", 9)):
            mask = np.roll(truth, shift + int(rng.integers(0, 2)) * (folder != "truth"), axis=1)
            Image.fromarray(mask).save(tmp_path / folder / f"{stem}.png")
    return tmp_path


def scored(command, masks, *words, folder="good"):
    return command("score", str(masks / folder), str(masks / "truth"), "--output", str(masks / "s.csv"), *words)


def test_scores_are_those_of_the_public_function_and_groups_follow_the_pattern(masks, command):
    code, shown, complaint = scored(command, masks, "--group-pattern", r"(pat\d+)", "--seed", "3")
    assert code == 0 and "6 masks, mean Dice" in shown, complaint
    rows = list(csv.DictReader((masks / "s.csv").read_text().splitlines()))
    assert [row["group"] for row in rows] == ["pat0", "pat0", "pat1", "pat1", "pat2", "pat2"]
    assert {(row["cell"], row["seed"], row["set"]) for row in rows} == {("good", "3", "test")}
    for row in rows:
        prediction, truth = (np.asarray(Image.open(masks / f / row["image"])) for f in ("good", "truth"))
        expected = score(prediction, truth)
        assert float(row["dice"]) == pytest.approx(expected.dice, abs=1e-7) and int(row["tp"]) == expected.tp


def test_what_score_appends_judge_reads(masks, command):
    assert scored(command, masks)[0] == 0 and scored(command, masks, "--append", folder="poor")[0] == 0
    words = ("--score", "dice", "--cell", "cell", "--group", "group", "--image", "image", "--json", "-")
    code, shown, _ = command("judge", str(masks / "s.csv"), *words)
    assert code == 0
    (found,) = json.loads(shown)["datasets"]
    assert (found["comparisons"][0]["a"], found["comparisons"][0]["verdict"]) == ("good", "better")


def test_images_without_a_pattern_count_as_images_in_score_and_in_judge(masks, command):
    Image.open(masks / "truth" / "pat0_0.png").save(masks / "truth" / "pat9_9.png")  # without a prediction
    code, shown, _ = scored(command, masks)
    assert code == 1 and "The names of the 6 images share prefixes" in shown and "would make 3 groups" in shown
    assert "intervals of judge are too narrow" in shown and "of the split" not in shown
    (other,) = re.findall("^Next, .*: python run.py (score OTHER .* --append)$", shown, re.MULTILINE)
    assert command(*shlex.split(other.replace("OTHER", str(masks / "poor"))))[0] == 1
    grouped = scored(command, masks, "--group-pattern", r"(pat\d+)")  # refused: of two methods, without --append
    assert grouped[0] == 2
    path = masks / "s.csv"
    for words in (("--group", "group", "--image", "image"), ("--image", "image")):
        code, said, _ = command("judge", path, "--score", "dice", "--cell", "cell", *words)
        assert code == 0 and "Paired over 6 images" in said and "Each image counts as independent" in said


def test_after_the_first_method_the_second_is_next_and_then_judge(masks, command):
    words = ("--group-pattern", r"(pat\d+)", "--seed", "3", "--foreground", "1")
    code, shown, _ = scored(command, masks, *words)
    lines = shown.splitlines()
    assert code == 0 and "share prefixes" not in shown and "not know which images the method was trained on" in shown
    assert lines[-1].startswith("Then: python run.py judge ") and "--append" in lines[-2]
    assert command(*shlex.split(lines[-2].partition("run.py ")[2].replace("OTHER", str(masks / "poor"))))[0] == 0
    rows = list(csv.DictReader((masks / "s.csv").read_text().splitlines()))
    assert {(row["cell"], row["seed"]) for row in rows} == {("good", "3"), ("poor", "3")}
    assert {row["group"] for row in rows} == {"pat0", "pat1", "pat2"}
    words = ("--cell", "third", "--append", *words)
    judging = scored(command, masks, *words, folder="poor")[1].splitlines()[-1]
    assert judging.startswith("Next: python run.py judge ")
    code, said, _ = command(*shlex.split(judging.partition("run.py ")[2]))
    assert code == 0 and "independent" not in said


def test_the_mean_of_images_with_an_object_stands_beside_a_mean_that_empty_ones_raise(masks, command):
    assert "object" not in scored(command, masks)[1]
    for number in range(2):
        for folder in ("truth", "good"):
            Image.new("1", (50, 40)).save(masks / folder / f"pat9_{number}.png")
    shown = scored(command, masks)[1]
    dice = [float(row["dice"]) for row in csv.DictReader((masks / "s.csv").read_text().splitlines())]
    assert sorted(dice)[-2:] == [1, 1] and f"8 masks, mean Dice {np.mean(dice):.4f}, of images with an object" in shown
    assert f"{np.mean(sorted(dice)[:-2]):.4f} (2 of 8 have none)" in shown


def remove_one(masks):
    next((masks / "good").iterdir()).unlink()
    return "has no prediction"


def shrink_one(masks):
    path = next((masks / "good").iterdir())
    Image.open(path).resize((25, 20)).save(path)
    return "is 25x20 and"


def damage_one(masks):
    path = sorted((masks / "truth").iterdir())[2]
    path.write_bytes(path.read_bytes()[:40])
    return f"The mask {path}"


def write_twice(masks):
    path = sorted((masks / "good").iterdir())[2]
    Image.open(path).save(path.with_suffix(".bmp"))
    return "share the name"


def remove_all(masks):
    for path in (masks / "good").iterdir():
        path.unlink()
    return "has no prediction"


def write_before(masks):
    (masks / "s.csv").write_text("mine")
    return "was not written by this project and is not replaced"


def no_folder(masks):
    (masks / "truth").rename(masks / "elsewhere")
    return "There is no folder"


@pytest.mark.parametrize("spoil", [remove_one, shrink_one, damage_one, write_twice])
def test_a_mask_that_cannot_be_scored_is_named_and_skipped(masks, command, spoil):
    sentence = spoil(masks)
    code, shown, complaint = scored(command, masks)
    assert code == 1 and "5 masks, mean Dice" in shown, complaint
    assert complaint.count("Skipped: ") == 1 and sentence in complaint
    assert len((masks / "s.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("spoil", [remove_all, write_before, no_folder])
def test_what_cannot_be_scored_ends_in_one_sentence_and_writes_nothing(masks, command, spoil):
    sentence = spoil(masks)
    before = {path: path.read_bytes() for path in masks.rglob("*") if path.is_file()}
    code, _, complaint = scored(command, masks)
    assert code == 2 and sentence in complaint and complaint.strip().count("\n") == 0
    assert {path: path.read_bytes() for path in masks.rglob("*") if path.is_file()} == before


def test_the_same_method_and_seed_are_not_added_twice_nor_to_a_foreign_file(masks, command):
    assert scored(command, masks, "--seed", "1")[0] == 0
    code, _, complaint = scored(command, masks, "--seed", "1", "--append")
    assert code == 2 and "already holds scores of good with seed 1" in complaint
    (masks / "s.csv").write_text("cell,seed\na,b\n")
    assert scored(command, masks, "--append")[0] == 2


def test_predictions_without_a_true_mask_are_named(masks, command):
    Image.new("1", (50, 40)).save(masks / "good" / "extra.png")
    code, _, complaint = scored(command, masks)
    assert code == 0 and "Left out: 1 prediction without a true mask (1 .png)" in complaint


def test_neither_command_imports_torch_or_mlflow(masks):
    """What requirements-judge.txt does not install is not needed either."""
    score_words = ["score", str(masks / "good"), str(masks / "truth"), "--output", str(masks / "s.csv")]
    judge_words = [
        "judge",
        str(masks / "s.csv"),
        "--wide",
        "dice",
        "iou",
        "--image",
        "image",
        "--html",
        str(masks / "p.html"),
    ]
    heavy = {
        "torch",
        "mlflow",
        "albumentations",
        "filelock",
        "psutil",
        "yaml",
        "pydantic",
        "optuna",
    }
    code = (
        "import sys, run\n"
        f"codes = run.main({score_words!r}), run.main({judge_words!r})\n"
        f"print(codes, sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("(0, 0) []"), done.stdout + done.stderr


def test_masks_of_classes_are_scored_by_the_values_that_are_named(masks, command):
    code, _, complaint = scored(command, masks)
    assert code == 0, complaint
    expected = [row["dice"] for row in csv.DictReader((masks / "s.csv").read_text().splitlines())]
    for folder in ("truth", "good"):
        for path in (masks / folder).iterdir():
            levels = np.asarray(Image.open(path)).astype(np.uint8) * 2
            levels[:3], levels[-1] = 1, 3  # other classes
            Image.fromarray(levels).save(path)
    code, _, complaint = scored(command, masks)
    assert code == 2 and "--foreground 1, or --foreground 1 2 3 for all" in complaint
    code, shown, complaint = scored(command, masks, "--foreground", "2")
    assert code == 0 and "WARNING" not in shown, complaint
    assert [row["dice"] for row in csv.DictReader((masks / "s.csv").read_text().splitlines())] == expected
    assert "all true masks and all predictions are empty" in scored(command, masks, "--foreground", "7")[1]


def test_folders_are_searched_as_those_of_data_folder_are(masks, command):
    for folder in ("truth", "good"):
        (masks / folder / "more").mkdir()
        path = masks / folder / "pat2_5.png"
        path.rename(masks / folder / "more" / path.name)
    code, shown, complaint = scored(command, masks, "--group-pattern", r"(more|pat\d+)")
    assert code == 0 and "6 masks, mean Dice" in shown, complaint
    rows = list(csv.DictReader((masks / "s.csv").read_text().splitlines()))
    assert ("more/pat2_5.png", "more") in {(row["image"], row["group"]) for row in rows}


@pytest.mark.parametrize("form", ["{}_mask", "mask_{}", "{}_gt"])
@pytest.mark.parametrize("folder", ["truth", "good"])
def test_either_side_may_be_named_as_a_mask_of_the_other(masks, command, form, folder):
    for path in sorted((masks / folder).iterdir()):
        path.rename(path.with_stem(form.format(path.stem)))
    code, shown, complaint = scored(command, masks)
    assert code == 0 and "6 masks, mean Dice" in shown, complaint


def test_one_method_has_seeds_or_it_has_none(masks, command):
    assert scored(command, masks, "--seed", "1")[0] == 0
    before = (masks / "s.csv").read_bytes()
    code, _, complaint = scored(command, masks, "--append")
    assert code == 2 and "Give --seed to all of them or to none" in complaint
    assert (masks / "s.csv").read_bytes() == before
