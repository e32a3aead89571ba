"""Photographs as a worse camera or worse light would give them: five corruptions at three strengths.

Kinds after Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019); strengths are chosen for photographs that are reduced before a network sees them. Each is applied at the
photograph's own size, and blur is measured by its height: the same strength means the same at any size.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.uint8]


def blur(photo: Array, sigma: float, _: np.random.Generator) -> Array:
    """A Gaussian blur whose standard deviation is `sigma` times the photograph's height."""
    return np.asarray(cv2.GaussianBlur(photo, (0, 0), sigma * photo.shape[0]), np.uint8)


def noise(photo: Array, sigma: float, draw: np.random.Generator) -> Array:
    """Gaussian noise, drawn for each pixel and colour, whose standard deviation is `sigma` of the range."""
    return _bytes(photo + 255 * sigma * draw.standard_normal(photo.shape, np.float32))


def jpeg(photo: Array, quality: float, _: np.random.Generator) -> Array:
    """Compressed as JPEG at `quality` (1 to 100) and decompressed."""
    content = io.BytesIO()
    Image.fromarray(photo).save(content, "JPEG", quality=int(quality))
    return np.asarray(Image.open(content).convert("RGB"), np.uint8)


def brightness(photo: Array, added: float, _: np.random.Generator) -> Array:
    """Brighter by `added` of the range; what is then too bright is white."""
    return _bytes(photo + np.float32(255 * added))


def contrast(photo: Array, factor: float, _: np.random.Generator) -> Array:
    """Every value's distance from the photograph's mean times `factor`."""
    mean = photo.mean(dtype=np.float32)
    return _bytes(mean + np.float32(factor) * (photo - mean))


Corruption = Callable[[Array, float, np.random.Generator], Array]
CORRUPTIONS: Mapping[str, tuple[Corruption, tuple[float, float, float]]] = {
    "blur": (blur, (0.005, 0.01, 0.02)),
    "noise": (noise, (0.1, 0.2, 0.4)),
    "jpeg": (jpeg, (25, 10, 5)),
    "brightness": (brightness, (0.1, 0.2, 0.3)),
    "contrast": (contrast, (0.6, 0.4, 0.2)),
}
CLEAN = "clean"
CONDITIONS = (CLEAN, *(f"{name} {strength}" for name in CORRUPTIONS for strength in (1, 2, 3)))


def corrupt(photo: Array, condition: str, name: str) -> Array:
    """The RGB photograph (H, W, 3) under one of CONDITIONS ("clean", "blur 1" ...); what is drawn depends on its `name` alone."""
    if condition == CLEAN:
        return photo
    kind, _, strength = condition.partition(" ")
    change, strengths = CORRUPTIONS[kind]
    return change(
        photo, strengths[int(strength) - 1], np.random.default_rng((zlib.crc32(name.encode()), int(strength)))
    )


def _bytes(values: NDArray[np.float32]) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
