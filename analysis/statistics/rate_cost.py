"""What uncertain learning rates cost: a variance that enters every comparison of tuned cells.

A run whose learning rate is off its cell's best scores below it, and more seeds do not average that loss away: all
runs of a cell use one rate. The tuning trials show the losses l_i of a study's cells as a joint distribution
(`analysis.statistics.pooled_learning_rates`), of which `RateCost.covariance` is the second moment R_ij = E[l_i l_j]. A
weighted sum w of cells has the variance w' R w in addition to what runs and cars show. What all cells lose alike
cancels in a contrast; what a network's cells share (its top, its curvature) is counted once, over however many losses
it is averaged; networks are tuned independently: E[l_i l_j] = E[l_i] E[l_j] between them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.estimator import AddedVariance, Array
from analysis.statistics.pooled_learning_rates import PooledRates, fit_pooled_rates

DF_SHARE = 3  # R goes with the square of the noise's variance, which has a quarter of its df; set by simulation


@dataclass(frozen=True)
class RateCost:
    """What uncertain rates add to the covariance of the cells' mean scores."""

    cells: tuple[Hashable, ...]
    covariance: Array  # (cells, cells), in squared score
    df: Array  # (cells,): degrees of freedom of each cell's part, from those of its network's fit

    def of(self, weights: Mapping[Any, float]) -> AddedVariance:
        """The variance that it adds to a weighted sum of cells, with its degrees of freedom (Satterthwaite).

        Cells without an entry here had their rate given and add nothing.
        """
        w = np.array([float(weights.get(cell, 0.0)) for cell in self.cells])
        variance = max(float(w @ self.covariance @ w), 0.0)
        share = w**2 * np.diag(self.covariance)
        if not share.sum():
            return AddedVariance(np.asarray(0.0), np.asarray(np.inf))
        share = share / share.sum()
        return AddedVariance(np.asarray(variance), np.asarray(1 / (share / self.df).sum()))


def cost_of(rate_cost: RateCost | None, weights: Mapping[Any, float]) -> AddedVariance | None:
    """What a contrast takes: None where rates were given."""
    return None if rate_cost is None else rate_cost.of(weights)


def study_rate_cost(
    trials: Mapping[Any, tuple[ArrayLike, ArrayLike]],
    network: Mapping[Any, Hashable],
    used: Mapping[Any, float] | None = None,
    higher_is_better: bool = True,
) -> RateCost:
    """What the uncertainty of a study's tuned rates costs.

    Args:
        trials: by cell, rates > 0 and scores of its tuning trials, both (trials,); NaN for one that diverged.
        network: by cell, what its trials are fitted together with: the same name for all cells of one network.
        used: the rate that each cell's runs used; without it, the top of the pooled fit.
        higher_is_better: the sign of a better score.

    Returns:
        The cost, cells in the order of `trials`.

    Raises:
        ValueError: for rates that are not positive, or a network with too few usable trials for its fit.
    """
    groups: dict[Hashable, list[Any]] = {}
    for name in trials:
        groups.setdefault(network[name], []).append(name)
    parts = ({name: trials[name] for name in names} for names in groups.values())
    cost = combined([fit_pooled_rates(part, higher_is_better, used) for part in parts])
    order = [cost.cells.index(name) for name in trials]
    return RateCost(tuple(trials), cost.covariance[np.ix_(order, order)], cost.df[order])


def combined(fits: Sequence[PooledRates]) -> RateCost:
    """The cost of rates that were fitted network by network; cells in the order of the fits."""
    losses = np.concatenate([fit.losses for fit in fits])
    covariance, at = np.outer(losses, losses), 0
    for fit in fits:
        covariance[at : at + len(fit.losses), at : at + len(fit.losses)] = fit.moments
        at += len(fit.losses)
    cells = tuple(name for fit in fits for name in fit.rates)
    df = np.repeat([fit.df / DF_SHARE for fit in fits], [len(fit.losses) for fit in fits])
    return RateCost(cells, covariance, df)
