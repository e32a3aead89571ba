"""What uncertain learning rates cost: a variance that enters every comparison of tuned cells.

A run at a log rate that is d off its cell's best scores c d^2 below it, c being the curvature of the response. The
tuning trials show d only as a distribution, normal with the mean m (used rate minus pooled top, 0 where the top itself
is used) and the covariance S over the cells of one network. More seeds do not average this loss away: all runs of a
cell use one rate. `RateCost.covariance` is the second moment, over the cells of a study, of the losses,

    E[c_i d_i^2 c_j d_j^2] = c_i c_j (2 S_ij^2 + 4 m_i m_j S_ij) + l_i l_j,        l_i = c_i (m_i^2 + S_ii)

so that a weighted sum w of cells has the variance w' R w in addition to what runs and cars show. What all cells lose
alike cancels in a contrast; what a network's cells share (S_ij) is counted once, however many losses it is averaged
over. Networks are tuned independently: S_ij = 0 between them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.estimator import AddedVariance, Array
from analysis.statistics.pooled_learning_rates import PooledRates, fit_pooled_rates


@dataclass(frozen=True)
class RateCost:
    """What uncertain rates add to the covariance of the cells' mean scores."""

    cells: tuple[Hashable, ...]
    covariance: Array  # (cells, cells), in squared score
    df: Array  # (cells,): degrees of freedom of the fit behind each cell

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
    names = list(trials)
    moment, losses = np.zeros((len(names), len(names))), np.zeros(len(names))
    df = np.ones(len(names))
    for group in dict.fromkeys(network[name] for name in names):
        at = [n for n, name in enumerate(names) if network[name] == group]
        fit = fit_pooled_rates({names[n]: trials[names[n]] for n in at}, higher_is_better)
        off = np.zeros(len(at))
        if used is not None:
            off = np.array([np.log(used[names[n]] / fit.rates[names[n]]) for n in at])
        moment[np.ix_(at, at)], losses[at] = _cost(fit, off)
        df[at] = fit.df
    return RateCost(tuple(names), moment + np.outer(losses, losses), df)


def _cost(fit: PooledRates, off: Array) -> tuple[Array, Array]:
    """Of one network's cells: the covariance of their losses and the expected losses, used log rates `off` the top."""
    c, s = fit.curvature, fit.covariance
    return c**2 * (2 * s**2 + 4 * np.outer(off, off) * s), c * (off**2 + np.diag(s))
