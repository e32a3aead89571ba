"""Which images `evaluate` leaves out, because the run has learned from them or from others of their groups."""

import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.config.schema import RunConfig
from experiments.data import folder
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
        "p1_0.png": "train", "p1_1.png": "train", "p2_0.png": "val", "p3_0.png": "train",
    }  # fmt: skip


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
