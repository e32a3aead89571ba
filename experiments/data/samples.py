"""A photograph with its mask and its group, and how their files are read.

Everything is read with Pillow: unlike OpenCV it refuses a truncated JPEG instead of filling it up with grey, honours
EXIF rotation on request, knows palettes, and decodes a JPEG at a half, a quarter or an eighth of its size (`draft`).
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from experiments.runtime.files import sha256_of
from registry import InputError

# Pillow refuses more than twice this: 268 million pixels, 16384x16384. A damaged header may claim any number of them.
Image.MAX_IMAGE_PIXELS = 2**27
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # photographs of one's own may be large
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True, order=True)
class Sample:
    """One photograph, its mask and the group (the car) that it belongs to: groups are never divided by a split."""

    image: Path
    mask: Path
    group: str

    @property
    def name(self) -> str:
        """The photo's file name: what manifests and score tables call it."""
        return self.image.name


def read_photo(path: Path, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The photograph as RGB (H, W, 3), turned as its EXIF data says.

    With `at_least` = (width, height), a JPEG may come at 1/2, 1/4 or 1/8 of its size, but not below that.
    Raises InputError for a file that is missing, truncated or no image.
    """
    try:
        with Image.open(path) as picture:
            if at_least is not None:
                # Asked for before the turn: a photo on its side must keep enough of both sides.
                picture.draft("RGB", (max(at_least), max(at_least)) if _turned(picture) else at_least)
            return _rgb(ImageOps.exif_transpose(picture))
    except UNREADABLE as error:
        raise InputError(_unreadable("photograph", path, error)) from None


def photo_size(path: Path) -> tuple[int, int]:
    """(width, height) of the photograph once it is turned as its EXIF data says; only its header is read.

    Raises InputError for a file that is missing or no image.
    """
    try:
        with Image.open(path) as picture:
            return (picture.height, picture.width) if _turned(picture) else picture.size
    except UNREADABLE as error:
        raise InputError(_unreadable("photograph", path, error)) from None


def read_mask(path: Path) -> NDArray[np.bool_]:
    """The mask as booleans (H, W), True on the object. Values 0/1 or 0/255 (16 bit: 0/65535), palettes included.

    Raises InputError for a file that is missing, truncated, no image or not binary.
    """
    try:
        with Image.open(path) as picture:
            levels = _levels(ImageOps.exif_transpose(picture))
    except UNREADABLE as error:
        raise InputError(_unreadable("mask", path, error)) from None
    top = int(levels.max(initial=0))
    if top not in (0, 1, 255, 65535) or not bool(((levels == 0) | (levels == top)).all()):
        values = ", ".join(map(str, np.unique(levels)[:6]))
        raise InputError(
            f"The mask {path} is not binary: it holds the values {values} …; a mask holds 0 and 1, or 0 and 255. "
            "Write it again without smoothing or JPEG compression (as PNG)."
        )
    return levels > 0


CHANGED = "Photographs or masks under {} were changed while they were in use. Put them back, or give the run up: with others it is another run."


def fingerprint(samples: Sequence[Sample]) -> str:
    """16 hexadecimal digits that stand for the photographs and masks themselves: names, groups and bytes, not places."""
    stats = tuple((s, *_stat(s.image), *_stat(s.mask)) for s in samples)
    return _fingerprint(stats)


@functools.lru_cache(maxsize=8)  # a study asks for the same data again and again; a changed file changes the key
def _fingerprint(stats: tuple[tuple[Sample, int, int, int, int], ...]) -> str:
    samples = [row[0] for row in stats]
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(sha256_of, (path for s in samples for path in (s.image, s.mask)))
        pairs = list(zip(digests, digests, strict=True))
    lines = sorted(f"{s.name}\t{s.group}\t{image}\t{mask}\n" for s, (image, mask) in zip(samples, pairs, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _turned(picture: Image.Image) -> bool:
    return picture.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 exchange width and height


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode == "F":  # its range is anybody's guess, and Pillow would clip it at 255
        raise ValueError("floating-point values")
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255
        grey = np.asarray(picture).astype(np.float32)
        grey = (grey / (257.0 if grey.max(initial=0) > 255 else 1.0)).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(picture.convert("RGB"))


def _levels(picture: Image.Image) -> NDArray[np.integer]:
    """The mask's values. A palette is looked through, unless only its indices 0 and 1 make the mask binary."""
    if picture.mode == "P":
        index = np.asarray(picture)
        grey = np.asarray(picture.convert("L"))
        looked_through = set(np.unique(grey).tolist()) <= {0, 255}
        return grey if looked_through else index
    if picture.mode.startswith(("I", "F")):
        return np.asarray(picture)
    return np.asarray(picture.convert("L"))


def _unreadable(what: str, path: Path, error: Exception) -> str:
    if not path.exists():
        return f"The {what} {path} is missing. Put it back, or remove its partner."
    if path.stat().st_size == 0:
        return f"The {what} {path} is empty (0 bytes). Fetch it again or remove the pair."
    if "truncated" in str(error).lower() or "broken" in str(error).lower():
        return f"The {what} {path} is truncated or damaged. Fetch it again or remove the pair."
    if "floating-point" in str(error):
        return f"The {what} {path} holds floating-point values. Save it with 8 or 16 bits."
    if isinstance(error, Image.DecompressionBombError):
        return f"The {what} {path} is damaged, or larger than 268 million pixels. Fetch it again, reduce or remove the pair."
    return f"The {what} {path} cannot be read as an image. Fetch it again or remove the pair."
