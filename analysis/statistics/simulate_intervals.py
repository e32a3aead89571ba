"""Intervals and verdicts of pairs in simulation: coverage and error rates on tables whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.comparisons import adjust, classify
from analysis.statistics.estimator import Array, Estimate, contrast, stack, summarise_cell
from analysis.statistics.power import Spread

Row = dict[str, Any]
DRAWS = 4000
PILOT = Spread(seed=0.0006, car=0.0003, residual=0.001)  # of a difference


class Case(NamedTuple):
    """Two cells: cars, seeds, the ratio of the sds of seeds and residual, and of the sds of b and a."""

    cars: int
    seeds: int
    seed: float
    ratio: float


CASES = [Case(*case) for case in product((16, 64), (3, 5, 10), (0.0, 0.25, 1.0, 3.0), (1.0, 3.0, 10.0))]


@dataclass(frozen=True)
class Rates:
    """How often, over `DRAWS` tables, an interval held the truth and which verdicts there were."""

    covered: float
    better: float
    worse: float
    equivalent: float

    @property
    def separated(self) -> float:
        return self.better + self.worse


def scores(rng: np.random.Generator, seeds: int, cars: int, spread: Spread, draws: int = DRAWS) -> Array:
    """Tables (draws, seeds, cars) of one cell of mean 0; `spread` is here the cell's own, not a difference's."""
    table = spread.residual * rng.standard_normal((draws, seeds, cars))
    table += spread.seed * rng.standard_normal((draws, seeds, 1))
    return table + spread.car * rng.standard_normal((draws, 1, cars))


def scaled(spread: Spread, factor: float) -> Spread:
    return Spread(*(factor * sd for sd in vars(spread).values()))


def rates_of(estimate: Estimate, truth: float = 0.0, rope: float = 0.0) -> Rates:
    """What one comparison of each table (draws,) comes to."""
    half = estimate.half_width(0.05)
    verdicts = classify(estimate.value - half, estimate.value + half, rope)
    shares = [float((verdicts == verdict).mean()) for verdict in ("better", "worse", "equivalent")]
    return Rates(float((np.abs(estimate.value - truth) <= half).mean()), *shares)


def coverage(case: Case, rng: np.random.Generator, draws: int = DRAWS) -> Rates:
    """Two equal cells, without a rope: whatever is not covered is a false verdict."""
    own = Spread(case.seed, 0.5, 1.0)
    a, b = (scores(rng, case.seeds, case.cars, scaled(own, factor), draws) for factor in (1.0, case.ratio))
    return rates_of(contrast([summarise_cell(a), summarise_cell(b)], [1, -1]))


def pilot(
    seeds: int,
    cars: int,
    difference: float,
    rope: float,
    rng: np.random.Generator,
    share: float = 0.5,
    draws: int = DRAWS,
) -> Rates:
    """Two cells whose difference has the pilot's spread, `share` of its variances in a and the rest in b."""
    a, b = (scores(rng, seeds, cars, scaled(PILOT, np.sqrt(part)), draws) for part in (share, 1 - share))
    return rates_of(contrast([summarise_cell(a + difference), summarise_cell(b)], [1, -1]), difference, rope)


def tables(
    cells: int, seeds: int, cars: int, rng: np.random.Generator, shift: Array | float = 0.0, draws: int = DRAWS
) -> Estimate:
    """All pairs (draws, pairs) of `cells` cells with the pilot's spread and the true means `shift` (cells,)."""
    means = np.broadcast_to(shift, (cells,))
    made = [summarise_cell(scores(rng, seeds, cars, scaled(PILOT, np.sqrt(0.5)), draws) + mean) for mean in means]
    pairs = [contrast([a, b], [1, -1]) for a, b in combinations(made, 2)]
    return stack(pairs)


def family_verdicts(estimate: Estimate, rope: float) -> NDArray[np.str_]:
    """The verdicts (draws, pairs) of whole families."""
    low, high, _ = adjust(estimate, rope, 0.05)
    return classify(low, high, rope)


def false_anywhere(verdicts: NDArray[np.str_]) -> float:
    """The share of tables of equal cells with a pair that was called different."""
    return float(np.isin(verdicts, ("better", "worse")).any(-1).mean())


def coverage_rows(draws: int = DRAWS, seed: int = 0) -> Iterator[Row]:
    """The lowest, mean and highest coverage of the cases of each number of seeds and spread of seeds."""
    shares = {case: coverage(case, np.random.default_rng((seed, n)), draws).covered for n, case in enumerate(CASES)}
    for seeds, spread in [*product((3, 5, 10), (0.0, 0.25, 1.0, 3.0)), ("all", "all")]:
        part = [s for case, s in shares.items() if seeds == "all" or (case.seeds, case.seed) == (seeds, spread)]
        yield {
            "seeds": seeds,
            "seed sd / residual sd": spread,
            "lowest": min(part),
            "mean": float(np.mean(part)),
            "highest": max(part),
        }


def verdict_rows(draws: int = DRAWS, seed: int = 0) -> Iterator[Row]:
    """54 cars, the pilot's spread: a difference of 0.001, two equal cells, any false verdict among 12 equal ones."""
    for seeds in (3, 5, 10):
        rng = np.random.default_rng((seed, 1000 + seeds))
        different, equal = (
            pilot(seeds, 54, 0.001, 0.0, rng, draws=draws),
            pilot(seeds, 54, 0.0, 0.001, rng, draws=draws),
        )
        yield {
            "seeds": seeds,
            "0.001 found": different.better,
            "equal: `equivalent`": equal.equivalent,
            "equal: false verdict": equal.separated,
            "12 equal cells: any false verdict": false_anywhere(
                family_verdicts(tables(12, seeds, 54, rng, draws=draws), 0.001)
            ),
        }
