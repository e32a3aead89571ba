"""Planned comparisons as intervals: each level against its factor's baseline, on the band of equivalence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.style import (
    BAND,
    LINE,
    SMALL,
    TEXT,
    VERDICT_COLOURS,
    WIDTH,
    number_ticks,
    place_axes,
    side_labels,
    styled,
    text_width,
    wrap,
    write,
)
from analysis.statistics.comparisons import Comparison
from analysis.text.tables import MARKS
from analysis.text.wording import cell_name, factor_name, level_name, minus, phrases
from analysis.verdicts.answer import Answer, CellResult
from analysis.verdicts.planned_contrasts import EffectsWithin, FactorEffects

LABELS = 2.7  # inches, the widest column of labels
TOP = 0.06  # inches, above the first line
FREE = 4  # panels whose differences are of sizes further apart have axes of their own


@dataclass(frozen=True)
class Contrasts:
    """Comparisons under one heading, with the margin that they are judged by."""

    title: str
    rows: Sequence[tuple[str, Comparison]]
    margin: float


@dataclass(frozen=True)
class Placed:
    """A row of a panel, `height` lines high and centred at `y`: a heading, or a comparison with its label."""

    lines: Sequence[str]
    y: float
    height: float
    comparison: Comparison | None = None
    margin: float = 0.0


@styled
def main_effects(answer: Answer, language: str = "en") -> Figure | None:
    """Draw what the levels of each factor change against its baseline, averaged over the other factors."""
    if not answer.effects:
        return None
    panels = [
        (_scope(answer, found, language), [factor_contrasts(answer, found, language)]) for found in answer.effects
    ]
    return _figure(answer, panels, language)


@styled
def simple_effects(answer: Answer, language: str = "en") -> Figure | None:
    """Draw the effects within each combination of other factors; with axes of their own where their sizes differ."""
    panels = [panel for found in answer.within for panel in _within(answer, found, language)]
    return _figure(answer, panels, language) if panels else None


@styled
def cell_interval(answer: Answer, cell: str, language: str = "en") -> Figure:
    """Draw one cell's difference from the cell at every factor's baseline, with the margin of single cells.

    Where there is no comparison, a sentence says why.
    """
    words, margin = phrases("pictures", language), answer.study.reading.cell_margin
    found, baseline = next(one for one in answer.cells if one.name == cell), _at_baselines(answer)
    name = cell_name(answer.study, found.levels, language)
    comparison = answer.against_baseline.get(cell)
    if baseline is not None and baseline.name == cell:
        return _message([name, words.is_baseline()])
    if baseline is None or comparison is None:
        return _message([name, words.no_comparison()])
    title = words.cell_against(cell=name, baseline=cell_name(answer.study, baseline.levels, language))
    captions = [effects_axis(answer, [margin], language), words.verdicts()]
    return _panels([(title, [Contrasts("", [("", comparison)], margin)])], captions, language)


def factor_contrasts(answer: Answer, found: FactorEffects, language: str, title: str = "") -> Contrasts:
    """A factor's comparisons with their levels' names."""
    rows = [(level_name(answer.study, level, language), one) for level, one in found.comparisons.items()]
    return Contrasts(title, rows, found.margin)


def against(answer: Answer, factor: str, baseline: str, language: str) -> str:
    """The heading of a factor's comparisons."""
    name, level = factor_name(answer.study, factor, language), level_name(answer.study, baseline, language)
    return str(phrases("pictures", language).against(factor=name, baseline=level))


def effects_axis(answer: Answer, margins: Iterable[float], language: str) -> str:
    """What the axis of differences shows."""
    texts = list(dict.fromkeys(f"{margin:g}" for margin in margins))
    return str(phrases("pictures", language).effects_axis(looks=bool(answer.study.looks), margins=texts))


def placed(groups: Sequence[Contrasts], width: float) -> list[Placed]:
    """Place headings and comparisons from the top down, with labels of at most `width` points."""
    rows, top = list[Placed](), 0.0
    for group in groups:
        if group.title:
            lines = wrap(group.title, width)
            top += 0.5 if rows else 0.0
            rows.append(Placed(lines, top + (len(lines) + 0.3) / 2, len(lines) + 0.3))
            top += len(lines) + 0.3
        for label, comparison in group.rows:
            lines = wrap(label, width)
            height = len(lines) + 0.45
            rows.append(Placed(lines, top + height / 2, height, comparison, group.margin))
            top += height
    return rows


def height_of(rows: Sequence[Placed]) -> float:
    """The height of placed rows, in lines."""
    return rows[-1].y + rows[-1].height / 2


def draw_contrasts(axis: Axes, rows: Sequence[Placed], limits: tuple[float, float], points: float) -> None:
    """Draw comparisons with their labels and marks on an axis that is `points` wide.

    An interval that leaves the axis ends in an arrow.
    """
    axis.set(xlim=limits, ylim=(height_of(rows), 0))
    axis.grid(axis="y", visible=False)
    axis.axvline(0, color=TEXT, linewidth=0.8)
    side_labels(axis, [(row.y, row.lines) for row in rows if row.comparison])
    side_labels(axis, [(row.y, row.lines) for row in rows if not row.comparison], fontweight="bold")
    for row in rows:
        if row.comparison is None:
            continue
        c, colour = row.comparison, VERDICT_COLOURS[row.comparison.verdict]
        edges = [row.y - row.height / 2, row.y + row.height / 2]
        axis.fill_betweenx(edges, -row.margin, row.margin, color=BAND, linewidth=0)
        ends = np.clip([c.low, c.high], *limits)
        known = bool(np.isfinite([c.low, c.high]).all())
        axis.plot(ends, [row.y, row.y], color=colour, linewidth=2, linestyle="-" if known else ":")
        for beyond, limit, marker in ((c.low < limits[0], limits[0], "<"), (c.high > limits[1], limits[1], ">")):
            if beyond:
                axis.plot(limit, row.y, marker, color=colour, markersize=5, clip_on=False)
        axis.plot(c.difference, row.y, "o", color=colour, markersize=5)
        beside(axis, row.y, MARKS[c.verdict], 8, color=colour)
    number_ticks(axis, points, lambda value: minus(f"{value:.6g}"))


def beside(axis: Axes, y: float, text: str, offset: float, **options: Any) -> None:
    """Write a line right of an axis."""
    axis.annotate(
        text,
        (1, y),
        xycoords=axis.get_yaxis_transform(),
        xytext=(offset, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        **options,
    )


def limits_of(groups: Sequence[Contrasts]) -> tuple[float, float]:
    """The ends of an axis for these comparisons: all of every interval, unless it is far wider than its difference."""
    found = [one for group in groups for _, one in group.rows]
    margin = max(group.margin for group in groups)
    most = max(20 * max(abs(one.difference) for one in found), 5 * margin)
    known = [end for one in found for end in (one.low, one.high, one.difference) if math.isfinite(end)]
    ends = [math.copysign(min(abs(end), most), end) for end in known]
    low, high = min(-1.2 * margin, *ends), max(1.2 * margin, *ends)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _figure(answer: Answer, panels: Sequence[tuple[str, list[Contrasts]]], language: str) -> Figure:
    margins = [group.margin for _, groups in panels for group in groups]
    captions = [effects_axis(answer, margins, language), phrases("pictures", language).verdicts()]
    return _panels(panels, captions, language)


def _panels(panels: Sequence[tuple[str, list[Contrasts]]], captions: Sequence[str], language: str) -> Figure:
    """A panel under another, each with its title, and the captions below."""
    rows = [placed(groups, LABELS * 72) for _, groups in panels]
    limits = [limits_of(groups) for _, groups in panels]
    reach = [max(abs(end) for end in ends) for ends in limits]
    shared = max(reach) <= FREE * min(reach)
    if shared:
        limits = [(min(low for low, _ in limits), max(high for _, high in limits))] * len(limits)
    every = [row for part in rows for row in part]
    labels = max(0.2, *(text_width(line) / 72 for row in every for line in row.lines)) + 0.2
    values = [[(row.y, _value(row.comparison, language)) for row in part if row.comparison] for part in rows]
    beyond = max(text_width(text) for part in values for _, text in part) / 72 + 0.4
    titles = [wrap(title, (WIDTH - 0.1) * 72, 9) if title else [] for title, _ in panels]
    ticks = [0.32 if not shared or last else 0.12 for last in (*[False] * (len(panels) - 1), True)]
    heights = [
        len(title) * LINE + 0.06 + height_of(part) * LINE + tick
        for title, part, tick in zip(titles, rows, ticks, strict=True)
    ]
    bottom = len(captions) * LINE + 0.1
    figure, top = Figure(figsize=(WIDTH, sum(heights) + 0.12 * (len(panels) - 1) + bottom + TOP)), TOP
    for title, part, ends, texts, height, tick in zip(titles, rows, limits, values, heights, ticks, strict=True):
        write(figure, 0.05, top, title, size=9)
        inside = (labels, top + len(title) * LINE + 0.06, WIDTH - labels - beyond, height_of(part) * LINE)
        axis = place_axes(figure, *inside)
        draw_contrasts(axis, part, ends, inside[2] * 72)
        axis.tick_params(labelbottom=tick > 0.2)
        for y, text in texts:
            beside(axis, y, text, 20)
        top += height + 0.12
    write(figure, labels, top - 0.12, captions)
    return figure


def _within(answer: Answer, found: EffectsWithin, language: str) -> Iterator[tuple[str, list[Contrasts]]]:
    """The panels of a factor's effects within others: one, or one per combination where their sizes differ."""
    words, study = phrases("pictures", language), answer.study
    others = [factor_name(study, factor, language) for factor in found.within]
    levels = list(dict.fromkeys(level for level, _ in found.comparisons))
    places = {
        place: words.place(levels=[level_name(study, level, language) for level in place])
        for _, place in found.comparisons
    }
    common = {"factor": factor_name(study, found.factor, language), "others": others}
    common["baseline"] = level_name(study, found.baseline, language)
    if len(levels) == 1:
        title = words.within_level(level=level_name(study, levels[0], language), **common)
        groups = [
            Contrasts("", [(name, found.comparisons[levels[0], place])], found.margin) for place, name in places.items()
        ]
    else:
        title = words.within(**common)
        groups = []
        for place, name in places.items():
            at = [(level, found.comparisons[level, place]) for level in levels if (level, place) in found.comparisons]
            groups.append(
                Contrasts(name, [(level_name(study, level, language), one) for level, one in at], found.margin)
            )
    if found.difference is not None:
        first, *_, last = places.values()
        groups.append(Contrasts("", [(f"{first} − {last}", found.difference)], found.margin))
    reach = [max(abs(end) for end in limits_of([group])) for group in groups]
    if max(reach) <= FREE * min(reach):
        if len(found.differences) > 1:  # beside effects of other sizes, they are in the table alone
            pairs = [(f"{places[place]} − {places[found.reference]}", one) for place, one in found.differences.items()]
            groups.append(Contrasts("", pairs, found.margin))
        yield title, groups
    else:
        yield from zip([title, *[""] * (len(groups) - 1)], [[group] for group in groups], strict=True)


def _scope(answer: Answer, found: FactorEffects, language: str) -> str:
    """The heading of a factor's panel: the baseline, and what is averaged over."""
    others = [factor_name(answer.study, factor, language) for factor in answer.study.varied if factor != found.factor]
    return str(
        phrases("pictures", language).against_over(
            factor=factor_name(answer.study, found.factor, language),
            baseline=level_name(answer.study, found.baseline, language),
            others=others,
            planned=found.planned,
            fewest=min(len(places) for places in found.over.values()),
        )
    )


def _at_baselines(answer: Answer) -> CellResult | None:
    baselines = answer.study.reading.baselines.items()
    return next((c for c in answer.cells if all(c.levels.get(factor) == level for factor, level in baselines)), None)


def _message(texts: Sequence[str]) -> Figure:
    lines = [line for text in texts for line in wrap(text, (WIDTH - 0.2) * 72)]
    figure = Figure(figsize=(WIDTH, len(lines) * LINE + 0.2))
    write(figure, 0.1, 0.1, lines)
    return figure


def _value(found: Comparison | None, language: str) -> str:
    assert found is not None
    difference, low, high = (
        minus(f"{value:+.4f}").replace("−0.0000", "0.0000") for value in (found.difference, found.low, found.high)
    )
    if not math.isfinite(found.low):
        return difference
    return str(phrases("pictures", language).with_interval(difference=difference, low=low, high=high))
