"""Whether cells correlate from seed to seed, and whether pairing runs by seed narrows the intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.statistics.estimator import Array, t_quantile

BEYOND_DOUBT = 0.01  # strict: a wrong choice costs every interval of the family half its degrees of freedom


@dataclass(frozen=True)
class SeedCorrelation:
    """Correlation between cells of their means over cars, row k of each being seed k; NaN where it cannot be measured.

    `overall` is the mean covariance of pairs over the mean variance of cells (an intraclass correlation), `p` its
    one-sided p from the F-test of a common seed effect in the table (cells, seeds): Fisher (1925), Shrout & Fleiss
    (1979, Psychol. Bull. 86:420).
    """

    overall: float
    p: float


def seed_correlation(cells: Mapping[Any, Array]) -> SeedCorrelation:
    """Measure the seeds' correlation from scores (seeds, cars); row k must be the same seed in every cell.

    NaN where the numbers of seeds differ or are below three, or where all means are constant.
    """
    return SeedCorrelation(*_common([np.asarray(cell, float).mean(1) for cell in cells.values()]))


def pairing_helps(cells: Sequence[Array]) -> bool:
    """Whether to pair runs by seed: the correlation is beyond doubt and outweighs the lost degrees of freedom.

    A pair of cells with n seeds has 2 (n - 1) degrees of freedom unpaired and n - 1 paired; pairing multiplies the
    variance by 1 - correlation.
    """
    overall, p = _common([np.asarray(cell, float).mean(1) for cell in cells])
    if not p < BEYOND_DOUBT:
        return False
    df = len(cells[0]) - 1
    return bool(t_quantile(0.05, df) ** 2 * (1 - overall) < t_quantile(0.05, 2 * df) ** 2)


def _common(means: list[Array]) -> tuple[float, float]:
    """The overall correlation and its p from the cells' seed means, each (seeds,)."""
    if len(means) < 2 or len({len(m) for m in means}) > 1 or len(means[0]) < 3:
        return float("nan"), float("nan")
    table = np.stack(means)  # (cells, seeds)
    table = table - table.mean(1, keepdims=True)
    cells, seeds = table.shape
    covariance = np.cov(table)
    variance = covariance.trace() / cells
    if not variance:
        return float("nan"), float("nan")
    overall = (covariance.sum() - covariance.trace()) / (cells * (cells - 1)) / variance
    common, own = variance * (1 + (cells - 1) * overall), variance * (1 - overall)  # mean squares: seeds, the rest
    p = stats.f.sf(common / own, seeds - 1, (seeds - 1) * (cells - 1)) if own > 0 else 0.0
    return float(overall), float(p)
