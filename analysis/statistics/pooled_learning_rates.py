"""Learning rates of one network's cells, found together: trials of all its losses inform each loss's best rate.

A cell's score at log rate x is taken to be

    y = a - c g(x - t) + noise,        g(d) = 2 (exp(k d) - k d - 1) / k^2

with a level a and a top t of its own, and a curvature c, a skew k and a noise that all cells of the network share. The
shape g is d^2 near the top; with k > 0 it falls faster above the top than below (Varian's LINEX loss), since a
parabola alone would place the top of such a response too low, and the lower the flatter it is. Tops are normal around
a top of the network, with a spread that is not known either: they are shrunk towards each other as far as the trials
do not show that they differ (partial pooling). So three staggered rates a cell do: four losses give twelve trials for
one shape.

Everything is summed over a grid of (k, c, noise, network's top, spread of tops), over each cell's top within it, and
over the levels exactly; only the noise is taken at the mode of its posterior, and the uncertainty that this leaves out
is met by the degrees of freedom in `analysis.statistics.rate_cost`. Trials that diverged, or collapsed to far below
the others, are left out of the fit, and no rate is chosen at or above one that did.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.estimator import Array
from analysis.statistics.learning_rate_response import checked_trials

DECADE = float(np.log(10))
SKEWS = np.array([-1.5, -0.75, 0.0, 0.75, 1.5, 2.5, 4.0]) / DECADE
SKEW_PRIOR = np.exp(-0.5 * (SKEWS * DECADE / 2) ** 2)
SPREADS = np.array([0.0, 0.05, 0.1, 0.2, 0.4]) * DECADE  # of a network's tops
SPREAD_PRIOR = np.array([0.05, 0.05, 0.075, 0.15, 0.2]) * np.exp(-0.5 * (SPREADS / DECADE / 0.3) ** 2)
CURVATURES = np.geomspace(0.1, 6, 12)  # in the trials' spread within cells, for half of the range
NOISES = np.geomspace(0.04, 1.3, 8)  # in the trials' spread within cells
TOPS = 41  # from a quarter of the range below it to a quarter above
COLLAPSED = 20  # times the median distance from the cell's best trial
EDGE = 1 / 6


@dataclass(frozen=True)
class PooledRates:
    """The best rate of each cell of a network, and what being off it costs."""

    rates: dict[Hashable, float]
    low: dict[Hashable, float]  # 95 % interval, cut to the range that was tried
    high: dict[Hashable, float]
    at_edge: dict[Hashable, bool]  # in the outer sixth of the range, or as high as a trial that diverged allows
    levels: dict[Hashable, float]  # the score at the top
    curvature: float  # c: what a log rate off by d costs is about c d^2
    skew: float  # k
    noise: float  # standard deviation between trials
    df: int
    losses: Array  # (cells,): expected loss of the score at the rates that are used, in the order of `rates`
    moments: Array  # (cells, cells): expected products of two cells' losses
    sign: int = 1  # of a better score

    def response(self, name: Hashable, rates: ArrayLike) -> Array:
        """The fitted scores of a cell at `rates`, for a figure."""
        off = np.log(np.asarray(rates, float) / self.rates[name])
        return np.asarray(self.levels[name] - self.sign * self.curvature * _shape(off, self.skew), np.float64)


@dataclass(frozen=True)
class _Posterior:
    """Probabilities over (skew, curvature, noise, spread and network's top), and each cell's likelihood of its top."""

    tops: Array  # (tops,): log rates
    curvatures: Array
    noises: Array
    given: Array  # (tops, spread and network's top): the probability of a cell's top
    weight: Array  # (skew, curvature, noise, spread and network's top)
    likelihoods: list[Array]  # of each cell, (skew, curvature, noise, tops)


def fit_pooled_rates(
    trials: Mapping[Any, tuple[ArrayLike, ArrayLike]],
    higher_is_better: bool = True,
    used: Mapping[Any, float] | None = None,
) -> PooledRates:
    """Fit the trials of one network.

    Args:
        trials: by cell, rates > 0 and scores, both (trials,); a diverged trial's score is NaN.
        higher_is_better: the sign of a better score.
        used: the rates that runs used, whose losses are asked for; by default the fitted ones.

    Raises:
        ValueError: for rates that are not positive, a cell with fewer than two usable trials, or fewer usable trials
            than the response has parameters.
    """
    sign = 1 if higher_is_better else -1
    x, y = _checked(trials, sign)
    good = {name: np.isfinite(scores) for name, scores in y.items()}
    number = sum(int(usable.sum()) for usable in good.values())
    df = number - len(x) - 2
    if df < 1 or min(usable.sum() for usable in good.values()) < 2:
        raise ValueError(f"{number} usable trials cannot show the responses of {len(x)} cells: try more rates.")
    start, end = (float(limit(np.concatenate(list(x.values())))) for limit in (np.min, np.max))
    fitted = {name: (x[name][usable], y[name][usable]) for name, usable in good.items()}
    found = _posterior(list(fitted.values()), start, end)
    own = {name: _own(found, n) for n, name in enumerate(x)}
    ceilings = np.array([_ceiling(x[name], good[name], _top(found, part)) for name, part in own.items()])
    tops = np.clip([_top(found, part) for part in own.values()], start, end)
    at_edge = (np.minimum(tops - start, end - tops) < EDGE * (end - start)) | (tops >= ceilings)
    tops = np.minimum(tops, ceilings)
    chosen = tops if used is None else np.log([used[name] for name in own])
    return _summary(
        found, own, fitted, tops, at_edge, (start, end), _losses(found, list(own.values()), chosen), sign, df
    )


def _summary(
    found: _Posterior,
    own: dict[Any, Array],
    fitted: dict[Any, tuple[Array, Array]],
    tops: Array,
    at_edge: NDArray[np.bool_],
    limits: tuple[float, float],
    losses: tuple[Array, Array],
    sign: int,
    df: int,
) -> PooledRates:
    curvature = float(found.weight.sum((0, 2, 3)) @ found.curvatures)
    skew = float(found.weight.sum((1, 2, 3)) @ SKEWS)
    ends = np.clip([_quantiles(found.tops, part.sum((0, 1, 2))) for part in own.values()], *limits)
    low, high = np.exp(np.minimum(ends[:, 0], tops)), np.exp(np.maximum(ends[:, 1], tops))
    levels = [
        sign * float(np.mean(y + curvature * _shape(x - top, skew)))
        for (x, y), top in zip(fitted.values(), tops, strict=True)
    ]

    def by_cell(values: ArrayLike) -> dict[Hashable, Any]:
        return dict(zip(own, np.asarray(values).tolist(), strict=True))

    noise = float(found.weight.sum((0, 1, 3)) @ found.noises)
    return PooledRates(
        by_cell(np.exp(tops)),
        by_cell(low),
        by_cell(high),
        by_cell(at_edge),
        by_cell(levels),
        curvature,
        skew,
        noise,
        df,
        *losses,
        sign,
    )


def _shape(off: Array, skew: Array | float) -> Array:
    k = np.where(np.abs(skew) < 1e-4, 1e-4, skew)  # a parabola within the digits that matter
    return np.asarray(2 * (np.expm1(k * off) - k * off) / k**2, np.float64)


def _posterior(cells: list[tuple[Array, Array]], start: float, end: float) -> _Posterior:
    reach = end - start
    tops = np.linspace(start - reach / 4, end + reach / 4, TOPS)
    squares = sum(float(((y - y.mean()) ** 2).sum()) for _, y in cells)
    spread = max(np.sqrt(squares / (sum(y.size for _, y in cells) - len(cells))), 1e-12)
    curvatures, noises = CURVATURES * spread * 4 / reach**2, NOISES * spread
    given = _tops_given(tops)
    prior = np.log(SKEW_PRIOR)[:, None, None, None] + np.repeat(np.log(SPREAD_PRIOR), given.shape[1] // SPREADS.size)
    likelihoods, shares, scale = [], np.ones((SKEWS.size, curvatures.size, noises.size, given.shape[1])), np.zeros(1)
    for x, y in cells:
        logs = _log_likelihood(x, y, tops, curvatures, noises)
        highest = logs.max(-1, keepdims=True)
        likelihoods.append(np.exp(logs - highest))
        shares *= likelihoods[-1] @ given
        scale = scale + highest
    logs = np.log(shares + 1e-300) + scale + prior
    weight = np.exp(logs - logs.max())
    at, share = _mode(weight.sum((0, 1, 3)))
    weight = weight[:, :, at] * share[:, None]
    likelihoods = [part[:, :, at] for part in likelihoods]
    return _Posterior(tops, curvatures, noises[at], given, weight / weight.sum(), likelihoods)


def _tops_given(tops: Array) -> Array:
    """The probability of a cell's top given the spread and the network's top, (tops, spreads x every other top)."""
    widths = np.maximum(SPREADS, (tops[1] - tops[0]) / 2)[:, None, None]
    density = np.exp(-0.5 * ((tops - tops[::2, None]) / widths) ** 2)  # (spreads, network's tops, tops)
    density /= density.sum(-1, keepdims=True)
    return np.asarray(density.reshape(-1, tops.size).T, np.float64)


def _log_likelihood(x: Array, y: Array, tops: Array, curvatures: Array, noises: Array) -> Array:
    """Of one cell, (skew, curvature, noise, tops), its level integrated out."""
    fall = _shape(x - tops[:, None], SKEWS[:, None, None])  # (skew, tops, trials)
    fall = fall - fall.mean(-1, keepdims=True)
    off = y - y.mean()
    c = curvatures[:, None]
    squares = off @ off + 2 * c * (fall @ off)[:, None] + c**2 * (fall**2).sum(-1)[:, None]  # (skew, curvature, tops)
    return -squares[:, :, None] / (2 * noises[:, None] ** 2) - (y.size - 1) * np.log(noises)[:, None]


def _mode(probability: Array) -> tuple[Any, Array]:
    """The mode of a distribution over a log grid: the one or two points around it, and factors that divide it."""
    mode = int(probability.argmax())
    if not 0 < mode < probability.size - 1:
        return np.array([mode]), np.ones(1)
    below, at, above = np.log(probability[mode - 1 : mode + 2] + 1e-300)
    off = 0.5 * (below - above) / (below - 2 * at + above)
    points = np.array([mode, mode + (1 if off > 0 else -1)])
    return points, np.array([1 - abs(off), abs(off)]) / np.maximum(probability[points], 1e-300)


def _own(found: _Posterior, cell: int) -> Array:
    """The probability of (skew, curvature, noise, the cell's own top)."""
    likelihood = found.likelihoods[cell]
    share = found.weight / (likelihood @ found.given + 1e-300)
    return np.asarray(likelihood * (share @ found.given.T), np.float64)


def _top(found: _Posterior, own: Array) -> float:
    """The mean top, weighted by curvature: where the expected c d^2 is least."""
    weight = np.einsum("kcnt,c->t", own, found.curvatures)
    return float(weight @ found.tops / weight.sum())


def _quantiles(tops: Array, probability: Array) -> Array:
    cumulative = np.cumsum(probability) - probability / 2
    return np.interp([0.025, 0.975], cumulative, tops)


def _losses(found: _Posterior, own: list[Array], chosen: Array) -> tuple[Array, Array]:
    """Expected losses (cells,) at the log rates `chosen`, and expected products of two of them (cells, cells)."""
    c = found.curvatures[:, None, None]
    expected, squares = [], []  # the first given all that the cells share, the second over everything
    for likelihood, part, rate in zip(found.likelihoods, own, chosen, strict=True):
        fall = _shape(rate - found.tops, SKEWS[:, None])[:, None, None]  # (skew, 1, 1, tops)
        expected.append(c * ((likelihood * fall) @ found.given) / (likelihood @ found.given + 1e-300))
        squares.append(float((part * (c * fall) ** 2).sum()))
    flat = np.array([part.ravel() for part in expected])  # (cells, grid)
    weighted = flat * found.weight.ravel()
    moments = weighted @ flat.T
    moments[np.diag_indices(len(own))] = squares
    return weighted.sum(1), moments


def _ceiling(x: Array, good: NDArray[np.bool_], top: float) -> float:
    """The highest log rate that a cell may use: its last one below the first above its top that diverged."""
    bad = x[~good]
    above = bad[bad > min(top, x[good].max())]
    if not above.size:
        return float("inf")
    return float(x[good & (x < above.min())].max(initial=x.min()))


def _checked(trials: Mapping[Any, tuple[ArrayLike, ArrayLike]], sign: int) -> tuple[dict[Any, Array], dict[Any, Array]]:
    """Log rates and scores by cell; higher is better, and what diverged or collapsed is NaN."""
    x, y = {}, {}
    for name, (rates, scores) in trials.items():
        x[name], found = checked_trials(rates, scores)
        y[name] = sign * found
    below = {name: np.nanmax(scores, initial=-np.inf) - scores for name, scores in y.items()}
    every = np.concatenate([part[part > 0] for part in below.values()])
    limit = COLLAPSED * np.median(every) if every.size else np.inf
    return x, {name: np.where(below[name] > limit, np.nan, scores) for name, scores in y.items()}
