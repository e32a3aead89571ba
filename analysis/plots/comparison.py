"""Figures of all cells: the matrix of their scores, what these cost, and the difference of every pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.plots.style import (
    BAND,
    COLOURS,
    LINE,
    SMALL,
    TEXT,
    VERDICT_COLOURS,
    WIDTH,
    legend_below,
    logarithmic,
    place_axes,
    sheet,
    shorten,
    side_labels,
    styled,
    text_width,
    wrap,
    write,
)
from analysis.text.wording import JOIN, cell_name, factor_name, level_name, phrases
from analysis.verdicts.answer import Answer, CellResult
from analysis.verdicts.judge import Pair

FACETS = 6  # matrices of a heatmap; a study with more has its tables
SHADES = LinearSegmentedColormap.from_list("blues", ["#dce9f5", "#7fb3dc", "#2a6fa8"])
SPAN = 0.01  # of Dice, over which the shades of a heatmap change at least: smaller differences look small
BOX = (0.7, 1.35, 0.32)  # inches: least and largest width of a heatmap's box, and its height
MARKERS = "osD^vP*X<>ph"
MOST_PAIRS = 40  # rows of differences


@styled
def heatmap(answer: Answer, language: str = "en") -> Figure | None:
    """Draw each cell's mean Dice: the first factor's levels down, the second's across, a matrix per level of others.

    Nothing is averaged; None with one factor, or with more than `FACETS` matrices.
    """
    factors = list(answer.study.varied)
    facets = list(product(*(answer.study.varied[factor] for factor in factors[2:])))
    if len(factors) < 2 or not answer.measured or len(facets) > FACETS:
        return None
    words, study = phrases("pictures", language), answer.study
    down, across = (study.varied[factor] for factor in factors[:2])
    rows = [wrap(level_name(study, level, language), 2.2 * 72) for level in down]
    labels = max(text_width(line) for row in rows for line in row) / 72 + 0.2
    box = min((WIDTH - labels - 0.1) / len(across), BOX[1])
    if box < BOX[0]:
        return None
    columns = [wrap(level_name(study, level, language), box * 72 - 6) for level in across]
    height = max(BOX[2], max(map(len, rows)) * LINE + 0.1)
    head = (max(map(len, columns)) + bool(facets[0])) * LINE + 0.06
    names = [factor_name(study, factor, language) for factor in factors]
    title, notes = (
        words.heat_title() + ("：" if language == "zh" else ": ") + " × ".join(names),
        _notes(answer, language),
    )
    whole = 0.1 + LINE + (head + height * len(down) + 0.15) * len(facets) + len(notes) * LINE
    figure, top = Figure(figsize=(max(labels + box * len(across) + 0.1, 5.0), whole)), 0.1 + LINE
    write(figure, 0.05, 0.05, [title], size=9)
    low, high = _shade_ends(answer)
    for facet in facets:
        here = [level_name(study, level, language) for level in facet]
        write(figure, labels, top, [JOIN.join(here)] if here else [], fontweight="bold")
        for number, lines in enumerate(columns):
            write(figure, labels + (number + 0.5) * box, top + head - len(lines) * LINE - 0.04, lines, ha="center")
        axis = place_axes(figure, labels, top + head, box * len(across), height * len(down))
        at = {tuple(c.levels[f] for f in (*factors[:2], *factors[2:])): c for c in answer.cells}
        _boxes(axis, [[at.get((d, a, *facet)) for a in across] for d in down], low, high, box > 1.05)
        side_labels(axis, [(number + 0.5, lines) for number, lines in enumerate(rows)])
        top += head + height * len(down) + 0.15
    write(figure, labels, top - 0.08, notes)
    return figure


@styled
def cost(answer: Answer, language: str = "en") -> Figure | None:
    """Draw Dice against the time of a training run, and against multiplications where networks differ in them."""
    cells = [cell for cell in answer.measured if cell.cost["training_seconds"] > 0]
    if not cells:
        return None
    words = phrases("pictures", language)
    values = {words.training_time(): [cell.cost["training_seconds"] / 60 for cell in cells]}
    gmacs = [cell.cost["gmacs"] for cell in cells]
    if min(gmacs) > 0 and max(gmacs) > 1.02 * min(gmacs):
        values[words.gmacs()] = gmacs
    names = [cell_name(answer.study, cell.levels, language) for cell in cells]
    figure, axes, legend = legend_below(names, 3.0, 1, len(values), sharey=True)
    handles = []
    for axis, (label, across) in zip(axes, values.items(), strict=True):
        handles = _points(answer, axis, cells, across)
        if max(across) > 3 * min(across):  # within less, a linear axis has more ticks and says as much
            logarithmic(axis, 1, 2, 5)
        axis.set_xlabel(label)
    axes[0].set_ylabel(words.cost_dice(bars=any(cell.sd == cell.sd for cell in cells)))
    legend(handles)
    return figure


def differences(pairs: Sequence[Pair], rope: float) -> Figure:
    """Draw a - b and its interval for each pair, in the order given; unbounded intervals run off both sides."""
    shown = pairs[:MOST_PAIRS]
    figure, (axis,) = sheet(8, 0.9 + 0.27 * len(shown))
    reach = max((abs(end) for p in shown for end in _ends(p) if math.isfinite(end)), default=1.0) * 1.1
    axis.axvspan(-rope, rope, color=BAND)
    axis.axvline(0, color=TEXT, linewidth=0.8)
    for row, pair in enumerate(shown):
        low, high = (min(max(end, -reach), reach) for end in _ends(pair))
        colour = VERDICT_COLOURS[pair.comparison.verdict]
        axis.plot([low, high], [row, row], color=colour, linewidth=2)
        axis.plot(pair.comparison.difference, row, "o", color=colour, markersize=5)
    axis.set_yticks(range(len(shown)), [shorten(f"{pair.a} − {pair.b}", 56) for pair in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlim(-reach, reach)
    more = f"; the first {MOST_PAIRS} of {len(pairs)} pairs" if len(pairs) > MOST_PAIRS else ""
    axis.set_xlabel(f"difference and its interval; band: too small to matter{more}")
    return figure


def _ends(pair: Pair) -> tuple[float, float]:
    return pair.comparison.low, pair.comparison.high


def _points(answer: Answer, axis: Axes, cells: Sequence[CellResult], across: Sequence[float]) -> list[Any]:
    """Draw the cells: the first factor's level is the colour, the others' the marker."""
    first = next(iter(answer.study.varied or answer.study.factors), "")
    ones = list(dict.fromkeys(cell.levels.get(first, "") for cell in cells))
    rest = [tuple(level for factor, level in cell.levels.items() if factor != first) for cell in cells]
    others, handles = list(dict.fromkeys(rest)), []
    for cell, x, other in zip(cells, across, rest, strict=True):
        colour = COLOURS[ones.index(cell.levels.get(first, "")) % len(COLOURS)]
        marker = MARKERS[others.index(other) % len(MARKERS)]
        if cell.sd == cell.sd:
            axis.plot([x, x], [cell.dice - cell.sd, cell.dice + cell.sd], color=colour, linewidth=1, alpha=0.6)
        full = colour if cell.eligibility.judged else "none"
        handles += axis.plot(
            x, cell.dice, marker, color=colour, markerfacecolor=full, markersize=6, alpha=0.85, linestyle=""
        )
    return handles


def _boxes(axis: Axes, cells: Sequence[Sequence[CellResult | None]], low: float, high: float, spread: bool) -> None:
    axis.set(xlim=(0, len(cells[0])), ylim=(len(cells), 0), xticks=[])
    axis.spines[:].set_visible(False)
    axis.grid(False)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            known = cell is not None and cell.dice == cell.dice
            fill = SHADES((cell.dice - low) / (high - low)) if cell is not None and known else (0.0, 0.0, 0.0, 0.0)
            place = (x + 0.02, y + 0.04)
            axis.add_patch(
                Rectangle(place, 0.96, 0.92, facecolor=fill, edgecolor="none" if known else TEXT, linewidth=0.5)
            )
            shade = TEXT if not known else "white" if fill[0] < 0.35 else "black"
            text = _score(cell, spread) if cell is not None and known else "–"
            axis.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=shade, fontsize=SMALL)


def _score(cell: CellResult, spread: bool) -> str:
    marks = ("†" if cell.eligibility.still_improving else "") + ("‡" if cell.eligibility.stalled else "")
    text = f"{100 * cell.dice:.2f}" + (f" ± {100 * cell.sd:.2f}" if spread and cell.sd == cell.sd else "")
    return (text if cell.eligibility.judged else f"({text})") + (f" {marks}" if marks else "")


def _shade_ends(answer: Answer) -> tuple[float, float]:
    every = np.array([cell.dice for cell in answer.measured])
    high = float(every.max())
    return min(high - SPAN, float(every.min())), high


def _notes(answer: Answer, language: str) -> list[str]:
    """The marks that occur, and what they mean."""
    text = phrases("pictures", language).marks(
        improving=any(cell.eligibility.still_improving for cell in answer.measured),
        stalled=any(cell.eligibility.stalled for cell in answer.measured),
        unjudged=any(not cell.eligibility.judged for cell in answer.measured),
    )
    return wrap(text, (WIDTH - 2.6) * 72) if text else []
