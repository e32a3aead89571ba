"""Before spending: what a study of so many seeds and cars can detect, from a pilot's variances or from stated guesses.

From the pilot's mean squares come the variances of the model of `analysis.statistics.estimator` (the method of moments
of the two-way table: Searle, Casella & McCulloch 1992, Variance Components, ch. 4). The chances of the verdicts are
normal probabilities, averaged over the interval widths that studies would happen to see: their mean squares are
independent multiples of chi-squared.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from analysis.statistics.comparisons import check_scores
from analysis.statistics.estimator import (
    AddedVariance,
    Array,
    Estimate,
    contrast,
    summarise_cell,
    welch_df,
    with_added,
)

STUDIES = 4000  # whose mean squares are drawn, always the same ones, so that a plan does not change from call to call


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the *difference* between two cells, in the scores' unit; one cell has 1 / sqrt(2) of each.

    seed: between seeds, of the difference of one run of each · car: between cars, of the true difference on a car ·
    residual: the rest, of one car in one run of each.
    """

    seed: float
    car: float
    residual: float


@dataclass(frozen=True)
class Chances:
    """The probabilities of the verdicts of a, in a family with Holm's first and strictest divisor; they sum to 1."""

    better: float
    worse: float
    equivalent: float
    undecided: float


@dataclass(frozen=True)
class Design:
    """The smallest differences that models x losses find with 80 % power, and the chances of `equivalent`.

    Differences of one pair on its own (`single`), of a pair among all pairs of cells, of two losses over all models and
    of two models over all losses (NaN where there is no second level).
    """

    single: float
    pair: float
    losses: float
    models: float
    equivalent_single: float  # of two cells that are equal
    equivalent_pair: float


def spread_of(cells: Sequence[ArrayLike]) -> Spread:
    """Estimate the spread of a difference from a pilot's cells (seeds, cars), at least two of each.

    Seeds and residual are averaged over cells, cars over pairs; a negative estimate counts as 0. From 2 cells x 5 seeds
    the seeds' part is known within a factor of 0.68 to 1.92 (95 %): plan with the upper end where money is tight.
    Raises ValueError.
    """
    arrays = list(check_scores({f"cell {n}": cell for n, cell in enumerate(cells)}).values())
    if len(arrays) < 2 or min(min(a.shape) for a in arrays) < 2:
        raise ValueError(
            "A pilot needs at least two cells, each with two seeds and two cars or more: run a few more seeds."
        )
    made = [summarise_cell(array) for array in arrays]
    cars = arrays[0].shape[1]
    seed = [max(float(cell.variance - cell.residual), 0) * cell.seeds for cell in made]
    residual = [float(cell.residual) * cell.seeds * cars for cell in made]
    pairs = [contrast([a, b], [1, -1]).car_variance * cars for n, a in enumerate(made) for b in made[n + 1 :]]
    return Spread(*(float(np.sqrt(part)) for part in (2 * np.mean(seed), np.mean(pairs), 2 * np.mean(residual))))


def spread_of_differences(differences: Sequence[ArrayLike]) -> Spread:
    """The spread of differences that were formed within each seed, (seeds, cars) each: that of runs matched by seed.

    What the runs of a seed share, such as the training groups that it draws, has cancelled. At least two seeds and two
    cars; a negative estimate counts as 0.
    """
    made = [summarise_cell(table) for table in differences]
    cars = np.asarray(differences[0]).shape[1]
    seed = [max(float(one.variance - one.residual), 0) * one.seeds for one in made]
    residual = [float(one.residual) * one.seeds * cars for one in made]
    beyond = [float(contrast([one], [1]).car_variance) * cars for one in made]
    return Spread(*(float(np.sqrt(np.mean(part))) for part in (seed, beyond, residual)))


def chances(
    spread: Spread,
    seeds: int,
    cars: int,
    difference: float,
    rope: float = 0.001,
    comparisons: int = 1,
    averaged: int = 1,
    level: float = 0.95,
    matched: bool = False,
    added: AddedVariance | None = None,
) -> Chances:
    """How often a comparison would end in which verdict if a - b were `difference` in truth (higher is better).

    `comparisons` is the number of pairs in the family, `averaged` the number of levels of the other factor that a main
    effect is averaged over (its cells are taken to vary independently). Where runs are `matched` by seed, n seeds give
    n - 1 degrees of freedom. `added` is a variance besides, of uncertain learning rates. Raises ValueError below two
    seeds or two cars.
    """
    if seeds < 2 or cars < 2:
        raise ValueError(f"With {seeds} seeds and {cars} cars every verdict is undecided: plan at least two of each.")
    half = _half_widths(spread, seeds, cars, (1 - level) / comparisons, averaged, matched, *_parts(added))
    error = np.sqrt(_variance(spread, seeds, cars, averaged) + _parts(added)[0])
    if not error:
        half, error = np.zeros(1), np.float64(1e-300)  # no spread at all: the verdict is the truth's
    inside = np.maximum(rope - half, 0)
    above = stats.norm.sf((np.maximum(half, inside) - difference) / error).mean()
    below = stats.norm.cdf((-np.maximum(half, inside) - difference) / error).mean()
    within = stats.norm.cdf((inside - difference) / error) - stats.norm.cdf((-inside - difference) / error)
    equivalent = float(np.where(half <= rope, within, 0).mean())
    better, worse = float(above), float(below)
    return Chances(better, worse, equivalent, max(1 - better - worse - equivalent, 0.0))


def smallest_difference(
    spread: Spread,
    seeds: int,
    cars: int,
    power: float = 0.8,
    comparisons: int = 1,
    averaged: int = 1,
    level: float = 0.95,
    matched: bool = False,
    added: AddedVariance | None = None,
) -> float:
    """Find the smallest true difference found `better` with probability `power`; arguments as for `chances`."""
    error = float(np.sqrt(_variance(spread, seeds, cars, averaged) + _parts(added)[0]))
    if not error:
        return 0.0

    def missing(difference: float) -> float:
        found = chances(spread, seeds, cars, difference, 0, comparisons, averaged, level, matched, added)
        return found.better - power

    half = _half_widths(spread, seeds, cars, (1 - level) / comparisons, averaged, matched, *_parts(added))
    top = float(half.max()) + 10 * error
    return float(optimize.brentq(missing, 0, top, xtol=1e-4 * error))


def what_it_can_detect(
    spread: Spread, seeds: int, cars: int, models: int, losses: int, rope: float = 0.001, level: float = 0.95
) -> Design:
    """The plan of a study of `models` x `losses` cells, in four smallest differences and two chances."""

    def pairs(number: int) -> int:
        return max(number * (number - 1) // 2, 1)

    def smallest(levels: int, averaged: int) -> float:
        return (
            smallest_difference(spread, seeds, cars, 0.8, pairs(levels), averaged, level)
            if levels > 1
            else float("nan")
        )

    cells = models * losses
    equal = [chances(spread, seeds, cars, 0, rope, number, 1, level).equivalent for number in (1, pairs(cells))]
    return Design(smallest(2, 1), smallest(cells, 1), smallest(losses, models), smallest(models, losses), *equal)


def detectable(
    spread: Spread,
    seeds: int,
    cars: int,
    levels: Mapping[str, int],
    rope: float,
    level: float = 0.95,
    matched: bool = False,
) -> dict[str, Any]:
    """Of a study that crosses factors of so many `levels`: {"pair": …, "main": {factor: …}, "equivalent": …}.

    The smallest difference found with 80 % power, of a single cell from the baseline's and of each factor's levels from
    its baseline, averaged over all the others, and the chance that a cell equal to the baseline's is found equivalent;
    None where one seed or one car leaves everything undecided, or a factor has one level.
    """
    if min(seeds, cars) < 2:
        return {"pair": None, "main": dict.fromkeys(levels), "equivalent": None}
    cells = math.prod(levels.values())

    def smallest(number: int) -> float | None:
        if number < 2:
            return None
        return smallest_difference(spread, seeds, cars, 0.8, number - 1, cells // number, level, matched)

    return {
        "pair": smallest(cells),
        "main": {name: smallest(number) for name, number in levels.items()},
        "equivalent": chances(spread, seeds, cars, 0.0, rope, max(1, cells - 1), 1, level, matched).equivalent,
    }


def _variance(spread: Spread, seeds: int, cars: int, averaged: int) -> float:
    return (_between_seeds(spread, seeds, cars) + spread.car**2 / cars) / averaged


def _between_seeds(spread: Spread, seeds: int, cars: int) -> float:
    return (spread.seed**2 + spread.residual**2 / cars) / seeds


@functools.lru_cache(maxsize=64)  # a root search calls it with the same arguments a dozen times
def _half_widths(
    spread: Spread, seeds: int, cars: int, alpha: float, averaged: int, matched: bool, extra: float, extra_df: float
) -> Array:
    """Half widths (studies,) of the intervals at error rate `alpha` that studies would see; not to be modified."""
    rng, cells = np.random.default_rng(0), 1 if matched else 2 * averaged

    def seen(df: int, number: int) -> Array:
        return rng.chisquare(df, (STUDIES, number)) / df

    residual = spread.residual**2 / (seeds * cars * averaged)
    parts = _between_seeds(spread, seeds, cars) / averaged / cells * seen(seeds - 1, cells)
    over_cars = (spread.car**2 / cars / averaged + residual) * seen(cars - 1, 1)[:, 0]
    beyond = np.maximum(over_cars - residual * seen((seeds - 1) * (cars - 1), cells).mean(1), 0)
    variance, df = parts.sum(1), welch_df(parts, np.full(cells, seeds - 1))
    if extra:
        variance, df = with_added(variance, df, AddedVariance(np.asarray(extra), np.asarray(extra_df)))
    return Estimate(np.zeros(STUDIES), variance, df, beyond, np.full(STUDIES, cars - 1.0)).half_width(alpha)


def _parts(added: AddedVariance | None) -> tuple[float, float]:
    return (0.0, math.inf) if added is None else (float(added.variance), float(added.df))
