"""Is one cell better than another, and can it be believed? Verdicts on pairs and on whole families of pairs.

The unit is the car; seeds are the second level; a pair of cells is compared on the same cars.
`analysis.statistics.estimator` states the model and the estimator, docs/en/statistics.md what simulations say of it.

A verdict is read off an interval, in this order: `equivalent` where the interval lies wholly inside ±rope (the region
of practical equivalence: Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657; Kruschke 2018, AMPPS 1:270), `better` or
`worse` where it lies on one side of 0, else `undecided`. It is conditional on what was held fixed: budget, rates, data
(a note under every table says so).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.estimator import AddedVariance, Array, CellSummary, Estimate, contrast, stack, summarise_cell
from analysis.statistics.rate_cost import RateCost, cost_of
from analysis.statistics.seed_pairing import pairing_helps

Name = TypeVar("Name", bound=Hashable)
FEW_GROUPS = 8  # below it the spread between test groups is poorly known; coverage was simulated from 16 on
NOTHING = Estimate(*(np.asarray(part) for part in (0.0, 0.0, 1.0, 0.0, 1.0)))  # between the same runs
OPPOSITE = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Comparison:
    """A difference a - b and its interval, in the scores' unit; `p` <= 1 - level where the interval excludes 0."""

    difference: float
    low: float
    high: float
    p: float
    verdict: str  # of a: equivalent, better, worse or undecided
    exceeds_rope: bool  # the interval lies wholly beyond +rope or wholly beyond -rope

    def mirrored(self) -> Comparison:
        """The same of b - a."""
        return Comparison(
            -self.difference, -self.high, -self.low, self.p, OPPOSITE.get(self.verdict, self.verdict), self.exceeds_rope
        )

    def within(self, limit: float) -> Comparison:
        """The same with the interval cut at ±`limit`, the largest possible difference; without ends it stays so."""
        if not np.isfinite([self.low, self.high]).all():
            return self
        return replace(self, low=max(self.low, -limit), high=min(self.high, limit))


@dataclass(frozen=True)
class Family(Generic[Name]):
    """Every pair of a family, each as (a, b) and as (b, a); `paired_seeds`: whether runs were paired by seed."""

    comparisons: dict[tuple[Name, Name], Comparison]
    paired_seeds: bool = False

    def ranked(self) -> list[tuple[tuple[Name, Name], Comparison]]:
        """Each pair once, the better mean first, from the largest difference down."""
        once = [
            ((a, b), comparison)
            for (a, b), comparison in self.comparisons.items()
            if comparison.difference > 0 or (comparison.difference == 0 and str(a) < str(b))
        ]
        return sorted(once, key=lambda item: -item[1].difference)


def compare(
    a: ArrayLike,
    b: ArrayLike,
    rope: float = 0.001,
    higher_is_better: bool = True,
    level: float = 0.95,
    *,
    paired_seeds: bool = False,
) -> Comparison:
    """Compare two cells from their scores (seeds, cars), of the same cars in the same order.

    Args:
        a: scores (seeds, cars); one seed gives an infinite interval and `undecided`. With one car, seeds alone are
            compared (Welch), and the verdict holds for this car only.
        b: scores (seeds, cars); its number of seeds may differ. Equal rows are the same runs: 0, p 1, `equivalent`.
        rope: the region of practical equivalence is ±rope, in the scores' unit.
        higher_is_better: decides which sign is `better`; the difference is a - b in either case.
        level: of the interval.
        paired_seeds: take row k of both as one unit; worth its fewer degrees of freedom only where seeds correlate
            (`analysis.statistics.seed_pairing`).

    Raises:
        ValueError: for scores that are not (seeds, cars), not finite, or not of the same number of cars.
    """
    check_settings(rope, level)
    a, b = check_scores({"a": a, "b": b}).values()
    family_of_one = stack([difference(a, b, paired_seeds)])
    return as_comparisons(family_of_one, rope, higher_is_better, level)[0]


def compare_all(
    cells: Mapping[Name, ArrayLike],
    rope: float = 0.001,
    higher_is_better: bool = True,
    level: float = 0.95,
    *,
    paired_seeds: bool | None = False,
    rate_cost: RateCost | None = None,
) -> Family[Name]:
    """Compare every pair of cells, with Holm-adjusted intervals.

    Args:
        cells: {name: scores (seeds, cars)}.
        rope: as for `compare`.
        higher_is_better: as for `compare`.
        level: holds for the whole family, see `adjust`.
        paired_seeds: None pairs runs by seed where the family's seeds correlate beyond doubt and pairing narrows the
            intervals (`analysis.statistics.seed_pairing.pairing_helps`); row k must then be one seed in every cell.
        rate_cost: what the uncertainty of tuned learning rates adds; None where rates were given.

    Raises:
        ValueError: as `compare` does, and for fewer than two cells.
    """
    check_settings(rope, level)
    if len(cells) < 2:
        raise ValueError(
            f"A comparison needs at least two cells, but there are {len(cells)}: run another model or loss."
        )
    scores = check_scores(cells)
    paired = pairing_helps(list(scores.values())) if paired_seeds is None else paired_seeds
    pairs, made = list(combinations(scores, 2)), {name: summarise_cell(cell) for name, cell in scores.items()}
    estimates = [
        difference(scores[a], scores[b], True, cost_of(rate_cost, {a: 1, b: -1}))
        if paired
        else unpaired(scores[a], scores[b], made[a], made[b], cost_of(rate_cost, {a: 1, b: -1}))
        for a, b in pairs
    ]
    found: dict[tuple[Name, Name], Comparison] = {}
    for (a, b), comparison in zip(pairs, as_comparisons(stack(estimates), rope, higher_is_better, level), strict=True):
        found |= {(a, b): comparison, (b, a): comparison.mirrored()}
    return Family(found, paired)


def difference(a: Array, b: Array, paired_seeds: bool = False, added: AddedVariance | None = None) -> Estimate:
    """Estimate a - b from checked scores (seeds, cars). Raises ValueError where unlike seeds are to be paired."""
    if not paired_seeds:
        return unpaired(a, b, summarise_cell(a), summarise_cell(b), added)
    if len(a) != len(b):
        raise ValueError(f"Seeds cannot be paired: a has {len(a)} and b has {len(b)}. Leave paired_seeds out.")
    return NOTHING if same_runs(a, b) else contrast([summarise_cell(a - b)], [1], added)


def unpaired(
    a: Array, b: Array, cell_a: CellSummary, cell_b: CellSummary, added: AddedVariance | None = None
) -> Estimate:
    """The estimate of a - b with independent seeds, from checked scores and what `summarise_cell` made of them."""
    return NOTHING if same_runs(a, b) else contrast([cell_a, cell_b], [1, -1], added)


def planned_contrast(
    cells: Sequence[Array],
    weights: Sequence[float],
    paired_seeds: bool = False,
    added: AddedVariance | None = None,
) -> Estimate:
    """The estimate of a weighted sum of cells from checked scores (seeds, cars).

    Raises ValueError where runs are to be matched by seed and the cells' numbers of seeds differ.
    """
    if not paired_seeds:
        return contrast([summarise_cell(cell) for cell in cells], weights, added)
    if len({len(cell) for cell in cells}) > 1:
        raise ValueError(f"Seeds cannot be paired: cells have {sorted({len(cell) for cell in cells})} of them.")
    matched = sum((weight * cell for weight, cell in zip(weights, cells, strict=True)), np.zeros_like(cells[0]))
    return contrast([summarise_cell(matched)], [1], added)


def same_runs(a: Array, b: Array) -> bool:
    """Whether both hold the same rows, in any order: the same runs, between which nothing can vary."""
    if a.shape != b.shape or len(a) < 2 or not np.array_equal(np.sort(a[:, 0]), np.sort(b[:, 0])):
        return False
    return np.array_equal(a[np.lexsort(a.T)], b[np.lexsort(b.T)])


def as_comparisons(estimate: Estimate, rope: float, higher_is_better: bool, level: float) -> list[Comparison]:
    """The comparisons of a family of estimates (pairs,)."""
    low, high, p = adjust(estimate, rope, 1 - level)
    rows = zip(estimate.value, low, high, p, classify(low, high, rope, higher_is_better), strict=True)
    return [
        Comparison(float(d), float(lo), float(hi), float(p), str(verdict), bool(lo > rope or hi < -rope))
        for d, lo, hi, p, verdict in rows
    ]


def classify(low: Array, high: Array, rope: float, higher_is_better: bool = True) -> NDArray[np.str_]:
    """The verdicts of intervals (...): the rule of this module."""
    above, below = ("better", "worse") if higher_is_better else ("worse", "better")
    inside = (low >= -rope) & (high <= rope)
    return np.select([inside, low > 0, high < 0], ["equivalent", above, below], "undecided")


def adjust(estimate: Estimate, rope: float, alpha: float) -> tuple[Array, Array, Array]:
    """Holm-adjusted intervals and p of a family of m estimates (..., m): (low, high, p), each (..., m).

    Two step-down procedures (Holm 1979, Scand. J. Statist. 6:65) run over the family. One tests "no difference": of the
    p sorted upwards, the k-th is rejected while p <= alpha / (m - k + 1); that number is its divisor, and the pairs
    left over, r rejected, share the divisor m - r. The other tests "a difference of at least rope" in the same way with
    the p of the interval's touching the rope's edge. Each keeps its own false verdicts anywhere in the family to
    probability alpha. A single p adjusted for both at once would not: in simulations, pairs found equivalent then lend
    their alpha to false differences.

    Each pair is reported with one interval, at error rate alpha / divisor: with its divisor of the first procedure, or
    else with that of the second, the first of the two whose reading is a verdict that neither procedure contradicts. A
    pair without one is undecided, at its first divisor; and in the rare case that a procedure contradicts that reading
    too, the larger divisor is taken, which is never contradicted. So a verdict read off the interval by the plain rule
    is one that its own procedure allows. The p is Holm's adjusted p, or the pair's p times its divisor where that
    divisor is larger than the first procedure's: p <= alpha exactly where the interval excludes 0. The intervals agree
    with the verdicts; they do not promise to hold all true differences at once.
    """
    size = np.abs(estimate.value)
    p, touch = estimate.p(size), _touch(estimate, rope - size)
    (by_difference, differs, holm), (by_rope, equivalent, _) = _holm(p, alpha), _holm(touch, alpha)
    divisor = np.maximum(by_difference, by_rope)
    candidates = ((by_difference, True), (by_rope, False), (by_difference, False))
    for candidate, without_verdict in candidates:  # the last wins
        excludes, inside = p <= alpha / candidate, touch <= alpha / candidate
        allowed = (excludes <= differs) & (inside <= equivalent)
        divisor = np.where(allowed & (excludes | inside | without_verdict), candidate, divisor)
    half = estimate.half_width(alpha / divisor)
    adjusted = np.where(divisor <= by_difference, holm, np.clip(divisor * p, holm, 1))
    return estimate.value - half, estimate.value + half, adjusted


def _touch(estimate: Estimate, gap: Array) -> Array:
    """The smallest alpha whose interval lies inside ±rope, `gap` = rope - |value| away; 1 outside."""
    exact = estimate.seed_variance + estimate.car_variance == 0
    return np.where(exact & (gap >= 0), 0.0, estimate.p(np.maximum(gap, 0)))


def _holm(p: Array, alpha: float) -> tuple[Array, NDArray[np.bool_], Array]:
    """Of each p (..., m): the divisor of alpha at which it was decided, whether it was rejected, and its adjusted p."""
    m = p.shape[-1]
    order = p.argsort(-1, kind="stable")
    steps = m - np.arange(m)
    adjusted = np.maximum.accumulate(np.take_along_axis(p, order, -1) * steps, -1)
    rejected = adjusted <= alpha
    left = np.maximum(m - rejected.sum(-1, keepdims=True), 1)
    back = order.argsort(-1, kind="stable")
    divisor, rejected, adjusted = (
        np.take_along_axis(x, back, -1) for x in (np.where(rejected, steps, left), rejected, np.minimum(adjusted, 1))
    )
    return divisor, rejected, adjusted


def check_scores(cells: Mapping[Name, ArrayLike]) -> dict[Name, Array]:
    """The cells as finite arrays (seeds, cars) of the same cars. Raises ValueError with what is wrong and where."""
    scores = {name: np.asarray(cell, float) for name, cell in cells.items()}
    for name, cell in scores.items():
        if cell.ndim == 1:
            raise ValueError(
                f"The scores of {name} have the shape {cell.shape}, not (seeds, cars): pass scores[None] for one seed."
            )
        if cell.ndim != 2 or not cell.size:
            raise ValueError(
                f"The scores of {name} have the shape {cell.shape}: they must be (seeds, cars), at least one of each."
            )
        if not np.isfinite(cell).all():
            raise ValueError(f"The scores of {name} hold NaN or infinite values: leave the failed seed's row out.")
    cars = {name: cell.shape[1] for name, cell in scores.items()}
    if len(set(cars.values())) > 1:
        raise ValueError(
            f"Cells are compared on the same cars, but their numbers differ: {cars}. Score them on the same cars."
        )
    return scores


def check_settings(rope: float, level: float) -> None:
    """Raises ValueError unless rope >= 0 and 0 < level < 1."""
    if not (np.isfinite(rope) and rope >= 0):
        raise ValueError(
            f"The rope is a difference too small to matter, 0 or more in the scores' unit, but it is {rope}."
        )
    if not 0 < level < 1:
        raise ValueError(f"The level is a probability such as 0.95, but it is {level}.")
