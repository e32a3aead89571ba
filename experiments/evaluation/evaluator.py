"""Score models on samples: one row of scores per image, at the resolution of its ground truth.

Each image and each mask is read once, whatever the number of models; images are streamed, so memory does not grow with
their number. The networks run in float32 here, so the scores do not depend on how many images share a batch.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.records.files import no_check, write_atomically
from experiments.data.cache import ceiling
from experiments.data.dataset import ImageDataset, as_input
from experiments.data.samples import Sample, describe_sizes, image_size
from experiments.evaluation.metrics import Scores, score
from experiments.runtime.out_of_memory import in_fitting_parts
from experiments.runtime.prefetch import default_workers, prefetch
from registry import InputError

COLUMNS = ("set", "group", "image", *(metric.name for metric in fields(Scores)))
Row = dict[str, str | int | float]
Logits = NDArray[np.float32]
Mask = NDArray[np.bool_]
Measure = Callable[[Logits, Mask], Any]


@dataclass
class ScoredImage:
    """Scores of one image: a row for each model, and the ceiling that the input size sets."""

    dice: float  # of the first model
    index: int
    rows: list[Row]
    ceiling: float
    predictions: list[Mask]
    measured: Any = None  # result of `measure` for the first model's logits


def evaluate(
    models: Sequence[nn.Module],
    dataset: ImageDataset,
    device: torch.device,
    part: str = "test",
    batch_size: int = 8,
    workers: int | None = None,
    measure: Measure | None = None,
    skip: Callable[[InputError], None] | None = None,
) -> Iterator[ScoredImage]:
    """Score every image with every model, in order.

    Args:
        models: Networks on `device`.
        dataset: The images at the input size; ground truth is read at its own resolution.
        device: Where the networks run.
        part: Value of the column `set`.
        batch_size: Images per forward pass; fewer where memory runs out.
        workers: Scoring threads; None for one per core, 16 at most.
        measure: Called with the first model's logits and the ground truth, both (H, W); stored as `measured`.
        skip: Called with the reason for each pair that cannot be used, which is left out; without it, the reason is
            raised.
    """
    workers = workers or default_workers()

    def scored(item: tuple[int, list[Logits]]) -> ScoredImage | None:
        with _skipping(skip):
            return _score(dataset, *item, part, measure)
        return None

    forward = _forward(models, dataset, device, batch_size, skip)
    found = prefetch(scored, forward, workers, ahead=2 * max(batch_size, workers) + 1)
    return (image for image in found if image is not None)


@contextmanager
def _skipping(skip: Callable[[InputError], None] | None) -> Iterator[None]:
    """Hand an InputError to `skip`, if there is one."""
    try:
        yield
    except InputError as error:
        if skip is None:
            raise
        skip(error)


@torch.no_grad()
def predict_logits(model: Callable[[Tensor], Tensor], images: NDArray[np.uint8], device: torch.device) -> Logits:
    """Run a network (or what stands for one) on uint8 RGB images (N, h, w, 3); return float32 logits (N, h, w)."""
    logits = model(as_input(torch.from_numpy(np.require(images, requirements="W")), device))
    return np.asarray(logits.float().cpu().numpy()[:, 0])


def enlarge(logits: Logits, size: tuple[int, int]) -> Logits:
    """Resize logits (h, w) to `size` = (width, height), bilinearly."""
    return np.asarray(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR), np.float32)


def write_scores(path: Path, rows: Iterable[Row], confirm: Callable[[], None] = no_check) -> None:
    """Write rows as CSV with the columns COLUMNS, atomically; the same scores give the same bytes."""
    _write_table(path, COLUMNS, rows, confirm)


def write_ceilings(path: Path, scored: Iterable[ScoredImage], confirm: Callable[[], None] = no_check) -> None:
    """Write the ceiling of each image as CSV with the columns image and ceiling, atomically."""
    rows = ({"image": one.rows[0]["image"], "ceiling": one.ceiling} for one in scored)
    _write_table(path, ("image", "ceiling"), rows, confirm)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Row], confirm: Callable[[], None]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows({k: round(v, 7) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode(), confirm=confirm)


def _forward(
    models: Sequence[nn.Module],
    dataset: ImageDataset,
    device: torch.device,
    batch_size: int,
    skip: Callable[[InputError], None] | None,
) -> Iterator[tuple[int, list[Logits]]]:
    """(index, logits (h, w) of each model) for each image."""
    for model in models:
        model.eval()
    fitting = batch_size
    for start in range(0, len(dataset), batch_size):
        images: dict[int, NDArray[np.uint8]] = {}
        for i in range(start, min(start + batch_size, len(dataset))):
            with _skipping(skip):
                images[i] = dataset.image(i)
        logits, fitting = _logits(models, list(images.values()), device, fitting)
        yield from zip(images, logits, strict=True)


def _logits(
    models: Sequence[nn.Module], images: list[NDArray[np.uint8]], device: torch.device, size: int
) -> tuple[list[list[Logits]], int]:
    """The logits of each model, for each image; `size` of them at once, or as many as fit, which is returned."""

    def predict(start: int, stop: int) -> list[list[Logits]]:
        maps = [predict_logits(model, np.stack(images[start:stop]), device) for model in models]
        return [list(of_one_image) for of_one_image in zip(*maps, strict=True)]

    parts, size = in_fitting_parts(predict, len(images), size)
    return [logits for part in parts for logits in part], size


def _score(dataset: ImageDataset, index: int, logits: list[Logits], part: str, measure: Measure | None) -> ScoredImage:
    sample = dataset.samples[index]
    truth = sample.read_mask()
    if dataset.pixels is None and image_size(sample.image) != truth.shape[::-1]:  # else seen when they were decoded
        raise InputError(describe_sizes(sample, truth.shape))
    enlarged = [enlarge(one, (truth.shape[1], truth.shape[0])) for one in logits]
    predictions = [one > 0 for one in enlarged]
    rows = [_row(sample, part, prediction, truth) for prediction in predictions]
    measured = measure(enlarged[0], truth) if measure else None
    return ScoredImage(float(rows[0]["dice"]), index, rows, ceiling(truth, dataset.size), predictions, measured)


def _row(sample: Sample, part: str, prediction: Mask, truth: Mask) -> Row:
    return {"set": part, "group": sample.group, "image": sample.name} | vars(score(prediction, truth))
