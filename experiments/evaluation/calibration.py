"""Threshold sweep and calibration: which threshold is best, and whether a probability of 0.8 means 80 %.

Calibration after Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599: the predicted
foreground probabilities are put into 15 bins of equal width; within a bin, their mean (confidence) is compared with the
share of pixels that are foreground. The expected calibration error (ECE, their equation 3) is the mean absolute
difference, weighted by the pixels in the bins. Pixels of all images are pooled. Difference from the paper: with two
classes the bins are over the probability of the foreground (0 to 1), not of the predicted class (0.5 to 1), so that
over- and under-segmentation do not cancel.
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
    """Pixel counts of one image at each threshold (19,), and within each probability bin (15,)."""

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    pixels: NDArray[np.int64]
    probability: NDArray[np.float64]  # summed over the bin's pixels
    foreground: NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """A bin of the reliability curve; `confidence` and `frequency` are NaN if no pixel lies in it."""

    low: float
    high: float
    pixels: int
    confidence: float
    frequency: float


def count_pixels(logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> Counts:
    """Count the pixels of one image: logits and ground truth, both (H, W)."""
    logits, truth = logits.ravel(), truth.ravel()
    above = np.searchsorted(_CUTS, logits, side="left")  # how many thresholds a pixel exceeds
    predicted, tp = (_exceeding(np.bincount(steps, minlength=len(_CUTS) + 1)) for steps in (above, above[truth]))
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return Counts(
        tp=tp,
        fp=predicted - tp,
        fn=int(truth.sum()) - tp,
        pixels=np.bincount(bins, minlength=BINS),
        probability=np.bincount(bins, probability, BINS).astype(np.float64),
        foreground=np.bincount(bins[truth], minlength=BINS),
    )


def sweep(counts: Sequence[Counts], groups: Sequence[str]) -> list[tuple[float, float, float]]:
    """(threshold, Dice, IoU): means over the images of a group, then over groups, as in every table."""
    dice, iou = (np.array(rows) for rows in zip(*map(_ratios, counts), strict=True))  # (images, thresholds)
    members = [np.array(groups) == name for name in sorted(set(groups))]
    means = [np.mean([ratios[member].mean(0) for member in members], axis=0) for ratios in (dice, iou)]
    return list(zip(THRESHOLDS, means[0].tolist(), means[1].tolist(), strict=True))


def reliability(counts: Iterable[Counts]) -> list[Reliability]:
    """The bins of the reliability curve, over the pixels of all images."""
    rows = [(image.pixels, image.probability, image.foreground) for image in counts]
    pixels, probability, foreground = (np.sum(column, axis=0) for column in zip(*rows, strict=True))
    with np.errstate(invalid="ignore"):
        confidence, frequency = probability / pixels, foreground / pixels
    edges = [step / BINS for step in range(BINS + 1)]
    return [
        Reliability(edges[i], edges[i + 1], int(pixels[i]), float(confidence[i]), float(frequency[i]))
        for i in range(BINS)
    ]


def expected_calibration_error(bins: Sequence[Reliability]) -> float:
    """The expected calibration error of the bins (Guo et al. 2017, equation 3), from 0 (calibrated) to 1."""
    filled = [b for b in bins if b.pixels]
    return sum(b.pixels * abs(b.confidence - b.frequency) for b in filled) / sum(b.pixels for b in filled)


def _exceeding(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn the numbers of pixels that exceed exactly k thresholds into those that exceed each threshold."""
    return histogram[::-1].cumsum()[::-1][1:]


def _ratios(image: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dice and IoU of an image at each threshold; 1 where there is nothing to find and nothing found."""
    wrong = image.fp + image.fn
    safe = np.where(image.tp + wrong == 0, 1, 0)
    return (2 * image.tp + safe) / (2 * image.tp + wrong + safe), (image.tp + safe) / (image.tp + wrong + safe)
