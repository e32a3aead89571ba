"""A model and samples -> one row of scores per photograph, at the resolution of its ground truth.

Each photograph and each mask is read once, whatever the number of models; photographs pass through, so memory does not
grow with their number. The networks run in float32 here, so the scores do not depend on how many photos share a batch.
"""

from __future__ import annotations

import csv
import heapq
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.data.dataset import ImageDataset, as_input
from experiments.data.samples import Sample, read_mask
from experiments.evaluation.metrics import score
from experiments.runtime.files import no_check, write_atomically

COLUMNS = (
    "set",
    "group",
    "image",
    "tp",
    "fp",
    "fn",
    "tn",
    "dice",
    "iou",
    "precision",
    "recall",
    "boundary_iou",
    "hd95",
)
Row = dict[str, str | int | float]
Measure = Callable[[NDArray[np.float32], NDArray[np.bool_]], Any]


@dataclass(order=True)
class ScoredImage:
    """One photograph's scores: a row for each model, and the ceiling that the input size sets."""

    dice: float  # of the first model; the order is by this
    index: int
    rows: list[Row] = field(compare=False)
    ceiling: float = field(compare=False)
    predictions: list[NDArray[np.bool_]] = field(compare=False)
    measured: Any = field(default=None, compare=False)  # what `measure` made of the first model's logits


def evaluate(
    models: Sequence[nn.Module],
    photographs: ImageDataset,
    device: torch.device,
    part: str = "test",
    batch_size: int = 8,
    workers: int | None = None,
    measure: Measure | None = None,
) -> Iterator[ScoredImage]:
    """Score every photograph with every model, in order, in as many threads as there are cores (at most 16).

    `measure(logits, truth)`, both (H, W), may look at the first model's logits, too.
    """
    workers = workers or min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[ScoredImage]] = deque()
        for index, logits in _forward(models, photographs, device, batch_size):
            waiting.append(pool.submit(_score, photographs, index, logits, part, measure))
            if len(waiting) > 2 * max(batch_size, workers):
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def enlarge(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Logits (h, w) at `size` = (width, height), bilinear."""
    return np.asarray(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR), np.float32)


def ceiling(truth: NDArray[np.bool_], size: tuple[int, int]) -> float:
    """Dice of the truth itself, reduced to the input size, enlarged and thresholded: what the size costs at best."""
    height, width = truth.shape
    share = cv2.resize(truth.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    back = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    total = int(back.sum()) + int(truth.sum())
    return 2 * int((back & truth).sum()) / total if total else 1.0


def write_scores(path: Path, rows: Iterable[Row], confirm: Callable[[], None] = no_check) -> None:
    """Write rows as CSV with the columns COLUMNS, whole or not at all; the same scores give the same bytes."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({k: round(v, 7) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode(), confirm=confirm)


def worst(scored: Iterable[ScoredImage], keep: int, collect: Callable[[ScoredImage], None]) -> list[ScoredImage]:
    """Hand every Scored to `collect` and keep the `keep` of the lowest Dice, with their predictions, lowest first."""
    heap: list[tuple[float, int, ScoredImage]] = []
    for one in scored:
        collect(one)
        heapq.heappush(heap, (-one.dice, -one.index, one))
        if len(heap) > keep:
            heapq.heappop(heap)
    return sorted(one for _, _, one in heap)


@torch.no_grad()
def _forward(
    models: Sequence[nn.Module], photographs: ImageDataset, device: torch.device, batch_size: int
) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
    """(index, one logit map (h, w) per model) for each photograph."""
    for model in models:
        model.eval()
    for at in range(0, len(photographs), batch_size):
        indices = range(at, min(at + batch_size, len(photographs)))
        stacked = torch.from_numpy(np.stack([photographs.photo(i) for i in indices]))
        images = as_input(stacked, device)
        maps = [model(images).float().cpu().numpy()[:, 0] for model in models]
        yield from ((i, [m[n] for m in maps]) for n, i in enumerate(indices))


def _score(
    photographs: ImageDataset, index: int, logits: list[NDArray[np.float32]], part: str, measure: Measure | None
) -> ScoredImage:
    sample = photographs.samples[index]
    truth = read_mask(sample.mask)
    enlarged = [enlarge(one, (truth.shape[1], truth.shape[0])) for one in logits]
    predictions = [one > 0 for one in enlarged]
    rows = [_row(sample, part, prediction, truth) for prediction in predictions]
    measured = measure(enlarged[0], truth) if measure else None
    return ScoredImage(float(rows[0]["dice"]), index, rows, ceiling(truth, photographs.size), predictions, measured)


def _row(sample: Sample, part: str, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Row:
    found = score(prediction, truth)
    return {"set": part, "group": sample.group, "image": sample.name} | {
        name: getattr(found, name) for name in COLUMNS[3:]
    }
