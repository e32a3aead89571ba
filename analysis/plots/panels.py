"""Image panels: photo | ground truth | prediction | error, and several models next to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Okabe & Ito (2008), distinct to colour-blind readers; orange: missed, blue: false, in RGB
MISSED, FALSE = (230, 159, 0), (0, 114, 178)

WIDTH = 240  # of one picture, in pixels
WINDOW = 0.22  # of the image's sides
FRAME = (213, 94, 0)
PAPER, INK = 56, (235, 235, 235)  # of headings: legible on a light and on a dark page
HEADINGS = ("photo", "ground truth", "prediction", "error: orange missed, blue false")

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def panel(rows: Sequence[tuple[Image, Mask, Mask, str]], width: int = WIDTH) -> Image:
    """Draw rows of photo | ground truth | prediction | error under their headings, each picture `width` wide.

    A row is (photo (h, w, 3), truth (H, W), prediction (H, W), caption); sizes may differ.
    """
    heading = np.hstack([_heading(text, width) for text in HEADINGS])
    return np.vstack([heading, *(_row(*row, width) for row in rows)])


def panel_png(rows: Sequence[tuple[Image, Mask, Mask, str]]) -> bytes:
    """Encode `panel(rows)` as a PNG."""
    return png(panel(rows))


def _row(photo: Image, truth: Mask, prediction: Mask, caption: str, width: int) -> Image:
    height = round(width * truth.shape[0] / truth.shape[1])
    size = (width, height)
    photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
    truth, prediction = (_shrunk(mask, size) for mask in (truth, prediction))
    error = photo // 3
    error[truth & ~prediction] = MISSED
    error[prediction & ~truth] = FALSE
    grey = [np.repeat((mask * np.uint8(255))[..., None], 3, axis=2) for mask in (truth, prediction)]
    pictures = [photo.copy(), *grey, error]
    write_text(pictures[0], caption, (4, height - 6))
    return np.hstack([np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=128)[:, :-2] for picture in pictures])


def _shrunk(mask: Mask, size: tuple[int, int]) -> Mask:
    return cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127


def _heading(text: str, width: int) -> Image:
    strip = np.full((20, width, 3), PAPER, np.uint8)
    cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.36, INK, 1, cv2.LINE_AA)
    return strip


def write_text(picture: Image, text: str, place: tuple[int, int]) -> None:
    """Write text that is legible on light and dark: white with a dark outline."""
    (x, y), black, white = place, (0, 0, 0), (255, 255, 255)
    around = [(x + i, y + j, black) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for left, base, colour in [*around, (x, y, white)]:
        cv2.putText(picture, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)


@dataclass(frozen=True)
class Shown:
    """An image with its ground truth and each model's prediction, all (H, W) of one size."""

    photo: Image  # (H, W, 3)
    truth: Mask
    predictions: Sequence[Mask]
    name: str


def strip(photographs: Sequence[Shown], models: Sequence[str], credit: str) -> Image:
    """Draw the figure (h, w, 3): a heading, two rows for each image, a line that credits the images."""
    headings = ["photo", "ground truth", *(" ".join(model.split())[:34] for model in models)]
    rows = [_texts(headings), *(row for shown in photographs for row in _rows(shown))]
    line = f"orange: missed, blue: false; below each photograph the framed part.   {credit}"
    return np.vstack([*rows, _line(line, rows[0].shape[1])])


def png(image: Image) -> bytes:
    """Encode an RGB image (h, w, 3) as a PNG."""
    encodes, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert encodes
    return encoded.tobytes()


def window(shown: Shown) -> tuple[slice, slice]:
    """The rows and columns of the window in which the models' errors at the boundary, all together, are most."""
    height, width = shown.truth.shape
    size = (max(1, round(width * WINDOW)), max(1, round(height * WINDOW)))
    wrong = sum((prediction != shown.truth).astype(np.float32) for prediction in shown.predictions)
    at_boundary = wrong * _band(shown.truth)
    counted = np.asarray(at_boundary if np.any(at_boundary) else wrong, np.float32)
    crowd = cv2.boxFilter(counted, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(crowd.argmax()), crowd.shape)
    top, left = (
        int(np.clip(at - side // 2, 0, most - side)) for at, side, most in ((y, size[1], height), (x, size[0], width))
    )
    return slice(top, top + size[1]), slice(left, left + size[0])


def _band(truth: Mask) -> Mask:
    """The pixels within 2 % of the diagonal of the truth's boundary, as boundary IoU has it, on both sides."""
    reach = max(1, round(0.02 * float(np.hypot(*truth.shape))))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    grey = truth.astype(np.uint8)
    return cv2.dilate(grey, kernel) != cv2.erode(grey, kernel, borderType=cv2.BORDER_REPLICATE)


def _rows(shown: Shown) -> tuple[Image, Image]:
    """Both rows of one photograph."""
    part = window(shown)
    whole = [
        _tile(shown.photo, shown.name, part),
        _tile(_grey(shown.truth)),
        *(_tile(_errors(shown, p)) for p in shown.predictions),
    ]
    close = [
        _tile(shown.photo[part]),
        _tile(_grey(shown.truth[part])),
        *(_tile(_errors(shown, p)[part]) for p in shown.predictions),
    ]
    return np.hstack(whole), np.hstack(close)


def _errors(shown: Shown, prediction: Mask) -> Image:
    """The prediction in grey with its errors in colour."""
    image = _grey(prediction)
    image[shown.truth & ~prediction] = MISSED
    image[prediction & ~shown.truth] = FALSE
    return image


def _grey(mask: Mask) -> Image:
    return np.repeat(np.where(mask, 200, 40).astype(np.uint8)[..., None], 3, axis=2)


def _tile(image: Image, caption: str = "", frame: tuple[slice, slice] | None = None) -> Image:
    height = round(WIDTH * image.shape[0] / image.shape[1])
    shrinks = image.shape[1] > WIDTH
    tile = np.asarray(
        cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST), np.uint8
    )
    if frame is not None:
        scale = WIDTH / image.shape[1]
        (top, bottom), (left, right) = ((round(s.start * scale), round(s.stop * scale)) for s in frame)
        cv2.rectangle(tile, (left, top), (right - 1, bottom - 1), FRAME, 2)
    if caption:
        write_text(tile, caption, (4, height - 6))
    return np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=128)


def _texts(headings: Sequence[str]) -> Image:
    return np.hstack([_line(text, WIDTH + 2) for text in headings])


def _line(text: str, width: int) -> NDArray[np.uint8]:
    line = np.full((22, width, 3), PAPER, np.uint8)
    cv2.putText(line, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
    return line
