"""Scores of one predicted mask against its ground truth: counts, overlap, and distance between the boundaries.

Everything here is about one image at its own resolution; averages over images and cars come later, in `analysis`.
Both masks are first cropped to the bounding box of their union. Outside of it both are background, so no score changes,
and the distance transforms, which cost nearly all the time, run on a fraction of the pixels.

All functions are pure: the same to the last bit whatever the number of threads, and thread-safe.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

BOUNDARY_WIDTH = 0.02  # of the image's diagonal: the value of Cheng et al. (2021)
SQUARE = np.ones((3, 3), np.uint8)
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True)
class Scores:
    """Scores of one image: pixel counts, ratios from 0 to 1 (1 is best), and HD95 in pixels (0 is best)."""

    tp: int  # foreground in both
    fp: int  # in the prediction only
    fn: int  # in the ground truth only
    tn: int  # background in both
    dice: float
    iou: float
    precision: float
    recall: float
    boundary_iou: float
    hd95: float


def score(prediction: np.ndarray, truth: np.ndarray) -> Scores:
    """Compare a predicted mask with the ground truth.

    Nothing to find and nothing found: every ratio is 1 and HD95 is 0. One mask empty, the other not: every ratio is 0
    and HD95 is the image diagonal, the largest possible distance, so that a miss is never left out of an average.

    Args:
        prediction: Boolean array (H, W) of any memory layout.
        truth: The same for the ground truth.

    Raises:
        ValueError: Arrays that are not boolean, not (H, W), without pixels, or of two shapes.
    """
    _check(prediction, truth)
    diagonal = math.hypot(*truth.shape)
    pixels = truth.size
    prediction, truth = _crop_to_union(prediction, truth)
    tp = cv2.countNonZero(prediction & truth)
    fp = cv2.countNonZero(prediction) - tp
    fn = cv2.countNonZero(truth) - tp
    counts = (tp, fp, fn, pixels - tp - fp - fn)
    if not (tp + fp and tp + fn):  # at least one mask is empty: ratios and distance are a convention
        ratio, distance = (0.0, diagonal) if fp + fn else (1.0, 0.0)
        return Scores(*counts, ratio, ratio, ratio, ratio, ratio, distance)
    return Scores(
        *counts,
        dice=2 * tp / (2 * tp + fp + fn),
        iou=pooled_iou(tp, fp, fn),
        precision=tp / (tp + fp),
        recall=tp / (tp + fn),
        boundary_iou=_boundary_iou(prediction, truth, width=max(1, round(BOUNDARY_WIDTH * diagonal))),
        hd95=_hd95(prediction, truth),
    )


def pooled_iou(tp: int, fp: int, fn: int) -> float:
    """IoU from counts, of one image or summed over a data set; 1 if there is nothing to find and nothing found."""
    union = tp + fp + fn
    return float(tp / union) if union else 1.0  # a plain float from NumPy's sums as well


def _check(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, mask in (("prediction", prediction), ("ground truth", truth)):
        if not isinstance(mask, np.ndarray) or mask.dtype != bool:
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise ValueError(
                f"The {name} must be a boolean NumPy array, not {kind}: threshold it, for example `probability > 0.5`."
            )
        if mask.ndim != 2 or not mask.size:
            raise ValueError(
                f"The {name} must be one mask (H, W) with at least one pixel, but its shape is {mask.shape}."
            )
    if prediction.shape != truth.shape:
        raise ValueError(
            f"The prediction is {prediction.shape} and the ground truth {truth.shape} (H, W): "
            "resize the prediction to the ground truth before scoring."
        )


def _crop_to_union(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as contiguous uint8 {0, 1}, cropped to the bounding box of all foreground; (0, 0) without any."""
    left, top, width, height = cv2.boundingRect((prediction | truth).view(np.uint8))
    box = np.s_[top : top + height, left : left + width]
    return prediction[box].astype(np.uint8, order="C"), truth[box].astype(np.uint8, order="C")


def _erode(mask: np.ndarray, kernel: np.ndarray, times: int = 1) -> np.ndarray:
    """Binary erosion with background outside of the array, so that foreground on its rim is eroded as well."""
    return cv2.erode(mask, kernel, iterations=times, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _boundary_iou(prediction: np.ndarray, truth: np.ndarray, width: int) -> float:
    """IoU of the inner bands of `width` pixels along both outlines; neither mask may be empty.

    Reference: Cheng et al., "Boundary IoU", 2021, https://arxiv.org/abs/2103.16562; as in the authors' code the band is
    the mask without its `width`-fold erosion by a 3x3 square.
    """
    # OpenCV erodes once, by a separable square of side 2 width + 1: the same result in about 1 ms.
    prediction, truth = (mask ^ _erode(mask, SQUARE, times=width) for mask in (prediction, truth))
    return cv2.countNonZero(prediction & truth) / cv2.countNonZero(prediction | truth)


def _hd95(prediction: np.ndarray, truth: np.ndarray) -> float:
    """The larger of both directed 95th percentiles of the distance between outlines; neither mask may be empty.

    Defined as MONAI's `compute_hausdorff_distance(percentile=95)`: an outline is the foreground that touches background
    (or the image border) along one of its four sides.
    """
    prediction, truth = _outline(prediction), _outline(truth)
    return max(_directed_hd95(prediction, truth), _directed_hd95(truth, prediction))


def _outline(mask: np.ndarray) -> np.ndarray:
    return mask ^ _erode(mask, CROSS)


def _directed_hd95(start: np.ndarray, goal: np.ndarray) -> float:
    """95th percentile, over the pixels of outline `start`, of the distance to the nearest pixel of outline `goal`."""
    return float(np.percentile(_distance_to(goal)[start.view(bool)], 95))


def _distance_to(goal: np.ndarray) -> np.ndarray:
    """Euclidean distance of every pixel to the nearest pixel of `goal`: (H, W), exact up to float32 rounding."""
    # With Intel IPP, which OpenCV uses for small images or on one thread, the last digits depend on the array's memory
    # address, and the same run would not give the same record twice. The setting is local to the calling thread.
    ipp = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        return cv2.distanceTransform(goal ^ 1, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # the distance to the nearest zero
    finally:
        cv2.ipp.setUseIPP(ipp)
