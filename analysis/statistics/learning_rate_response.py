"""From tuning trials to a cell's learning rate: the top of a smooth curve over log rate, not the luckiest trial.

The best of a dozen noisy trials is mostly luck, and that luck lies outside every interval of a later comparison: two
cells that are equal at their best rates get called different too often, and the more often the more seeds the
comparison has. A parabola through all trials is no cure unless the truth is one: a response that falls faster above its
top than below pulls the parabola's top aside. So the parabola is a local one (Cleveland 1979, JASA 74:829), fitted to
the trials around its own top with the weights (1 - |distance / h|^3)^3, where h is 0.4 of the range of log rates, or
wider where that would hold fewer than four rates, or where no parabola of that width is centred on its own top: noise
may make a flat response dip where it is highest. docs/en/statistics.md shows the three side by
side. All cells share one log-spaced grid of seven rates or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.estimator import Array, t_quantile

SPAN = 0.4  # of the range of log rates, to either side; wider lets a cliff at high rates in, narrower lets noise in
STEPS = 10  # of the search for the parabola that is centred on its own top; it settles in three or four
SETTLED = 0.01  # of a log rate: less than that a last step changes
STRIDES = (1.0, 0.5)  # half steps where whole ones go in circles, as they do around a top that a cliff cuts off
WIDTHS = (1.0, 1.5, 2.25, 3.4, 5.0)  # times h, until the search settles; the widest weighs all trials nearly alike
EDGE = 1 / 6
POWERS = np.arange(3)


@dataclass(frozen=True)
class Response:
    """A cell's response to the learning rate, and the rate to use."""

    rate: float
    low: float  # 95 % interval of the rate (delta method), cut to the range that was tried
    high: float
    score: float  # the parabola's value at its top
    expected_loss: float  # in the scores' unit: the mean cost of so uncertain a rate; infinite where nothing shows it
    at_edge: bool  # in the outer sixth of the range, or at its last stable rate: extend it, or no verdict
    rates: Array  # (points,) where the parabola was fitted, and its values there, for a figure
    curve: Array


def fit_response(rates: ArrayLike, scores: ArrayLike, higher_is_better: bool = True) -> Response:
    """Fit one cell's response to its trials: `rates` > 0 and `scores`, both (trials,); NaN where one diverged.

    A rate at which any trial diverged is left out with all beyond it, seen from the best rate; the range stays that of
    all rates. With sd the trials' standard deviation within a rate, w the weights that the slope at the top gives to
    trials and c the parabola's curvature, the standard error of the log rate is sd |w| / c, and the expected loss c / 2
    times its square.

    Raises ValueError for fewer than four usable rates, rates that are not positive, or shapes that differ.
    """
    every, found = checked_trials(rates, scores)
    sign = 1 if higher_is_better else -1
    x, y = _stable(every, sign * found)
    top, wide = (float(part) for part in _tops(x, y))
    reach = float(_reach(x, np.asarray(top), np.asarray(wide)))
    fit = _parabola(x, np.asarray(top), np.asarray(wide))  # (3, trials)
    level, slope, bend = (float(part) for part in fit @ y)
    sd, df = _noise(x, y, top, reach)
    curvature = max(-2 * bend, 0.0)
    error = sd * float(np.linalg.norm(fit[1])) / curvature if curvature and df else np.inf
    start, end = every.min(), every.max()
    low, high = np.clip([top - (margin := error * _t95(df)), top + margin], start, end)
    near = np.linspace(max(x.min(), top - reach), min(x.max(), top + reach), 101)
    return Response(
        rate=float(np.exp(top)),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        score=sign * level,
        expected_loss=curvature / 2 * error**2 if np.isfinite(error) else float("inf"),
        at_edge=bool(min(top - start, end - top) < EDGE * (end - start) or top in (x.min(), x.max())),
        rates=np.exp(near),
        curve=sign * (level + slope * (near - top) + bend * (near - top) ** 2),
    )


def best_rates(rates: ArrayLike, scores: ArrayLike) -> Array:
    """Find each parabola's top for cells (...) from `rates` (trials,) and `scores` (..., trials), higher is better."""
    return np.exp(_tops(np.log(np.asarray(rates, float)), np.asarray(scores, float))[0])


def _tops(x: Array, y: Array) -> tuple[Array, Array]:
    """Find the tops' log rates (...) from scores (..., trials), and by what factor each parabola is widened.

    Where the search does not settle within `STEPS`, half steps are tried, which end a swing around a top, and then a
    wider parabola.
    """
    every = np.unique(x)
    mean = np.stack([y[..., x == rate].mean(-1) for rate in every], -1)  # (..., rates)
    smooth = np.pad(mean, [(0, 0)] * (mean.ndim - 1) + [(1, 1)], mode="edge")
    smooth = (smooth[..., :-2] + 2 * mean + smooth[..., 2:]) / 4
    start = every[smooth.argmax(-1)]
    top, wide, left = start, np.ones(start.shape), np.ones(start.shape, bool)
    for factor, stride in product(WIDTHS, STRIDES):
        wide = np.where(left, factor, wide)
        top = np.where(left, _search(x, y, start, wide, stride), top)
        left = np.abs(_step(x, y, top, wide) - top) > SETTLED
        if not left.any():
            break
    return top, wide


def _search(x: Array, y: Array, top: Array, wide: Array, stride: float) -> Array:
    for _ in range(STEPS):
        top = top + stride * (_step(x, y, top, wide) - top)
    return top


def _step(x: Array, y: Array, top: Array, wide: Array) -> Array:
    """The top of the parabola around `top`, within the range; of one without a top, the end that lies uphill."""
    _, slope, bend = np.moveaxis((_parabola(x, top, wide) @ y[..., None])[..., 0], -1, 0)
    uphill = np.where(slope > 0, np.inf, -np.inf)
    return np.asarray(
        np.clip(top + np.divide(-slope, 2 * bend, out=uphill, where=bend < 0), x.min(), x.max()), np.float64
    )


def _parabola(x: Array, centre: Array, wide: Array) -> Array:
    """The map (..., 3, trials) from scores to level, slope and bend of the parabola around `centre` (...)."""
    off = x - centre[..., None]
    weight = np.clip(1 - (np.abs(off) / _reach(x, centre, wide)[..., None]) ** 3, 0, None) ** 3
    design = off[..., None] ** POWERS  # (..., trials, 3)
    weighted = np.swapaxes(design * weight[..., None], -1, -2)
    return np.asarray(np.linalg.solve(weighted @ design, weighted), np.float64)


def _reach(x: Array, centre: Array, wide: Array) -> Array:
    """Reach of the weights from `centre` (...): SPAN of the range, at least beyond the fourth rate, times `wide`."""
    every = np.unique(x)
    fourth = np.sort(np.abs(every - centre[..., None]), -1)[..., 3]
    return np.maximum(SPAN * (every[-1] - every[0]), 1.2 * fourth) * wide


def _t95(df: int) -> float:
    return float(t_quantile(0.05, df)) if df else np.inf


def checked_trials(rates: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Log rates and scores (trials,), NaN for a diverged trial. Raises ValueError for rates that are not positive."""
    rates, scores = np.asarray(rates, float), np.asarray(scores, float)
    if rates.shape != scores.shape or rates.ndim != 1:
        raise ValueError(
            f"Trials need one rate and one score each, but the shapes are {rates.shape} and {scores.shape}."
        )
    if not (np.isfinite(rates) & (rates > 0)).all():
        raise ValueError("A learning rate must be a positive number.")
    return np.log(rates), np.where(np.isfinite(scores), scores, np.nan)


def _stable(x: Array, y: Array) -> tuple[Array, Array]:
    """Trials of the stretch of rates around the best mean without divergence. Raises ValueError below four rates."""
    every = np.unique(x)
    mean = np.array([y[x == rate].mean() for rate in every])  # NaN where a trial diverged
    if np.isnan(mean).all():
        raise ValueError("A response curve cannot be fitted: at every rate a trial diverged. Try lower rates.")
    best, gaps = int(np.nanargmax(mean)), np.flatnonzero(np.isnan(mean))
    first = max((gap + 1 for gap in gaps if gap < best), default=0)
    last = min((gap for gap in gaps if gap > best), default=len(every))
    if last - first < 4:
        raise ValueError(
            f"A response curve needs four rates at which no trial diverged, but has {last - first}: try more rates."
        )
    kept = (x >= every[first]) & (x <= every[last - 1])
    return x[kept], y[kept]


def _noise(x: Array, y: Array, top: float, reach: float) -> tuple[float, int]:
    """Standard deviation between trials of one rate, around the top, and its degrees of freedom (0: none repeated)."""
    near = [y[x == rate] for rate in np.unique(x) if abs(rate - top) < reach]
    df = sum(len(trials) - 1 for trials in near)
    squares = sum(float(((trials - trials.mean()) ** 2).sum()) for trials in near)
    return (float(np.sqrt(squares / df)) if df else np.inf), df
