"""Learning curves of a study, a small panel for each cell: Dice by learning rate (tuning) and by epoch (training)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.plots.style import BAND, BLUE, LINE, ORANGE, TEXT, logarithmic, place_axes, styled, wrap, write
from analysis.statistics.estimator import Array
from analysis.statistics.learning_rate_response import fit_response
from analysis.statistics.pooled_learning_rates import PooledRates
from analysis.text.wording import cell_name, phrases
from analysis.verdicts.answer import Answer, CellResult
from analysis.verdicts.learning_rates import pooled_fits

EDGES = 0.78, 0.3  # inches, left of the panels and below them
PANEL = 1.3  # inches, the height of a panel
MOST = 48  # panels in a picture; with more cells, those of the highest Dice
TOLERANCE = 0.0005  # of Dice: rates whose fitted score is that near the top are as good as the chosen one


@styled
def responses(answer: Answer, language: str = "en") -> Figure | None:
    """Draw each cell's tuning trials, the curve through them, the chosen rate and its tolerance."""
    trials, words = answer.study.trials, phrases("pictures", language)
    cells = [cell for cell in _shown(answer) if (trials.cell == cell.name).any()]
    if not cells:
        return None
    good = trials[(trials.state == "finished") & trials.value.notna()]
    floor = _floor(good)
    plans = {plan["cell"]: (plan.get("rate_low"), plan.get("rate_high")) for plan in answer.study.cells}
    banded = any(low and high for low, high in (plans[cell.name] for cell in cells))

    pooled = pooled_fits(answer.study)

    def draw(axis: Axes, cell: CellResult) -> None:
        of_cell = trials[trials.cell == cell.name]
        _response(axis, cell, of_cell, floor, plans[cell.name], pooled.get(cell.name))

    key = words.response_key(band=banded, failed=len(good) < len(trials), tolerance=f"{TOLERANCE:g}")
    return _panels(answer, cells, draw, words.rate(), words.validation_dice(), key, language)


@styled
def validation(answer: Answer, language: str = "en") -> Figure | None:
    """Draw each cell's validation Dice over the epochs, a line for each seed; stalled runs are marked."""
    curves, words = answer.study.curves, phrases("pictures", language)
    cells = [cell for cell in _shown(answer) if (curves.cell == cell.name).any()]
    if not cells:
        return None
    late = curves[curves.epoch >= 0.4 * curves.epoch.max()]
    last = curves[curves.epoch == curves.epoch.max()]
    top = float(curves.val_dice.max())
    middle = float(late.groupby("cell").val_dice.median().min())
    bottom = max(min(middle, float(last.val_dice.min())), middle - 2 * max(top - middle, 0.005))
    reach = max(top - bottom, 0.002)

    def draw(axis: Axes, cell: CellResult) -> None:
        runs = curves[curves.cell == cell.name]
        end = float(runs.epoch.max())
        axis.axvspan(0.8 * end, end, color=TEXT, alpha=0.15, linewidth=0)
        for seed, run in runs.groupby("seed"):
            stalled = seed in cell.eligibility.stalled
            x, y = run.epoch.astype(float).to_numpy(), run.val_dice.astype(float).to_numpy()
            axis.plot(
                x,
                y,
                color=ORANGE if stalled else BLUE,
                linewidth=1.6 if stalled else 1,
                marker="." if len(x) < 2 else "",
            )
            if stalled and y[-1] >= bottom:
                _mark(axis, "‡", (x[-1], y[-1]), (3, 0), "left")
            elif stalled:  # far below the others: its line has left the panel
                _mark(axis, f"‡ {y[-1]:.3f}", (x[-1], bottom), (-3, 0), "right")
        axis.set_ylim(bottom - 0.08 * reach, top + 0.08 * reach)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))

    stalled = any(cell.eligibility.stalled for cell in cells)
    key = words.curves_key(stalled=stalled, half_size=answer.study.half_size_share)
    return _panels(answer, cells, draw, words.epoch(), words.validation_dice(), key, language)


def _mark(axis: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], ha: str) -> None:
    """Mark a stalled run."""
    options: Any = {"textcoords": "offset points", "color": ORANGE, "va": "center", "fontsize": 9}
    axis.annotate(text, place, xytext=offset, ha=ha, **options)


def _shown(answer: Answer) -> list[CellResult]:
    """The cells in the order of the plan; of too many, those of the highest Dice."""
    best = {cell.name for cell in answer.ranked[:MOST]}
    return [cell for cell in answer.cells if cell.name in best]


def _panels(
    answer: Answer,
    cells: Sequence[CellResult],
    draw: Callable[[Axes, CellResult], None],
    across: str,
    up: str,
    key: str,
    language: str,
) -> Figure:
    """A small panel for each cell, all with the same axes, and a key below."""
    per_row = min(4, len(cells))
    rows = -(-len(cells) // per_row)
    width = max(2.05 * per_row + EDGES[0] + 0.1, 4.4)
    step = (width - EDGES[0] - 0.1) / per_row
    titles = [wrap(cell_name(answer.study, cell.levels, language), (step - 0.2) * 72) for cell in cells]
    notes = [across, *wrap(key, (width - EDGES[0] - 0.1) * 72)]
    if len(cells) < len(answer.cells) and len(answer.cells) > MOST:
        notes.append(phrases("pictures", language).first_of(shown=len(cells), total=len(answer.cells)))
    heads = [max(len(title) for title in titles[row * per_row :][:per_row]) * LINE + 0.15 for row in range(rows)]
    height = sum(heads) + rows * PANEL + EDGES[1] + len(notes) * LINE
    figure, axes, top = Figure(figsize=(width, height)), list[Axes](), 0.0
    for number, (cell, title) in enumerate(zip(cells, titles, strict=True)):
        row, column = divmod(number, per_row)
        top = sum(heads[: row + 1]) + row * PANEL
        shared = {"sharex": axes[0], "sharey": axes[0]} if axes else {}
        axes.append(place_axes(figure, EDGES[0] + column * step, top, step - 0.15, PANEL - 0.1, **shared))
        draw(axes[-1], cell)
        lowest = number + per_row >= len(cells)
        axes[-1].tick_params(labelleft=column == 0, labelbottom=lowest)
        write(figure, EDGES[0] + column * step, top - len(title) * LINE - 0.04, title)
    middle = 1 - (top + PANEL) / 2 / height
    figure.text(0.12 / width, middle, up, rotation=90, rotation_mode="anchor", ha="center", va="center", fontsize=9)
    write(figure, EDGES[0], height - len(notes) * LINE - 0.05, notes)
    return figure


def _response(
    axis: Axes,
    cell: CellResult,
    trials: pd.DataFrame,
    floor: float,
    interval: tuple[float | None, float | None],
    pooled: PooledRates | None,
) -> None:
    """One cell's trials, curve (of its network's trials together, if given) and rate; low trials stand on `floor`."""
    good = trials[(trials.state == "finished") & trials.value.notna()]
    bad = trials[(trials.state != "finished") | trials.value.isna()]
    inside = good[good.value >= floor]
    below = good[good.value < floor]
    logarithmic(axis, 1, 3)
    axis.plot(inside.rate, inside.value, "o", color=TEXT, markersize=3)
    axis.plot(below.rate, np.full(len(below), floor), "v", color=TEXT, markersize=4, fillstyle="none")
    axis.plot(bad.rate, np.full(len(bad), floor), "x", color=ORANGE, markersize=5)
    low, high = interval
    if low and high:
        axis.axvspan(low, high, color=BAND, linewidth=0)
    rates, curve = _curve(cell.name, trials, pooled)
    if len(curve):
        near = curve >= curve.max() - TOLERANCE
        axis.plot(rates, curve, color=BLUE, linewidth=1)
        axis.plot(rates, np.where(near, curve, np.nan), color=BLUE, linewidth=2.8)
    if cell.rate == cell.rate:
        axis.axvline(cell.rate, color=BLUE, linestyle=":", linewidth=1.2)


def _curve(cell: str, trials: pd.DataFrame, pooled: PooledRates | None) -> tuple[Array, Array]:
    """Rates and fitted scores; empty with too few trials for a curve."""
    if pooled is not None:
        ends = [*trials.rate.astype(float), pooled.rates[cell]]
        rates = np.geomspace(min(ends), max(ends), 101)
        return rates, np.asarray(pooled.response(cell, rates))
    try:
        fit = fit_response(trials.rate.astype(float), trials.value.where(trials.state == "finished").astype(float))
    except ValueError:
        return np.empty(0), np.empty(0)
    return fit.rates, fit.curve


def _floor(good: pd.DataFrame) -> float:
    """The lowest score that is drawn at its place: far below the tops, one bad rate would flatten every curve."""
    if not len(good):
        return 0.0
    tops = good.groupby("cell").value.max()
    reach = max(float(tops.max() - tops.min()), 0.01)
    return max(float(good.value.min()), float(tops.min()) - 1.5 * reach)
