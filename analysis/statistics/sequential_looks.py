"""Looking at a growing study: the error rate at which each look may be taken.

Looking after every seed and stopping at the first verdict takes the best of several chances. At the nominal 5 % per
look, eight looks (3 to 10 seeds) call two equal cells different in 14 % of studies. `look_level` gives the constant
nominal level at which the probability of a false verdict over all looks is 1 - level (Pocock 1977, Biometrika 64:191,
there for known variances), found by simulation, since the looks' t statistics have few and estimated degrees of
freedom.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import special

from analysis.statistics.estimator import Array, welch_df

FIRST_LOOK = 3  # seeds, where only the number of looks is given
DRAWS = 200_000  # simulated studies: the level is known to about 1.5 % of itself
CHUNK = 50_000


def look_level(looks: int | Sequence[int], level: float = 0.95, paired: bool = False) -> float:
    """The nominal error rate of each look such that stopping at the first verdict keeps 1 - level over all looks.

    Args:
        looks: how many looks (the first at 3 seeds, one more seed each), or the seed counts of the looks, rising.
        level: the probability of no false verdict over all looks, for two equal cells.
        paired: whether runs are matched by seed (a one-sample t test of differences) or independent (Welch).

    Returns:
        An error rate between (1 - level) / looks and 1 - level; 1 - level itself for a single look.

    Raises:
        ValueError: for counts that are below 2 or do not rise, or a level outside 0 to 1.
    """
    if isinstance(looks, (int, np.integer)):
        counts = tuple(range(FIRST_LOOK, FIRST_LOOK + int(looks)))
    else:
        counts = tuple(map(int, looks))
    if not counts or counts[0] < 2 or any(after <= before for before, after in itertools.pairwise(counts)):
        raise ValueError(f"Looks are taken at rising numbers of seeds, 2 or more, not at {looks}.")
    if not 0 < level < 1:
        raise ValueError(f"The level is a probability such as 0.95, but it is {level}.")
    if len(counts) == 1:
        return 1 - level
    return float(np.quantile(_smallest_p(counts, paired), 1 - level))


@functools.lru_cache
def _smallest_p(counts: tuple[int, ...], paired: bool) -> Array:
    """The smallest p over all looks of simulated studies (DRAWS,) of two equal cells."""
    rng = np.random.default_rng(0)
    parts = [_looks(counts, paired, rng, CHUNK) for _ in range(DRAWS // CHUNK)]
    return np.concatenate(parts)


def _looks(counts: tuple[int, ...], paired: bool, rng: np.random.Generator, draws: int) -> Array:
    cells = 1 if paired else 2
    runs = rng.standard_normal((cells, draws, counts[-1]))
    smallest = np.ones(draws)
    for seeds in counts:
        seen = runs[..., :seeds]
        variances = np.moveaxis(seen.var(-1, ddof=1) / seeds, 0, -1)  # (draws, cells)
        difference = seen[0].mean(-1) - (0 if paired else seen[-1].mean(-1))
        df = welch_df(variances, np.full(cells, seeds - 1))
        t = np.abs(difference) / np.sqrt(variances.sum(-1))
        smallest = np.minimum(smallest, 2 * special.stdtr(df, -t))
    return smallest
