"""Tuned learning rates in simulation: cells that are equal at their own best rates, tuned, run and compared.

Two ways of choosing a rate: each cell's own curve (`learning_rate_response`, studies before pooled fits), for which
pairs of cells are compared, and one fit for each network (`pooled_learning_rates`), for which whole studies of four
networks and four losses are, with what uncertain rates cost in every interval (`rate_cost`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from analysis.statistics.comparisons import adjust
from analysis.statistics.estimator import AddedVariance, Array, contrast, stack, summarise_cell
from analysis.statistics.learning_rate_response import best_rates
from analysis.statistics.pooled_learning_rates import PooledRates, fit_pooled_rates
from analysis.statistics.rate_cost import RateCost, combined
from analysis.statistics.simulate_intervals import PILOT, Row, scaled, scores

NETWORKS, LOSSES = 4, 4
CURVATURES = (0.005, 0.008, 0.0126, 0.02)  # Dice lost by a rate a decade off, by network
APART = 0.15  # standard deviation of the losses' best rates, in decades
BETWEEN = 0.3  # the networks' best rates lie within so many decades of the middle of the range
CARS = 54
REPEATS = 4  # sets of runs for each tuning


def _steeper(u: Array) -> Array:
    return -2 * (np.exp(1.5 * u) - 1.5 * u - 1) / 1.5**2


def _cliff(u: Array) -> Array:
    return np.where(u < 0, -(u**2), -6 * u**2)


RESPONSES: dict[str, Callable[[Array], Array]] = {  # the score u decades above the best rate, for a curvature of 1
    "parabola": lambda u: -(u**2),
    "steeper above": _steeper,
    "flat top": lambda u: -0.5 * (u**2 + u**4),
    "cliff above": _cliff,
}


class Tuned(NamedTuple):
    """A study after its tuning: what the chosen rates lose in truth, and what the fits say of it."""

    lost: Array  # (networks, losses), 0 or less
    cost: RateCost
    held: float  # share of the rates' 95 % intervals that hold the best rate


def tuned_study(response: str, noise: float, points: int, rng: np.random.Generator) -> Tuned:
    """Tune a study of 4 x 4 cells, `points` staggered rates each over two decades, one trial a rate."""
    best = rng.uniform(-BETWEEN, BETWEEN, (NETWORKS, 1)) + APART * rng.standard_normal((NETWORKS, LOSSES))
    grid = np.linspace(-1, 1, points * LOSSES).reshape(points, LOSSES)
    fall, lost, held = RESPONSES[response], np.zeros((NETWORKS, LOSSES)), 0
    fits: list[PooledRates] = []
    for network, curvature in enumerate(CURVATURES):
        values = curvature * fall(grid - best[network]) + noise * rng.standard_normal(grid.shape)
        fit = fit_pooled_rates({(network, n): (10 ** grid[:, n], values[:, n]) for n in range(LOSSES)})
        chosen = np.log10(list(fit.rates.values()))
        lost[network] = curvature * fall(chosen - best[network])
        low, high = np.log10(list(fit.low.values())), np.log10(list(fit.high.values()))
        held += int(((low <= best[network]) & (best[network] <= high)).sum())
        fits.append(fit)
    return Tuned(lost, combined(fits), held / lost.size)


def primary_families() -> dict[str, Array]:
    """The contrasts with each factor's first level, averaged over the other factor: (3, 16) each."""
    table = np.eye(NETWORKS * LOSSES).reshape(NETWORKS, LOSSES, -1)
    networks, losses = table.mean(1), table.mean(0)
    return {"networks": networks[1:] - networks[0], "losses": losses[1:] - losses[0]}


class FamilyRates(NamedTuple):
    """Shares of studies: a false verdict in a family, coverage of single contrasts, and how wide intervals are."""

    false: float
    covered: float
    wider: float  # mean width, in widths without what rates cost


def judged(studies: list[Tuned], seeds: int, rng: np.random.Generator, charged: bool = True) -> dict[str, FamilyRates]:
    """Run and compare tuned studies whose cells are equal at their best rates, in their two primary families."""
    lost = np.repeat([study.lost.ravel() for study in studies], REPEATS, 0)  # (draws, cells)
    covariance = np.repeat([study.cost.covariance for study in studies], REPEATS, 0)
    df = np.repeat([study.cost.df for study in studies], REPEATS, 0)
    own = scaled(PILOT, np.sqrt(0.5))
    cells = [summarise_cell(scores(rng, seeds, CARS, own, len(lost)) + part[:, None, None]) for part in lost.T]
    found = {}
    for family, weights in primary_families().items():
        plain = stack([contrast(cells, list(w)) for w in weights])
        costs = [_cost(covariance, df, w) for w in weights]
        estimate = stack([contrast(cells, list(w), cost) for w, cost in zip(weights, costs, strict=True)])
        estimate = estimate if charged else plain
        low, high, _ = adjust(estimate, 0, 0.05)
        half = estimate.half_width(0.05)
        found[family] = FamilyRates(
            float(((low > 0) | (high < 0)).any(-1).mean()),
            float((np.abs(estimate.value) <= half).mean()),
            float((half / plain.half_width(0.05)).mean()),
        )
    return found


def _cost(covariance: Array, df: Array, weights: Array) -> AddedVariance:
    """`RateCost.of` for many studies at once."""
    parts = weights**2 * np.diagonal(covariance, 0, 1, 2)
    share = parts / parts.sum(-1, keepdims=True)
    return AddedVariance(np.einsum("i,nij,j->n", weights, covariance, weights), 1 / (share / df).sum(-1))


def pooled_rows(
    studies: int = 200,
    seed: int = 0,
    responses: tuple[str, ...] = tuple(RESPONSES),
    points: tuple[int, ...] = (3, 5),
) -> Iterator[Row]:
    """Studies tuned by pooled fits, a row for each response, trials a cell, noise between trials and seeds."""
    for number, (response, count, noise) in enumerate(product(responses, points, (0.0006, 0.0013))):
        rng = np.random.default_rng((seed, 3000 + number))
        made = [tuned_study(response, noise, count, rng) for _ in range(studies)]
        for seeds in (5, 10):
            with_cost, without = judged(made, seeds, rng), judged(made, seeds, rng, charged=False)
            yield {
                "response": response,
                "trials a cell": count,
                "noise of trials": noise,
                "seeds": seeds,
                "any false, networks": with_cost["networks"].false,
                "any false, losses": with_cost["losses"].false,
                "coverage": (with_cost["networks"].covered + with_cost["losses"].covered) / 2,
                "wider, networks": with_cost["networks"].wider,
                "wider, losses": with_cost["losses"].wider,
                "any false if rates were free": max(part.false for part in without.values()),
                "rate in its interval": float(np.mean([study.held for study in made])),
            }


class OwnCurve(NamedTuple):
    """How a cell with its own curve is tuned over two decades, and how its score falls, in Dice."""

    fall: Callable[[Array], Array]
    rates: int = 7
    noise: float = PILOT.seed  # between trials of one rate
    trials: int = 3  # at each rate

    @property
    def tried(self) -> Array:
        return np.repeat(np.geomspace(1e-4, 1e-2, self.rates), self.trials)


OWN_CURVES = {
    "parabola": OwnCurve(lambda u: -0.01 * u**2),
    "steeper above": OwnCurve(lambda u: 0.01 * _steeper(u)),
    "cliff above": OwnCurve(lambda u: 0.01 * _cliff(u)),
}
LIMITS = {  # where tuning of this kind is at its end
    "flat (0.005) and noisy (0.0013)": OwnCurve(lambda u: -0.005 * u**2, noise=0.0013),
    "the same, 2 trials a rate": OwnCurve(lambda u: -0.005 * u**2, noise=0.0013, trials=2),
    "cliff above, 5 rates": OwnCurve(lambda u: 0.01 * _cliff(u), rates=5),
}


def lucky(rates: Array, found: Array) -> Array:
    """The rate of the best single trial."""
    return rates[found.argmax(-1)]


def whole_parabola(rates: Array, found: Array) -> Array:
    """The top of one parabola through all trials, inside the range."""
    x = np.log(rates)
    slope, bend = (np.linalg.pinv((x - x.mean())[:, None] ** np.arange(3)) @ found.T)[1:]
    top = np.where(bend < 0, -slope / (2 * np.minimum(bend, -1e-300)), np.sign(slope) * np.inf)
    return np.exp(np.clip(x.mean() + top, x.min(), x.max()))


CHOICES = {"luckiest trial": lucky, "one parabola": whole_parabola, "local parabola": best_rates}


def false_pairs(
    curve: OwnCurve,
    seeds: int,
    apart: float,
    choose: Callable[[Array, Array], Array],
    rng: np.random.Generator,
    draws: int,
) -> float:
    """The share of false verdicts between two equal cells, best rates `apart` decades apart, each tuned and run."""
    rates, cells = curve.tried, []
    own = scaled(PILOT, np.sqrt(0.5))
    for best in (-3 - apart / 2, -3 + apart / 2):
        trials = curve.fall(np.log10(rates) - best) + curve.noise * rng.standard_normal((draws, rates.size))
        mean = curve.fall(np.log10(choose(rates, trials)) - best)
        cells.append(summarise_cell(scores(rng, seeds, CARS, own, draws) + mean[:, None, None]))
    estimate = contrast(cells, [1, -1])
    return float((np.abs(estimate.value) > estimate.half_width(0.05)).mean())


def own_curve_rows(draws: int = 4000, seed: int = 0, limits: bool = True) -> Iterator[Row]:
    """Pairs of cells tuned by their own curves, with ten seeds: a row for each response and distance of best rates."""
    curves = OWN_CURVES | (LIMITS if limits else {})
    for number, (response, apart) in enumerate(product(curves, (0.0, 0.5))):
        rngs = (np.random.default_rng((seed, 2000 + 10 * number + choice)) for choice in range(len(CHOICES)))
        shares = {
            name: false_pairs(curves[response], 10, apart, choose, rng, draws)
            for (name, choose), rng in zip(CHOICES.items(), rngs, strict=True)
        }
        yield {"response": response, "decades apart": apart, **shares}
