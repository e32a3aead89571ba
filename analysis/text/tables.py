"""The tables of a study: the matrix of its first two factors, effects within combinations, and the details.

Scores and differences are in points
(Dice × 100). At most nine columns, and no cell of more than two lines: marks and numbers, never sentences.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pandas as pd

from analysis.statistics.comparisons import Comparison
from analysis.text.markdown import Grid, TableCell
from analysis.text.wording import cell_name, factor_name, finite, level_name, minus, phrases, place_name, points
from analysis.verdicts.answer import Answer, CellResult
from analysis.verdicts.planned_contrasts import EffectsWithin, FactorEffects

MARKS = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "≈"}
STILL_IMPROVING, STALLED, UNKNOWN = "†", "‡", "–"
MOST_COLUMNS = 4  # levels of one factor next to each other, beside margins and cost
NARROW = 6  # columns of differences without intervals
T = TypeVar("T")
PAIRS = ("a", "b", "difference", "low", "high", "p", "verdict")


def chunks(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """`items` in parts of `most` at most, as equal as can be."""
    parts = -(-len(items) // most) or 1
    length = -(-len(items) // parts) or 1
    return [items[start : start + length] for start in range(0, len(items), length)]


def matrices(answer: Answer, language: str) -> list[Grid]:
    """First × second factor, a matrix for each combination of the others; of one factor alone, a row for each level."""
    study = answer.study
    factors = list(study.varied) or list(study.factors)[:1]
    if not factors:
        return []
    if len(factors) == 1:
        return [_matrix(answer, language, factors[0], None, [""], {})]
    rows, columns, *others = factors
    if len(study.factors[columns]) > max(MOST_COLUMNS, len(study.factors[rows])):
        rows, columns = columns, rows
    found = []
    for levels in itertools.product(*(study.factors[other] for other in others)):
        where = dict(zip(others, levels, strict=True))
        for part in chunks(study.factors[columns], MOST_COLUMNS):
            found.append(_matrix(answer, language, rows, columns, part, where))
    return found


def _matrix(
    answer: Answer, language: str, rows: str, columns: str | None, shown: Sequence[str], where: Mapping[str, str]
) -> Grid:
    """One matrix: scores, and where nothing else varies the effects of both factors in its margins; cost last."""
    study, words = answer.study, phrases("tables", language)
    effects = {} if where else {effects.factor: effects for effects in answer.effects}
    lines, costs = [], []
    for level in study.factors[rows]:
        at = [_at(answer, {**where, rows: level, **({columns: c} if columns else {})}) for c in shown]
        best = max((cell.dice for cell in at if cell and cell.eligibility.judged), default=None)
        scores = [_score(cell, bold=len(shown) > 1 and cell is not None and cell.dice == best) for cell in at]
        margin = [_margin(effects[rows], level, language)] if rows in effects else []
        lines.append([TableCell(level_name(study, level, language)), *scores, *margin])
        costs.append([cell for cell in at if cell is not None])
    headings = [factor_name(study, rows, language)]
    headings += [level_name(study, c, language) for c in shown] if columns else [words.dice]
    if rows in effects:
        headings.append(words.against(baseline=level_name(study, effects[rows].baseline, language)))
    if heading := _cost_heading(costs, language):
        headings.append(heading)
        lines = [[*line, _cost(row, heading, language)] for line, row in zip(lines, costs, strict=True)]
    if columns in effects:
        bottom = [_margin(effects[columns], level, language) for level in shown]
        name = words.against(baseline=level_name(study, effects[columns].baseline, language))
        lines.append([TableCell(name, bold=True), *bottom, *[TableCell()] * (len(headings) - 1 - len(bottom))])
    return Grid(headings, lines, place_name(study, list(where.values()), language) if where else "")


def effect_grids(answer: Answer, language: str) -> list[Grid]:
    """What the margins of a matrix cannot show: effects within combinations, and averages where three factors vary."""
    study, words, found = answer.study, phrases("tables", language), []
    averages = {effects.factor: effects for effects in answer.effects}
    for part in answer.within:
        average = averages[part.factor].comparisons if part.factor in averages else {}
        found.append(_effects_within(answer, part, average, language))
    rest = [e for e in answer.effects if e.factor not in {part.factor for part in answer.within}]
    if len(study.varied) > 2 and rest:
        rows = [
            [
                TableCell(f"{level_name(study, level, language)} − {level_name(study, effects.baseline, language)}"),
                _difference(comparison),
            ]
            for effects in rest
            for level, comparison in effects.comparisons.items()
        ]
        found.append(Grid([words.difference, words.average], rows, words.others))
    return found


def _effects_within(answer: Answer, part: EffectsWithin, averages: Mapping[str, Comparison], language: str) -> Grid:
    """Effects by level and combination, the more numerous of the two as rows; the averages last."""
    study, words = answer.study, phrases("tables", language)
    places = list(dict.fromkeys(place for _, place in part.comparisons))
    levels = list(dict.fromkeys(level for level, _ in part.comparisons))
    title, baseline = factor_name(study, part.factor, language), level_name(study, part.baseline, language)
    names = {level: level_name(study, level, language) for level in levels}
    at = {place: place_name(study, place, language) for place in places}
    if len(levels) > len(places):
        rows = [
            [
                TableCell(names[level]),
                *(_difference(part.comparisons.get((level, place))) for place in places),
                _difference(averages.get(level)),
            ]
            for level in levels
        ]
        return Grid([words.against(baseline=baseline), *at.values(), words.average], rows, title)
    rows = [
        [TableCell(at[place]), *(_difference(part.comparisons.get((level, place))) for level in levels)]
        for place in places
    ]
    rows.append([TableCell(words.average, bold=True), *(_difference(averages.get(level)) for level in levels)])
    others = " · ".join(factor_name(study, other, language) for other in part.within)
    headings = [others, *(f"{name} − {baseline}" for name in names.values())]
    if len(part.differences) > 1:  # of two combinations, the text says it
        headings.append(words.minus_reference(reference=at[part.reference]))
        for place, row in zip([*places, None], rows, strict=True):
            row.append(_difference(part.differences.get(place)) if place else TableCell())
    return Grid(headings, rows, title)


def caption(answer: Answer, language: str) -> str:
    """What the numbers of a matrix are."""
    groups = max((scores.shape[1] for scores in answer.scores.values()), default=0)
    seeds = answer.seeds or max((cell.eligibility.seeds for cell in answer.cells), default=0)
    several, unit = len(answer.study.varied) > 1, answer.study.unit
    return str(phrases("tables", language).caption(seeds=seeds, groups=groups, several=several, unit=unit))


def legend(answer: Answer, language: str) -> str:
    """The marks that occur in the tables of a study, in a line."""
    judged, margins = answer.judged, {effects.margin for effects in answer.effects}
    return str(
        phrases("tables", language).legend(
            verdicts=list(dict.fromkeys(v for v in MARKS for _, c in answer.comparisons() if c.verdict == v)),
            marks=MARKS,
            margins=sorted(100 * margin for margin in margins),
            looks=bool(answer.study.looks),
            averages=len(answer.study.varied) == 2,
            improving=any(cell.eligibility.still_improving for cell in answer.measured),
            stalled=any(cell.eligibility.stalled for cell in answer.measured),
            no_verdict=len(answer.measured) > len(judged),
            missing=len(answer.measured) < len(answer.cells),
        )
    ).strip()


def score_grid(answer: Answer, language: str) -> Grid:
    """Every cell's scores, the highest Dice first."""
    rows = []
    for cell in answer.ranked:
        failures = f"({cell.failures})" if cell.failures else ""
        rows.append(
            [
                TableCell(cell_name(answer.study, cell.levels, language)),
                _score(cell),
                _points(cell.iou),
                _points(cell.boundary_iou),
                TableCell(_number(cell.hd95, "{:.1f}"), failures),
                _against(answer, cell, language),
                TableCell(_seeds(cell)),
                TableCell(_best(answer, cell, language)),
            ]
        )
    return _without(
        Grid(list(phrases("tables", language).scores), rows), 6, all(_seeds(c).isdigit() for c in answer.cells)
    )


def training_grid(answer: Answer, language: str) -> Grid:
    """Every cell's learning rate, validation and cost, in the order of `score_grid`."""
    plans = {cell["cell"]: cell for cell in answer.study.cells}
    headings = list(phrases("tables", language).training)
    if not any(plans[cell.name].get("rate_low") and plans[cell.name].get("rate_high") for cell in answer.ranked):
        headings[1] = headings[1].removesuffix(" [95%]")
    validation = answer.study.finished.groupby("cell").val_dice_last.mean()
    rows = []
    for cell in answer.ranked:
        low, high = (plans[cell.name].get(end) for end in ("rate_low", "rate_high"))
        ends = f"[{low:.2g}, {high:.2g}]" if low and high else ""
        rows.append(
            [
                TableCell(cell_name(answer.study, cell.levels, language)),
                TableCell(_number(cell.rate, "{:.3g}"), below=ends),
                TableCell(str(cell.trials or UNKNOWN)),
                _points(validation.get(cell.name, float("nan"))),
                TableCell(UNKNOWN if math.isnan(cell.eligibility.rise) else points(cell.eligibility.rise)),
                *(
                    TableCell(_number(cell.cost[name], form))
                    for name, form in (
                        ("gmacs", "{:.3g}"),
                        ("images_per_second", "{:.0f}"),
                        ("peak_memory_gb", "{:.2f}"),
                    )
                ),
            ]
        )
    grid = _without(Grid(headings, rows), 6, bool(answer.study.half_size_share))  # a speed at two sizes is of neither
    grid = _without(grid, 4, not any_rise(answer))
    return _without(grid, 2, len({c.trials for c in answer.cells}) == 1)


def any_rise(answer: Answer) -> bool:
    """Whether the rise of validation Dice over the last fifth of training is known of any cell."""
    return any(not math.isnan(cell.eligibility.rise) for cell in answer.cells)


def _without(grid: Grid, column: int, condition: bool) -> Grid:
    """The table without a column that says the same of every row (the lines about the method say it once)."""
    if not condition:
        return grid
    keep = [n for n in range(len(grid.headings)) if n != column]
    return replace(grid, headings=[grid.headings[n] for n in keep], rows=[[row[n] for n in keep] for row in grid.rows])


def pair_table(answer: Answer) -> pd.DataFrame:
    """Every two judged cells once, the better mean first; Holm over all of them."""
    ranked = answer.pairs.ranked() if answer.pairs else []
    rows = [
        (a, b, *(round(v, 7) for v in (c.difference, c.low, c.high)), float(f"{c.p:.4g}"), c.verdict)
        for (a, b), c in ranked
    ]
    return pd.DataFrame(rows, columns=list(PAIRS))


def _at(answer: Answer, levels: Mapping[str, str]) -> CellResult | None:
    """The cell with these levels."""
    return next((cell for cell in answer.cells if all(cell.levels[name] == v for name, v in levels.items())), None)


def _score(cell: CellResult | None, bold: bool = False) -> TableCell:
    """A cell's mean and standard deviation over seeds, in points, with its marks; in brackets without a verdict."""
    if cell is None or cell.dice != cell.dice:
        return TableCell(UNKNOWN)
    mean, spread = f"{100 * cell.dice:.2f}", f"±{100 * cell.sd:.2f}".replace("±0.", "±.") if cell.sd == cell.sd else ""
    marks = STILL_IMPROVING * cell.eligibility.still_improving + STALLED * bool(cell.eligibility.stalled)
    mean = mean if cell.eligibility.judged else f"({mean})"
    return TableCell(mean, " ".join(filter(None, (spread, marks))), bold=bold)


def _margin(effects: FactorEffects, level: str, language: str) -> TableCell:
    if level == effects.baseline:
        return TableCell(phrases("tables", language).baseline)
    return _difference(effects.comparisons.get(level))


def _difference(comparison: Comparison | None) -> TableCell:
    """An effect in points with the mark of its verdict, its interval below."""
    if comparison is None:
        return TableCell(UNKNOWN)
    ends = f"[{points(comparison.low)}, {points(comparison.high)}]" if finite(comparison) else ""
    return TableCell(f"{MARKS[comparison.verdict]} {points(comparison.difference)}", below=ends)


def _cost_heading(rows: Sequence[Sequence[CellResult]], language: str) -> str:
    """Parameters, where rows differ in them, and minutes of training; nothing where nothing was trained."""
    words = phrases("tables", language)
    counts = [{_known(cell.cost["parameters"]) for cell in row} for row in rows]
    differ = len(set().union(*counts) - {None}) > 1 and all(len(count) == 1 for count in counts)
    timed = any(_known(cell.cost["training_seconds"]) is not None for row in rows for cell in row)
    return str(words.parameters_and_minutes if differ and timed else words.minutes if timed else "")


def _cost(row: Sequence[CellResult], heading: str, language: str) -> TableCell:
    """Parameters and minutes of a row; minutes as a range where its cells differ much."""
    times = [s for cell in row if (s := _known(cell.cost["training_seconds"])) is not None]
    minutes = _minutes(times, unit="" if language == "zh" else " min")  # in Chinese the heading names the unit
    if "/" not in heading:
        return TableCell(minutes)
    return TableCell(_millions(_known(row[0].cost["parameters"])), below=minutes)


def _known(value: float) -> float | None:
    return value if value == value else None


def _millions(count: float | None) -> str:
    return UNKNOWN if count is None else f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:.0f}"


def _minutes(seconds: Sequence[float], unit: str) -> str:
    if not seconds:
        return UNKNOWN
    low, high = min(seconds) / 60, max(seconds) / 60
    digits = 1 if high < 100 else 0
    if high > 1.5 * low:
        return f"{low:.{digits}f}–{high:.{digits}f}{unit}"
    return f"{sum(seconds) / len(seconds) / 60:.{digits}f}{unit}"


def _seeds(cell: CellResult) -> str:
    done, planned = cell.eligibility.seeds, cell.eligibility.planned
    return str(done) if done == planned else f"{done} / {planned}"


def _against(answer: Answer, cell: CellResult, language: str) -> TableCell:
    """A single cell against the cell of the baselines."""
    if answer.against_baseline and cell.eligibility.judged and cell.name not in answer.against_baseline:
        return TableCell(phrases("tables", language).baseline)
    return _difference(answer.against_baseline.get(cell.name))


def _best(answer: Answer, cell: CellResult, language: str) -> str:
    """Whether a cell may be the best."""
    words = phrases("tables", language).best
    if not cell.eligibility.judged or answer.seeds < 2 or len(answer.judged) < 2:
        return UNKNOWN
    return str(words["no" if cell.name not in answer.best else "maybe" if len(answer.best) > 1 else "yes"])


def _points(value: float) -> TableCell:
    return TableCell(f"{100 * value:.2f}" if value == value else UNKNOWN)


def _number(value: float, form: str) -> str:
    return minus(form.format(value)) if value == value else UNKNOWN
