"""Check of a data set: decode every image and mask, and collect what is wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.carvana import is_known_faulty
from experiments.data.images import image_size, orient, read_header
from experiments.data.listing import Listing, Problem
from experiments.data.masks import describe_values
from experiments.data.samples import Sample, describe_sizes
from experiments.runtime.prefetch import prefetch
from registry import InputError

Progress = Callable[[int, int], None]  # (done, total)

SIDE, SIGMA = 64, 1.0  # of the signature: its width and height, and the Gaussian that removes coarse shading
ALIKE = 0.94  # the correlation from which two images count as copies of one
EMPTY = "empty mask"
ROWS = 512  # signatures compared at a time: bounds the memory


@dataclass(frozen=True)
class PairCheck:
    """Findings for one pair; None for what could not be read. Sizes are (width, height)."""

    sample: Sample
    problems: list[Problem]
    size: tuple[int, int] | None = None
    foreground: float | None = None  # share of the mask's pixels
    pixels: str = ""  # SHA-256 of the decoded image
    signature: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class DatasetReport:
    """Findings for every pair, and all problems."""

    pairs: list[PairCheck]
    problems: list[Problem]
    known_faulty: list[Sample]  # publicly listed; the publisher's fault, not that of this copy

    @property
    def foreground(self) -> list[float]:
        """The share of foreground of each mask that could be read."""
        return [pair.foreground for pair in self.pairs if pair.foreground is not None]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The sizes that occur among the images, smallest first."""
        return sorted({pair.size for pair in self.pairs if pair.size}, key=lambda size: (size[0] * size[1], size))


def check_dataset(listing: Listing, part: Mapping[str, str], progress: Progress | None = None) -> DatasetReport:
    """Decode every pair of `listing` and report what is wrong.

    The problems of the listing itself come first, then those of single files, then duplicates.

    Args:
        listing: The pairs.
        part: The part of the split (train, val or test) of each image, by file name.
        progress: Called with (done, total); may raise to stop.
    """
    pairs = []
    for done, pair in enumerate(prefetch(check_pair, listing.samples, os.cpu_count() or 2), start=1):
        pairs.append(pair)
        if progress:
            progress(done, len(listing.samples))
    problems = sorted(listing.problems + listing.left_out)
    problems += _of_pairs(pairs)
    problems += [*_duplicates(pairs, part), *_near_duplicates(pairs, part)]
    if raw := raw_masks(listing.samples):
        problems.append(Problem(listing.samples[0].mask.parent, "masks on raw pixels", raw))
    return DatasetReport(pairs, problems, [s for s in listing.samples if is_known_faulty(s.name)])


def _of_pairs(pairs: Sequence[PairCheck]) -> list[Problem]:
    """The problems of all pairs; where no mask has an object, one in place of that of each."""
    shares = [pair.foreground for pair in pairs if pair.foreground is not None]
    problems = [problem for pair in pairs for problem in pair.problems]
    if len(shares) < 2 or any(shares):
        return problems
    first, *_ = empty = [problem for problem in problems if problem.what == EMPTY]
    others = [problem for problem in problems if problem.what != EMPTY]
    return [Problem(first.path.parent, "no object", f"All {len(empty)} masks are empty. {first.text}"), *others]


def check_pair(sample: Sample) -> PairCheck:
    """Decode a pair and list what is wrong with it."""
    problems: list[Problem] = []
    image = _try(sample.read_image, sample.image, problems)
    mask = _try(sample.read_mask, sample.mask, problems)
    share = None if mask is None else float(mask.mean())
    if share in (0.0, 1.0):
        problems.append(_one_sided(sample, share == 0.0))
    problems += _other_size(sample, image, mask)
    if image is None:
        return PairCheck(sample, problems, foreground=share)
    digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
    return PairCheck(sample, problems, (image.shape[1], image.shape[0]), share, digest, signature(image))


def _try(read: Callable[[], NDArray[Any]], path: Path, problems: list[Problem]) -> NDArray[Any] | None:
    try:
        return read()
    except InputError as error:
        problems.append(Problem(path, "cannot be used", str(error)))
        return None


def _other_size(sample: Sample, image: NDArray[Any] | None, mask: NDArray[Any] | None) -> list[Problem]:
    """The problem of a mask of another size than its image; the size of a file that cannot be used is its header's."""
    try:
        size = image_size(sample.image)[::-1] if image is None else image.shape[:2]
        other = image_size(sample.mask)[::-1] if mask is None else mask.shape
        if size == other or (mask is None and sample.reading.mask_exif == "image"):
            return []
        return [Problem(sample.image, "sizes differ", describe_sizes(sample, other))]
    except InputError:  # a header that tells nothing, or a folder of masks
        return []


def _one_sided(sample: Sample, empty: bool) -> Problem:
    named, reading = " ".join(map(str, sample.reading.foreground)), sample.reading
    held = describe_values(sample.mask, reading.mask_channel) if empty and named else ""
    if held:
        grey = ", as a colour (255,255,255 for 255)" if "," in named and not held.startswith("the colours") else ""
        text = (
            f"The mask {sample.mask} holds {held}, none of --foreground {named}. If any of these is the object, name "
            f"it as well{grey}; otherwise remove the pair, or keep it only if it is correct."
        )
        return Problem(sample.mask, EMPTY, text)
    kind, extent = (EMPTY, "nothing") if empty else ("full mask", "the whole image")
    text = f"The mask {sample.mask} marks {extent}. Draw it again or remove the pair; keep it only if it is correct."
    return Problem(sample.mask, kind, text)


def fits_raw_pixels(sample: Sample) -> bool | None:
    """Whether the mask's outline follows the image's edges better if the mask is turned as EXIF turns the image.

    None where there is nothing to decide: EXIF turns no image or the mask as well, or the sizes tell.
    """
    image, mask = read_header(sample.image), read_header(sample.mask)
    if image is None or mask is None or image.orientation == 1 or mask.orientation > 1:
        return None
    if sample.reading.mask_exif == "image":
        return None
    try:
        pixels, own = sample.read_image(), sample.read_mask()
    except InputError:
        return None
    turned = orient(own, image.orientation)
    if own.shape != turned.shape or own.shape != pixels.shape[:2] or np.array_equal(own, turned):
        return None
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 1.0).astype(np.float32)
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return _along(turned, edges) > _along(own, edges)


def _along(mask: NDArray[np.bool_], edges: NDArray[np.floating[Any]]) -> float:
    """Mean strength of the edges along the outline of a mask."""
    outline = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    return float(edges[outline].mean()) if outline.any() else 0.0


def raw_masks(samples: Sequence[Sample], at_most: int | None = None) -> str:
    """The sentence for masks that seem to be drawn on raw pixels of images that EXIF turns; empty where they do not."""
    turned = [s for s in samples if (header := read_header(s.image)) is not None and header.orientation > 1]
    step = max(1, len(turned) // at_most) if at_most else 1
    verdicts = [fits for fits in prefetch(fits_raw_pixels, turned[::step][:at_most]) if fits is not None]
    if sum(verdicts) * 2 <= len(verdicts):
        return ""
    return (
        f"EXIF turns {len(turned)} images and not their masks, and {sum(verdicts)} of {len(verdicts)} masks follow the "
        "image better if they are turned as well: they seem to be drawn on raw pixels. If so, type --mask-exif image."
    )


def _duplicates(pairs: Sequence[PairCheck], part: Mapping[str, str]) -> Iterator[Problem]:
    """Images with the same pixels, whatever their files are called or how they are compressed."""
    first: dict[str, PairCheck] = {}
    for pair in pairs:
        if pair.pixels and (other := first.setdefault(pair.pixels, pair)) is not pair:
            text = f"The images {_names(other, pair, part)} show the same pixels. Remove one of the pairs."
            yield Problem(pair.sample.image, "duplicate", text)


def _near_duplicates(pairs: Sequence[PairCheck], part: Mapping[str, str]) -> Iterator[Problem]:
    """Images in two parts of the split that are nearly the same; the same pixels are duplicates already."""
    distinct = {(pair.pixels, part[pair.sample.name]): pair for pair in reversed(pairs) if pair.sample.name in part}
    kept = [pair for pair in reversed(distinct.values()) if pair.signature is not None]
    if not kept:
        return
    signatures = np.stack([pair.signature for pair in kept if pair.signature is not None])
    for a, b, correlation in copies_across_parts(signatures, [part[pair.sample.name] for pair in kept]):
        if kept[a].pixels != kept[b].pixels:
            text = (
                f"The images {_names(kept[a], kept[b], part)} are nearly the same (correlation {correlation:.3f}): "
                "data leakage. Remove one of the pairs, or put both into one part with --group-pattern or --split-file."
            )
            yield Problem(kept[b].sample.image, "near-duplicate", text)


def _names(a: PairCheck, b: PairCheck, part: Mapping[str, str]) -> str:
    """Both images, each with its part of the split."""
    named = [(str(pair.sample.image), part.get(pair.sample.name)) for pair in (a, b)]
    return " and ".join(f"{path} ({name})" if name else path for path, name in named)


def signature(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The fine structure of an RGB image (H, W, 3) as a vector (4096,) of length 1; zeros for an even surface."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), SIGMA)
    fine = (fine - fine.mean()).ravel()
    length = float(np.linalg.norm(fine))
    return fine / length if length > 1.0 else np.zeros_like(fine)  # rounding alone makes up less than 1


def copies_across_parts(signatures: NDArray[np.float32], parts: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """For each image, its likeliest copy in another part: (row, row, correlation), each pair once."""
    part = np.unique(parts, return_inverse=True)[1]
    yielded = set()
    for start in range(0, len(signatures), ROWS):
        correlation = signatures[start : start + ROWS] @ signatures.T  # (rows, N)
        correlation[part[start : start + ROWS, None] == part[None]] = -1.0
        for row in np.flatnonzero(correlation.max(1) > ALIKE):
            other = int(correlation[row].argmax())
            pair = (min(start + int(row), other), max(start + int(row), other))
            if pair not in yielded:
                yielded.add(pair)
                yield (*pair, float(correlation[row, other]))
