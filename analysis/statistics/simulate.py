"""What the intervals and verdicts are worth, by simulation: the code of a study run on tables whose truth is known.

python -m analysis.report.simulation_tables           show the tables
python -m analysis.report.simulation_tables --write   put them into docs/statistics.md
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.comparisons import adjust, classify
from analysis.statistics.estimator import Array, Estimate, contrast, stack, summarise_cell
from analysis.statistics.learning_rate_response import best_rates
from analysis.statistics.power import Spread

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


def coverage(case: Case, rng: np.random.Generator) -> Rates:
    """Two equal cells, without a rope: whatever is not covered is a false verdict."""
    own = Spread(case.seed, 0.5, 1.0)
    a, b = (scores(rng, case.seeds, case.cars, scaled(own, factor)) for factor in (1.0, case.ratio))
    return rates_of(contrast([summarise_cell(a), summarise_cell(b)], [1, -1]))


def pilot(seeds: int, cars: int, difference: float, rope: float, rng: np.random.Generator, share: float = 0.5) -> Rates:
    """Two cells whose difference has the pilot's spread, `share` of its variances in a and the rest in b."""
    a, b = (scores(rng, seeds, cars, scaled(PILOT, np.sqrt(part))) for part in (share, 1 - share))
    return rates_of(contrast([summarise_cell(a + difference), summarise_cell(b)], [1, -1]), difference, rope)


def tables(cells: int, seeds: int, cars: int, rng: np.random.Generator, shift: Array | float = 0.0) -> Estimate:
    """All pairs (draws, pairs) of `cells` cells with the pilot's spread and the true means `shift` (cells,)."""
    means = np.broadcast_to(shift, (cells,))
    made = [summarise_cell(scores(rng, seeds, cars, scaled(PILOT, np.sqrt(0.5))) + mean) for mean in means]
    pairs = [contrast([a, b], [1, -1]) for a, b in combinations(made, 2)]
    return stack(pairs)


def family_verdicts(estimate: Estimate, rope: float) -> NDArray[np.str_]:
    """The verdicts (draws, pairs) of whole families."""
    low, high, _ = adjust(estimate, rope, 0.05)
    return classify(low, high, rope)


def false_anywhere(verdicts: NDArray[np.str_]) -> float:
    """The share of tables of equal cells with a pair that was called different."""
    return float(np.isin(verdicts, ("better", "worse")).any(-1).mean())


class Response(NamedTuple):
    """How a score falls with u, the log10 of the rate over the best rate, and how it is tuned over two decades."""

    fall: Callable[[Array], Array]
    rates: int = 7
    noise: float = PILOT.seed  # between trials of one rate
    trials: int = 3  # at each rate

    @property
    def tried(self) -> Array:
        return np.repeat(np.geomspace(1e-4, 1e-2, self.rates), self.trials)


def _parabola(u: Array) -> Array:
    return -0.01 * u**2  # 0.01 Dice for a decade


def _cliff(u: Array) -> Array:
    return np.where(u < 0, -0.01 * u**2, -0.06 * u**2)


RESPONSES = {
    "parabola": Response(_parabola),
    "steeper above": Response(lambda u: -0.02 * (np.exp(1.5 * u) - 1.5 * u - 1) / 1.5**2),
    "cliff above": Response(_cliff),
}
LIMITS = {  # where tuning of this kind is at its end
    "flat (0.005) and noisy (0.0013)": Response(lambda u: 0.5 * _parabola(u), noise=0.0013),
    "the same, 2 trials a rate": Response(lambda u: 0.5 * _parabola(u), noise=0.0013, trials=2),
    "cliff above, 5 rates": Response(_cliff, rates=5),
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


def tuned(
    response: Response, seeds: int, apart: float, choose: Callable[[Array, Array], Array], rng: np.random.Generator
) -> Rates:
    """Compare two equal cells, best rates `apart` decades apart, each tuned and then run with new seeds."""
    rates, cells = response.tried, []
    for best in (-3 - apart / 2, -3 + apart / 2):
        trials = response.fall(np.log10(rates) - best) + response.noise * rng.standard_normal((DRAWS, rates.size))
        mean = response.fall(np.log10(choose(rates, trials)) - best)
        cells.append(summarise_cell(scores(rng, seeds, 54, scaled(PILOT, np.sqrt(0.5))) + mean[:, None, None]))
    return rates_of(contrast(cells, [1, -1]))


CHOICES = {"luckiest trial": lucky, "one parabola": whole_parabola, "local parabola": best_rates}


class Verdicts(NamedTuple):
    """54 cars, the pilot's spread: a difference of 0.001, two equal cells, any false verdict among 12 equal ones."""

    different: Rates
    equal: Rates
    twelve: float


@dataclass(frozen=True)
class Results:
    """Everything that the document shows and the tests hold."""

    coverage: dict[Case, Rates]
    verdicts: dict[int, Verdicts]  # by the number of seeds
    tuning: dict[tuple[str, float, str], float]  # false verdicts with ten seeds, by response, decades apart and choice


def run_simulations(seed: int = 0) -> Results:
    """All cases, each with a generator of its own; about half a minute of one core."""
    covered = {case: coverage(case, np.random.default_rng((seed, n))) for n, case in enumerate(CASES)}
    verdicts = {}
    for seeds in (3, 5, 10):
        rng = np.random.default_rng((seed, 1000 + seeds))
        different, equal = pilot(seeds, 54, 0.001, 0.0, rng), pilot(seeds, 54, 0.0, 0.001, rng)
        verdicts[seeds] = Verdicts(different, equal, false_anywhere(family_verdicts(tables(12, seeds, 54, rng), 0.001)))
    cases = list(product(RESPONSES | LIMITS, (0.0, 0.5), CHOICES))
    rngs = [np.random.default_rng((seed, 2000 + n)) for n in range(len(cases))]
    tuning = {
        (response, apart, name): tuned((RESPONSES | LIMITS)[response], 10, apart, CHOICES[name], rng).separated
        for (response, apart, name), rng in zip(cases, rngs, strict=True)
    }
    return Results(covered, verdicts, tuning)
