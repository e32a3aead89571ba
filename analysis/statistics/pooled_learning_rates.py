"""Learning rates of one network's cells, found together: trials of all its losses inform each loss's best rate.

A cell's score at log rate x is taken to be, near the network's best rate,

    y = a_l + (b + u_l) x - c x^2 + noise,        u_l ~ N(0, tau^2)

with a level a_l for each loss l, a curvature c that the losses share (the shape of the response) and a shift u_l that
is shrunk towards no shift as far as the trials do not show one (partial pooling). The best log rate of a loss is the
top (b + u_l) / 2c. With three staggered rates a cell, four losses give twelve trials for the shape, where a cell
alone had three. Trials far from the top weigh less (tricube weights), so that a response that falls faster on one
side does not pull the top aside; how much the shifts vary (tau) is averaged over, not estimated by one number.

What an uncertain rate costs, and how every comparison takes it: `analysis.statistics.rate_cost`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.estimator import Array

SPAN = 0.5  # of the range of log rates, to either side of the top: where trials have weight
ROUNDS = 4  # of the search for the top that the weights are centred on
RATIOS = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 25)])  # tau^2 over the noise's variance
EDGE = 1 / 6


@dataclass(frozen=True)
class PooledRates:
    """The best rate of each loss, and what its uncertainty costs."""

    rates: dict[Hashable, float]
    low: dict[Hashable, float]  # 95 % interval, cut to the range that was tried
    high: dict[Hashable, float]
    at_edge: dict[Hashable, bool]  # in the outer sixth of the range
    curvature: float  # c: what a log rate off by d costs is c d^2
    covariance: Array  # (losses, losses) of the log rates' errors, in the order of `rates`
    noise: float  # standard deviation between trials
    df: int


def fit_pooled_rates(trials: Mapping[Any, tuple[ArrayLike, ArrayLike]], higher_is_better: bool = True) -> PooledRates:
    """Fit the trials of one network.

    Args:
        trials: by loss, rates > 0 and scores, both (trials,); a diverged trial's score is NaN and is left out.
        higher_is_better: the sign of a better score.

    Raises:
        ValueError: for rates that are not positive, or fewer usable trials than the shape has parameters.
    """
    names, x, y, loss = _flat(trials, 1 if higher_is_better else -1)
    start, end = x.min(), x.max()
    centre = float(np.average(x, weights=_ranks(y, loss)))
    for _ in range(ROUNDS):
        weight = _weights(x - centre, SPAN * (end - start), 2 * len(names) + 2)
        fit = _averaged(x - centre, y, loss, weight, len(names))
        step = fit.network_top
        centre = float(np.clip(centre + np.clip(step, -(end - start) / 4, (end - start) / 4), start, end))
    tops = np.clip(centre + (fit.tops - fit.network_top) + (fit.network_top - step), start, end)
    error = np.sqrt(np.diag(fit.covariance))
    return PooledRates(
        rates={name: float(np.exp(top)) for name, top in zip(names, tops, strict=True)},
        low={name: float(np.exp(max(top - 2 * e, start))) for name, top, e in zip(names, tops, error, strict=True)},
        high={name: float(np.exp(min(top + 2 * e, end))) for name, top, e in zip(names, tops, error, strict=True)},
        at_edge={
            name: bool(min(top - start, end - top) < EDGE * (end - start))
            for name, top in zip(names, tops, strict=True)
        },
        curvature=fit.curvature,
        covariance=fit.covariance,
        noise=fit.noise,
        df=fit.df,
    )


@dataclass(frozen=True)
class _Fit:
    tops: Array  # of each loss, from the centre
    network_top: float
    curvature: float
    covariance: Array
    noise: float
    df: int


def _averaged(x: Array, y: Array, loss: Array, weight: Array, losses: int) -> _Fit:
    """The fit averaged over tau, weighted by the restricted likelihood."""
    fixed = np.column_stack([*(loss == n for n in range(losses)), x, -(x**2)]).astype(float)
    random = np.column_stack([(loss == n) * x for n in range(losses)])
    df = int((weight > 0).sum()) - fixed.shape[1]
    if df < 1:
        raise ValueError(
            f"{int((weight > 0).sum())} trials cannot show the response of {losses} losses: try more rates."
        )
    fits = [_fit(fixed, random, y, weight, ratio, df) for ratio in RATIOS]
    likelihood = np.array([fit[0] for fit in fits])
    share = np.exp(likelihood - likelihood.max())
    share *= np.gradient(np.sqrt(RATIOS))  # a flat prior on tau itself
    share /= share.sum()
    return _mixture(fits, share, losses, float(np.ptp(x)), df)


def _fit(
    fixed: Array, random: Array, y: Array, weight: Array, ratio: float, df: int
) -> tuple[float, Array, Array, float]:
    """(log likelihood, (fixed, random) effects, their covariance, noise variance) for one tau^2 over the noise's."""
    p = fixed.shape[1]
    design = np.hstack([fixed, random]) if ratio > 0 else fixed
    penalty = np.diag([0.0] * p + [1 / ratio] * (design.shape[1] - p)) if ratio > 0 else np.zeros((p, p))
    normal = design.T @ (weight[:, None] * design) + penalty
    inverse = np.linalg.pinv(normal)
    effects = inverse @ (design.T @ (weight * y))
    residual = y - design @ effects
    squares = float(weight @ residual**2 + effects @ penalty @ effects)
    variance = max(squares / df, 1e-300)
    logdet = float(np.linalg.slogdet(normal)[1]) + (random.shape[1] * np.log(ratio) if ratio > 0 else 0.0)
    if ratio == 0:
        return -0.5 * (logdet + df * np.log(squares + 1e-300)), *_padded(effects, inverse, random.shape[1]), variance
    return -0.5 * (logdet + df * np.log(squares + 1e-300)), effects, inverse, variance


def _padded(effects: Array, inverse: Array, extra: int) -> tuple[Array, Array]:
    return np.pad(effects, (0, extra)), np.pad(inverse, ((0, extra), (0, extra)))


def _mixture(fits: list, share: Array, losses: int, reach: float, df: int) -> _Fit:
    tops, covariances, curvature, noise = [], [], 0.0, 0.0
    network = 0.0
    for part, (_, effects, inverse, variance) in zip(share, fits, strict=True):
        slope, bend, shifts = effects[losses], effects[losses + 1], effects[losses + 2 :]
        error = np.sqrt(variance * inverse[losses + 1, losses + 1])
        bend = max(bend, 0.5 * error, 1e-12)  # a response that looks flat or hollow has a top that nothing shows
        top = np.clip((slope + shifts) / (2 * bend), -reach, reach)
        gradient = np.zeros((losses, effects.size))
        gradient[:, losses] = gradient[np.arange(losses), losses + 2 + np.arange(losses)] = 1 / (2 * bend)
        gradient[:, losses + 1] = -top / bend
        covariance = variance * gradient @ inverse @ gradient.T
        tops.append(top)
        covariances.append(covariance)
        curvature, noise, network = (
            curvature + part * bend,
            noise + part * variance,
            network + part * float(np.clip(slope / (2 * bend), -reach, reach)),
        )
    mean = np.tensordot(share, np.array(tops), 1)
    spread = np.array(tops) - mean
    covariance = np.tensordot(share, np.array(covariances), 1) + np.einsum("k,ki,kj->ij", share, spread, spread)
    limit = (reach / 2) ** 2  # a rate within the range cannot be further off than that
    scale = np.minimum(1, limit / np.maximum(np.diag(covariance), 1e-300)) ** 0.5
    return _Fit(mean, network, curvature, covariance * np.outer(scale, scale), float(np.sqrt(noise)), df)


def _flat(trials: Mapping[Any, tuple[ArrayLike, ArrayLike]], sign: int) -> tuple[list[Hashable], Array, Array, Array]:
    names, xs, ys, losses = list(trials), [], [], []
    for number, (rates, scores) in enumerate(trials.values()):
        rates, scores = np.asarray(rates, float), np.asarray(scores, float)
        if rates.shape != scores.shape or rates.ndim != 1:
            raise ValueError(
                f"Trials need one rate and one score each; the shapes are {rates.shape} and {scores.shape}."
            )
        if not (np.isfinite(rates) & (rates > 0)).all():
            raise ValueError("A learning rate must be a positive number.")
        good = np.isfinite(scores)
        xs.append(np.log(rates[good]))
        ys.append(sign * scores[good])
        losses.append(np.full(int(good.sum()), number))
    return names, np.concatenate(xs), np.concatenate(ys), np.concatenate(losses)


def _ranks(y: Array, loss: Array) -> Array:
    """Weights that favour each loss's better trials: a first guess of where the top lies."""
    weight = np.zeros(y.size)
    for number in np.unique(loss):
        mine = loss == number
        weight[mine] = (y[mine].argsort().argsort() / max(mine.sum() - 1, 1)) ** 4
    return weight + 1e-6


def _weights(off: Array, reach: float, fewest: int) -> Array:
    """Tricube weights that leave at least `fewest` + 2 trials in."""
    needed = np.sort(np.abs(off))[min(fewest + 1, off.size - 1)] * 1.2
    return np.clip(1 - (np.abs(off) / max(reach, needed)) ** 3, 0, None) ** 3
