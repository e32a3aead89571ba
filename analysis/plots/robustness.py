"""analysis.plots.robustness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.plots.style import COLOURS, LINES, TEXT, sheet, shorten
from analysis.text.robustness import CLEAN, COLUMNS, MOST, STRENGTH, corruptions, score_conditions
from analysis.verdicts.answer import Answer

MARKERS = ("o", "s", "^", "D")  # as many as there are LINES

Look = dict[str, Any]


def figure(answer: Answer) -> Figure | None:
    """Dice of each cell against the strength of each corruption, and on photographs from elsewhere; None where the table is None."""
    found = score_conditions(answer)
    kinds = corruptions(found)
    if not kinds:
        return None
    values = {one.name: one.dice for one in found}
    places = [one.name for one in found if one.name not in (CLEAN, *kinds) and not STRENGTH.fullmatch(one.name)]
    planned = [cell["cell"] for cell in answer.study.cells]
    rows = sorted(answer.measured[:MOST], key=lambda row: planned.index(row.cell))
    looks = _looks([tuple(row.levels.values()) for row in rows])
    panels = len(kinds) + len(places)
    lines = -(-panels // COLUMNS)
    drawing, axes = sheet(10, 2.6 * lines + 0.9, lines, -(-panels // lines), sharey=not places)
    for axis, kind in zip(axes, kinds, strict=False):
        names = [CLEAN, *(f"{kind} {strength}" for strength in (1, 2, 3))]
        for look, row in zip(looks, rows, strict=True):
            known = [(x, values[name][row.cell]) for x, name in enumerate(names) if row.cell in values.get(name, {})]
            axis.plot(*zip(*known, strict=True), **look, markersize=3, label=shorten(row.label, 36))
        axis.set_title(kind, loc="left")
        axis.set_xticks(range(4), ["0", "1", "2", "3"])
        axis.set_xlabel("strength")
    for axis, place in zip(axes[len(kinds) :], places, strict=False):
        for number, (look, row) in enumerate(zip(looks, rows, strict=True)):
            if row.cell in values[place]:
                axis.plot(number, values[place][row.cell], **look | {"linestyle": ""}, markersize=5)
        axis.set_title(place, loc="left")
        axis.set_xticks([])
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[:: -(-panels // lines)]:
        axis.set_ylabel("Dice")
    drawn = (
        f"the {MOST} cells with the highest Dice, of {len(answer.measured)}" if len(answer.measured) > MOST else None
    )
    handles = {
        label: handle
        for axis in reversed(axes)
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    named = [label for label in (shorten(row.label, 36) for row in rows) if label in handles]
    drawing.legend(
        [handles[label] for label in named], named, loc="outside lower center", ncols=3, labelcolor=TEXT, title=drawn
    )
    return drawing


def _looks(cells: Sequence[tuple[str, ...]]) -> list[Look]:
    """How each cell is drawn: its level of the factor with the most levels is its colour, all its other levels its line and marker."""
    factors = [list(dict.fromkeys(levels)) for levels in zip(*cells, strict=True)]
    main = max(range(len(factors)), key=lambda at: len(factors[at]))
    rest = list(dict.fromkeys(cell[:main] + cell[main + 1 :] for cell in cells))
    at = [(factors[main].index(cell[main]), rest.index(cell[:main] + cell[main + 1 :])) for cell in cells]
    if len(factors[main]) > len(COLOURS) or len(rest) > len(LINES):  # too many of either: they are told apart by number
        at = [(number % len(COLOURS), number // len(COLOURS)) for number in range(len(cells))]
    return [{"color": COLOURS[colour], "linestyle": LINES[line], "marker": MARKERS[line]} for colour, line in at]
