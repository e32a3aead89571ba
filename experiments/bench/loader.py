"""Speed of what precedes and follows the training step: loading with each augmentation policy, and scoring."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.data.cache import Pixels, decode, resize_mask
from experiments.data.dataset import Batches, ImageDataset
from experiments.data.samples import Sample, read_mask
from experiments.evaluation.evaluator import ceiling, enlarge
from experiments.evaluation.metrics import score
from registry import AUGMENTATIONS

IMAGES = 96  # at most, of as many cars as possible


def spread(samples: list[Sample], count: int = IMAGES) -> list[Sample]:
    """`count` samples, evenly spaced over the list."""
    return samples[:: max(1, len(samples) // count)][:count]


def loader_speeds(
    samples: list[Sample], size: tuple[int, int], seconds: float, workers: int = 0
) -> dict[str, dict[str, float]]:
    """Images per second, from the cache and decoding each time, with each augmentation policy."""
    decoded = [decode(sample, size) for sample in samples]
    pixels = Pixels(np.stack([d[0] for d in decoded]), np.stack([d[1] for d in decoded]))
    speeds: dict[str, dict[str, float]] = {}
    for name in AUGMENTATIONS:
        ways = {
            way: _throughput(ImageDataset(samples, size, AUGMENTATIONS[name].build(), pixels=source), seconds, workers)
            for way, source in (("cached", pixels), ("decoding", None))
        }
        speeds[name] = {**ways, "ratio": ways["cached"] / ways["decoding"]}
    return speeds


def _throughput(photographs: ImageDataset, seconds: float, workers: int) -> float:
    """Photographs a second through the batches of as many epochs as fit into `seconds`, from the first batch on."""
    batches, seen, epoch, began = Batches(photographs, 16, workers), 0, 0, 0.0
    while not began or time.perf_counter() - began < seconds:
        epoch += 1
        for images, _ in batches.epoch(epoch):
            if not began:  # workers are up and the first batch was made
                began = time.perf_counter()
                continue
            seen += len(images)
            if time.perf_counter() - began >= seconds:
                break
    return seen / (time.perf_counter() - began)


def scoring_milliseconds(samples: list[Sample], size: tuple[int, int], count: int = 12) -> dict[str, Any]:
    """Median milliseconds per image on one thread (reading its mask, scoring, the ceiling), and its size."""
    spent: dict[str, list[float]] = {"read the mask": [], "score": [], "ceiling": []}
    for sample in spread(samples, count):
        truth = _timed(spent["read the mask"], lambda s=sample: read_mask(s.mask))  # type: ignore[misc]
        prediction = blurred(truth, size)
        _timed(spent["score"], lambda p=prediction, t=truth: score(p, t))  # type: ignore[misc]
        _timed(spent["ceiling"], lambda t=truth: ceiling(t, size))  # type: ignore[misc]
    medians: dict[str, Any] = {name: 1000 * statistics.median(values) for name, values in spent.items()}
    return {**medians, "photograph": f"{truth.shape[1]}x{truth.shape[0]}"}


def blurred(truth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A prediction as a good network would make it: the truth at the input size, enlarged."""
    small = resize_mask(truth, size).astype(np.float32) - 0.5
    return enlarge(small, (truth.shape[1], truth.shape[0])) > 0


def _timed(spent: list[float], work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    spent.append(time.perf_counter() - began)
    return result


def one_thread() -> Any:
    """A context in which OpenCV and torch use one thread, as `scoring_milliseconds` reports."""
    import contextlib

    import cv2

    @contextlib.contextmanager
    def limited() -> Any:
        before = cv2.getNumThreads(), torch.get_num_threads()
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            cv2.setNumThreads(before[0])
            torch.set_num_threads(before[1])

    return limited()
