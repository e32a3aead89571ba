"""Every photograph and mask of a data set, decoded and looked at; what is wrong is collected, nothing ends the walk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.carvana import is_known_faulty
from experiments.data.listing import Listing, Problem
from experiments.data.samples import Sample, read_mask, read_photo
from registry import InputError

Progress = Callable[[int, int], None]  # (done, of how many)

AHEAD = 32  # pairs decoded ahead of the one that is shown: bounds memory and what an interruption waits for


@dataclass(frozen=True)
class PairCheck:
    """What one pair showed; None stands for what could not be read. Sizes are (width, height)."""

    sample: Sample
    problems: list[Problem]
    size: tuple[int, int] | None = None
    foreground: float | None = None  # share of the mask's pixels
    pixels: str = ""  # SHA-256 of the decoded photograph
    signature: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Report:
    """All that was seen and all that is wrong."""

    looks: list[PairCheck]
    problems: list[Problem]
    known_faulty: list[Sample]  # publicly listed; the publisher's own, so no fault of this copy

    @property
    def foreground(self) -> list[float]:
        """The share of foreground of each mask that could be read."""
        return [look.foreground for look in self.looks if look.foreground is not None]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The sizes that occur among the photographs, smallest first."""
        return sorted({look.size for look in self.looks if look.size}, key=lambda size: (size[0] * size[1], size))


def verify(listing: Listing, part: Mapping[str, str], progress: Progress | None = None) -> Report:
    """Decode every pair of `listing`. `part` says on which side of the split a photograph lies, by its file name.

    What the listing itself found comes first, then the files one by one, then duplicates. `progress` may raise to stop.
    """
    looks = []
    for done, look in enumerate(_looks(listing.samples), start=1):
        looks.append(look)
        if progress:
            progress(done, len(listing.samples))
    found = [problem for look in looks for problem in look.problems]
    problems = sorted(listing.problems + listing.left_out) + found
    problems += [*_duplicates(looks, part), *_near_duplicates(looks, part)]
    return Report(looks, problems, [s for s in listing.samples if is_known_faulty(s.name)])


def check_pair(sample: Sample) -> PairCheck:
    """Decode a pair and list what is wrong with it."""
    problems: list[Problem] = []
    photo = _try(read_photo, sample.image, problems)
    mask = _try(read_mask, sample.mask, problems)
    share = None if mask is None else float(mask.mean())
    if share in (0.0, 1.0):
        problems.append(_one_sided(sample, share == 0.0))
    if photo is None:
        return PairCheck(sample, problems, foreground=share)
    if mask is not None and photo.shape[:2] != mask.shape:
        problems.append(_sizes_differ(sample, photo.shape, mask.shape))
    digest = hashlib.sha256(f"{photo.shape}".encode() + photo.tobytes()).hexdigest()
    return PairCheck(sample, problems, (photo.shape[1], photo.shape[0]), share, digest, signature(photo))


def _looks(samples: Sequence[Sample]) -> Iterator[PairCheck]:
    """The pairs in order, some of them decoded ahead; Pillow and OpenCV work outside the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for start in range(0, len(samples), AHEAD):
            yield from pool.map(check_pair, samples[start : start + AHEAD])


def _try(read: Callable[[Path], NDArray[Any]], path: Path, problems: list[Problem]) -> NDArray[Any] | None:
    try:
        return read(path)
    except InputError as error:
        problems.append(Problem(path, "cannot be used", str(error)))
        return None


def _one_sided(sample: Sample, empty: bool) -> Problem:
    what, whole = ("empty", "nothing") if empty else ("full", "the whole photograph")
    text = f"The mask {sample.mask} marks {whole}. Draw it again or remove the pair; keep it only if that is the truth."
    return Problem(sample.mask, f"{what} mask", text)


def _sizes_differ(sample: Sample, photo: tuple[int, ...], mask: tuple[int, ...]) -> Problem:
    turned = " The photograph is turned by its EXIF data; turn the mask too." if photo[1::-1] == mask else ""
    text = (
        f"The photograph {sample.image} is {photo[1]}x{photo[0]} and its mask {sample.mask} is {mask[1]}x{mask[0]}."
        f"{turned or ' Make them one size or remove the pair.'}"
    )
    return Problem(sample.image, "sizes differ", text)


def _duplicates(looks: Sequence[PairCheck], part: Mapping[str, str]) -> Iterator[Problem]:
    """Photographs with the same pixels, whatever their files are called or how they are packed."""
    first: dict[str, PairCheck] = {}
    for look in looks:
        if look.pixels and (other := first.setdefault(look.pixels, look)) is not look:
            text = f"The photographs {_sides(other, look, part)} show the same pixels. Remove one of the pairs."
            yield Problem(look.sample.image, "duplicate", text)


def _near_duplicates(looks: Sequence[PairCheck], part: Mapping[str, str]) -> Iterator[Problem]:
    """Photographs on two sides of the split that are nearly the same; the same pixels are duplicates already."""
    one_each = {(look.pixels, part[look.sample.name]): look for look in reversed(looks) if look.sample.name in part}
    kept = [look for look in reversed(one_each.values()) if look.signature is not None]
    if not kept:
        return
    signatures = np.stack([look.signature for look in kept if look.signature is not None])
    for a, b, alike in across(signatures, [part[look.sample.name] for look in kept]):
        if kept[a].pixels != kept[b].pixels:
            text = (
                f"The photographs {_sides(kept[a], kept[b], part)} are nearly the same (correlation {alike:.3f}): a leak. "
                "Remove one of the pairs, or put both on one side with --group-pattern or --split-file."
            )
            yield Problem(kept[b].sample.image, "near-duplicate", text)


def _sides(one: PairCheck, other: PairCheck, part: Mapping[str, str]) -> str:
    def named(look: PairCheck) -> str:
        side = part.get(look.sample.name)
        return f"{look.sample.image}" + (f" ({side})" if side else "")

    return f"{named(one)} and {named(other)}"


SIDE, SIGMA = 64, 1.0  # of the signature: its width and height, and the Gaussian that takes the coarse shades away

ALIKE = 0.94  # the correlation from which two photographs count as copies of one

ROWS = 512  # signatures compared at a time: bounds the memory


def signature(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The fine structure of an RGB photograph (H, W, 3) as a vector (4096,) of length 1; zeros for an even surface."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), SIGMA)
    fine = (fine - fine.mean()).ravel()
    length = float(np.linalg.norm(fine))
    return fine / length if length > 1.0 else np.zeros_like(fine)  # rounding alone makes up less than 1


def across(signatures: NDArray[np.float32], parts: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """For each photograph, its likeliest copy in another part: (row, row, correlation), each pair once."""
    side = np.unique(parts, return_inverse=True)[1]
    seen = set()
    for start in range(0, len(signatures), ROWS):
        alike = signatures[start : start + ROWS] @ signatures.T  # (rows, N)
        alike[side[start : start + ROWS, None] == side[None]] = -1.0
        for row in np.flatnonzero(alike.max(1) > ALIKE):
            other = int(alike[row].argmax())
            pair = (min(start + int(row), other), max(start + int(row), other))
            if pair not in seen:
                seen.add(pair)
                yield (*pair, float(alike[row, other]))
