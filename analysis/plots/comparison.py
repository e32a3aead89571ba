"""Figures of the comparison: every cell with its interval, main and simple effects, heatmap, pairs, Dice against cost.

Each function takes an Answer and returns a Figure, or None where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.style import BAND, BLUE, COLOURS, GREEN, LINES, ORANGE, TEXT, logarithmic, sheet, shorten
from analysis.statistics.comparisons import Comparison, Family
from analysis.text.tables import combination
from analysis.verdicts.answer import JOIN, Answer, Effect, Row

MOST = 70  # rows in a figure; beyond that the table is the place to look
CLAIMS = {"confirmatory": "confirmatory", "incomplete": "planned as confirmatory", "exploratory": "exploratory"}
SHADES = "blue: better, orange: worse, green: equivalent, grey: undecided"
COLOUR = {"better": BLUE, "worse": ORANGE, "equivalent": GREEN, "undecided": TEXT}


def intervals(answer: Answer) -> Figure | None:
    """Every measured cell's mean Dice with its 95 % interval, sorted; the set not separated from the top is blue."""
    rows = answer.measured[:MOST]
    if not rows:
        return None
    figure, (axis,) = sheet(7.5, 1.3 + 0.27 * len(rows))
    for place, row in enumerate(rows):
        colour = BLUE if row.top else TEXT
        if np.isfinite(row.high):
            axis.plot([row.low, row.high], [place, place], color=colour, linewidth=2, alpha=0.8)
        judged = row.eligibility.kind == "judged"
        axis.plot(row.dice, place, "o", color=colour, markersize=5, fillstyle="full" if judged else "none")
    names = [shorten(row.label) + _doubt(row) for row in rows]
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    _ceiling(axis, answer)
    axis.set_xlabel("Dice on test cars, mean and 95 % interval" + _cut(len(answer.measured)))
    axis.set_title("blue: not separated from the top; hollow: no verdict", loc="left")
    return figure


def main_effects(answer: Answer) -> Figure | None:
    """The differences between the levels of each factor over all the others, with the band of practical equivalence."""
    if not answer.effects:
        return None
    ranked = [_named(effect.effect.family) for effect in answer.effects]
    figure, axes = _panels(7.5, [len(pairs) for pairs in ranked])
    for axis, effect, pairs in zip(axes, answer.effects, ranked, strict=True):
        _differences(axis, pairs, answer.study.rope)
        axis.set_title(_headline(effect), loc="left")
    axes[-1].set_xlabel(f"difference in Dice, first minus second, Holm-adjusted 95 % interval\n{SHADES}")
    return figure


def _panels(width: float, rows: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """A panel under another, each as high as its rows need."""
    height = sum(0.9 + 0.27 * min(number, MOST) for number in rows)
    return sheet(width, height, len(rows), sharex=True, height_ratios=[number + 2 for number in rows])


def _doubt(row: Row) -> str:
    if row.eligibility.kind != "judged":
        return f" ({row.eligibility.kind})"
    return "" if row.eligibility.converged else " (at its budget)"


def simple_effects(answer: Answer) -> Figure | None:
    """Plot the simple effects that the plan asks for, a panel for each factor."""
    if not answer.simple:
        return None
    figure, axes = _panels(8, [len(parts) for parts in answer.simple.values()])
    for axis, (factor, parts) in zip(axes, answer.simple.items(), strict=True):
        several = len({part.difference for part in parts}) > 1
        names = [(f"{part.difference}, " if several else "") + combination(part, "en") for part in parts]
        differences = [part.found.get("dice", part.values["dice"]) for part in parts]
        _differences(axis, list(zip(names, differences, strict=True)), answer.study.rope)
        axis.set_title(factor if several else parts[0].difference, loc="left")
    axes[-1].set_xlabel(f"difference in Dice, Holm-adjusted 95 % interval\n{SHADES}, hollow: no verdict")
    return figure


def heatmap(answer: Answer) -> Figure | None:
    """Plot mean Dice of the first factor's levels (across) with the second's (down), averaged over all others."""
    factors = [name for name, levels in answer.study.factors.items() if len(levels) > 1][:2]
    if len(factors) < 2 or not answer.measured:
        return None
    across, down = (answer.study.factors[name] for name in factors)
    cells = {
        (a, d): [r.dice for r in answer.measured if (r.levels[factors[0]], r.levels[factors[1]]) == (a, d)]
        for a in across
        for d in down
    }
    values = np.array([[np.mean(cells[a, d]) if cells[a, d] else np.nan for a in across] for d in down])
    doubtful = {tuple(r.levels[f] for f in factors) for r in answer.measured if r.eligibility.kind != "judged"}
    figure, (axis,) = sheet(2.2 + 1.15 * len(across), 1.2 + 0.42 * len(down))
    axis.grid(False)
    axis.imshow(values, cmap="viridis", aspect="auto", alpha=0.85)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (y, x), value in np.ndenumerate(values):
        known = value == value
        colour = TEXT if not known else "black" if value > middle else "white"
        mark = "°" if (across[x], down[y]) in doubtful else ""
        axis.text(
            x, y, f"{value:.4f}{mark}" if known else "not measured", ha="center", va="center", color=colour, fontsize=8
        )
    axis.set_xticks(range(len(across)), [shorten(name, 18) for name in across])
    axis.set_yticks(range(len(down)), [shorten(name, 24) for name in down])
    axis.set(xlabel=factors[0], ylabel=factors[1])
    if doubtful:
        axis.set_title("°: a cell without a verdict is in it", loc="left")
    return figure


def pairs(answer: Answer) -> Figure | None:
    """Every pair's difference with its interval and the band of practical equivalence; with many pairs, the largest."""
    if answer.family is None:
        return None
    ranked = _named(answer.family, answer.labels)
    figure, (axis,) = sheet(8, 1.3 + 0.2 * min(len(ranked), MOST))
    _differences(axis, ranked, answer.study.rope)
    axis.set_xlabel(f"difference in Dice, first minus second, Holm-adjusted 95 % interval\n{SHADES}{_cut(len(ranked))}")
    return figure


def _differences(axis: Axes, found: Sequence[tuple[str, Comparison | float]], rope: float) -> None:
    """Draw named differences with their intervals, from the top down, on the band of practical equivalence; one without
    a verdict is a number, and has no interval."""
    shown = found[:MOST]
    axis.axvspan(-rope, rope, color=BAND, linewidth=0)
    axis.axvline(0, color=TEXT, linewidth=0.8)
    reach = max((abs(c if isinstance(c, float) else c.difference) for _, c in shown), default=rope)
    for place, (_, c) in enumerate(shown):
        if isinstance(c, float):
            axis.plot(c, place, "o", color=TEXT, markersize=4, fillstyle="none")
            continue
        ends = np.clip([c.low, c.high], -20 * reach - rope, 20 * reach + rope)  # one seed has an infinite interval
        axis.plot(ends, [place, place], color=COLOUR[c.verdict], linewidth=1.8)
        axis.plot(c.difference, place, "o", color=COLOUR[c.verdict], markersize=4)
    axis.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=7.5)
    axis.set_ylim(len(shown) - 0.4, -0.6)


def cost(answer: Answer) -> Figure | None:
    """Dice against seconds of training and against multiplications for one photograph."""
    rows = [row for row in answer.measured if row.cost["training_seconds"] > 0]
    if not rows:
        return None
    figure, axes = sheet(9, 3.6, 1, 2, sharey=True)
    shades = _shades(answer, rows)
    for axis, name, label in zip(
        axes, ("training_seconds", "gmacs"), ("seconds of training", "GMACs a photograph"), strict=True
    ):
        for row in rows:
            colour, marker, text = shades[row.cell]
            x = row.cost[name]
            if np.isfinite(row.high):
                axis.plot([x, x], [row.low, row.high], color=colour, linewidth=1, alpha=0.5)
            axis.plot(x, row.dice, marker, color=colour, markersize=6, label=text)
        spread = [row.cost[name] for row in rows if row.cost[name] > 0]
        if spread and max(spread) > 3 * min(spread):  # within less, a linear axis has more ticks and says as much
            logarithmic(axis, 1, 2, 5)
        axis.set_xlabel(label)
    axes[0].set_ylabel("Dice on test cars")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside right center", fontsize=8)
    return figure


def _named(family: Family[str], labels: Mapping[str, str] | None = None) -> list[tuple[str, Comparison | float]]:
    """Each pair once, the better one first, from the largest difference down, with its name."""
    label = labels or {}
    return [
        (f"{shorten(label.get(a, a), 36)} − {shorten(label.get(b, b), 36)}", comparison)
        for (a, b), comparison in family.ranked()
    ]


def _headline(effect: Effect) -> str:
    counts, scope = {len(others) for others in effect.effect.over.values()}, ""
    if counts != {effect.planned}:
        fewest = f"{'at least ' if len(counts) > 1 else ''}{min(counts)}"
        scope = f", {fewest} of {effect.planned} combinations of the others"
    return f"{effect.factor} ({CLAIMS[effect.claim]}{scope})"


def _shades(answer: Answer, rows: Sequence[Row]) -> dict[str, tuple[str, str, str]]:
    """Each cell's colour, marker and legend: the first factor by colour, the others by marker."""
    first = next(iter(answer.study.factors), "")
    ones = list(dict.fromkeys(row.levels.get(first, "") for row in rows))
    others = list(dict.fromkeys(_rest(row, first) for row in rows))
    markers = "osD^vP*X<>ph"
    return {
        row.cell: (
            COLOURS[ones.index(row.levels.get(first, "")) % len(COLOURS)],
            markers[others.index(_rest(row, first)) % len(markers)],
            shorten(row.label, 32),
        )
        for row in rows[:MOST]
    } | {row.cell: (TEXT, ".", "others") for row in rows[MOST:]}


def _rest(row: Row, first: str) -> str:
    return JOIN.join(level for factor, level in row.levels.items() if factor != first)


def _ceiling(axis: Axes, answer: Answer) -> None:
    """A line at what the input size allows at best, where all runs share it and it is near."""
    ceilings = answer.study.finished.ceiling.dropna().unique()
    left, right = axis.get_xlim()
    if len(ceilings) == 1 and ceilings[0] < right + 0.5 * (right - left):
        axis.axvline(float(ceilings[0]), color=TEXT, linestyle=LINES[2], linewidth=1.2)
        axis.text(float(ceilings[0]), -0.55, " ceiling", fontsize=7.5, va="bottom", ha="left", color=TEXT)


def _cut(total: int) -> str:
    return f" (the first {MOST} of {total})" if total > MOST else ""
