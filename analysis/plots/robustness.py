"""Dice against the strength of each corruption, and on images from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.style import COLOURS, LINES, TEXT, sheet, shorten
from analysis.text.robustness import CLEAN, STRENGTH, STRENGTHS, conditions, corruptions
from analysis.verdicts.answer import Answer, Row

MOST, COLUMNS = 16, 3  # lines in a panel, panels next to each other
MARKERS = ("o", "s", "^", "D")  # as many as there are LINES
LineStyle = dict[str, Any]


def robustness_curves(answer: Answer) -> Figure | None:
    """Draw a panel for each corruption and each place; None where no corruption was scored at all strengths."""
    scored = conditions(answer)
    kinds = corruptions(scored)
    if not kinds:
        return None
    dice = {condition.name: condition.dice for condition in scored}
    places = [name for name in dice if name not in (CLEAN, *kinds) and not STRENGTH.fullmatch(name)]
    planned = [cell["cell"] for cell in answer.study.cells]
    rows = sorted(answer.measured[:MOST], key=lambda row: planned.index(row.cell))
    styles = line_styles([tuple(row.levels.values()) for row in rows])
    panels = len(kinds) + len(places)
    lines = -(-panels // COLUMNS)
    columns = -(-panels // lines)
    figure, axes = sheet(10, 2.6 * lines + 0.9, lines, columns, sharey=not places)
    for axis, kind in zip(axes, kinds, strict=False):
        _corruption(axis, kind, dice, rows, styles)
    for axis, place in zip(axes[len(kinds) :], places, strict=False):
        _place(axis, place, dice[place], rows, styles)
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel("Dice")
    _legend(figure, axes, rows, len(answer.measured))
    return figure


def _corruption(
    axis: Axes, kind: str, dice: dict[str, dict[str, float]], rows: list[Row], styles: list[LineStyle]
) -> None:
    names = [CLEAN, *(f"{kind} {strength}" for strength in STRENGTHS)]
    for style, row in zip(styles, rows, strict=True):
        known = [(x, dice[name][row.cell]) for x, name in enumerate(names) if row.cell in dice.get(name, {})]
        axis.plot(*zip(*known, strict=True), **style, markersize=3, label=shorten(row.label, 36))
    axis.set_title(kind, loc="left")
    axis.set_xticks(range(4), ["0", "1", "2", "3"])
    axis.set_xlabel("strength")


def _place(axis: Axes, place: str, dice: dict[str, float], rows: list[Row], styles: list[LineStyle]) -> None:
    for number, (style, row) in enumerate(zip(styles, rows, strict=True)):
        if row.cell in dice:
            axis.plot(number, dice[row.cell], **style | {"linestyle": ""}, markersize=5)
    axis.set_title(place, loc="left")
    axis.set_xticks([])


def _legend(figure: Figure, axes: Sequence[Axes], rows: Sequence[Row], measured: int) -> None:
    title = f"the {MOST} cells with the highest Dice, of {measured}" if measured > MOST else None
    handles: dict[str, Any] = {}
    for axis in reversed(axes):
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    named = [label for label in (shorten(row.label, 36) for row in rows) if label in handles]
    shown = [handles[label] for label in named]
    figure.legend(shown, named, loc="outside lower center", ncols=3, labelcolor=TEXT, title=title)


def line_styles(cells: Sequence[tuple[str, ...]]) -> list[LineStyle]:
    """Choose how each cell, given by its levels, is drawn.

    The level of the factor with the most levels is its colour, all its other levels its line and marker.
    """
    factors = [list(dict.fromkeys(levels)) for levels in zip(*cells, strict=True)]
    main = max(range(len(factors)), key=lambda at: len(factors[at]))
    rest = list(dict.fromkeys(cell[:main] + cell[main + 1 :] for cell in cells))
    at = [(factors[main].index(cell[main]), rest.index(cell[:main] + cell[main + 1 :])) for cell in cells]
    if len(factors[main]) > len(COLOURS) or len(rest) > len(LINES):  # too many of either: they are told apart by number
        at = [(number % len(COLOURS), number // len(COLOURS)) for number in range(len(cells))]
    return [{"color": COLOURS[colour], "linestyle": LINES[line], "marker": MARKERS[line]} for colour, line in at]
