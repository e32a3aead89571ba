"""Synthetic cars: layout, determinism, exact masks, and nothing left behind."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.data.synthetic import cars
from experiments.data.synthetic import photo as car_photo
from experiments.data.synthetic.cars import write_cars
from experiments.data.synthetic.photo import car_pictures

SIZE = (240, 160)


@pytest.fixture(scope="module")
def three_cars(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "cars"
    write_cars(folder, cars=3, seed=5, size=SIZE)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.*"))
        if path.suffix != ".json"
    }


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("train_masks/*.gif"))}


def test_the_layout_is_carvanas(three_cars):
    photos = sorted(path.stem for path in (three_cars / "train").iterdir())
    truths = sorted(path.name for path in (three_cars / "train_masks").iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{12}_(0[1-9]|1[0-6])", name) for name in photos)
    assert truths == [f"{name}_mask.gif" for name in photos]
    assert len(photos) == 48
    assert len({name[:12] for name in photos}) == 3


def test_images_are_rgb_jpegs_and_masks_palette_gifs_of_zero_and_one(three_cars):
    for path in (three_cars / "train").iterdir():
        with Image.open(path) as photo:
            assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", SIZE)
    for path in (three_cars / "train_masks").iterdir():
        with Image.open(path) as mask:
            assert (mask.format, mask.mode, mask.size) == ("GIF", "P", SIZE)
            assert np.unique(np.asarray(mask)).tolist() == [0, 1]
            assert np.unique(np.asarray(mask.convert("L"))).tolist() == [0, 255]


def test_the_same_seed_gives_the_same_bytes_and_fewer_cars_a_part_of_them(three_cars, tmp_path, monkeypatch):
    monkeypatch.setattr(cars, "_thread_count", lambda: 1)
    write_cars(tmp_path / "two", cars=2, seed=5, size=SIZE)
    few, many = contents(tmp_path / "two"), contents(three_cars)
    assert len(few) == 64
    assert few.items() <= many.items()


def test_another_seed_gives_other_cars(three_cars, tmp_path):
    write_cars(tmp_path / "other", cars=1, seed=6, size=SIZE)
    assert not set(contents(tmp_path / "other")) & set(contents(three_cars))
    assert not set(contents(tmp_path / "other").values()) & set(contents(three_cars).values())


def test_every_mask_is_one_sensible_object_wholly_inside_the_image(three_cars):
    for name, mask in masks(three_cars).items():
        assert cv2.connectedComponents(mask, connectivity=8)[0] == 2, name
        assert 0.05 < mask.mean() < 0.45, name
        assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any(), name


def test_the_views_of_a_car_differ_and_are_wider_from_the_side(three_cars):
    truths = masks(three_cars)
    assert len({mask.tobytes() for mask in truths.values()}) == 48
    for car in {name[:12] for name in truths}:
        width = {view: np.ptp(truths[f"{car}_{view:02d}_mask.gif"].any(0).nonzero()[0]) for view in (1, 5, 9, 13)}
        assert min(width[5], width[13]) > 1.3 * max(width[1], width[9])


def test_the_masks_outline_lies_on_edges_of_the_image(three_cars):
    """Over all views: paint in the colour of the wall may hide the outline of one car, not of three."""
    on, off = [], []
    for name, mask in masks(three_cars).items():
        photo = cv2.imread(str(three_cars / "train" / name.replace("_mask.gif", ".jpg")), cv2.IMREAD_GRAYSCALE)
        edges = np.hypot(cv2.Sobel(photo, cv2.CV_32F, 1, 0), cv2.Sobel(photo, cv2.CV_32F, 0, 1))
        for values, truth in ((on, mask), (off, np.roll(mask, (0, 6), (0, 1)))):
            outline = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
            values.append(edges[outline].mean())
    assert np.mean(on) > 1.3 * np.mean(off)


def test_the_mask_agrees_with_one_drawn_nine_times_finer(monkeypatch):
    """Outlines differ by less than a fifth of a pixel on average, and no side is favoured."""
    views = list(car_pictures(np.random.default_rng(4), SIZE))
    monkeypatch.setattr(car_photo, "SCALE", 9)
    shift = []
    for (_, mask), (_, fine) in zip(views, car_pictures(np.random.default_rng(4), SIZE), strict=True):
        (outline, *_), _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        assert (mask != fine).sum() < 0.2 * len(outline)
        shift.append(np.argwhere(mask).mean(0) - np.argwhere(fine).mean(0))
    assert np.abs(np.mean(shift, 0)).max() < 0.06


def test_an_interrupted_call_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cars(tmp_path / "cars", cars=2, size=(48, 32), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_the_cars(tmp_path):
    seen = []
    write_cars(tmp_path / "cars", cars=3, size=(48, 32), progress=lambda *state: seen.append(state))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_second_call_does_nothing(tmp_path):
    write_cars(tmp_path / "cars", cars=1, size=(48, 32))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_cars(tmp_path / "cars", cars=1, size=(48, 32), progress=lambda *_: pytest.fail("a car was drawn again"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "cars").mkdir()
    write_cars(tmp_path / "cars", cars=1, size=(48, 32))
    assert len(contents(tmp_path / "cars")) == 32


@pytest.mark.parametrize("other", [{"cars": 2}, {"seed": 1}, {"size": (64, 48)}])
def test_a_folder_of_other_synthetic_cars_is_refused(tmp_path, other):
    write_cars(tmp_path / "cars", cars=1, size=(48, 32))
    before = contents(tmp_path / "cars")
    with pytest.raises(ValueError, match="other synthetic cars"):
        write_cars(tmp_path / "cars", **{"cars": 1, "seed": 0, "size": (48, 32), **other})
    assert contents(tmp_path / "cars") == before


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds no synthetic cars"):
        write_cars(tmp_path, cars=1, size=(48, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_lost_image_is_noticed(tmp_path):
    write_cars(tmp_path / "cars", cars=1, size=(48, 32))
    next((tmp_path / "cars" / "train").iterdir()).unlink()
    with pytest.raises(ValueError, match="is missing"):
        write_cars(tmp_path / "cars", cars=1, size=(48, 32))


@pytest.mark.parametrize("wrong", [{"cars": 0}, {"size": (31, 320)}])
def test_too_few_cars_or_pixels_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="at least 1 car and 32x32"):
        write_cars(tmp_path / "cars", **wrong)
    assert list(tmp_path.iterdir()) == []
