"""An image with its mask and its group, and how their files are read.

All files are read with Pillow: unlike OpenCV it refuses a truncated JPEG instead of filling it up with grey, honours
EXIF rotation on request, handles palettes, and decodes a JPEG at 1/2, 1/4 or 1/8 of its size (`draft`).
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

# Pillow refuses more than twice this: 268 million pixels, 16384x16384. A damaged header may claim any number.
Image.MAX_IMAGE_PIXELS = 2**27
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a user's images may be large
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True, order=True)
class Sample:
    """An image, its mask and the group (for Carvana: the car) that it belongs to. A split never divides a group."""

    image: Path
    mask: Path
    group: str

    @property
    def name(self) -> str:
        """File name of the image, as in manifests and score tables."""
        return self.image.name


def read_image(path: Path, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image as RGB (H, W, 3) uint8, rotated as its EXIF data says.

    Args:
        path: The file.
        at_least: (width, height) in pixels: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, but not below this.

    Raises:
        InputError: The file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as picture:
            if at_least is not None:
                # applied before the rotation: a rotated image must keep enough of both sides
                picture.draft("RGB", (max(at_least), max(at_least)) if _rotated(picture) else at_least)
            return _rgb(ImageOps.exif_transpose(picture))
    except UNREADABLE as error:
        raise InputError(_unreadable("image", path, error)) from None


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image after EXIF rotation; only its header is read.

    Raises InputError for a file that is missing or not an image.
    """
    try:
        with Image.open(path) as picture:
            return (picture.height, picture.width) if _rotated(picture) else picture.size
    except UNREADABLE as error:
        raise InputError(_unreadable("image", path, error)) from None


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask as booleans (H, W), True on the object. Values are 0/1 or 0/255 (16 bit: 0/65535), palettes included.

    Raises InputError for a file that is missing, truncated, not an image or not binary.
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
            "Save it again without smoothing or JPEG compression (as PNG)."
        )
    return levels > 0


CHANGED_IN_USE = (
    "Images or masks under {} were changed while they were in use. "
    "Restore them, or discard the run: with other data it is another run."
)


def fingerprint(samples: Sequence[Sample]) -> str:
    """16 hexadecimal digits that identify the data: names, groups and bytes of images and masks, not their folders."""
    return _fingerprint(tuple((s, *_stat(s.image), *_stat(s.mask)) for s in samples))


@functools.lru_cache(maxsize=8)  # a study needs the same data again and again; a changed file changes the cache key
def _fingerprint(stats: tuple[tuple[Sample, int, int, int, int], ...]) -> str:
    samples = [row[0] for row in stats]
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(sha256_of, (path for s in samples for path in (s.image, s.mask)))
        pairs = list(zip(digests, digests, strict=True))
    lines = sorted(f"{s.name}\t{s.group}\t{image}\t{mask}\n" for s, (image, mask) in zip(samples, pairs, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _rotated(picture: Image.Image) -> bool:
    return picture.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap width and height


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode == "F":  # its range is unknown, and Pillow would clip it at 255
        raise ValueError("floating-point values")
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255
        grey = np.asarray(picture).astype(np.float32)
        grey = (grey / (257.0 if grey.max(initial=0) > 255 else 1.0)).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(picture.convert("RGB"))


def _levels(picture: Image.Image) -> NDArray[np.integer]:
    """The mask's values: of a palette image its colours if they are 0 and 255, otherwise its indices."""
    if picture.mode == "P":
        grey = np.asarray(picture.convert("L"))
        return grey if set(np.unique(grey).tolist()) <= {0, 255} else np.asarray(picture)
    if picture.mode.startswith(("I", "F")):
        return np.asarray(picture)
    return np.asarray(picture.convert("L"))


def _unreadable(what: str, path: Path, error: Exception) -> str:
    """The sentence for a file that Pillow refuses."""
    advice = "Fetch it again or remove the pair."
    if not path.exists():
        return f"The {what} {path} is missing. Restore it, or remove its partner."
    if path.stat().st_size == 0:
        return f"The {what} {path} is empty (0 bytes). {advice}"
    if "truncated" in str(error).lower() or "broken" in str(error).lower():
        return f"The {what} {path} is truncated or damaged. {advice}"
    if "floating-point" in str(error):
        return f"The {what} {path} holds floating-point values. Save it with 8 or 16 bits."
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"The {what} {path} is damaged, or larger than 268 million pixels. Fetch it again, or shrink or remove it."
        )
    return f"The {what} {path} cannot be read as an image. {advice}"
