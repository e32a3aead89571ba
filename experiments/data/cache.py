"""Images decoded once, at the training size, and shared by every later run.

`outputs/cache/<fingerprint>-<size>/` (with a hash of the reading, where it is not the default) holds `images.u8`
(N, H, W, 3), `masks.u8` (N, H, W; 0 or 1) and `cache.json`, which has the SHA-256 of both: a cache that is truncated,
damaged or filled from other data is built again.
The bytes are written in order through a file, not through a memory map: a full disk is then an error with a name and
not a bus error. The folder gets its name when it is complete: an interrupted build leaves nothing that looks complete.
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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from analysis.records.files import name_file, read_json, sha256_of
from experiments.data import samples as sample_files
from experiments.data.images import Scale, image_size, read_image
from experiments.data.reading import cache_name
from experiments.data.samples import CHANGED_IN_USE, Sample, describe_sizes
from experiments.runtime.leases import wait_for_lock
from experiments.runtime.prefetch import prefetch
from registry import InputError

# What this module puts into the cache folder.
NAME = re.compile(r"^([0-9a-z]+-\d+x\d+(?:-[0-9a-f]{8})?)(\.lock|\.building-.*)?$")
FORMAT = 3  # of the files; a cache with another number is built again
FILES = ("images.u8", "masks.u8")
RESERVE = 64e6  # bytes left for what else a run writes meanwhile
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Pixels:
    """Decoded images (N, H, W, 3) and masks (N, H, W), memory-mapped uint8; row i belongs to sample i."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def load_image(path: Path, size: tuple[int, int], intensity: Scale | None = None) -> NDArray[np.uint8]:
    """Read an RGB image at `size` = (width, height), by area averages: what a network sees, cached or not.

    `intensity` is the scale of the run that uses it; see `images.read_image`.
    """
    return resize(read_image(path, size, intensity), size)


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a mask to `size` = (width, height): 1 where the object covers more than half of the pixel."""
    return (resize(mask.astype(np.uint8) * 255, size) > 127).astype(np.uint8)


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize to `size` = (width, height): area averages where the image shrinks, bilinear where it grows."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    interpolation = cv2.INTER_AREA if width >= size[0] and height >= size[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def ceiling(truth: NDArray[np.bool_], size: tuple[int, int]) -> float:
    """Dice of the ground truth itself after reduction to `size` = (width, height): the best possible score."""
    height, width = truth.shape
    share = cv2.resize(truth.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    total = int(enlarged.sum()) + int(truth.sum())
    return 2 * int((enlarged & truth).sum()) / total if total else 1.0


def decode(sample: Sample, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read a sample's image (H, W, 3) and mask (H, W) at `size`. Raises InputError if they cannot be used together."""
    image, mask = sample.read_image(at_least=size), sample.read_mask()
    if image_size(sample.image) != mask.shape[::-1]:  # `image` may be a half, a quarter or an eighth of it
        raise InputError(describe_sizes(sample, mask.shape))
    return resize(image, size), resize_mask(mask, size)


def open_cache(
    samples: Sequence[Sample],
    size: tuple[int, int],
    cache_dir: Path,
    fingerprint: str,
    progress: Progress | None = None,
) -> Pixels:
    """Open the decoded pixels of `samples`, building the cache first if it is missing or incomplete.

    Raises InputError for a file that cannot be used (the first in order) and for too little disk space.
    """
    width, height = size
    folder = cache_dir / cache_name(fingerprint, size, samples[0].reading)
    shape = (len(samples), height, width)
    if not _complete(folder, shape):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(cache_dir / f"{folder.name}.lock", lambda: progress(0, len(samples)) if progress else None):
            if not _complete(folder, shape):  # another process may have built it meanwhile
                _build(samples, size, folder, progress)
    images = np.memmap(folder / "images.u8", np.uint8, "r", shape=(*shape, 3))
    masks = np.memmap(folder / "masks.u8", np.uint8, "r", shape=shape)
    return Pixels(images, masks)


def clean_cache(cache_dir: Path, spare: Collection[str] = ()) -> tuple[int, list[str]]:
    """Delete every cache in `cache_dir` except those named in `spare` and those being built.

    Whatever is not a cache by its name is left alone. On Linux and macOS a process that has a cache open keeps it.

    Returns:
        Bytes freed, and the names of the caches that were left.
    """
    freed, left = 0, []
    for name in sorted({match[1] for path in _entries(cache_dir) if (match := NAME.match(path.name))}):
        lock = FileLock(cache_dir / f"{name}.lock", timeout=0)
        try:
            with lock:
                if name in spare:
                    left.append(name)
                    continue
                for path in _entries(cache_dir):
                    if path.is_symlink():  # what it leads to is somebody else's
                        continue
                    if path.name == name or path.name.startswith(f"{name}.building-"):
                        freed += _delete_own_files(path)
                Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            left.append(name)
    if cache_dir.is_dir() and not cache_dir.is_symlink() and not _entries(cache_dir):
        cache_dir.rmdir()
    return freed, left


def _delete_own_files(cache: Path) -> int:
    """Delete the files of a cache, and its folder unless something else lies in it; returns the bytes freed."""
    freed = 0
    for path in [cache / name for name in (*FILES, "cache.json")]:
        freed += path.lstat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds a file of somebody else's
        cache.rmdir()
    return freed


def disk_size(path: Path) -> int:
    """Bytes of all files under a folder. Links are not followed; files that vanish meanwhile count as 0."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _build(samples: Sequence[Sample], size: tuple[int, int], folder: Path, progress: Progress | None) -> None:
    _require_space(len(samples) * size[0] * size[1] * 4, folder.parent)
    before = sample_files.fingerprint(samples)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.building-", dir=folder.parent))
    try:
        with name_file(folder):
            digests = _write_pixels(samples, size, building, progress)
            if sample_files.fingerprint(samples) != before:
                raise InputError(CHANGED_IN_USE.format(samples[0].image.parent))
            description = _description(folder, (len(samples), size[1], size[0]), digests)
            (building / "cache.json").write_text(json.dumps(description))
        _delete_own_files(folder)  # an incomplete one
        if folder.exists():
            raise InputError(f"The cache {folder} holds files that are not its own. Move them away.")
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_pixels(
    samples: Sequence[Sample], size: tuple[int, int], building: Path, progress: Progress | None
) -> dict[str, str]:
    """Decode all samples into the two files of a cache; return the SHA-256 of each."""
    digests = {name: hashlib.sha256() for name in FILES}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(building / name, "wb")) for name in FILES}
        decoded = prefetch(lambda sample: decode(sample, size), samples, os.cpu_count() or 2, ahead=64)
        for done, pair in enumerate(decoded, start=1):
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


def _description(folder: Path, shape: tuple[int, int, int], digests: dict[str, str]) -> dict[str, object]:
    """Content of cache.json."""
    return {"format": FORMAT, "shape": list(shape), "name": folder.name, "sha256": digests}


def _complete(folder: Path, shape: tuple[int, int, int]) -> bool:
    """Whether the folder holds a complete cache of this shape under its own name, by sizes and by checksums."""
    pixels = shape[0] * shape[1] * shape[2]
    try:
        description = read_json(folder / "cache.json")
        stats = {name: (folder / name).stat() for name in FILES}
        if [stat.st_size for stat in stats.values()] != [3 * pixels, pixels]:
            return False
        digests = {name: _digest(folder / name, stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}
    except OSError:
        return False
    return description == _description(folder, shape, digests)


@functools.lru_cache(maxsize=16)  # the runs of a study open the same cache again and again: its bytes are read once
def _digest(path: Path, modified: int, inode: int) -> str:
    """SHA-256 of a file; `modified` and `inode` distinguish it from another file of the same name."""
    return sha256_of(path)


def _require_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05 + RESERVE:
        raise InputError(
            f"The decoded images need {needed / 1e9:.2f} GB under {folder}, where {free / 1e9:.2f} GB are free. "
            "Free some space, or choose a smaller --size or another --output-dir."
        )
