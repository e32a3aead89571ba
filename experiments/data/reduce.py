"""The reduced Carvana on which the published studies were made, from Kaggle's own files, byte for byte.

Photograph: decoded at full size, area average, JPEG of quality 90 with optimised Huffman tables. Mask: 0 and 255, the
same average, above 127, a palette GIF of 0 (black) and 1 (white). The studies used 270 of the 318 cars; their names are
in `reduced_cars.txt`. The same bytes give the same fingerprint, hence the same keys of runs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from analysis.records.output_files import OutputFiles
from experiments.data import carvana
from experiments.data.images import decode_with_opencv
from experiments.data.samples import Sample, read_mask
from registry import InputError

SIZE = (384, 256)  # width, height
CARS = Path(__file__).parent / "reduced_cars.txt"
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_OPTIMIZE, 1]


def published_cars() -> list[str]:
    """The names of the cars that the published studies used."""
    return CARS.read_text(encoding="utf-8").split()


def reduce_carvana(
    source: Path,
    target: Path,
    size: tuple[int, int] = SIZE,
    every_car: bool = False,
    show: Callable[[int, int], None] = lambda done, count: None,
) -> tuple[int, int]:
    """Write reduced copies of Carvana's pairs in Kaggle's layout.

    Args:
        source: folder of Kaggle's train/ and train_masks/.
        target: folder that gets the same two; another one than `source`.
        size: (width, height) in pixels.
        every_car: all cars of `source`, not only those of the published studies.
        show: called with the number of pairs that are done, and of all.

    Returns:
        The numbers of pairs and of cars written.

    Raises:
        InputError: for a source that cannot be read or has none of the cars, or a target that holds other files of
            the same names.
    """
    if target.resolve() == source.resolve():
        raise InputError(f"{target} holds the originals: name another folder with --output.")
    known = set(published_cars())
    samples = [s for s in carvana.build(source) if every_car or s.group in known]
    if not samples:
        raise InputError(
            f"{source} has none of the cars of the published studies. For all of its cars add --every-car."
        )
    files = OutputFiles(target)
    files.check(name for sample in samples for name in _names(sample))
    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(lambda sample: _reduce(sample, files, size), samples), 1):
            show(done, len(samples))
    return len(samples), len({sample.group for sample in samples})


def _names(sample: Sample) -> tuple[str, str]:
    return f"train/{sample.image.name}", f"train_masks/{sample.mask.name}"


def _reduce(sample: Sample, files: OutputFiles, size: tuple[int, int]) -> None:
    photograph, mask = _names(sample)
    files.write(photograph, reduced_photograph(decode_with_opencv(sample.image), size))
    files.write(mask, reduced_mask(read_mask(sample.mask), size))


def reduced_photograph(photograph: np.ndarray, size: tuple[int, int] = SIZE) -> bytes:
    """A photograph (H, W, 3), BGR of 8 bits, as a reduced JPEG."""
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, JPEG)[1].tobytes()


def reduced_mask(mask: np.ndarray, size: tuple[int, int] = SIZE) -> bytes:
    """A mask (H, W) of booleans as a reduced GIF."""
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
    picture = Image.fromarray(small.astype(np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    content = io.BytesIO()
    picture.save(content, format="GIF")
    return content.getvalue()
