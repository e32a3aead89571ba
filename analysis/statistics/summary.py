"""What a table says of one cell, and the sentence that says on what its verdicts are conditional."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.comparisons import check_scores, check_settings
from analysis.statistics.estimator import contrast, summarise


@dataclass(frozen=True)
class Mean:
    """A cell's mean over seeds and cars with its interval; infinite where one seed or one car shows no spread."""

    mean: float
    low: float
    high: float
    seeds: int
    cars: int


@dataclass(frozen=True)
class Distances:
    """HD95 of one cell: the median in pixels over all photographs and seeds, and in how many there was no distance."""

    median: float
    failures: int
    photographs: int


def cell_mean(scores: ArrayLike, level: float = 0.95) -> Mean:
    """The mean of scores (seeds, cars) with an interval that holds for new seeds and new cars.

    Cells are compared on the same cars, so two such intervals may overlap although the cells differ: read verdicts off
    `compare`, never off these. Raises ValueError as `compare` does.
    """
    check_settings(0, level)
    scores = check_scores({"the cell": scores})["the cell"]
    estimate = contrast([summarise(scores)], [1])
    half = float(estimate.half_width(1 - level))
    return Mean(float(estimate.value), float(estimate.value) - half, float(estimate.value) + half, *scores.shape)


def distances(hd95: ArrayLike, failed: ArrayLike) -> Distances:
    """HD95 in pixels and whether one mask was empty and the other not, both of any one shape, one value a photograph and seed.

    A failure counts as the image's diagonal, as it was scored, so that a median beyond half the photographs says so. No
    t-interval: a few failures decide a mean, and the diagonal is a convention. Raises ValueError for shapes that differ, none, or NaN.
    """
    hd95, failed = np.asarray(hd95, float), np.asarray(failed, bool)
    if hd95.shape != failed.shape or not hd95.size:
        raise ValueError(
            f"HD95 and its failures must be as many, and at least one; their shapes are {hd95.shape} and {failed.shape}."
        )
    if not np.isfinite(hd95).all():
        raise ValueError("HD95 holds NaN or infinite values: a failure is scored as the image's diagonal.")
    return Distances(float(np.median(hd95)), int(failed.sum()), hd95.size)


def conditions(
    seeds: ArrayLike, cars: int, budget: str, rates: str, data: str, rope: float = 0.001, one_set: bool = True
) -> str:
    """The sentence that stands under every table of verdicts. `seeds` are the numbers of seeds of its cells; `one_set`: all
    were trained on the same cars.

    For example `conditions([5, 5], 54, "30 epochs", "tuned over 7 x 3 trials a cell", "Carvana at 384x256")`.
    """
    numbers = np.unique(np.asarray(seeds, int))
    counted = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return (
        f"These verdicts hold for new seeds and new test cars like these ({counted} seeds a cell, {cars} cars), and only for "
        f"{'this set' if one_set else 'these sets'} of training cars, this budget ({budget}), these learning rates ({rates}) and these data ({data}). A difference is called "
        f"equivalent only where its whole interval lies within ±{rope:g}; one that is called better may be smaller than that."
    )
