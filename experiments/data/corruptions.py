"""Image corruptions as by a worse camera or worse light: five kinds at three strengths.

Kinds after Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019); strengths are chosen for images that are downscaled before a network sees them. Each is applied
at the image's own size, and blur is relative to its height: a strength means the same at any size.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.data.images import open_image

Array = NDArray[np.uint8]


def blur(image: Array, sigma: float, _: np.random.Generator) -> Array:
    """Gaussian blur; its standard deviation is `sigma` times the image height."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma * image.shape[0]), np.uint8)


def noise(image: Array, sigma: float, draw: np.random.Generator) -> Array:
    """Gaussian noise per pixel and channel; its standard deviation is `sigma` times the value range."""
    return _bytes(image + 255 * sigma * draw.standard_normal(image.shape, np.float32))


def jpeg(image: Array, quality: float, _: np.random.Generator) -> Array:
    """JPEG compression at `quality` (1 to 100)."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=int(quality))
    with open_image(content) as picture:
        return np.asarray(picture.convert("RGB"), np.uint8)


def brightness(image: Array, added: float, _: np.random.Generator) -> Array:
    """Brightness raised by `added` times the value range, clipped at white."""
    return _bytes(image + np.float32(255 * added))


def contrast(image: Array, factor: float, _: np.random.Generator) -> Array:
    """Distance of every value from the image's mean, scaled by `factor`."""
    mean = image.mean(dtype=np.float32)
    return _bytes(mean + np.float32(factor) * (image - mean))


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


def corrupt(image: Array, condition: str, name: str) -> Array:
    """Apply one of CONDITIONS ("clean", "blur 1" ...) to an RGB image (H, W, 3); randomness depends on `name` alone."""
    if condition == CLEAN:
        return image
    kind, _, strength = condition.partition(" ")
    change, strengths = CORRUPTIONS[kind]
    generator = np.random.default_rng((zlib.crc32(name.encode()), int(strength)))
    return change(image, strengths[int(strength) - 1], generator)


def _bytes(values: NDArray[np.float32]) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
