"""The nuclei as pairs, from their distributed layout: the bytes of the published study, where both are at hand."""

import hashlib
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.data import nuclei_pairs
from tests.conftest import ROOT

SHARED = Path(os.environ.get("CARVANA_DIR", ROOT / ".." / "shared" / "data" / "carvana")).parent
RAW, PAIRS = SHARED / "nuclei_raw", SHARED / "nuclei"
both = pytest.mark.skipif(not (RAW.is_dir() and PAIRS.is_dir()), reason="needs the nuclei in both layouts")


@pytest.fixture
def raw(tmp_path):
    """Two published images and one other in the distributed layout, each with two nuclei; not the published masks."""
    for digits in (*list(nuclei_pairs.published_pairs())[:2], "f" * 12):
        folder = tmp_path / "raw" / "stage1_train" / (digits + "0" * 52)
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        cv2.imwrite(str(folder / "images" / f"{folder.name}.png"), np.full((40, 50, 4), 90, np.uint8))
        for number in (0, 1):
            mask = np.zeros((40, 50), np.uint8)
            mask[10:20, 5 + 20 * number : 15 + 20 * number] = 255
            cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    return tmp_path / "raw"


@both
def test_the_images_at_hand_become_the_published_bytes(tmp_path):
    count, others = nuclei_pairs.write_pairs(RAW, tmp_path / "pairs")
    written = list((tmp_path / "pairs").rglob("*.png"))
    assert count == len(list((RAW / "stage1_train").iterdir())) > 0 and len(written) == 2 * count and not others
    for path in written:
        assert path.read_bytes() == (PAIRS / path.parent.name / path.name).read_bytes(), path


@both
def test_the_list_is_that_of_the_published_pairs():
    published = dict(nuclei_pairs.published_pairs().values())
    digests = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (PAIRS / "masks").iterdir()}
    assert published == digests and len(published) == 534


def test_an_interruption_says_what_was_written(raw, tmp_path, command, monkeypatch):
    kept, sent = nuclei_pairs._write, []

    def interrupted(*given):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return kept(*given)

    monkeypatch.setattr(nuclei_pairs, "_write", interrupted)
    code, _, complaint = command("data", "nuclei-pairs", "--data-dir", raw, "--output", tmp_path / "pairs")
    assert code == 143 and "pairs written so far are complete; the same command writes all" in complaint


def test_masks_are_merged_only_published_images_are_written_and_other_masks_are_told(raw, tmp_path, command):
    output = tmp_path / "pairs"
    code, out, _ = command("data", "nuclei-pairs", "--data-dir", raw, "--output", output)
    assert code == 0 and "2 of the 534 pairs" in out and "2 masks are not the published ones" in out
    names = [name for name, _ in list(nuclei_pairs.published_pairs().values())[:2]]
    assert sorted(path.stem for path in (output / "images").glob("*.png")) == names
    mask = cv2.imread(str(output / "masks" / f"{names[0]}.png"), cv2.IMREAD_GRAYSCALE)
    assert (mask > 0).sum() == 200 and cv2.imread(str(output / "images" / f"{names[0]}.png"), -1).ndim == 2
    assert command("data", "nuclei-pairs", "--data-dir", raw, "--output", output)[0] == 0


def test_a_file_of_ones_own_is_not_replaced_and_a_foreign_source_is_refused(raw, tmp_path, command):
    name, _ = next(iter(nuclei_pairs.published_pairs().values()))
    own = tmp_path / "pairs" / "masks" / f"{name}.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"drawn by hand")
    code, _, err = command("data", "nuclei-pairs", "--data-dir", raw, "--output", tmp_path / "pairs")
    assert code == 2 and "was not written by this project" in err and own.read_bytes() == b"drawn by hand"
    for folder in list((raw / "stage1_train").iterdir()):
        folder.rename(folder.with_name("e" * 64) if folder.name.startswith("f") else tmp_path / folder.name)
    (image,) = (raw / "stage1_train").rglob("images/*.png")
    image.rename(image.with_name("e" * 64 + ".png"))
    code, _, err = command("data", "nuclei-pairs", "--data-dir", raw, "--output", tmp_path / "other")
    assert code == 2 and "has none of the images of the published study" in err
