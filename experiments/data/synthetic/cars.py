"""Synthetic cars in the layout of Kaggle's Carvana: 16 views of each car on a turntable before a lettered wall.

    train/<car>_<01..16>.jpg              images
    train_masks/<car>_<01..16>_mask.gif   exact masks, palette images with the values {0, 1}
    synthetic.json                        which cars these are

A car depends on the seed, its number and the size alone: the first cars of a larger set are those of a smaller one.
"""

import hashlib
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from analysis.records.files import read_json
from experiments.data.synthetic.photo import VIEWS, car_pictures
from registry import InputError

GENERATOR = 1  # counts the changes of the pictures; an older folder is refused, not mixed with new ones
JPEG_QUALITY = 92
SMALLEST = 32
RECORD = "synthetic.json"
Progress = Callable[[int, int], None]


def write_cars(
    folder: Path, cars: int = 24, seed: int = 0, size: tuple[int, int] = (480, 320), progress: Progress | None = None
) -> None:
    """Write `cars` cars of 16 pairs at `size` = (width, height) pixels into `folder`, all or nothing.

    Does nothing if the folder already holds exactly these cars. `progress(done, total)` is called after every car.
    The bytes do not depend on the number of threads or cars. Raises InputError if the folder holds anything else.
    """
    folder = Path(folder).resolve()
    record = {"cars": int(cars), "seed": int(seed), "size": [int(side) for side in size], "generator": GENERATOR}
    if cars < 1 or min(size) < SMALLEST:
        least = f"at least 1 car and {SMALLEST}x{SMALLEST} pixels"
        raise InputError(f"Synthetic data need {least}, not {cars} and {size[0]}x{size[1]}.")
    if _already_holds(folder, record):
        return
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.unfinished")  # no name that a user has
    try:
        _draw_all(unfinished, record, progress)
        _publish(unfinished, folder, record)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _already_holds(folder: Path, record: dict) -> bool:
    """Whether the folder holds all of these cars; False if it is empty. Raises InputError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found = read_json(folder / RECORD)
    if found is None:
        raise InputError(f"{folder} holds no synthetic cars but other things; give a new folder with --data-dir.")
    if found != record:
        advice = "delete it or give another folder with --data-dir"
        raise InputError(f"{folder} holds other synthetic cars ({found}, not {record}); {advice}.")
    names = [car_id(car, record["seed"]) for car in range(record["cars"])]
    missing = [path for name in names for path in _pair_paths(folder, name) if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]} is missing; delete {folder} and run the same command to have it made again.")
    return True


def _draw_all(folder: Path, record: dict, progress: Progress | None) -> None:
    """Draw every car, one thread per core: OpenCV and NumPy, which take most of the time, release the GIL."""
    (folder / "train").mkdir(parents=True)
    (folder / "train_masks").mkdir()
    pool = ThreadPoolExecutor(_thread_count())
    try:
        drawn = [
            pool.submit(_write_car, folder, car, record["seed"], tuple(record["size"])) for car in range(record["cars"])
        ]
        for done, car in enumerate(as_completed(drawn), 1):
            car.result()
            if progress:
                progress(done, record["cars"])
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted call does not wait for the cars not begun
    (folder / RECORD).write_text(json.dumps(record) + "\n")


def _thread_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _publish(unfinished: Path, folder: Path, record: dict) -> None:
    try:
        unfinished.rename(folder)
    except OSError:  # another process was faster; its cars are as good if they are the same
        if not _already_holds(folder, record):
            raise


def _write_car(folder: Path, car: int, seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(int.from_bytes(_digest(car, seed)))
    paths = iter(_pair_paths(folder, car_id(car, seed)))
    for photo, mask in car_pictures(rng, size):
        _write_image(next(paths), photo)
        _write_mask(next(paths), mask)


def _write_image(path: Path, photo: np.ndarray) -> None:
    _, data = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(data.tobytes())  # unlike cv2.imwrite, this fails aloud when the disk is full


def _write_mask(path: Path, mask: np.ndarray) -> None:
    """A palette image: PIL reads the values {0, 1}, others the palette's {0, 255}, just as with Carvana's own."""
    image = Image.fromarray(mask, mode="P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(path, optimize=False)


def _pair_paths(folder: Path, car: str) -> list[Path]:
    """Photo, mask, photo, mask ... of the 16 views."""
    names = [f"{car}_{view:02d}" for view in range(1, VIEWS + 1)]
    return [
        path
        for name in names
        for path in (folder / "train" / f"{name}.jpg", folder / "train_masks" / f"{name}_mask.gif")
    ]


def _digest(car: int, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {car}".encode()).digest()


def car_id(car: int, seed: int) -> str:
    """Twelve hexadecimal digits, as Carvana's."""
    return _digest(car, seed).hex()[:12]


def build(
    data_dir: Path,
    cars: int | None = None,
    seed: int | None = None,
    size: tuple[int, int] | None = None,
    progress: Progress | None = None,
):
    """The DATASETS entry: make the cars if necessary, then list them like Carvana's. Returns a list of Sample.

    Arguments that are not given are as in the folder, where `data make` may have put other cars, or else 24 cars,
    seed 0, 480x320.
    """
    from experiments.data.carvana import build as read_carvana

    existing = _record(Path(data_dir))
    write_cars(
        Path(data_dir),
        cars=existing.get("cars", 24) if cars is None else cars,
        seed=existing.get("seed", 0) if seed is None else seed,
        size=existing.get("size", (480, 320)) if size is None else size,
        progress=progress,
    )
    return read_carvana(data_dir=data_dir)


def _record(folder: Path) -> dict:
    """The folder's own record of its cars; empty if there is none that can be read."""
    record = read_json(folder / RECORD) or {}
    whole = record.get("generator") == GENERATOR
    return record if whole and set(record) == {"cars", "seed", "size", "generator"} else {}


def listing(data_dir: Path):
    """List the pairs under `data_dir` without making any car. Raises InputError if there are none."""
    from experiments.data.carvana import listing as list_cars

    return list_cars(data_dir, f"Make some with: python run.py data make --data-dir {shlex.quote(str(data_dir))}.")
