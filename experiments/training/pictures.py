"""A run's pictures: the same validation images through the training, and the best, median and worst test images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.plots import panels
from analysis.records.files import no_check, write_atomically
from experiments.data.dataset import ImageDataset
from experiments.evaluation.evaluator import enlarge, predict_logits
from experiments.runtime.out_of_memory import in_fitting_parts
from experiments.training.loop import State, forward

SHOWN = 4  # images in a picture


def save_validation(path: Path, state: State, validation: ImageDataset, confirm: Callable[[], None] = no_check) -> None:
    """Save a panel of a few validation images, always the same, with the current predictions."""
    chosen = list(range(0, len(validation), max(1, len(validation) // SHOWN)))[:SHOWN]
    images = np.stack([validation.image(i) for i in chosen])
    predict = functools.partial(predict_logits, functools.partial(forward, state), device=state.device)
    parts, _ = in_fitting_parts(lambda start, stop: predict(images[start:stop]), len(images), len(images))
    logits = np.concatenate(parts)
    rows = [
        (validation.image(i), validation.augmented(0, i)[1] > 0, one > 0, validation.samples[i].name)
        for i, one in zip(chosen, logits, strict=True)
    ]
    _save(path, rows, confirm)


def save_examples(
    path: Path,
    test: ImageDataset,
    dice: Sequence[float],
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    confirm: Callable[[], None] = no_check,
) -> None:
    """Save a panel of the test images with the best, the median and the worst Dice, at their own size.

    Args:
        path: PNG to write.
        test: The test images.
        dice: The Dice of each of them.
        predict: Logits (N, h, w) of images (N, h, w, 3).
        confirm: Called before anything is written.
    """
    order = sorted(range(len(dice)), key=lambda index: -dice[index])
    chosen = {order[0]: "best", order[len(order) // 2]: "median", order[-1]: "worst"}
    rows = []
    for index, word in chosen.items():
        truth = test.samples[index].read_mask()
        logits = predict(np.stack([test.image(index)]))[0]  # a copy: torch warns of arrays that cannot be written
        prediction = enlarge(logits, (truth.shape[1], truth.shape[0])) > 0
        rows.append(
            (test.image(index), truth, prediction, f"{word}: Dice {dice[index]:.4f}  {test.samples[index].name}")
        )
    _save(path, rows, confirm)


def _save(path: Path, rows: list, confirm: Callable[[], None]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, panels.panel_png(rows), confirm=confirm)
