"""Figures of the runs behind a comparison: tuning, training, viewing angles, the worst cars; and curves of one run.

Each function takes an Answer and returns a Figure, or None where there is nothing to show. Curves of a single run or
evaluation are PNG files.
"""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.style import BLUE, COLOURS, LINES, ORANGE, TEXT, logarithmic, sheet, shorten
from analysis.statistics.learning_rate_response import fit_response
from analysis.statistics.pooled_learning_rates import PooledRates, fit_pooled_rates
from analysis.verdicts.answer import Answer, Row

MOST = 16  # panels in a picture; with more cells, those of the highest Dice

WORST = 10

VIEW = r"_(\d{1,2})\.[^.]+$"


def responses(answer: Answer) -> Figure | None:
    """Plot each cell's trials, the curve through them and the chosen rate; crosses diverged or failed."""
    trials = answer.study.trials
    rows = [row for row in answer.rows if (trials.cell == row.cell).any()]
    pooled = _pooled_fits(answer)
    return _panels(
        rows,
        lambda axis, row: _response(axis, row, trials[trials.cell == row.cell], pooled.get(row.cell)),
        "learning rate",
        "validation Dice",
    )


def _pooled_fits(answer: Answer) -> dict[str, PooledRates]:
    """By cell, the fit of its network's trials; none in studies that fit each cell by itself."""
    study = answer.study
    if (study.plan.get("tuning") or {}).get("fit") != "pooled":
        return {}
    networks: dict[str, list[str]] = {}
    for cell in study.cells:
        settings = cell.get("settings", {})
        network = json.dumps([settings.get("model"), settings.get("model_kwargs")], sort_keys=True)
        networks.setdefault(network, []).append(cell["cell"])
    fits: dict[str, PooledRates] = {}
    for cells in networks.values():
        parts = {cell: study.trials[study.trials.cell == cell] for cell in cells}
        trials = {cell: (part.rate.astype(float), _values(part)) for cell, part in parts.items()}
        trials = {cell: part for cell, part in trials.items() if part[1].notna().sum() > 1}
        with contextlib.suppress(ValueError):  # too few trials for a curve: the points are shown all the same
            fits |= dict.fromkeys(trials, fit_pooled_rates(trials))
    return fits


def _values(trials: pd.DataFrame) -> pd.Series:
    """The trials' scores, NaN where one did not finish."""
    return trials.value.where(trials.state == "finished").astype(float)


def losses(answer: Answer) -> Figure | None:
    """Each cell's training and validation loss over the epochs, a line for each seed."""
    curves = answer.study.curves
    rows = [row for row in answer.rows if (curves.cell == row.cell).any()]

    def draw(axis: Axes, row: Row) -> None:
        for _, run in curves[curves.cell == row.cell].groupby("seed"):
            axis.plot(run.epoch.astype(float), run.train_loss, color=BLUE, linewidth=1)
            axis.plot(run.epoch.astype(float), run.val_loss, color=ORANGE, linewidth=1, linestyle="--")

    return _panels(rows, draw, "epoch (solid blue: training, dashed orange: validation)", "loss", shared=False)


def validation(answer: Answer) -> Figure | None:
    """Plot each cell's validation Dice per seed; the last fifth, which must be flat, is shaded."""
    curves = answer.study.curves
    rows = [row for row in answer.rows if (curves.cell == row.cell).any()]
    low = curves.groupby("cell").val_dice.median().min() if len(curves) else 0

    def draw(axis: Axes, row: Row) -> None:
        runs = curves[curves.cell == row.cell]
        for _, run in runs.groupby("seed"):
            axis.plot(run.epoch.astype(float), run.val_dice, color=BLUE, linewidth=1)
        last = float(runs.epoch.max())
        axis.axvspan(0.8 * last, last, color=TEXT, alpha=0.15, linewidth=0)
        axis.set_ylim(bottom=low - 0.02)

    return _panels(rows, draw, "epoch", "validation Dice")


def angles(answer: Answer) -> Figure | None:
    """Dice by viewing angle (Carvana photographs each car from sixteen sides), averaged over cars and seeds."""
    scores = answer.study.scores
    view = _views(scores.image)
    if not len(view) or view.isna().any() or not 2 <= view.nunique() <= 36:
        return None
    means = scores.groupby([scores.cell, view.astype(int).rename("view")], observed=True).dice.mean().unstack("view")
    return _lines(answer, means, "viewing angle (number of the photograph)")


def worst_cars(answer: Answer) -> Figure | None:
    """The cars with the lowest mean Dice, and what each cell makes of them."""
    scores = answer.study.scores
    if not len(scores):
        return None
    means = scores.groupby(["cell", "group"], observed=True).dice.mean().unstack("group")
    order = means.mean().sort_values().index[:WORST]
    return _lines(answer, means[order], "the worst test cars", marks_only=True)


def _views(images: pd.Series) -> pd.Series:
    """The number of the view in each photograph's name, CAR_VIEW.jpg; NaN where the name has none."""
    names = pd.Series(images.cat.categories, index=images.cat.categories, dtype=str).str.extract(VIEW)[0]
    return images.astype(str).map(names)


def _lines(answer: Answer, means: pd.DataFrame, label: str, marks_only: bool = False) -> Figure:
    """A line (or marks) for each cell; the first ones in colour, the others grey."""
    figure, (axis,) = sheet(9, 3.6)
    rows = [row for row in answer.rows if row.cell in means.index]
    for number, row in reversed(list(enumerate(rows))):
        coloured = number < len(COLOURS)
        line = "none" if marks_only else LINES[number % len(LINES)]
        name = shorten(row.label, 32) if coloured else "others" if number == len(COLOURS) else None
        colour, alpha = (COLOURS[number], 1.0) if coloured else (TEXT, 0.4)
        style: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.2, "color": colour, "alpha": alpha}
        axis.plot(range(means.shape[1]), means.loc[row.cell], line, label=name, **style)
    axis.set_xticks(range(means.shape[1]), [shorten(name, 16) for name in means.columns])
    if marks_only:
        axis.tick_params("x", rotation=30)
    axis.set(xlabel=label, ylabel="mean Dice")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8)
    return figure


def _panels(
    rows: list[Row], draw: Callable[[Axes, Row], None], across: str, up: str, shared: bool = True
) -> Figure | None:
    """A small panel for each cell."""
    shown = rows[:MOST]
    if not shown:
        return None
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = sheet(max(2.4 * columns + 0.4, 5), 1.8 * lines + 0.7, lines, columns, sharex=True, sharey=shared)
    for axis, row in zip(axes, shown, strict=False):
        draw(axis, row)
        first, *others = textwrap.wrap(row.label, 30) or [row.label]
        axis.set_title("\n".join(shorten(line, 30) for line in (first, " ".join(others)) if line), fontsize=8)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel(across + (f"; the first {MOST} of {len(rows)} cells" if len(rows) > MOST else ""), fontsize=9)
    figure.supylabel(up, fontsize=9)
    return figure


def _response(axis: Axes, row: Row, trials: pd.DataFrame, pooled: PooledRates | None) -> None:
    """One cell's trials, curve and chosen rate."""
    good = trials[(trials.state == "finished") & trials.value.notna()]
    bad = trials[(trials.state != "finished") | trials.value.isna()]
    axis.plot(good.rate, good.value, "o", color=TEXT, markersize=3)
    floor = good.value.min() if len(good) else 0.0
    axis.plot(bad.rate, np.full(len(bad), floor), "x", color=ORANGE, markersize=5)
    logarithmic(axis, 1, 3)
    if pooled is not None:
        rates = np.geomspace(trials.rate.min(), trials.rate.max(), 101)
        axis.plot(rates, pooled.response(row.cell, rates), color=BLUE, linewidth=1.2)
    else:
        with contextlib.suppress(ValueError):  # too few trials for a curve: the points are shown all the same
            fit = fit_response(trials.rate.astype(float), _values(trials))
            axis.plot(fit.rates, fit.curve, color=BLUE, linewidth=1.2)
    if row.rate == row.rate:
        axis.axvline(row.rate, color=BLUE, linestyle=":", linewidth=1)


def curves_png(epochs: Sequence[Mapping[str, float]], title: str) -> bytes:
    """Draw loss and Dice over the epochs, side by side, as a PNG; `epochs` are the lines of metrics.jsonl."""
    figure = _figure(9, 3.4)
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


def save_sweep(path: Path, rows: Sequence[tuple[float, float, float]]) -> None:
    """Draw Dice and IoU over the threshold; a row is (threshold, Dice, IoU)."""
    figure, axis = _square()
    thresholds, dice, iou = zip(*rows, strict=True)
    for values, name, colour, line in ((dice, "Dice", "#0072B2", "-"), (iou, "IoU", "#D55E00", "--")):
        axis.plot(thresholds, values, line, color=colour, label=name, marker="o", markersize=3)
    axis.axvline(0.5, color="#999999", linewidth=0.8)
    axis.set(xlabel="threshold", ylabel="score", xlim=(0, 1))
    axis.legend()
    figure.savefig(path, dpi=130)


def save_reliability(path: Path, rows: Sequence[tuple[float, ...]], error: float) -> None:
    """Draw the reliability curve; a row is (low, high, pixels, confidence, frequency), NaN where a bin is empty."""
    figure, axis = _square()
    filled = [row for row in rows if row[2]]
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, label="calibrated")
    confidence, frequency = [row[3] for row in filled], [row[4] for row in filled]
    axis.plot(confidence, frequency, color="#0072B2", marker="o", markersize=4, label="the model")
    axis.set(
        xlabel="mean predicted probability", ylabel="share of pixels that are foreground", xlim=(0, 1), ylim=(0, 1)
    )
    axis.set_title(f"expected calibration error {error:.4f}", fontsize=10)
    axis.legend()
    figure.savefig(path, dpi=130)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _square() -> tuple[Any, Any]:
    figure = _figure(4.6, 4)
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    return figure, axis
