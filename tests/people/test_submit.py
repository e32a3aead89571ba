"""`run.py submit`: Kaggle's file, read back by a decoder that shares nothing with the encoder."""

import csv
import gzip
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.inference.kaggle_submission import NATIVE
from experiments.inference.rle import encode_rle
from tests.conftest import examples

WIDTH, HEIGHT = 1918, 1280


def decode(text, height, width):
    """The competition's definition: pairs of start and length; pixels from 1, left to right, then top to bottom."""
    pixels = [[False] * width for _ in range(height)]
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for number in range(start, start + length):
            row, column = divmod(number - 1, width)
            assert not pixels[row][column], "a pixel is named twice"
            pixels[row][column] = True
    return np.array(pixels)


@examples(60)
@given(st.integers(1, 7), st.integers(1, 7), st.randoms(use_true_random=False))
def test_what_is_encoded_is_decoded_to_the_same_mask(height, width, random):
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])
    assert np.array_equal(decode(encode_rle(mask), height, width), mask)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        ([[0, 0], [0, 0]], ""),
        ([[1, 1], [1, 1]], "1 4"),
        (
            [[0, 1, 1], [1, 0, 1]],
            "2 3 6 1",
        ),  # a run goes on in the next row; later competitions of Kaggle would write 2 2 5 2
        ([[1, 0, 0], [0, 0, 0]], "1 1"),
    ],
)
def test_pixels_are_numbered_row_by_row_from_one(mask, text):
    assert encode_rle(np.array(mask, bool)) == text


def test_a_mask_of_any_memory_layout_is_encoded_alike():
    mask = np.random.default_rng(0).random((20, 30)) > 0.5
    assert encode_rle(np.asfortranarray(mask)) == encode_rle(mask) == encode_rle(mask[:, ::-1][:, ::-1])


def read(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["img", "rle_mask"]
    return {name: decode(text, HEIGHT, WIDTH) for name, text in rows[1:]}


@pytest.fixture
def kaggle_dir(made_cars, tmp_path):
    """Four photographs at the competition's size."""
    (tmp_path / "test").mkdir()
    for path in sorted((made_cars / "train").glob("*.jpg"))[:4]:
        Image.open(path).resize(NATIVE).save(tmp_path / "test" / path.name)
    return tmp_path / "test"


def test_the_file_holds_the_masks_that_predict_writes(command, trained, kaggle_dir, tmp_path):
    where = ("--run", trained.name, "--output-dir", trained.parent.parent)
    code, shown, complaint = command("submit", *where, "--test-dir", kaggle_dir, "--output", tmp_path / "s.csv.gz")
    assert code == 0 and "4 images" in shown and "100,064" in shown, complaint
    assert command("predict", kaggle_dir, *where, "--output", tmp_path / "masks")[0] == 0
    found = read(tmp_path / "s.csv.gz")
    assert sorted(found) == sorted(path.name for path in kaggle_dir.iterdir())
    for name, mask in found.items():
        assert mask.any() and np.array_equal(mask, np.asarray(Image.open(tmp_path / "masks" / f"{name[:-4]}.png")) > 0)
    assert not list(tmp_path.glob("*.tmp"))


def test_images_of_another_size_are_counted_at_the_competitions_size(command, trained, made_cars, tmp_path):
    (tmp_path / "test").mkdir()
    source = sorted((made_cars / "train").glob("*.jpg"))[0]  # 96x64
    shutil.copy(source, tmp_path / "test")
    words = ("--run", trained.name, "--output-dir", trained.parent.parent, "--output", tmp_path / "s.csv")
    assert command("submit", "--test-dir", tmp_path / "test", *words)[0] == 0
    (mask,) = read(tmp_path / "s.csv").values()
    assert command("predict", source, *words[:4], "--output", tmp_path)[0] == 0
    small = (
        np.asarray(Image.open(tmp_path / f"{source.stem}.png").resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)) > 0
    )
    assert (mask == small).mean() > 0.98


def test_an_image_that_cannot_be_read_keeps_its_line_and_is_named(command, trained, kaggle_dir, tmp_path):
    spoilt = sorted(kaggle_dir.iterdir())[1]
    spoilt.write_bytes(spoilt.read_bytes()[:2000])
    words = ("--run", trained.name, "--output-dir", trained.parent.parent, "--output", tmp_path / "s.csv")
    code, _, complaint = command("submit", "--test-dir", kaggle_dir, *words)
    found = read(tmp_path / "s.csv")
    assert code == 1 and str(spoilt) in complaint and len(found) == 4 and not found[spoilt.name].any()


def test_the_same_images_give_the_same_bytes_and_a_failure_leaves_the_old_file(
    command, trained, kaggle_dir, tmp_path, monkeypatch
):
    words = (
        "submit",
        "--test-dir",
        kaggle_dir,
        "--run",
        trained.name,
        "--output-dir",
        trained.parent.parent,
        "--output",
    )
    assert command(*words, tmp_path / "s.csv.gz")[0] == 0
    before = (tmp_path / "s.csv.gz").read_bytes()
    assert command(*words, tmp_path / "s.csv.gz")[0] == 0
    assert (tmp_path / "s.csv.gz").read_bytes() == before
    from experiments.inference import kaggle_submission

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kaggle_submission, "encode_rle", fail)
    code, _, complaint = command(*words, tmp_path / "s.csv.gz")
    assert code == 1 and "full" in complaint
    assert (tmp_path / "s.csv.gz").read_bytes() == before and not list(tmp_path.glob("*.tmp"))


def test_invalid_arguments_are_refused_in_one_sentence(command, trained, kaggle_dir, tmp_path):
    where = ("--run", trained.name, "--output-dir", trained.parent.parent)
    for words, sentence in (
        (["--test-dir", tmp_path], "No images (*.jpg)"),
        (["--test-dir", kaggle_dir, "--output", tmp_path / "no" / "s.csv"], "There is no folder"),
        ([], "--test-dir"),
    ):
        code, _, complaint = command("submit", *words, *where)
        assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1
