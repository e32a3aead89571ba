"""Pictures from numbers and arrays: curves, and panels of photo | ground truth | prediction | error."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Okabe & Ito (2008): told apart by colour-blind readers; orange: missed, blue: false, in RGB
MISSED, FALSE = (230, 159, 0), (0, 114, 178)
HEADINGS = ("photo", "ground truth", "prediction", "error: orange missed, blue false")

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def curves_png(epochs: Sequence[Mapping[str, float]], title: str) -> bytes:
    """Loss and Dice over the epochs, side by side, as a PNG; `epochs` are the lines of metrics.jsonl."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    number = [row["epoch"] for row in epochs]
    for axis, names, label in ((left, ("train/loss", "val/loss"), "loss"), (right, ("val/dice", "val/iou"), "score")):
        for name, colour, line in zip(names, ("#0072B2", "#D55E00"), ("-", "--"), strict=True):
            axis.plot(number, [row[name] for row in epochs], line, color=colour, label=name, marker="o", markersize=3)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def panel(rows: Sequence[tuple[Image, Mask, Mask, str]], width: int = 240) -> Image:
    """Rows of photo | ground truth | prediction | error under a line of headings, each picture `width` pixels wide.

    A row is (photo (h, w, 3), truth (H, W), prediction (H, W), caption); sizes may differ.
    """
    heading = np.hstack([_heading(text, width) for text in HEADINGS])
    return np.vstack([heading, *(_row(*row, width) for row in rows)])


def panel_png(rows: Sequence[tuple[Image, Mask, Mask, str]]) -> bytes:
    """`panel(rows)` as a PNG."""
    whole, encoded = cv2.imencode(".png", cv2.cvtColor(panel(rows), cv2.COLOR_RGB2BGR))
    assert whole
    return encoded.tobytes()


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
    strip = np.full((20, width, 3), 245, np.uint8)
    cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (20, 20, 20), 1, cv2.LINE_AA)
    return strip


def write_text(picture: Image, text: str, place: tuple[int, int]) -> None:
    """Text that is legible on light and dark: white with a dark rim."""
    (x, y), black, white = place, (0, 0, 0), (255, 255, 255)
    around = [(x + i, y + j, black) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for left, base, colour in [*around, (x, y, white)]:
        cv2.putText(picture, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)


def save_sweep(path: Path, rows: Sequence[tuple[float, float, float]]) -> None:
    """Dice and IoU over the threshold; a row is (threshold, Dice, IoU)."""
    figure, axis = _sheet()
    thresholds, dice, iou = zip(*rows, strict=True)
    for values, name, colour, line in ((dice, "Dice", "#0072B2", "-"), (iou, "IoU", "#D55E00", "--")):
        axis.plot(thresholds, values, line, color=colour, label=name, marker="o", markersize=3)
    axis.axvline(0.5, color="#999999", linewidth=0.8)
    axis.set(xlabel="threshold", ylabel="score", xlim=(0, 1))
    axis.legend()
    figure.savefig(path, dpi=130)


def save_reliability(path: Path, rows: Sequence[tuple[float, ...]], error: float) -> None:
    """The reliability curve; a row is (low, high, pixels, confidence, frequency), NaN where a bin is empty."""
    figure, axis = _sheet()
    filled = [row for row in rows if row[2]]
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, label="calibrated")
    axis.plot(
        [row[3] for row in filled], [row[4] for row in filled], color="#0072B2", marker="o", markersize=4, label="the model"
    )
    axis.set(xlabel="mean predicted probability", ylabel="share of pixels that are foreground", xlim=(0, 1), ylim=(0, 1))
    axis.set_title(f"expected calibration error {error:.4f}", fontsize=10)
    axis.legend()
    figure.savefig(path, dpi=130)


def _sheet() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    return figure, axis
