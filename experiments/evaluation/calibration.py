"""Which threshold is best, and whether a probability of 0.8 means 80 %: counts of one photograph, and sums of them.

Calibration, after Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599: the predicted
probabilities of the foreground are put into 15 bins of equal width; within a bin, their mean (confidence) is compared with
the share of pixels that are foreground. The expected calibration error (ECE, their equation 3) is the mean of the
absolute differences, weighted by the pixels in the bins. Pixels of all photographs are pooled. Difference from the paper:
with two classes the bins are over the foreground's probability (0 to 1) and not over that of the predicted class (0.5
to 1), so that too much foreground and too little do not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
BINS = 15
_CUTS = np.array([math.log(t / (1 - t)) for t in THRESHOLDS], np.float32)  # as logits, ascending; 0.5 is exactly 0


@dataclass(frozen=True)
class Counts:
    """Of one photograph: pixels at each threshold (19,), and within each bin of probability (15,)."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    pixels: NDArray[np.int64]
    probability: NDArray[np.float64]  # its sum over the bin's pixels
    foreground: NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """A bin of the reliability curve; `confidence` and `frequency` are NaN where no pixel lies in it."""

    low: float
    high: float
    pixels: int
    confidence: float
    frequency: float


def count(logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> Counts:
    """The counts of a photograph: logits and ground truth (H, W)."""
    logits, truth = logits.ravel(), truth.ravel()
    above = np.searchsorted(_CUTS, logits, side="left")  # how many thresholds a pixel exceeds
    found, right = (_exceeding(np.bincount(one, minlength=len(_CUTS) + 1)) for one in (above, above[truth]))
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    at = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return Counts(
        right,
        found - right,
        int(truth.sum()) - right,
        np.bincount(at, minlength=BINS),
        np.bincount(at, probability, BINS).astype(np.float64),
        np.bincount(at[truth], minlength=BINS),
    )


def sweep(counted: Sequence[Counts], groups: Sequence[str]) -> list[tuple[float, float, float]]:
    """(threshold, Dice, IoU): means over the photographs of a group, then over groups, as in every table."""
    dice, iou = (np.array(rows) for rows in zip(*map(_ratios, counted), strict=True))  # (photographs, thresholds)
    members = [np.array(groups) == name for name in sorted(set(groups))]
    means = [np.mean([one[member].mean(0) for member in members], axis=0) for one in (dice, iou)]
    return list(zip(THRESHOLDS, means[0].tolist(), means[1].tolist(), strict=True))


def reliability(counted: Iterable[Counts]) -> list[Reliability]:
    """The bins over the pixels of all photographs together."""
    rows = [(one.pixels, one.probability, one.foreground) for one in counted]
    pixels, probability, foreground = (np.sum(column, axis=0) for column in zip(*rows, strict=True))
    with np.errstate(invalid="ignore"):
        confidence, frequency = probability / pixels, foreground / pixels
    edges = [step / BINS for step in range(BINS + 1)]
    return [
        Reliability(edges[i], edges[i + 1], int(pixels[i]), float(confidence[i]), float(frequency[i]))
        for i in range(BINS)
    ]


def expected_error(bins: Sequence[Reliability]) -> float:
    """The expected calibration error of the bins (Guo et al. 2017, equation 3), from 0 (calibrated) to 1."""
    filled = [one for one in bins if one.pixels]
    return sum(one.pixels * abs(one.confidence - one.frequency) for one in filled) / sum(one.pixels for one in filled)


def _exceeding(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """From how many pixels exceed just k thresholds to how many exceed each threshold."""
    return histogram[::-1].cumsum()[::-1][1:]


def _ratios(one: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dice and IoU at each threshold; 1 where there is nothing to find and nothing found."""
    wrong = one.fp + one.fn
    empty = one.tp + wrong == 0
    safe = np.where(empty, 1, 0)
    return (2 * one.tp + safe) / (2 * one.tp + wrong + safe), (one.tp + safe) / (one.tp + wrong + safe)
