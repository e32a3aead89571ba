"""Which cells cannot be excluded as the best: a confidence set, not a ranking."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.comparisons import Name, check_scores, check_settings, difference
from analysis.statistics.rate_cost import RateCost, cost_of


def best_set(
    cells: Mapping[Name, ArrayLike],
    level: float = 0.95,
    higher_is_better: bool = True,
    *,
    paired_seeds: bool = False,
    rate_cost: RateCost | None = None,
) -> tuple[Name, ...]:
    """The cells that cannot be excluded as the best.

    A cell is excluded where any other is better in a one-sided comparison at error rate (1 - level) / (cells - 1).
    For a cell that is truly best, each of these comparisons errs with at most that probability, so it is in the set
    with probability `level` or more (a union bound: no assumption about how the comparisons depend on each other).

    Args:
        cells: scores (seeds, groups) by name, of the same groups in the same order.
        level: the probability with which a true best is in the set.
        higher_is_better: whether the highest mean is best, or the lowest.
        paired_seeds: whether row k of every cell is the same seed, whose draw they share.
        rate_cost: what the uncertainty of tuned learning rates adds; None where rates were given.

    Returns:
        Names in the order of `cells`. A cell with one seed is never excluded and excludes none.

    Raises:
        ValueError: for scores that `compare` refuses, or no cell.

    Reference:
        Hsu 1984, Ann. Statist. 12:1136 (constrained simultaneous intervals for the best), here with variances per cell.
    """
    check_settings(0, level)
    if not cells:
        raise ValueError("There is no cell to choose from.")
    scores = check_scores(cells)
    sign, error = (1 if higher_is_better else -1), (1 - level) / max(len(scores) - 1, 1)

    def excludes(better: Name, worse: Name) -> bool:
        added = cost_of(rate_cost, {better: 1, worse: -1})
        estimate = difference(scores[better], scores[worse], paired_seeds, added)
        return bool(sign * estimate.value > estimate.half_width(np.float64(2 * error)))

    return tuple(name for name in scores if not any(excludes(other, name) for other in scores if other != name))
