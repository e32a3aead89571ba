"""Whole studies in simulation: unequal variances, stalled runs, what can be detected, growing studies, training sets.

Studies have four networks and four losses. Their networks' standard deviations between runs are those of the study
models_x_losses, as seen (with three stalled runs) or without those.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analysis.statistics.comparisons import adjust, classify
from analysis.statistics.estimator import Array, Estimate, contrast, stack, summarise_cell
from analysis.statistics.interaction_test import interaction_test
from analysis.statistics.sequential_looks import look_level
from analysis.statistics.simulate_intervals import PILOT, Row, scaled, scores
from analysis.statistics.simulate_tuning import CARS, LOSSES, NETWORKS, primary_families
from analysis.statistics.stalled_runs import THRESHOLD, false_marks

SPREADS = {  # standard deviations between a cell's runs, by network: those of the study models_x_losses
    "as seen": (0.00165, 0.00158, 0.00067, 0.00033),
    "without stalled runs": (0.00056, 0.00065, 0.00067, 0.00033),
}
ROPE = 0.001
POWER = 0.8


def study_estimates(spread: tuple[float, ...], seeds: int, rng: np.random.Generator, draws: int) -> dict[str, Estimate]:
    """Estimates (draws, comparisons) of equal cells: both primary families, and all pairs."""
    sds = np.repeat(spread, LOSSES)
    cells = [summarise_cell(sd * rng.standard_normal((draws, seeds, 1))) for sd in sds]
    families = {
        name: stack([contrast(cells, list(w)) for w in weights]) for name, weights in primary_families().items()
    }
    pairs = [contrast([a, b], [1, -1]) for a, b in combinations(cells, 2)]
    return families | {"all pairs": stack(pairs)}


def unequal_rows(draws: int = 4000, seed: int = 0) -> Iterator[Row]:
    """False verdicts anywhere in a family of equal cells whose networks' variances differ, and the interaction test."""
    for spread, sds in SPREADS.items():
        for seeds in (3, 5, 10):
            rng = np.random.default_rng((seed, seeds))
            found = {name: _any_false(e) for name, e in study_estimates(sds, seeds, rng, draws).items()}
            yield {
                "spread": spread,
                "seeds": seeds,
                **{f"any false, {name}": share for name, share in found.items()},
                "interaction found": _interactions(sds, seeds, rng, max(draws // 4, 100)),
            }


def _any_false(estimate: Estimate) -> float:
    low, high, _ = adjust(estimate, 0, 0.05)
    return float(((low > 0) | (high < 0)).any(-1).mean())


def _interactions(sds: tuple[float, ...], seeds: int, rng: np.random.Generator, draws: int) -> float:
    keys: list[tuple[str, ...]] = [(f"m{m}", f"l{n}") for m in range(NETWORKS) for n in range(LOSSES)]
    found = 0
    for _ in range(draws):
        table = {key: sds[int(key[0][1])] * rng.standard_normal((seeds, 1)) for key in keys}
        found += interaction_test(table).p <= 0.05
    return found / draws


def stall_rows(draws: int = 4000, seed: int = 0) -> Iterator[Row]:
    """How often a study of 16 cells without stalls is flagged, and the threshold that would flag 5 %."""
    for spread, sds in {"equal": (1.0,) * NETWORKS, "unequal (0.4, 0.6, 0.7, 0.9)": (0.4, 0.6, 0.7, 0.9)}.items():
        for seeds in (3, 5, 8):
            rng = np.random.default_rng((seed, seeds))
            furthest = false_marks(seeds, NETWORKS * LOSSES, np.repeat(sds, LOSSES), rng, draws)
            yield {
                "spread between networks": spread,
                "seeds": seeds,
                f"flagged at {THRESHOLD:g}": float((furthest > THRESHOLD).mean()),
                "flagged at 5": float((furthest > 5).mean()),
                "threshold for 0.05": f"{np.quantile(furthest, 0.95):.1f}",
            }


def detectable_rows(draws: int = 400, seed: int = 0) -> Iterator[Row]:
    """The smallest difference found with 80 % power: one cell among all pairs, and a level in its primary family."""
    for spread, sds in SPREADS.items():
        for seeds in (3, 5, 10):
            found = study_estimates(sds, seeds, np.random.default_rng((seed, seeds)), draws)
            yield {
                "spread": spread,
                "seeds": seeds,
                "difference of a pair, all pairs (old)": _smallest(found["all pairs"], _one_cell()),
                "difference of a network, over losses": _smallest(found["networks"], np.eye(NETWORKS - 1)),
                "difference of a loss, over networks": _smallest(found["losses"], np.eye(LOSSES - 1)),
            }


def _one_cell() -> Array:
    """Of one cell of each network, the sign with which it enters each of all pairs (networks, pairs)."""
    pairs, cells = list(combinations(range(NETWORKS * LOSSES), 2)), range(0, NETWORKS * LOSSES, LOSSES)
    return np.array([[float((cell == a) - (cell == b)) for a, b in pairs] for cell in cells])


def _smallest(estimate: Estimate, shifts: Array) -> float:
    """The difference at which the comparisons that `shifts` moves are found in 80 %, on average over its rows."""

    def missing(difference: float) -> float:
        power = []
        for shift in shifts:
            moved = Estimate(estimate.value + difference * shift, *list(vars(estimate).values())[1:])
            low, high, _ = adjust(moved, 0, 0.05)
            right = np.where(shift > 0, low > 0, high < 0)[:, shift != 0]
            power.append(right.mean())
        return float(np.mean(power)) - POWER

    return float(optimize.brentq(missing, 0.0, 0.1, xtol=2e-5))


class Looking(NamedTuple):
    """What becomes of a growing study: shares of studies, and the mean number of seeds at its end."""

    false: float  # of equal cells, any better or worse at the end
    equivalent: float  # of equal cells, all comparisons
    found: float  # of cells that differ by 0.001 or 0.002 in one comparison
    seeds: float  # at the end, for cells that differ


def growing(
    family: str, paired: bool, factor: float, rng: np.random.Generator, draws: int, counts: tuple[int, ...]
) -> dict[int, Estimate]:
    """The estimates (draws, comparisons) of equal cells at each number of seeds, as a study grows.

    `family` is "pair" or one of the primary families. Runs matched by seed share a draw as large as a run's own.
    """
    most = counts[-1]
    number = 2 if family == "pair" else NETWORKS * LOSSES
    own = scaled(PILOT, factor * np.sqrt(0.5))
    common = own.seed * rng.standard_normal((draws, most, 1)) if paired else 0.0
    runs = [scores(rng, most, CARS, own, draws) + common for _ in range(number)]
    weights = [np.array([1.0, -1.0])] if family == "pair" else primary_families()[family]

    if paired:
        runs = [sum(w * run for w, run in zip(row, runs, strict=True) if w) for row in weights]
        weights = np.eye(len(runs))
    estimates = {}
    for seeds in counts:
        cells = [summarise_cell(run[:, :seeds]) for run in runs]
        estimates[seeds] = stack(
            [contrast([cells[n] for n in np.flatnonzero(row)], list(row[row != 0])) for row in weights]
        )
    return estimates


def look_until_decided(
    estimates: dict[int, Estimate], error: float, shift: float
) -> tuple[NDArray[np.str_], NDArray[np.int_]]:
    """The verdicts (draws, comparisons) at the end, and the seeds (draws,) then; the first comparison is shifted."""
    ended = seeds = None
    for count, estimate in estimates.items():
        value = estimate.value + shift * (np.arange(estimate.value.shape[-1]) == 0)
        moved = Estimate(value, *list(vars(estimate).values())[1:])
        low, high, _ = adjust(moved, ROPE, error)
        verdicts = classify(low, high, ROPE)
        if ended is None or seeds is None:
            ended, seeds, open_ = verdicts, np.full(len(verdicts), count), np.ones(len(verdicts), bool)
        ended[open_], seeds[open_] = verdicts[open_], count
        open_ &= (ended == "undecided").any(-1)
    assert ended is not None and seeds is not None
    return ended, seeds


def look_rows(draws: int = 4000, seed: int = 0, chunk: int = 250) -> Iterator[Row]:
    """Studies that look after each seed and stop when all is decided: independent from 3 to 10, matched from 5 to 8."""
    for family in ("pair", "losses"):
        for name, paired, counts in (("independent", False, (*range(3, 11),)), ("matched", True, (*range(5, 9),))):
            for factor in (1.0, 0.0013 / 0.0006):
                error, parts = look_level(counts, paired=paired), []
                for number in range(max(draws // (chunk if family == "pair" else 2 * chunk), 1)):
                    rng = np.random.default_rng((seed, number))
                    parts.append(_looked(growing(family, paired, factor, rng, chunk, counts), error))
                false, equivalent, *powers = np.mean(parts, 0)
                yield {
                    "comparisons": "one pair" if family == "pair" else "a family of three, over four cells",
                    "runs": name,
                    "looks at": f"{counts[0]} to {counts[-1]} seeds",
                    "seed sd": f"{factor * PILOT.seed:.4f}",
                    "any false": false,
                    "equal: all `equivalent`": equivalent,
                    "0.001 found": powers[0],
                    "seeds (0.001)": f"{powers[1]:.1f}",
                    "0.002 found": powers[2],
                    "seeds (0.002)": f"{powers[3]:.1f}",
                }


def _looked(estimates: dict[int, Estimate], error: float) -> list[float]:
    verdicts, _ = look_until_decided(estimates, error, 0.0)
    found = [np.isin(verdicts, ("better", "worse")).any(-1).mean(), (verdicts == "equivalent").all(-1).mean()]
    for shift in (0.001, 0.002):
        verdicts, seeds = look_until_decided(estimates, error, shift)
        found += [(verdicts[:, 0] == "better").mean(), seeds.mean()]
    return [float(share) for share in found]


def training_draw_rows(draws: int = 4000, seed: int = 0, cars: int = 189, drawn: int = 120) -> Iterator[Row]:
    """Coverage of intervals over training sets drawn by seed: for draws from these cars, and for fresh cars.

    Every car moves the difference of two cells by an amount of its own when it is among the training cars; runs add a
    quarter of the draws' standard deviation.
    """
    for seeds in (3, 5, 8):
        rng = np.random.default_rng((seed, seeds))
        effect = rng.standard_normal((draws, cars))
        order = rng.random((draws, seeds, cars)).argsort(-1)[..., :drawn]
        means = np.take_along_axis(effect[:, None], order, -1).mean(-1)  # (draws, seeds)
        spread = np.sqrt((1 / drawn) * (1 - drawn / cars))
        means = means + 0.25 * spread * rng.standard_normal(means.shape)
        estimate = contrast([summarise_cell(means[..., None])], [1])
        half = estimate.half_width(0.05)
        yield {
            "seeds": seeds,
            f"new draws of {drawn} of these {cars} cars": float(
                (np.abs(estimate.value - effect.mean(-1)) <= half).mean()
            ),
            "fresh training sets": float((np.abs(estimate.value) <= half).mean()),
        }
