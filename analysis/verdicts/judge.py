"""Judge anybody's scores: a table with a row per score in, comparisons, the set of possible bests and conditions out.

The engine behind `run.py judge`. What may be said depends on what the table holds:

    seeds and groups   valid for new seeds and new groups (patients, cars, images ...)
    seeds alone        valid for this test set only (Welch's comparison of the seeds' scores)
    groups alone       valid for these trained models only (paired over groups)
    one seed           no verdict: nothing shows how far the next seed would fall
    single scores      no verdict either
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from analysis.statistics.comparisons import FEW_GROUPS, Comparison, as_comparisons, stack, unpaired
from analysis.statistics.estimator import Array, Estimate, summarise_cell
from analysis.statistics.possible_best import best_set
from registry import InputError

MOST_UNITS = 10_000  # seeds or groups beyond which "how many more" is not said
POWER = 0.8
UNSEEDED = ("groups", "single scores")  # kinds in which nothing shows how another training would fall
EXACT = Estimate(*(np.asarray(part) for part in (0.0, 0.0, 1.0, 0.0, 1.0)))  # between identical scores


@dataclass(frozen=True)
class Question:
    """How a data set is judged: against `baseline` or all pairs, with which margin, direction and level."""

    baseline: str | None = None
    rope: float = 0.001
    higher_is_better: bool = True
    level: float = 0.95


@dataclass(frozen=True)
class Pair:
    """A comparison a - b, and how many units (seeds or groups) in all would probably decide it; None where unknown."""

    a: str
    b: str
    comparison: Comparison
    units_to_decide: int | None = None


@dataclass(frozen=True)
class Repeat:
    """One score, and every (cell, seed) that holds exactly it."""

    score: float
    places: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Judgement:
    """What one data set says."""

    name: str
    kind: str  # "seeds and groups", "seeds", "groups", "one seed" or "single scores"
    unit: str  # what the groups are: "group" or "image"; "" where there are none
    means: dict[str, float]  # by cell, the best first
    spreads: dict[str, float]  # standard deviation over seeds; NaN with one
    seeds: dict[str, int]
    groups: int
    pairs: list[Pair]
    best_set: tuple[str, ...]
    winner_by_seed: dict[str, str | None]  # None: a tie; only seeds that every cell has
    leaders_differ: bool | None  # first and second, compared alone without correction; None: not known
    detectable: float | None  # the smallest difference found with 80 % power, in the median comparison
    repeats: list[Repeat]
    conditions: list[str]

    @property
    def depends_on_seed(self) -> bool:
        """Whether different seeds alone would have named different winners."""
        return len(set(self.winner_by_seed.values())) > 1


def judge(
    tables: Mapping[str, Mapping[str, pd.DataFrame]], unit: str, seeded: bool, question: Question
) -> list[Judgement]:
    """Judge each data set by itself.

    Args:
        tables: by data set and cell, scores with a row per seed (the index: its label) and a column per group.
        unit: "group" or "image" for what the columns are; "" where there is a single column that stands for the test
        set. seeded: whether the table has a seed column.
        question: baseline, margin, direction and level.

    Raises:
        InputError: for a data set with one cell only, or without the baseline.
    """
    return [_judge(name, cells, unit, seeded, question) for name, cells in tables.items()]


def _judge(name: str, cells: Mapping[str, pd.DataFrame], unit: str, seeded: bool, question: Question) -> Judgement:
    _refuse_too_few(name, cells, question)
    sign = 1 if question.higher_is_better else -1
    scores = {cell: table.to_numpy(float) for cell, table in cells.items()}
    means = {cell: float(array.mean()) for cell, array in scores.items()}
    ranked = sorted(means, key=lambda cell: -sign * means[cell])
    seeds = {cell: len(array) for cell, array in scores.items()}
    groups = next(iter(scores.values())).shape[1]
    kind = _kind(seeds, seeded, groups)
    names = _pairs(list(scores), ranked, question.baseline)
    estimates = [estimate(scores[a], scores[b], kind) for a, b in names]
    found = as_comparisons(stack(estimates), question.rope, question.higher_is_better, question.level)
    limit = largest_difference(scores.values(), question)
    error = (1 - question.level) / len(names)
    pairs = [
        Pair(
            a, b, one.within(limit), _units_to_decide(part, kind, min(seeds[a], seeds[b]), groups, error, question.rope)
        )
        for (a, b), one, part in zip(names, found, estimates, strict=True)
    ]
    winners = _winner_by_seed(cells, sign) if seeded else {}
    return Judgement(
        name=name,
        kind=kind,
        unit=unit,
        means={cell: means[cell] for cell in ranked},
        spreads={c: float(a.mean(1).std(ddof=1)) if len(a) > 1 else float("nan") for c, a in scores.items()},
        seeds=seeds,
        groups=groups,
        pairs=pairs,
        best_set=_best_set(scores, kind, question),
        winner_by_seed=winners,
        leaders_differ=_leaders_differ(scores, ranked, kind, question),
        detectable=_detectable(estimates, error, limit),
        repeats=_repeats(cells),
        conditions=[
            *_conditions(kind, unit, seeds, groups, len(names), question),
            *_unit(scores.values(), question),
            *_cut(found, limit),
        ],
    )


def estimate(a: Array, b: Array, kind: str) -> Estimate:
    """The difference a - b of two cells (seeds, groups); without seeds, paired over groups."""
    if kind not in UNSEEDED:
        return unpaired(a, b, summarise_cell(a), summarise_cell(b))
    difference = (a - b)[0]
    if difference.size > 1 and not difference.any():
        return EXACT
    n, mean = difference.size, difference.mean()
    variance = difference.var(ddof=1) / n if n > 1 else np.inf
    return Estimate(*(np.asarray(part, float) for part in (mean, 0.0, 1.0, variance, max(n - 1, 1))))


def _refuse_too_few(name: str, cells: Mapping[str, pd.DataFrame], question: Question) -> None:
    where = f"The data set {name}" if name else "The table"
    if question.baseline is not None and question.baseline not in cells:
        raise InputError(f"{where} has no cell '{question.baseline}'. Its cells: {', '.join(cells)}.")
    if len(cells) < 2:
        raise InputError(f"{where} has one cell only, {next(iter(cells))}: a comparison needs two. Check --cell.")


def _kind(seeds: Mapping[str, int], seeded: bool, groups: int) -> str:
    if not seeded:
        return "groups" if groups > 1 else "single scores"
    if max(seeds.values()) < 2:
        return "one seed"
    return "seeds and groups" if groups > 1 else "seeds"


def _pairs(cells: Sequence[str], ranked: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """Each other cell and the baseline; without one, every pair, the better mean first."""
    if baseline is not None:
        return [(cell, baseline) for cell in cells if cell != baseline]
    return list(combinations(ranked, 2))


def _best_set(scores: Mapping[str, Array], kind: str, question: Question) -> tuple[str, ...]:
    if kind not in UNSEEDED:
        return best_set(scores, question.level, question.higher_is_better)
    sign, error = (1 if question.higher_is_better else -1), (1 - question.level) / (len(scores) - 1)

    def excludes(better: str, worse: str) -> bool:
        part = estimate(scores[better], scores[worse], kind)
        return bool(sign * part.value > part.half_width(np.float64(2 * error)))

    return tuple(c for c in scores if not any(excludes(other, c) for other in scores if other != c))


def _leaders_differ(scores: Mapping[str, Array], ranked: Sequence[str], kind: str, question: Question) -> bool | None:
    first, second = (scores[cell] for cell in ranked[:2])
    p = float(estimate(first, second, kind).p(abs(float(first.mean() - second.mean()))))
    return None if kind in ("one seed", "single scores") else p <= 1 - question.level


def _winner_by_seed(cells: Mapping[str, pd.DataFrame], sign: int) -> dict[str, str | None]:
    """The cell with the best mean of each seed that every cell has; None for a tie."""
    first, *others = cells.values()
    winners: dict[str, str | None] = {}
    for seed in (label for label in first.index if all(label in table.index for table in others)):
        means = {cell: sign * float(table.loc[seed].mean()) for cell, table in cells.items()}
        best = [cell for cell, mean in means.items() if mean == max(means.values())]
        winners[str(seed)] = best[0] if len(best) == 1 else None
    return winners


def largest_difference(scores: Iterable[Array], question: Question) -> float:
    """The largest possible difference: 1 of scores from 0 to 1, 100 of percentages, else, and of losses, infinite."""
    known = list(scores)
    low, high = min(part.min() for part in known), max(part.max() for part in known)
    if low < 0 or high > 100 or not question.higher_is_better:
        return np.inf
    return 1 if high <= 1 else 100


def _cut(found: Sequence[Comparison], limit: float) -> list[str]:
    """The sentence on intervals that would reach beyond what is possible."""
    beyond = sum(bool(np.isfinite(one.low)) and max(-one.low, one.high) > limit for one in found)
    text = (
        f"Intervals are cut at ±{limit:g}, the largest difference of scores from 0 to {limit:g}; add seeds or groups."
    )
    return [text] if beyond else []


def _detectable(estimates: Sequence[Estimate], error: float, limit: float) -> float | None:
    """The smallest difference found with 80 % power at the strictest level: the median over comparisons.

    None where nothing shows a spread, and where no possible difference would be found.
    """
    found = []
    for part in estimates:
        spread = np.sqrt(part.seed_variance + part.car_variance)
        df = np.where(part.seed_variance >= part.car_variance, part.seed_df, part.car_df)
        if np.isfinite(spread) and spread > 0:
            found.append(float(part.half_width(error) + special.stdtrit(df, POWER) * spread))
    smallest = float(np.median(found)) if found else np.inf
    return smallest if smallest < limit else None


def _units_to_decide(part: Estimate, kind: str, seeds: int, groups: int, error: float, rope: float) -> int | None:
    """How many seeds (groups, without seeds) would decide a comparison if value and spread stayed as they are.

    None where it is decided already, nothing shows a spread, or even `MOST_UNITS` would not do.
    """
    if not np.isfinite(part.half_width(error)):
        return None
    now = groups if kind == "groups" else seeds
    size = abs(float(part.value))

    def decides(n: int) -> bool:
        scale, df = now / n, (n - 1) / max(now - 1, 1)
        if kind == "groups":
            larger = Estimate(part.value, part.seed_variance, part.seed_df, part.car_variance * scale, part.car_df * df)
        else:
            larger = Estimate(part.value, part.seed_variance * scale, part.seed_df * df, part.car_variance, part.car_df)
        half = float(larger.half_width(error))
        return size > half or size + half <= rope

    if decides(now) or not decides(MOST_UNITS):
        return None
    low, high = now, MOST_UNITS  # decided at `high`, not at `low`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _repeats(cells: Mapping[str, pd.DataFrame]) -> list[Repeat]:
    """Runs with exactly the same scores: collapsed models, or rows that were copied. The most frequent first.

    With groups all scores of two runs must agree; a single score may repeat by rounding, so it takes three.
    """
    places: dict[bytes, list[tuple[str, str]]] = {}
    scores: dict[bytes, NDArray[np.float64]] = {}
    for cell, table in cells.items():
        for seed, row in zip(table.index, table.to_numpy(float), strict=True):
            places.setdefault(row.tobytes(), []).append((cell, str(seed)))
            scores[row.tobytes()] = row
    fewest = 2 if next(iter(cells.values())).shape[1] > 1 else 3
    found = [Repeat(float(scores[key].mean()), tuple(where)) for key, where in places.items() if len(where) >= fewest]
    return sorted(found, key=lambda one: -len(one.places))


def _unit(scores: Iterable[Array], question: Question) -> list[str]:
    """A sentence where the default margin, which is meant for scores from 0 to 1, meets others."""
    if question.rope != Question.rope or all(part.min() >= 0 and part.max() <= 1 for part in scores):
        return []
    return [f"These scores are not from 0 to 1: ±{question.rope:g} is a margin for those. Give yours with --rope."]


def _conditions(
    kind: str, unit: str, seeds: Mapping[str, int], groups: int, comparisons: int, question: Question
) -> list[str]:
    """The sentences that say on what the verdicts rest."""
    low, high = min(seeds.values()), max(seeds.values())
    counted = f"{low} seeds" if low == high else f"{low} to {high} seeds"
    number = f"{groups} {unit}s"
    said = {
        "seeds and groups": f"Valid for new seeds and new {unit}s like these ({counted}, {number}).",
        "seeds": f"Compared over {counted}; the test set counts as fixed, so this is valid for this test set only.",
        "groups": f"Paired over {number}, without seeds: valid for these trained models only. "
        "Another training of the same methods may reverse it.",
        "single scores": "One score per cell: nothing shows how much it varies, so there is no verdict. "
        "Name the columns of seeds, groups or images with --seed, --group and --image.",
        "one seed": "One seed only: nothing shows how far another seed would fall, so there is no verdict. "
        "Train with at least 3 seeds.",
    }[kind]
    lines = [said]
    if low < 2 and kind in ("seeds", "seeds and groups"):
        lines.append("Cells with one seed get no verdict.")
    if kind in ("seeds and groups", "groups") and 1 < groups < FEW_GROUPS:
        lines.append(
            f"With {number} it is hardly known how far others would differ: with few, intervals can be too narrow."
        )
    if unit == "image" and groups > 1:
        lines.append(
            "Each image counts as independent. Where several images share a patient, slide or car, "
            "name that column with --group: otherwise intervals are too narrow."
        )
    if comparisons > 1:
        lines.append(f"Intervals and verdicts are Holm-adjusted over the {comparisons} comparisons of a data set.")
    lines.append(f"'Equivalent' means that the whole interval lies within ±{question.rope:g} (--rope).")
    return lines
