"""Main effects: each loss over all models, each model over all losses; and whether one answer holds for all of them.

The difference of two levels of a factor is the mean, over the levels of the other factor, of the differences of cells:

    d = (1 / k) sum_j (mu_aj - mu_bj),      a and b two losses, say, and j the k models

a weighted sum of cells for `analysis.statistics.estimator`, with far more to go on than any pair of cells has. It
speaks of these k models, not of models in general, and is an average: where the factors interact, it may hold for none
of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.comparisons import Family, adjust, check_scores, check_settings, family
from analysis.statistics.estimator import CellSummary, Estimate, contrast, stack, summarise_cell
from analysis.statistics.rate_cost import RateCost, cost_of

Key = tuple[str, str]


@dataclass(frozen=True)
class MainEffect:
    """Every pair of levels of one factor, and for each the levels of the other factor that it is averaged over."""

    family: Family[str]
    over: dict[tuple[str, str], tuple[str, ...]]


@dataclass(frozen=True)
class Interaction:
    """The largest evidence that the factors interact: a difference of differences, its interval and Holm-adjusted p."""

    p: float  # below 1 - level: they do; 1 where there is nothing to check
    difference: float
    low: float
    high: float
    where: tuple[Key, Key] | None  # ((first a, first b), (second c, second d)): (ac - bc) - (ad - bd)
    checked: int


def main_effect(
    cells: Mapping[Key, ArrayLike],
    factor: int,
    rope: float = 0.001,
    higher_is_better: bool = True,
    level: float = 0.95,
    *,
    rate_cost: RateCost | None = None,
) -> MainEffect:
    """Compare the levels of one factor (0: the first of each key, 1: the second) over the levels of the other.

    `cells` is {(model, loss): scores (seeds, cars)}. Where cells are missing, two levels are compared over those levels
    of the other factor that both have (`over` says which), and the set `family.top` may then be smaller than with all
    cells. Holm runs over the factor's pairs. `rate_cost` names cells by the same keys.

    Raises ValueError as `compare` does, for fewer than two levels, and where two levels have no level of the other in
    common.
    """
    check_settings(rope, level)
    made = {key: summarise_cell(scores) for key, scores in check_scores(cells).items()}
    levels = list(dict.fromkeys(key[factor] for key in made))
    if len(levels) < 2:
        raise ValueError(
            f"A main effect needs at least two levels to compare, but there is only {levels}: run another."
        )
    over = {pair: _common(made, factor, pair) for pair in combinations(levels, 2)}
    estimates = [_effect(made, factor, pair, others, rate_cost) for pair, others in over.items()]
    return MainEffect(family(list(over), estimates, rope, higher_is_better, level), over)


def interaction(
    cells: Mapping[Key, ArrayLike], level: float = 0.95, *, rate_cost: RateCost | None = None
) -> Interaction:
    """Check whether the differences between levels of one factor depend on the level of the other.

    Every two-by-two square of cells gives a difference of differences, 0 in an additive table; Holm over all squares
    (Holm 1979). It needs no complete table and no equal variances, and says where; a joint F-test would find a weak
    interaction that is spread over all cells sooner. A p above 1 - level is no proof of additivity: look at the
    interval.

    Raises ValueError as `compare` does.
    """
    check_settings(0, level)
    made = {key: summarise_cell(scores) for key, scores in check_scores(cells).items()}
    firsts, seconds = (list(dict.fromkeys(key[factor] for key in made)) for factor in (0, 1))
    squares = [
        (rows, columns)
        for rows in combinations(firsts, 2)
        for columns in combinations(seconds, 2)
        if all((row, column) in made for row in rows for column in columns)
    ]
    if not squares:
        return Interaction(1.0, 0.0, -np.inf, np.inf, None, 0)
    estimate = stack([_square(made, *square, rate_cost) for square in squares])
    low, high, p = adjust(estimate, 0, 1 - level)
    worst = int(estimate.p(np.abs(estimate.value)).argmin())
    (a, b), (c, d) = squares[worst]
    numbers = float(estimate.value[worst]), float(low[worst]), float(high[worst])
    if numbers[0] < 0:  # turned so that the difference of differences is not negative
        (c, d), numbers = (d, c), (-numbers[0], -numbers[2], -numbers[1])
    return Interaction(float(p[worst]), *numbers, ((a, b), (c, d)), len(squares))


def _common(made: Mapping[Key, CellSummary], factor: int, pair: tuple[str, str]) -> tuple[str, ...]:
    a, b = ({key[1 - factor]: None for key in made if key[factor] == level} for level in pair)
    shared = tuple(other for other in a if other in b)
    if not shared:
        raise ValueError(
            f"{pair[0]} and {pair[1]} share no cell to be compared over: {list(a)} against {list(b)}. Run one of them."
        )
    return shared


def _effect(
    made: Mapping[Key, CellSummary],
    factor: int,
    pair: tuple[str, str],
    others: tuple[str, ...],
    rate_cost: RateCost | None,
) -> Estimate:
    keys = [(level, other) if factor == 0 else (other, level) for level in pair for other in others]
    weights = [sign / len(others) for sign in (1, -1) for _ in others]
    return contrast([made[key] for key in keys], weights, cost_of(rate_cost, dict(zip(keys, weights, strict=True))))


def _square(made: Mapping[Key, CellSummary], rows: Key, columns: Key, rate_cost: RateCost | None) -> Estimate:
    weights = dict(zip(((row, column) for row in rows for column in columns), (1, -1, -1, 1), strict=True))
    return contrast([made[key] for key in weights], list(weights.values()), cost_of(rate_cost, weights))
