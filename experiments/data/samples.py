"""An image with its mask and its group, how its files are read, and the fingerprint of a data set."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.records.files import sha256_of
from experiments.data import images, masks
from experiments.data.images import image_size, read_image
from experiments.data.masks import read_mask
from experiments.data.reading import DEFAULT, Reading
from registry import InputError

__all__ = ["Reading", "Sample", "fingerprint", "image_size", "read_image", "read_mask"]


@dataclass(frozen=True, order=True)
class Sample:
    """An image, its mask and the group (for Carvana: the car) that it belongs to. A split never divides a group.

    The mask is a file, or a folder with one PNG per object.
    """

    image: Path
    mask: Path
    group: str
    reading: Reading = DEFAULT
    place: str = ""  # the image's path within its data set, with /, where that has folders

    def __post_init__(self) -> None:
        for name in ("image", "mask"):
            if isinstance(path := getattr(self, name), str):
                object.__setattr__(self, name, Path(path))

    @property
    def name(self) -> str:
        """Name of the image, as in manifests and score tables: its file name, or its path within the data set."""
        return self.place or self.image.name

    @property
    def files(self) -> list[Path]:
        """The image and the file, or files, of its mask."""
        return [self.image, *masks.mask_files(self.mask)]

    def read_image(self, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Read the image as RGB (H, W, 3); see `images.read_image`. Raises InputError."""
        return read_image(self.image, at_least, self.reading.intensity)

    def read_mask(self) -> NDArray[np.bool_]:
        """Read the mask as booleans (H, W), as `reading` says; see `masks.read_mask`. Raises InputError."""
        turned = None
        if self.reading.mask_exif == "image":
            with images.open_image(self.image) as picture:
                turned = images.orientation(picture)
        return masks.read_mask(self.mask, self.reading.foreground, self.reading.mask_channel, turned)


def describe_sizes(sample: Sample, mask: tuple[int, ...]) -> str:
    """The sentence for an image and a mask, of the shape (H, W), that differ in size."""
    width, height = image_size(sample.image)
    header = images.read_header(sample.image)
    advice = "Make them one size or remove the pair."
    if header is not None and header.orientation >= 5 and mask == (width, height):
        advice = (
            f"The image is rotated by its EXIF data (orientation {header.orientation}) and the mask is not: rotate the "
            "mask as well or, if all masks are drawn on raw pixels, type --mask-exif image."
        )
    return (
        f"The image {sample.image} is {width}x{height} and its mask {sample.mask} is {mask[1]}x{mask[0]}: they differ "
        f"in size. {advice}"
    )


CHANGED_IN_USE = (
    "Images or masks under {} were changed while they were in use. "
    "Restore them, or discard the run: with other data it is another run."
)


def fingerprint(samples: Sequence[Sample]) -> str:
    """16 hexadecimal digits that identify the data: names, groups and bytes of images and masks, not their folders."""
    digests = _digests(_files_with_stat(samples))
    lines = [f"{s.name}\t{s.group}\t{image}\t{mask}\n" for s, (image, mask) in zip(samples, digests, strict=True)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


def image_digests(samples: Sequence[Sample]) -> list[str]:
    """The SHA-256 of each image's file."""
    return [image for image, _ in _digests(_files_with_stat(samples))]


FilesWithStat = tuple[tuple[Sample, tuple[tuple[Path, int, int], ...]], ...]


def _files_with_stat(samples: Sequence[Sample]) -> FilesWithStat:
    return tuple((s, tuple((path, *_stat(path)) for path in s.files)) for s in samples)


@functools.lru_cache(maxsize=8)  # a study needs the same data again and again; a changed file changes the cache key
def _digests(stats: FilesWithStat) -> list[tuple[str, str]]:
    """The SHA-256 of each sample's image and mask."""
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(_digest, (path for _, files in stats for path, _, _ in files))
        found = []
        for sample, files in stats:
            image, *parts = ((path.name, next(digests)) for path, _, _ in files)
            mask = parts[0][1] if files[1:] and files[1][0] == sample.mask else _digest_of(parts)
            found.append((image[1], mask))
    return found


def _digest_of(parts: Sequence[tuple[str, str]]) -> str:
    """SHA-256 of a folder: of the names and digests of its files."""
    return hashlib.sha256("".join(f"{name}\t{digest}\n" for name, digest in parts).encode()).hexdigest()


def _digest(path: Path) -> str:
    with _readable(path):
        return sha256_of(path)


def _stat(path: Path) -> tuple[int, int]:
    with _readable(path):
        stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise InputError, with what to do, for a file that is gone or may not be read."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing, or a link that leads nowhere. Restore it, or remove it with its partner."
        ) from None
    except PermissionError:
        raise InputError(
            f"{path} may not be read by this user. Change its permissions, or remove it with its partner."
        ) from None
