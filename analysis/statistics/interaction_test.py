"""One test of whether factors interact: the ANOVA-type statistic, which needs no equal variances.

With cells' means x, the projection T onto what an additive model cannot fit, and V the covariance of x,

    F = x' T x / tr(T V),    f1 = tr(T V)^2 / tr(T V T V),    f2 = tr(D V)^2 / tr(D^2 V^2 L)    independent seeds
                                                              f2 = (seeds - 1) f1               runs matched by seed

is compared with the F distribution; D is T's diagonal, L the diagonal of 1 / (seeds - 1). Variances come from the
seeds, so the test speaks of these test images. With the unequal variances seen here a Wald test is wrong in 12 to 40
% of 4 x 4 tables and a pooled F test in 8 %; this one in at most 5 %.

Reference:
    Brunner, Dette, Munk 1997, JASA 92:1494 (independent cells); Box 1954, Ann. Math. Statist. 25:484 (matched seeds).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from analysis.statistics.comparisons import check_scores
from analysis.statistics.estimator import Array
from analysis.statistics.rate_cost import RateCost


@dataclass(frozen=True)
class InteractionTest:
    """The statistic with its degrees of freedom; `p` is 1 where there is nothing to test."""

    statistic: float
    df1: float
    df2: float
    p: float


NOTHING_TO_TEST = InteractionTest(0.0, 0.0, 0.0, 1.0)


def interaction_test(
    cells: Mapping[tuple[str, ...], ArrayLike], paired: bool = False, rate_cost: RateCost | None = None
) -> InteractionTest:
    """Test additivity of a table of cells.

    Args:
        cells: scores (seeds, groups) by the levels of all factors. Cells may be missing.
        paired: whether row k of every cell is the same seed, whose draw they share.
        rate_cost: what the uncertainty of tuned learning rates adds, cells named by the same keys.

    Returns:
        The test; p 1 where an additive model fits any such table, or a cell has one seed.

    Raises:
        ValueError: for scores that `compare` refuses, or unlike numbers of seeds to be paired.
    """
    runs = [scores.mean(1) for scores in check_scores(cells).values()]  # (seeds,) each
    seeds = np.array([len(cell) for cell in runs])
    contrast = _beyond_additive(list(cells))
    if seeds.min(initial=2) < 2 or np.trace(contrast) < 0.5:
        return NOTHING_TO_TEST
    if paired and len(set(seeds)) > 1:
        raise ValueError(f"Seeds cannot be paired: cells have {sorted(set(map(int, seeds)))} of them.")
    mean = np.array([cell.mean() for cell in runs])
    if paired:
        covariance = np.cov(np.stack(runs), ddof=1) / seeds[0]
    else:
        covariance = np.diag([cell.var(ddof=1) / len(cell) for cell in runs])
    df = np.broadcast_to(seeds - 1.0, seeds.shape)
    if rate_cost is not None:
        covariance, df = _with_rates(covariance, df, rate_cost, list(cells))
    spread = contrast @ covariance
    total = float(np.trace(spread))
    if total <= 0:
        return NOTHING_TO_TEST
    df1 = total**2 / float(np.trace(spread @ spread))
    if paired:
        df2 = df.min() * df1
    else:
        parts = np.diag(contrast) * np.diag(covariance)
        df2 = float(parts.sum() ** 2 / (parts**2 / df).sum())
    statistic = float(mean @ contrast @ mean) / total
    return InteractionTest(statistic, df1, float(df2), float(special.fdtrc(df1, df2, statistic)))


def _with_rates(covariance: Array, df: Array, rate_cost: RateCost, keys: list[tuple[str, ...]]) -> tuple[Array, Array]:
    """The covariance with that of uncertain rates, and each cell's degrees of freedom (Satterthwaite)."""
    at = {key: n for n, key in enumerate(rate_cost.cells)}
    known = [key in at for key in keys]
    places = [at[key] for key in keys if key in at]
    added = np.zeros_like(covariance)
    added[np.ix_(known, known)] = rate_cost.covariance[np.ix_(places, places)]
    df_added = np.full(len(keys), np.inf)
    df_added[known] = rate_cost.df[places]
    own, more = np.diag(covariance), np.diag(added)
    total = np.maximum(own + more, 1e-300)
    return covariance + added, 1 / np.maximum((own / total) ** 2 / df + (more / total) ** 2 / df_added, 1e-12)


def _beyond_additive(keys: Sequence[tuple[str, ...]]) -> Array:
    """The projection (cells, cells) onto what main effects alone cannot fit."""
    columns = [np.ones(len(keys))]
    for factor in range(len(keys[0]) if keys else 0):
        columns += [np.array([float(key[factor] == level) for key in keys]) for level in {key[factor] for key in keys}]
    design = np.stack(columns, 1) if keys else np.zeros((0, 1))
    return np.eye(len(keys)) - design @ np.linalg.pinv(design)
