"""The picture at the head of a study: what single runs would have said, beside what all of them say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.effects import (
    Placed,
    against,
    draw_contrasts,
    effects_axis,
    factor_contrasts,
    height_of,
    limits_of,
    placed,
)
from analysis.plots.style import (
    COLOURS,
    LINE,
    SMALL,
    TEXT,
    WIDTH,
    number_ticks,
    place_axes,
    side_labels,
    styled,
    text_width,
    wrap,
    write,
)
from analysis.text.wording import cell_name, phrases
from analysis.verdicts.answer import Answer, CellResult

MOST = 60  # cells; the table has all
LABELS, LEVELS = 2.5, 1.5  # inches, the widest columns of labels, of cells and of levels
STRETCH = 2.2  # how far a panel with fewer rows is drawn out to the height of the other
BADGE = 13.0  # points, the diameter of a numbered dot


@dataclass(frozen=True)
class _Line:
    """A cell's line in the left panel, `height` lines high and centred at `y`."""

    cell: CellResult
    label: Sequence[str]
    y: float
    height: float


@styled
def hero(answer: Answer, language: str = "en") -> Figure | None:
    """Draw every run as a dot, with the winner of each seed numbered; beside it the effects against the baselines."""
    cells = [cell for cell in answer.ranked if cell.dice == cell.dice][:MOST]
    if not cells:
        return None
    words = phrases("pictures", language)
    lines = _lines(answer, cells, language)
    groups = [
        factor_contrasts(answer, found, language, against(answer, found.factor, found.baseline, language))
        for found in answer.effects
    ]
    rows = placed(groups, LEVELS * 72)
    left = max(text_width(line) for row in lines for line in row.label) / 72 + 0.2
    middle = max((text_width(line, SMALL * 1.12) for row in rows for line in row.lines), default=0) / 72 + 0.2
    wide = WIDTH - left - 0.15 - (middle + 0.5 if rows else 0)
    runs_width, effects_width = (0.56 * wide, 0.44 * wide) if rows else (wide, 0.0)
    title = [part for text in _titles(answer, len(cells), language) for part in wrap(text, (left + runs_width) * 72, 9)]
    beside = WIDTH - middle - effects_width - 0.3
    caption = wrap(effects_axis(answer, [g.margin for g in groups], language), (middle + effects_width) * 72)
    caption += wrap(words.verdicts(), (middle + effects_width) * 72)
    runs_height = (lines[-1].y + lines[-1].height / 2) * LINE
    height = max(runs_height, height_of(rows) * LINE if rows else 0)
    head = len(title) * LINE + 0.15
    foot = 0.32 + (max(len(caption), 1) if rows else 1) * LINE + 0.1 + (LINE if len(answer.measured) > MOST else 0)
    figure = Figure(figsize=(WIDTH, head + height + foot))
    write(figure, 0.05, 0.06, title, size=9)
    axis = place_axes(figure, left, head, runs_width, min(height, STRETCH * runs_height))
    _runs(answer, axis, lines, runs_width * 72)
    notes = [words.runs_axis(hollow=any(not cell.eligibility.judged for cell in cells))]
    if len(answer.measured) > MOST:
        notes.append(words.first_of(shown=MOST, total=len(answer.measured)))
    write(figure, left + runs_width / 2, head + min(height, STRETCH * runs_height) + 0.32, notes, ha="center")
    if rows:
        write(figure, beside, 0.06, wrap(words.together(seeds=answer.seeds), (middle + effects_width) * 72, 9), size=9)
        own = min(height, STRETCH * height_of(rows) * LINE)
        _effects(figure, rows, limits_of(groups), (beside + middle, head, effects_width, own))
        write(figure, WIDTH - 0.05, head + own + 0.32, caption, ha="right")
    return figure


def _titles(answer: Answer, cells: int, language: str) -> list[str]:
    words, winners = phrases("pictures", language), answer.winners()
    if cells == 1:
        return [words.one_cell()]
    if len(winners) < 2:
        return [words.every_run(seeds=max((cell.eligibility.seeds for cell in answer.measured), default=0))]
    return [words.tries(winners=len(set(winners.values())), seeds=len(winners)), words.winner_numbers()]


def _lines(answer: Answer, cells: Sequence[CellResult], language: str) -> list[_Line]:
    kinds = phrases("pictures", language).kinds
    lines, top = list[_Line](), 0.0
    for cell in cells:
        kind = cell.eligibility.kind
        doubt = "" if cell.eligibility.judged else f" ({kinds.get(kind, kind)})"
        label = wrap(cell_name(answer.study, cell.levels, language) + doubt, LABELS * 72)
        height = len(label) + 0.35
        lines.append(_Line(cell, label, top + height / 2, height))
        top += height
    return lines


def _runs(answer: Answer, axis: Axes, lines: Sequence[_Line], width: float) -> None:
    """Draw the dots; what lies far below all others stands as an arrow at the edge, with its score."""
    runs = answer.study.finished
    dice = {line.cell.name: runs[runs.cell == line.cell.name].set_index("seed").dice.astype(float) for line in lines}
    low, high = _ends([scores.to_numpy() for scores in dice.values()])
    axis.set(xlim=(low, high), ylim=(lines[-1].y + lines[-1].height / 2, 0))
    axis.grid(axis="y", visible=False)
    side_labels(axis, [(line.y, line.label) for line in lines])
    colour, winners = _colours(answer), answer.winners()
    tries = (
        {seed: number for number, seed in enumerate(sorted(winners), 1)} if len(winners) > 1 and len(lines) > 1 else {}
    )
    for line in lines:
        scores, shade = dice[line.cell.name], colour[line.cell.name]
        fill = shade if line.cell.eligibility.judged else "none"
        inside = scores[scores >= low]
        axis.plot(inside, [line.y] * len(inside), "o", color=shade, markerfacecolor=fill, markersize=4.5, alpha=0.65)
        if outside := sorted(scores[scores < low]):
            axis.plot(low, line.y, "<", color=shade, markersize=5, clip_on=False)
            text = ", ".join(f"{score:.3f}" for score in outside)
            axis.annotate(
                text, (low, line.y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=SMALL - 1
            )
        if line.cell.dice >= low:
            axis.plot([line.cell.dice] * 2, [line.y - 0.42, line.y + 0.42], color=shade, linewidth=2.2)
        won = {tries[seed]: float(scores[seed]) for seed, name in winners.items() if tries and name == line.cell.name}
        _badges(axis, won, line.y, shade, BADGE * (high - low) / width)
    number_ticks(axis, width)


def _badges(axis: Axes, won: Mapping[int, float], y: float, colour: str, apart: float) -> None:
    """Number the winning dots; those that would cover each other share one badge."""
    groups: list[list[tuple[float, int]]] = []
    for score, number in sorted((score, number) for number, score in won.items()):
        wide = len(groups[-1]) * 0.75 + 0.25 if groups else 0
        if groups and score - np.mean([s for s, _ in groups[-1]]) < apart * (wide + 1) / 2:
            groups[-1].append((score, number))
        else:
            groups.append([(score, number)])
    for group in groups:
        shape = "circle,pad=0.25" if len(group) == 1 and group[0][1] < 10 else "round,pad=0.25,rounding_size=0.7"
        axis.text(
            float(np.mean([score for score, _ in group])),
            y,
            " ".join(str(number) for number in sorted(number for _, number in group)),
            ha="center",
            va="center_baseline",
            fontsize=7,
            fontweight="bold",
            color="white",
            bbox={"boxstyle": shape, "facecolor": colour, "edgecolor": "none"},
            zorder=4,
        )


def _ends(scores: Sequence[np.ndarray]) -> tuple[float, float]:
    """The ends of the axis of scores: all runs, unless one lies far below the cells' medians."""
    every, medians = np.concatenate(list(scores)), np.array([np.median(one) for one in scores])
    high, low = float(every.max()), float(every.min())
    floor = float(medians.min()) - 1.5 * (high - float(medians.min()))
    if low < floor:
        low = max(float(every[every >= floor].min()) - 0.1 * (high - floor), floor)
    wide = max(high - low, 1e-4)
    return low - 0.04 * wide, high + 0.06 * wide


def _colours(answer: Answer) -> dict[str, str]:
    """The colour of each cell: that of its level of the first factor, as long as there are enough."""
    first = next(iter(answer.study.varied), None)
    levels = answer.study.varied[first] if first else []
    if first is None or len(levels) > len(COLOURS):
        return dict.fromkeys((cell.name for cell in answer.cells), COLOURS[0])
    shades = dict(zip(levels, COLOURS, strict=False))
    return {cell.name: shades.get(cell.levels[first], TEXT) for cell in answer.cells}


def _effects(
    figure: Figure, rows: Sequence[Placed], limits: tuple[float, float], place: tuple[float, float, float, float]
) -> None:
    axis = place_axes(figure, *place)
    draw_contrasts(axis, rows, limits, place[2] * 72)
