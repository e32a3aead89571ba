"""Curves of one run or of one evaluation, as PNG files: loss and Dice by epoch, Dice by threshold, calibration."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # Okabe & Ito (2008): distinct to colour-blind readers


def curves_png(epochs: Sequence[Mapping[str, float]], title: str) -> bytes:
    """Draw loss and Dice over the epochs, side by side, as a PNG; `epochs` are the lines of metrics.jsonl."""
    figure = _figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    number = [row["epoch"] for row in epochs]
    for axis, names, label in ((left, ("train/loss", "val/loss"), "loss"), (right, ("val/dice", "val/iou"), "score")):
        for name, colour, line in zip(names, (BLUE, ORANGE), ("-", "--"), strict=True):
            axis.plot(number, [row[name] for row in epochs], line, color=colour, label=name, marker="o", markersize=3)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def save_sweep(path: Path, rows: Sequence[tuple[float, float, float]]) -> None:
    """Draw Dice and IoU over the threshold; a row is (threshold, Dice, IoU)."""
    figure, axis = _square()
    thresholds, dice, iou = zip(*rows, strict=True)
    for values, name, colour, line in ((dice, "Dice", BLUE, "-"), (iou, "IoU", ORANGE, "--")):
        axis.plot(thresholds, values, line, color=colour, label=name, marker="o", markersize=3)
    axis.axvline(0.5, color=GREY, linewidth=0.8)
    axis.set(xlabel="threshold", ylabel="score", xlim=(0, 1))
    axis.legend()
    figure.savefig(path, dpi=130)


def save_reliability(path: Path, rows: Sequence[tuple[float, ...]], error: float) -> None:
    """Draw the reliability curve; a row is (low, high, pixels, confidence, frequency), NaN where a bin is empty."""
    figure, axis = _square()
    filled = [row for row in rows if row[2]]
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, label="calibrated")
    confidence, frequency = [row[3] for row in filled], [row[4] for row in filled]
    axis.plot(confidence, frequency, color=BLUE, marker="o", markersize=4, label="the model")
    axis.set(
        xlabel="mean predicted probability", ylabel="share of pixels that are foreground", xlim=(0, 1), ylim=(0, 1)
    )
    axis.set_title(f"expected calibration error {error:.4f}", fontsize=10)
    axis.legend()
    figure.savefig(path, dpi=130)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _square() -> tuple[Figure, Axes]:
    figure = _figure(4.6, 4)
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    return figure, axis
