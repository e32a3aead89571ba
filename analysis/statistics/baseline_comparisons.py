"""Planned comparisons with one baseline: every other cell minus it, as one family."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import ArrayLike

from analysis.statistics.comparisons import Comparison, Name, as_comparisons, check_scores, check_settings, difference
from analysis.statistics.estimator import stack
from analysis.statistics.rate_cost import RateCost, cost_of


def against_baseline(
    cells: Mapping[Name, ArrayLike],
    baseline: Name,
    rope: float = 0.001,
    higher_is_better: bool = True,
    level: float = 0.95,
    *,
    paired_seeds: bool = False,
    rate_cost: RateCost | None = None,
) -> dict[Name, Comparison]:
    """Compare every other cell with the baseline; Holm's procedure runs over these comparisons.

    Args:
        cells: scores (seeds, groups) by name, of the same groups in the same order; numbers of seeds may differ.
        baseline: the cell that is subtracted.
        rope: half the width of the region of practical equivalence, in the scores' unit.
        higher_is_better: decides which sign is `better`; the difference is always cell minus baseline.
        level: of the whole family.
        paired_seeds: whether row k of every cell is the same seed, whose draw they share.
        rate_cost: what the uncertainty of tuned learning rates adds; None where rates were given.

    Returns:
        The comparison cell minus baseline by the cell's name, in the order of `cells`, without the baseline.

    Raises:
        ValueError: for scores that `compare` refuses, a baseline that is not among the cells, or no other cell.
    """
    check_settings(rope, level)
    if baseline not in cells:
        raise ValueError(f"The baseline {baseline} is none of the cells: {', '.join(map(str, cells))}.")
    others = [name for name in cells if name != baseline]
    if not others:
        raise ValueError(f"There is no cell to compare with the baseline {baseline}: add another model or loss.")
    scores = check_scores(cells)
    estimates = [
        difference(scores[n], scores[baseline], paired_seeds, cost_of(rate_cost, {n: 1, baseline: -1})) for n in others
    ]
    return dict(zip(others, as_comparisons(stack(estimates), rope, higher_is_better, level), strict=True))
