"""Pictures of a predicted mask: overlay, cut-out, and their files."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from registry import InputError

TINT = (0, 114, 178)  # blue of Okabe & Ito, RGB: no background of Carvana's studio has it
OUTLINE = (230, 159, 0)
JPEG_SIDE = 65_500  # pixels; libjpeg takes no more


def overlay(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with the object tinted blue inside an orange outline."""
    tinted = (0.6 * np.arange(256)[:, None] + 0.4 * np.array(TINT)).astype(np.uint8)  # (256, 3), by channel
    picture = np.asarray(cv2.LUT(image, tinted[None]))
    np.copyto(picture, image, where=~mask[..., None])
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(mask.shape) / 500))
    return np.asarray(cv2.drawContours(picture, outlines, -1, OUTLINE, width), np.uint8)


def grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The mask (H, W) as 0 and 255."""
    return mask.astype(np.uint8) * 255


def cutout(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The object on a transparent background: RGBA (H, W, 4)."""
    return np.dstack([image, grey(mask)])


def encode(suffix: str, picture: NDArray[np.uint8], image: Path, profile: bytes | None = None) -> bytes:
    """The file of a picture, (H, W), RGB (H, W, 3) or RGBA (H, W, 4), in the format of a suffix such as ".png".

    `profile` is the ICC profile of its colours, which the file then carries. Raises InputError, which names the `image`
    that it was made of, for a picture that is too large for the format.
    """
    if suffix == ".jpg" and max(picture.shape[:2]) > JPEG_SIDE:
        raise InputError(
            f"The overlay of {image} would be larger than a JPEG can be, {JPEG_SIDE:,} pixels per side: reduce the "
            "image, or predict it without --overlay."
        )
    if profile is not None:
        content = io.BytesIO()
        kind = "PNG" if suffix == ".png" else "JPEG"
        Image.fromarray(picture).save(content, kind, icc_profile=profile, quality=95)
        return content.getvalue()
    orders = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    picture = picture if picture.ndim == 2 else np.asarray(cv2.cvtColor(picture, orders[picture.shape[2]]), np.uint8)
    done, encoded = cv2.imencode(suffix, picture)
    assert done
    return encoded.tobytes()
