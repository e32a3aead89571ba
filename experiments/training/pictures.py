"""A run's pictures: the same validation photographs through the training, and the worst test photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from analysis.plots import panels
from experiments.data.dataset import ImageDataset
from experiments.data.samples import read_mask
from experiments.evaluation.evaluator import ScoredImage, predict_logits
from experiments.runtime.files import no_check, write_atomically
from experiments.training.loop import State

SHOWN = 4  # photographs in a picture


def save_validation(path: Path, state: State, validation: ImageDataset, confirm: Callable[[], None] = no_check) -> None:
    """A panel of a few validation photographs, always the same, as the network sees them now."""
    chosen = list(range(0, len(validation), max(1, len(validation) // SHOWN)))[:SHOWN]
    images = np.stack([validation.image(i) for i in chosen])
    logits = predict_logits(state.model, images, state.fabric.device)
    rows = [
        (validation.image(i), validation.augmented(0, i)[1] > 0, one > 0, validation.samples[i].name)
        for i, one in zip(chosen, logits, strict=True)
    ]
    _save(path, rows, confirm)


def save_worst(
    path: Path, test: ImageDataset, lowest: Sequence[ScoredImage], confirm: Callable[[], None] = no_check
) -> None:
    """A panel of the test photographs with the lowest Dice, at their own size."""
    rows = [
        (
            test.image(one.index),
            read_mask(test.samples[one.index].mask),
            one.predictions[0],
            f"{one.rows[0]['image']}  Dice {one.dice:.4f}",
        )
        for one in lowest
    ]
    _save(path, rows, confirm)


def _save(path: Path, rows: list, confirm: Callable[[], None]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, panels.panel_png(rows), confirm=confirm)
