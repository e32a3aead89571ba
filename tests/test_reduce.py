"""Carvana reduced from Kaggle's files: the bytes of the published studies' set, where both are at hand."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.data import reduce
from experiments.data.carvana import build
from experiments.data.samples import fingerprint, read_mask
from tests.conftest import ROOT

NATIVE = Path(os.environ.get("CARVANA_DIR", ROOT / ".." / "shared" / "data" / "carvana"))
REDUCED = NATIVE.parent / "carvana_384x256"


@pytest.fixture
def cars(tmp_path):
    """Two cars with names of the published studies and one other, two views each, in Kaggle's layout."""
    rng, folder = np.random.default_rng(0), tmp_path / "kaggle"
    for part in ("train", "train_masks"):
        (folder / part).mkdir(parents=True)
    for car in (*reduce.published_cars()[:2], "ffffffffffff"):
        for view in ("01", "02"):
            photograph = cv2.resize(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8), (960, 640))
            cv2.imwrite(str(folder / "train" / f"{car}_{view}.jpg"), photograph)
            mask = Image.fromarray((photograph[..., 0] > 127).astype(np.uint8), mode="P")
            mask.putpalette([0, 0, 0, 255, 255, 255])
            mask.save(folder / "train_masks" / f"{car}_{view}_mask.gif")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not REDUCED.is_dir(), reason="needs Carvana at both sizes (CARVANA_DIR and carvana_384x256 beside)")
def test_all_photographs_that_exist_at_both_sizes_get_the_same_bytes(tmp_path):
    written = reduce.reduce_carvana(NATIVE, tmp_path / "reduced")
    compared = [path for path in (tmp_path / "reduced").rglob("*.*") if not path.name.startswith(".")]
    assert written == (512, 32) and len(compared) == 1024
    different = [
        path.name for path in compared if path.read_bytes() != (REDUCED / path.parent.name / path.name).read_bytes()
    ]
    assert different == []


def test_the_command_reduces_the_published_cars_only(cars, tmp_path, command):
    code, out, _ = command("data", "reduce", "--data-dir", cars, "--output", tmp_path / "small")
    assert code == 0 and "4 pairs of 2 cars at 384x256. The published studies used 270 cars." in out
    assert "Repeat a study" not in out and f"python run.py --data carvana --data-dir {tmp_path / 'small'}" in out
    samples = build(tmp_path / "small")
    assert {sample.group for sample in samples} == set(reduce.published_cars()[:2])
    with Image.open(samples[0].image) as picture:
        assert picture.size == (384, 256)
    again = fingerprint(samples)
    assert command("data", "reduce", "--data-dir", cars, "--output", tmp_path / "small")[0] == 0
    assert fingerprint(build(tmp_path / "small")) == again
    assert command("data", "reduce", "--data-dir", cars, "--output", tmp_path / "all", "--every-car")[0] == 0
    assert len(build(tmp_path / "all")) == 6


def test_a_study_is_offered_only_where_its_cars_are_there_at_its_size(cars, tmp_path, command, monkeypatch):
    two = reduce.published_cars()[:2]
    monkeypatch.setattr(reduce, "published_cars", lambda: two)
    words = ("data", "reduce", "--data-dir", cars, "--output")
    code, out, _ = command(*words, tmp_path / "small")
    assert code == 0 and "Repeat a study: python run.py study two_by_two --published" in out
    for name, flags in (("all", ("--every-car",)), ("other", ("--size", "192x128"))):
        code, out, _ = command(*words, tmp_path / name, *flags)
        assert code == 0 and "Repeat a study" not in out and "Train on them" in out


def test_a_reduced_mask_is_the_area_average_above_one_half():
    mask = np.zeros((4, 8), bool)
    mask[:2, :2], mask[2:, 4:5], mask[0, 6] = True, True, True  # whole, half and quarter of a pixel
    folded = np.asarray(Image.open(io.BytesIO(reduce.reduced_mask(mask, (4, 2)))))
    assert folded.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]


def test_the_originals_are_never_the_target(cars, command):
    before = {path: path.read_bytes() for path in cars.rglob("*.*")}
    code, _, err = command("data", "reduce", "--data-dir", cars, "--output", cars)
    assert code == 2 and "name another folder with --output" in err
    assert {path: path.read_bytes() for path in cars.rglob("*.*")} == before


def test_files_of_ones_own_are_not_replaced(cars, tmp_path, command):
    own = tmp_path / "small" / "train" / f"{reduce.published_cars()[0]}_01.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"another copy of Kaggle's")
    code, _, err = command("data", "reduce", "--data-dir", cars, "--output", tmp_path / "small")
    assert code == 2 and "was not written by this project" in err and own.read_bytes() == b"another copy of Kaggle's"
    assert list((tmp_path / "small").rglob("*.*")) == [own]


def test_a_source_without_the_published_cars_is_refused(cars, tmp_path, command):
    for path in cars.rglob("*.*"):
        if not path.name.startswith("ffff"):
            path.unlink()
    code, _, err = command("data", "reduce", "--data-dir", cars, "--output", tmp_path / "small")
    assert code == 2 and "add --every-car" in err
    assert read_mask(next((cars / "train_masks").iterdir())).any()
