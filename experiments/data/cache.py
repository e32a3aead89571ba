"""Photographs decoded once, at the training size, and shared by every later run.

`outputs/cache/<fingerprint>-<size>/` holds `images.u8` (N, H, W, 3), `masks.u8` (N, H, W; 0 or 1) and `cache.json`, which
has the SHA-256 of both: a cache that was cut short, damaged or filled from other data is built again.
The bytes are written in order through a file, not through a memory map: a full disk is then an error with a name and
not a bus error. The folder gets its name when it is complete, so an interrupted build leaves nothing that looks whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from experiments.data.samples import CHANGED, Sample, read_mask, read_photo
from experiments.data.samples import fingerprint as samples_print
from experiments.runtime.files import name_file, read_json, sha256_of
from experiments.runtime.leases import wait_for_lock
from registry import InputError

NAME = re.compile(r"^([0-9a-z]+-\d+x\d+)(\.lock|\.building-.*)?$")  # what this module puts into the cache's folder
FORMAT = 2  # of the files; another number means that the cache is built again
FILES = ("images.u8", "masks.u8")
Progress = Callable[[int, int], None]  # (done, of how many)


@dataclass(frozen=True)
class Pixels:
    """Decoded photographs (N, H, W, 3) and masks (N, H, W), memory-mapped uint8; row i belongs to sample i."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def photo_at(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The photograph at `size` = (width, height), averaged over areas: what a network sees, cached or not."""
    return resized(read_photo(path, at_least=size), size)


def mask_at(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask at `size`: 1 where the object covers more than half of the pixel."""
    return (resized(mask.astype(np.uint8) * 255, size) > 127).astype(np.uint8)


def decode(sample: Sample, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A sample's photograph and mask at `size`. Raises InputError where they cannot be used together."""
    photo, mask = read_photo(sample.image, at_least=size), read_mask(sample.mask)
    if not _same_shape(photo, mask):
        raise InputError(
            f"The photograph {sample.image} and its mask {sample.mask} differ in size "
            f"(about {photo.shape[1]}x{photo.shape[0]} and {mask.shape[1]}x{mask.shape[0]}). Make them one size or remove the pair."
        )
    return resized(photo, size), mask_at(mask, size)


def open_cache(
    samples: Sequence[Sample],
    size: tuple[int, int],
    cache_dir: Path,
    fingerprint: str,
    progress: Progress | None = None,
) -> Pixels:
    """The decoded pixels of `samples`, built in parallel if they are not there yet (or not whole).

    Raises InputError for a file that cannot be used (all are looked at, the first is named) and for too little space.
    """
    width, height = size
    folder = cache_dir / f"{fingerprint}-{width}x{height}"
    shape = (len(samples), height, width)
    if not _complete(folder, shape):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(cache_dir / f"{folder.name}.lock", lambda: progress(0, len(samples)) if progress else None):
            if not _complete(folder, shape):  # another process may have built it meanwhile
                _build(samples, size, folder, progress)
    images = np.memmap(folder / "images.u8", np.uint8, "r", shape=(*shape, 3))
    masks = np.memmap(folder / "masks.u8", np.uint8, "r", shape=shape)
    return Pixels(images, masks)


def clean(cache_dir: Path, spare: Collection[str] = ()) -> tuple[int, list[str]]:
    """Delete every cache in `cache_dir` but those named in `spare` and those being built; (bytes freed, names left).

    What is no cache by its name is left where it is. A process that has a cache open keeps its pixels on Linux and macOS.
    """
    freed, left = 0, []
    for name in sorted({match[1] for path in _entries(cache_dir) if (match := NAME.match(path.name))}):
        lock = FileLock(cache_dir / f"{name}.lock", timeout=0)
        try:
            with lock:
                if name in spare:
                    left.append(name)
                    continue
                for path in [
                    p for p in _entries(cache_dir) if p.name == name or p.name.startswith(f"{name}.building-")
                ]:
                    freed += disk_size(path)
                    shutil.rmtree(path)
                Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            left.append(name)
    if cache_dir.is_dir() and not cache_dir.is_symlink() and not _entries(cache_dir):
        cache_dir.rmdir()
    return freed, left


def disk_size(path: Path) -> int:
    """Bytes of a file, or of all files under a folder; links are not followed, what vanishes meanwhile counts nothing."""
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _build(samples: Sequence[Sample], size: tuple[int, int], folder: Path, progress: Progress | None) -> None:
    _need_space(len(samples) * size[0] * size[1] * 4, folder.parent)
    before = samples_print(samples)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.building-", dir=folder.parent))
    try:
        with name_file(folder):
            digests = _write_pixels(samples, size, building, progress)
            if samples_print(samples) != before:
                raise InputError(CHANGED.format(samples[0].image.parent))
            about = {
                "format": FORMAT,
                "shape": [len(samples), size[1], size[0]],
                "name": folder.name,
                "sha256": digests,
            }
            (building / "cache.json").write_text(json.dumps(about))
        shutil.rmtree(folder, ignore_errors=True)  # one that is not whole
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_pixels(
    samples: Sequence[Sample], size: tuple[int, int], building: Path, progress: Progress | None
) -> dict[str, str]:
    """Decode all samples into the two files of a cache; the SHA-256 of each."""
    digests = {name: hashlib.sha256() for name in FILES}
    with contextlib.ExitStack() as opened:
        files = {name: opened.enter_context(open(building / name, "wb")) for name in FILES}
        for done, pair in enumerate(_decoded(samples, size), start=1):
            for name, pixels in zip(FILES, pair, strict=True):
                data = pixels.tobytes()
                digests[name].update(data)
                files[name].write(data)
            if progress:
                progress(done, len(samples))
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _decoded(samples: Sequence[Sample], size: tuple[int, int]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Decoded pairs in order, a bounded number of them ahead; Pillow decodes outside the interpreter's lock."""
    workers = os.cpu_count() or 2
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(samples), 64):
            yield from pool.map(lambda sample: decode(sample, size), samples[start : start + 64])


def _complete(folder: Path, shape: tuple[int, int, int]) -> bool:
    """Whether the folder holds a whole cache of this shape under its own name: sizes and bytes are compared, not trusted."""
    pixels = shape[0] * shape[1] * shape[2]
    try:
        about = read_json(folder / "cache.json")
        stats = [(folder / name).stat() for name in FILES]
        if [stat.st_size for stat in stats] != [3 * pixels, pixels]:
            return False
        digests = {
            name: _digest(folder / name, stat.st_mtime_ns, stat.st_ino) for name, stat in zip(FILES, stats, strict=True)
        }
    except OSError:
        return False
    return about == {"format": FORMAT, "shape": list(shape), "name": folder.name, "sha256": digests}


@functools.lru_cache(maxsize=16)  # the runs of a study open the same cache again and again: its bytes are read once
def _digest(path: Path, changed: int, number: int) -> str:
    """The SHA-256 of a file; `changed` (when) and `number` (its inode) tell it from another of the same name."""
    return sha256_of(path)


def _need_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05 + 64e6:  # what else a run writes meanwhile
        raise InputError(
            f"The decoded photographs need {needed / 1e9:.2f} GB under {folder}, where {free / 1e9:.2f} GB are free. "
            "Free some space, or choose a smaller --size or another --output-dir."
        )


def _same_shape(photo: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bool:
    """Whether the mask is as large as the photo, which may have been decoded at 1/2, 1/4 or 1/8 (rounded up)."""
    (h, w), (mask_h, mask_w) = photo.shape[:2], mask.shape
    return any((-(-mask_h // r), -(-mask_w // r)) == (h, w) for r in (1, 2, 4, 8))


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Area averages where the picture shrinks, bilinear where it grows; `size` is (width, height)."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    shrinks = picture.shape[1] >= size[0] and picture.shape[0] >= size[1]
    return np.asarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )
