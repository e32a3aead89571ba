"""Which images `evaluate` leaves out, because the run has learned from them or from others of their groups."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.data import folder, run_inputs
from experiments.data.run_inputs import RunInputs
from experiments.data.samples import image_digests
from experiments.data.splits import Split, manifest
from experiments.inference.seen_images import parts
from experiments.inference.trained_model import TrainedModel

PATTERN = "^([^_]+)_"


def write_pair(root, name, seed):
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 2, (8, 8), np.uint8) * 255
        Image.fromarray(pixels).save(root / part / f"{name}.png")


@pytest.fixture
def run(tmp_path):
    """A run on four images of three patients: p1 to train on, p2 to validate, p3 to test."""
    for number, name in enumerate(("p1_0", "p1_1", "p2_0", "p3_0")):
        write_pair(tmp_path / "pairs", name, number)
    samples = folder.build(tmp_path / "pairs", PATTERN)
    by_group = [[s for s in samples if s.group == group] for group in ("p1", "p2", "p3")]
    (tmp_path / "run").mkdir()
    digests = dict(zip(samples, image_digests(samples), strict=True))
    (tmp_path / "run" / "split.csv").write_text(manifest(Split(*by_group), digests))
    config = RunConfig(data="folder", group_pattern=PATTERN)
    return TrainedModel(tmp_path / "run" / "last.ckpt", config, {"data_dir": str(tmp_path / "pairs")})


def found(run, root):
    return parts(run, "folder", root, folder.build(root, PATTERN))


def test_images_are_known_in_a_copy_of_their_folder_and_under_other_names(run, tmp_path):
    known = {"p1_0.png": "train", "p1_1.png": "train", "p2_0.png": "val", "p3_0.png": "test"}
    assert found(run, tmp_path / "pairs") == known
    shutil.copytree(tmp_path / "pairs", tmp_path / "copy")
    assert found(run, tmp_path / "copy") == known
    for part in ("images", "masks"):
        (tmp_path / "copy" / part / "p1_0.png").rename(tmp_path / "copy" / part / "q9_0.png")
    assert found(run, tmp_path / "copy")["q9_0.png"] == "train"


def test_a_new_image_has_the_part_of_its_group(run, tmp_path):
    for number, name in enumerate(("p1_7", "p2_7", "p3_7", "p4_7"), 10):
        write_pair(tmp_path / "pairs", name, number)
    new = {name: part for name, part in found(run, tmp_path / "pairs").items() if "_7" in name}
    assert new == {"p1_7.png": "train", "p2_7.png": "val"}


def test_groups_of_the_same_names_in_other_data_are_warned_of(run, tmp_path, capsys):
    for number, name in enumerate(("p1_7", "p3_7", "p5_0"), 10):
        write_pair(tmp_path / "other", name, number)
    assert found(run, tmp_path / "other") == {}
    said = capsys.readouterr().out
    assert "other images of groups with these names: p1." in said


def test_new_images_of_a_known_group_are_left_out_under_any_name_of_the_group(run, tmp_path):
    write_pair(tmp_path / "pairs", "p1_7", 10)
    assert parts(run, "folder", tmp_path / "pairs", folder.build(tmp_path / "pairs", r"p(\d)_"))["p1_7.png"] == "train"


def test_what_the_run_behind_init_learned_from_counts(run, tmp_path):
    """Of a run that began with these weights and tests p1, on which they were trained."""
    samples = folder.build(tmp_path / "pairs", PATTERN)
    by_group = {group: [s for s in samples if s.group == group] for group in ("p1", "p2", "p3")}
    digests = dict(zip(samples, image_digests(samples), strict=True))
    (tmp_path / "later").mkdir()
    later = Split(by_group["p3"], by_group["p2"], by_group["p1"])
    (tmp_path / "later" / "split.csv").write_text(manifest(later, digests))
    machine = {"data_dir": str(tmp_path / "pairs"), "init_file": str(run.path)}
    assert found(TrainedModel(tmp_path / "later" / "last.ckpt", run.config, machine), tmp_path / "pairs") == {
        "p1_0.png": "train",
        "p1_1.png": "train",
        "p2_0.png": "val",
        "p3_0.png": "train",
    }


def test_what_any_run_behind_init_learned_from_counts_also_where_the_runs_were_moved(run, tmp_path, capsys):
    """A chain of three: the weights of `first` learned from p1, those of `second` from p2, and `third` tests both."""
    samples = folder.build(tmp_path / "pairs", PATTERN)
    p1, p2, p3 = ([s for s in samples if s.group == group] for group in ("p1", "p2", "p3"))
    digests = dict(zip(samples, image_digests(samples), strict=True))
    splits = {"first": Split(p1, p3, p2), "second": Split(p2, p3, p1), "third": Split(p3, [], p1 + p2)}
    before = None
    for name, split in splits.items():
        place = tmp_path / "runs" / name
        place.mkdir(parents=True)
        (place / "split.csv").write_text(manifest(split, digests))
        machine = {"data_dir": str(tmp_path / "pairs"), "init_file": before}
        (place / "config.json").write_text(json.dumps({"machine": machine}))
        before = str(place / "last.ckpt")
    known = {"p1_0.png": "train", "p1_1.png": "train", "p2_0.png": "train", "p3_0.png": "train"}

    def found_in(place):
        machine = json.loads((place / "third" / "config.json").read_text())["machine"]
        return found(TrainedModel(place / "third" / "last.ckpt", run.config, machine), tmp_path / "pairs")

    assert found_in(tmp_path / "runs") == known
    moved = (tmp_path / "runs").rename(tmp_path / "moved")
    assert found_in(moved) == known and "WARNING" not in capsys.readouterr().out
    shutil.rmtree(moved / "first")
    assert found_in(moved) == {**known, "p1_0.png": "test", "p1_1.png": "test"}
    lost = f"no readable split.csv beside {tmp_path / 'runs' / 'first' / 'last.ckpt'}"
    assert capsys.readouterr().out.count(lost) == 1
    shutil.rmtree(moved / "second")
    assert found_in(moved)["p2_0.png"] == "test"
    assert f"no readable split.csv beside {tmp_path / 'runs' / 'second' / 'last.ckpt'}" in capsys.readouterr().out


def test_training_warns_of_images_that_any_run_behind_init_learned_from(run, tmp_path, capsys):
    samples = folder.build(tmp_path / "pairs", PATTERN)
    place = shutil.copytree(run.path.parent, tmp_path / "outputs" / "runs" / "before")
    gone = tmp_path / "old" / "runs"
    (tmp_path / "outputs" / "runs" / "later").mkdir()
    (tmp_path / "outputs" / "runs" / "later" / "split.csv").write_text(manifest(Split(samples[3:], [], [])))
    machine = {"machine": {"init_file": str(gone / "before" / "last.ckpt")}}
    (tmp_path / "outputs" / "runs" / "later" / "config.json").write_text(json.dumps(machine))
    runtime = RuntimeConfig(output_dir=tmp_path / "outputs", init_file=place.parent / "later" / "last.ckpt")
    inputs = RunInputs(RunConfig(), runtime, samples, Split([], samples[:2], samples[2:3]))
    run_inputs._warn_of_initial_weights(inputs)
    assert "learned from 3 images of this run's validation and test images" in capsys.readouterr().out
    shutil.rmtree(place)
    run_inputs._warn_of_initial_weights(inputs)
    assert f"no readable split.csv beside {gone / 'before' / 'last.ckpt'}" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [None, b"image,part\np1_0.png,Train\n", b"\xff\xfe"])
def test_without_a_readable_split_nobody_knows_and_it_is_said(run, tmp_path, capsys, damage):
    path = run.path.parent / "split.csv"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert found(run, tmp_path / "pairs") == {}
    assert "WARNING: there is no readable split.csv" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_is_known_by_names_in_its_own_folder(run, tmp_path, capsys):
    rows = [line.split(",")[:2] for line in (run.path.parent / "split.csv").read_text().splitlines()]
    (run.path.parent / "split.csv").write_text("".join(f"{image},{part}\n" for image, part in rows))
    assert found(run, tmp_path / "pairs")["p1_0.png"] == "train"
    shutil.copytree(tmp_path / "pairs", tmp_path / "copy")
    assert found(run, tmp_path / "copy") == {}
    assert "WARNING: the run learned from images with these names: p1_0.png, p1_1.png" in capsys.readouterr().out
