"""Dice against the strength of each corruption, and on images from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.style import COLOURS, LINES, TEXT, WIDTH, legend_below, styled, wrap
from analysis.text.robustness import CLEAN, STRENGTH, STRENGTHS, corruptions
from analysis.text.wording import cell_name, phrases
from analysis.verdicts.answer import Answer, CellResult

MOST, COLUMNS = 48, 3  # lines in a panel, panels next to each other
MARKERS = "os^Dv*PX"
LineStyle = dict[str, Any]


@styled
def robustness(answer: Answer, language: str = "en") -> Figure | None:
    """Draw a panel for each corruption and each place, all with the same range of Dice; the baseline's line is thick.

    None where no corruption was scored at all strengths.
    """
    dice = {name: _means(scores) for name, scores in answer.study.scores_by_condition.items()}
    kinds, cells = corruptions(dice), _cells(answer)
    if not kinds or not cells:
        return None
    words, conditions = phrases("pictures", language), phrases("tables", language).conditions
    places = sorted(name for name in dice if name != CLEAN and not STRENGTH.fullmatch(name))
    styles = _styles(answer, cells)
    panels = len(kinds) + len(places)
    rows = -(-panels // COLUMNS)
    columns = -(-panels // rows)
    names = [cell_name(answer.study, cell.levels, language) for cell in cells]
    names[0] = words.baseline_line(name=names[0]) if _is_baseline(answer, cells[0]) else names[0]
    figure, axes, legend = legend_below(names, 2.2 * rows, rows, columns, sharey=True)
    handles: list[Any] = []
    for axis, kind in zip(axes, kinds, strict=False):
        handles = _corruption(axis, kind, dice, cells, styles)
        axis.set_title(conditions.get(kind, kind), loc="left")
        axis.set_xlabel(words.strength())
    for axis, place in zip(axes[len(kinds) :], places, strict=False):
        _place(axis, dice[place], cells, styles)
        title = wrap(words.elsewhere(place=conditions.get(place, place)), (WIDTH / columns - 0.5) * 72, 9)
        axis.set_title("\n".join(title), loc="left")
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel("Dice")
    legend(handles)
    return figure


def _cells(answer: Answer) -> list[CellResult]:
    """The measured cells in the order of the plan, the baseline first; of too many, those of the highest Dice."""
    best = {cell.name for cell in answer.ranked[:MOST] if cell.dice == cell.dice}
    cells = [
        cell for cell in answer.cells if cell.name in best or (_is_baseline(answer, cell) and cell.dice == cell.dice)
    ]
    return sorted(cells, key=lambda cell: not _is_baseline(answer, cell))


def _is_baseline(answer: Answer, cell: CellResult) -> bool:
    baselines = answer.study.reading.baselines
    return bool(baselines) and all(cell.levels.get(factor) == level for factor, level in baselines.items())


def _styles(answer: Answer, cells: Sequence[CellResult]) -> list[LineStyle]:
    styles = line_styles([tuple(cell.levels.values()) for cell in cells])
    if _is_baseline(answer, cells[0]):
        styles[0] = {"color": TEXT, "linestyle": "-", "marker": "o", "linewidth": 4, "alpha": 0.6, "zorder": 1.5}
    return styles


def _means(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {cell: float(dice.mean()) for cell, dice in scores.items()}


def _corruption(
    axis: Axes, kind: str, dice: Mapping[str, dict[str, float]], cells: Sequence[CellResult], styles: list[LineStyle]
) -> list[Any]:
    names, handles = [CLEAN, *(f"{kind} {strength}" for strength in STRENGTHS)], []
    for style, cell in zip(styles, cells, strict=True):
        known = [(x, dice[name][cell.name]) for x, name in enumerate(names) if cell.name in dice.get(name, {})]
        across, up = zip(*known, strict=True) if known else ((), ())
        handles += axis.plot(across, up, markersize=3, **style)
    axis.set_xticks(range(4), ["0", "1", "2", "3"])
    return handles


def _place(axis: Axes, dice: Mapping[str, float], cells: Sequence[CellResult], styles: list[LineStyle]) -> None:
    for number, (style, cell) in enumerate(zip(styles, cells, strict=True)):
        if cell.name in dice:
            axis.plot(number, dice[cell.name], **style | {"linestyle": ""}, markersize=5)
    axis.set_xticks([])


def line_styles(cells: Sequence[tuple[str, ...]]) -> list[LineStyle]:
    """Choose how each cell, given by its levels, is drawn.

    The level of the factor with the most levels is its colour, all its other levels its line and marker.
    """
    factors = [list(dict.fromkeys(levels)) for levels in zip(*cells, strict=True)]
    main = max(range(len(factors)), key=lambda at: len(factors[at]))
    rest = list(dict.fromkeys(cell[:main] + cell[main + 1 :] for cell in cells))
    at = [(factors[main].index(cell[main]), rest.index(cell[:main] + cell[main + 1 :])) for cell in cells]
    if len(factors[main]) > len(COLOURS) or len(rest) > len(MARKERS):  # too many of either: numbered instead
        at = [(number % len(COLOURS), number // len(COLOURS)) for number in range(len(cells))]
    return [
        {
            "linewidth": 1.2,
            "color": COLOURS[colour],
            "linestyle": LINES[line % len(LINES)],
            "marker": MARKERS[line % len(MARKERS)],
        }
        for colour, line in at
    ]
