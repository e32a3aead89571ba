"""A cell's mean and its interval, as a table shows them."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from analysis.statistics.comparisons import check_scores, check_settings
from analysis.statistics.estimator import contrast, summarise_cell


@dataclass(frozen=True)
class Mean:
    """A cell's mean over seeds and cars with its interval; infinite where one seed or one car shows no spread."""

    mean: float
    low: float
    high: float
    seeds: int
    cars: int


def cell_mean(scores: ArrayLike, level: float = 0.95) -> Mean:
    """Average scores (seeds, cars), with an interval that holds for new seeds and new cars.

    Cells are compared on the same cars, so two such intervals may overlap although the cells differ: read verdicts off
    `compare`, never off these. Raises ValueError as `compare` does.
    """
    check_settings(0, level)
    scores = check_scores({"the cell": scores})["the cell"]
    estimate = contrast([summarise_cell(scores)], [1])
    half = float(estimate.half_width(1 - level))
    return Mean(float(estimate.value), float(estimate.value) - half, float(estimate.value) + half, *scores.shape)
