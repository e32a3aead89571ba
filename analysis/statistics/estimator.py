"""The estimator behind every interval: a weighted sum of cells, with what seeds and what cars add to its uncertainty.

The model. A cell is one model with one loss; it is trained with several seeds, and each run is scored on the same cars.
Within a cell

    y_sc = mu + seed_s + car_c + residual_sc

with independent random effects, whose variances may differ from cell to cell. Cars are the same in every cell, so what
is easy or hard for all cells cancels in a difference; seeds are not paired (see `analysis.statistics.seed_pairing`).

The estimator of sum_k w_k mu_k is the weighted sum of the cells' means. Its variance has two parts, estimated without
bias by

    A = sum_k w_k^2 S_k^2 / n_k                     between seeds: S_k^2 is the variance of a cell's n_k means over cars
    B = max(V - R, 0)                               cars beyond that: V = variance over cars of sum_k w_k ybar_k.c,
                                                    divided by cars; R = sum_k w_k^2 MS_k / (n_k cars), the residual
                                                    that A holds already

where MS_k is the residual mean square of the cell's two-way table. The interval's half width h at error rate alpha is

    h^2 = t(f)^2 A + t(cars - 1)^2 B,               t(f) = the 1 - alpha/2 quantile of Student's t
    1/f = sum_k q_k^2 / (n_k - 1)                   q_k: the share of cell k in A

f is due to Satterthwaite (1946, Biometrics Bulletin 2:110) and Welch (1947, Biometrika 34:28), with one change: 1/f is
taken max(q) / n of the way to 1 / (n - 1), where n is the smallest n_k. With few seeds of unequal variances the plain f
is too large just when A is too small, and false differences are too frequent; the change vanishes with more seeds.
Adding squared half widths, each with the t of its own degrees of freedom, is how Howe (1974, JASA 69:789) treats a sum;
one common f for A and B covers too little where few seeds and many cars are mixed. Where cars add nothing it is, but
for that change, Welch's t-test of the seeds' means; where seeds add nothing it tends to the paired t-test over cars.
`python -m analysis.statistics.simulate coverage` shows how well it covers.

Every function takes leading axes, so that a simulation runs the code that a study runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special
from scipy.optimize import elementwise

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CellSummary:
    """What a contrast needs to know of one cell; scores have the unit of what was measured."""

    seeds: int
    mean: Array  # (...)
    cars: Array  # (..., cars): the mean over seeds of each car
    variance: Array  # (...): of the mean, as the seeds show it; infinite with one seed, which shows none
    residual: Array  # (...): the part of `variance` that is residual


@dataclass(frozen=True)
class AddedVariance:
    """A variance that enters a contrast in addition to what its runs show, and its degrees of freedom."""

    variance: Array  # (...)
    df: Array  # (...)


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of cells with the two parts of its variance and their degrees of freedom (A, f, B, cars - 1)."""

    value: Array
    seed_variance: Array
    seed_df: Array
    car_variance: Array
    car_df: Array

    def half_width(self, alpha: ArrayLike) -> Array:
        """Half the width of the interval that misses with probability `alpha`; infinite where a variance is unknown."""
        squares = t_quantile(alpha, self.seed_df) ** 2 * self.seed_variance
        return np.sqrt(squares + t_quantile(alpha, self.car_df) ** 2 * self.car_variance)

    def p(self, distance: ArrayLike) -> Array:
        """The smallest `alpha` whose half width is below `distance` >= 0: the two-sided p of a point that far away.

        With both variances 0 it is 0, and 1 where the distance is 0 as well.
        """
        distance = np.asarray(distance, float)
        error = np.sqrt(self.seed_variance + self.car_variance)
        t = np.divide(distance, error, out=np.where(distance > 0, np.inf, 0.0), where=error > 0)
        one, other = (2 * special.stdtr(df, -t) for df in (self.seed_df, self.car_df))
        low, high = np.minimum(one, other), np.maximum(one, other)  # h lies between those of one df for both parts
        mixed = (self.seed_variance > 0) & (self.car_variance > 0) & (high > low) & (low > 0)
        p = np.where(self.car_variance > 0, other, one)
        if mixed.any():
            p[mixed] = self._at(mixed)._solve(distance[mixed], low[mixed], high[mixed])
        return p

    def _at(self, places: NDArray[np.bool_]) -> Estimate:
        return Estimate(*(np.broadcast_to(part, places.shape)[places] for part in vars(self).values()))

    def _solve(self, distance: Array, low: Array, high: Array) -> Array:
        def excess(log_alpha: Array, distance: Array, *parts: Array) -> Array:
            return np.log(Estimate(*parts).half_width(np.exp(log_alpha)) / distance)

        ends = (np.log(low) - 1e-9, np.minimum(np.log(high) + 1e-9, 0))
        if distance.size == 1:  # the vectorised search takes milliseconds for one, and a study's tests make many
            one = [float(part[0]) for part in (*ends, distance, *vars(self).values())]
            return np.exp([optimize.brentq(excess, *one[:2], args=tuple(one[2:]), xtol=1e-12)])
        found = elementwise.find_root(excess, ends, args=(distance, *vars(self).values()))
        return np.exp(found.x)


def stack(estimates: Sequence[Estimate]) -> Estimate:
    """Several estimates as one, along a new last axis."""
    return Estimate(*(np.stack(parts, -1) for parts in zip(*(vars(e).values() for e in estimates), strict=True)))


def t_quantile(alpha: ArrayLike, df: ArrayLike) -> Array:
    """The two-sided quantile of Student's t: |t| is beyond it with probability `alpha`."""
    return -special.stdtrit(df, np.asarray(alpha) / 2)


def summarise_cell(scores: ArrayLike) -> CellSummary:
    """A cell from its scores (..., seeds, cars)."""
    scores = np.asarray(scores, float)
    base = scores[..., :1, :1]  # differences from one score are exact where scores are constant; means are not
    off = scores - base
    seeds, cars = off.shape[-2:]
    by_seed, by_car = off.mean(-1), off.mean(-2)  # (..., seeds), (..., cars)
    mean = off.mean((-2, -1))
    if seeds < 2:
        unknown = np.full(mean.shape, np.inf)
        return CellSummary(seeds, base[..., 0, 0] + mean, base[..., 0] + by_car, unknown, np.zeros(mean.shape))
    if cars < 2:  # seeds alone: Welch's comparison, for this one car (or this test set as a whole)
        between = by_seed.var(-1, ddof=1) / seeds
        return CellSummary(seeds, base[..., 0, 0] + mean, base[..., 0] + by_car, between, np.zeros(mean.shape))
    left = off - by_seed[..., None] - by_car[..., None, :] + mean[..., None, None]
    residual = (left**2).sum((-2, -1)) / ((seeds - 1) * (cars - 1) * seeds * cars)
    return CellSummary(seeds, base[..., 0, 0] + mean, base[..., 0] + by_car, by_seed.var(-1, ddof=1) / seeds, residual)


def contrast(cells: Sequence[CellSummary], weights: Sequence[float], added: AddedVariance | None = None) -> Estimate:
    """The weighted sum of cells of the same cars and of independent seeds; the numbers of seeds may differ.

    `added` is a variance that runs and cars do not show, such as what uncertain learning rates cost.
    """
    value = sum((w * cell.mean for w, cell in zip(weights, cells, strict=True)), np.float64(0))
    by_car = sum((w * cell.cars for w, cell in zip(weights, cells, strict=True)), np.float64(0))
    parts = np.stack([w**2 * cell.variance for w, cell in zip(weights, cells, strict=True)], -1)  # (..., cells)
    residual = sum((w**2 * cell.residual for w, cell in zip(weights, cells, strict=True)), np.float64(0))
    seeds, cars = np.array([cell.seeds for cell in cells]), by_car.shape[-1]
    between = by_car.var(-1, ddof=1) / cars if cars > 1 else np.zeros(by_car.shape[:-1])
    df = welch_df(parts, seeds - 1)
    variance = parts.sum(-1)
    beyond = np.where(np.isinf(variance), 0, np.maximum(between - residual, 0))
    if added is not None:
        variance, df = with_added(variance, df, added)
    return Estimate(np.asarray(value), variance, df, beyond, np.full(variance.shape, max(cars - 1, 1.0)))


def with_added(variance: Array, df: Array, added: AddedVariance) -> tuple[Array, Array]:
    """The sum of two variances and its degrees of freedom (Satterthwaite); an infinite variance keeps its own."""
    total = variance + added.variance
    known = (total > 0) & np.isfinite(total)
    share = np.divide(added.variance, total, out=np.zeros(total.shape), where=known)
    return total, np.where(known, 1 / ((1 - share) ** 2 / df + share**2 / added.df), df)


def welch_df(parts: Array, df: NDArray[np.int_]) -> Array:
    """Degrees of freedom f of a sum of variances (..., cells) with `df` (cells,); the smallest where unknown."""
    total = parts.sum(-1, keepdims=True)
    usable = (total > 0) & np.isfinite(total)
    share = np.divide(parts, total, out=np.zeros_like(parts), where=usable)
    fewest = max(int(df.min()), 1)
    inverse = (share**2 / np.maximum(df, 1)).sum(-1)
    inverse += share.max(-1) / (fewest + 1) * (1 / fewest - inverse)
    return np.divide(1, inverse, out=np.full(inverse.shape, float(fewest)), where=usable[..., 0])
