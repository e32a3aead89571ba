"""Masks of images of any size, by one or several trained networks.

An image is reduced to each network's input size, and the logits are enlarged to the image's own size, as in evaluation:
one network's masks are those that its run was scored by, pixel for pixel. Several networks, and an image with its
mirror image (`flips`), are averaged as probabilities. `tile` cuts a large image into overlapping tiles, each predicted
like an image of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from experiments.data.cache import load_image, resize
from experiments.data.images import Scale, image_size, read_for_display, read_header, read_image
from experiments.data.reading import Reading
from experiments.evaluation.evaluator import enlarge, predict_logits
from experiments.inference.trained_model import TrainedModel
from experiments.runtime.prefetch import MemoryLimit, default_workers, prefetch
from registry import InputError

OVERLAP = 0.25  # of neighbouring tiles, at least, as a fraction of a tile
MEMORY = (
    1 << 30
)  # bytes that images being read or written may need together, but no more than a quarter of what is free
READING, WRITING, ENLARGED = 8, 14, 8  # bytes per pixel: to decode; for the pictures; before, for each network's logits
DEEP = 24  # bytes per pixel to decode colours of 16 bits: the file, Pillow's pixels, OpenCV's, and those of 8 bits

Size = tuple[int, int]  # (width, height)
Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Logits = NDArray[np.float32]
Result = TypeVar("Result")


def mean_logits(logits: Tensor) -> Tensor:
    """The logit of the mean probability over the first axis, finite where every logit is: `(K, ...)` -> `(...)`."""
    if len(logits) == 1:
        return logits[0]
    return logsigmoid(logits).logsumexp(0) - logsigmoid(-logits).logsumexp(0)


class FlipEnsemble(nn.Module):
    """A network applied to the image and to its mirror image (left and right swapped), averaged as probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return mean_logits(torch.stack([self.model(image), self.model(image.flip(-1)).flip(-1)]))


@dataclass(frozen=True)
class InputImage:
    """An image read for prediction."""

    path: Path
    size: Size
    views: Mapping[Size, Image]  # by input size; empty for an image that is tiled
    pixels: Image | None = None  # RGB (H, W, 3) of an image that is tiled


class Predictor:
    """Networks at their input sizes, on a device."""

    def __init__(
        self, runs: Sequence[TrainedModel], device: str, flips: bool = False, tile: Size | None = None
    ) -> None:
        self.device, self.tile = torch.device(device), tile
        self.intensity = _one_scale(runs)
        self.members = [(FlipEnsemble(run.model()) if flips else run.model(), run.config.size) for run in runs]
        for model, _ in self.members:
            model.to(self.device).eval()

    def read(self, path: Path, size: Size | None = None) -> InputImage:
        """Read an image for all networks. Raises InputError for a file that is not a complete image.

        Args:
            path: The image.
            size: Its (width, height), where that is known already.
        """
        size = size or image_size(path)
        if self.tile is not None and (size[0] > self.tile[0] or size[1] > self.tile[1]):
            return InputImage(path, size, {}, read_image(path, intensity=self.intensity))
        views = {input_size: load_image(path, input_size, self.intensity) for _, input_size in self.members}
        return InputImage(path, size, views)

    def display(self, image: InputImage) -> tuple[Image, bytes | None]:
        """The image as people see it, RGB (H, W, 3), and the ICC profile of its colours. Raises InputError."""
        return read_for_display(image.path, self.intensity)

    def logits(self, views: Mapping[Size, Image]) -> list[Logits]:
        """Logits (h, w) of each network at its input size."""
        return [predict_logits(model, np.array(views[size])[None], self.device)[0] for model, size in self.members]

    def mask(self, image: InputImage, cut: float = 0.0, size: Size | None = None) -> Callable[[], Mask]:
        """Run the networks on `image` now; return a function, for any thread, that makes the mask.

        Args:
            image: As returned by `read`.
            cut: Logits above it are foreground.
            size: (width, height) of the mask; the image's own size if not given.
        """
        target = size or image.size
        if image.views:
            maps = self.logits(image.views)
            return lambda: merge_logits(maps, target) > cut
        mask = self._tiled(image, cut)
        return lambda: mask if target == image.size else resize(mask.astype(np.uint8), target) > 0

    def _tiled(self, image: InputImage, cut: float) -> Mask:
        """The mask of a large image; apart from it and the image, only one row of tiles is held in memory."""
        assert image.pixels is not None and self.tile is not None
        pixels = image.pixels

        def predict(rows: slice, columns: slice) -> Logits:
            tile = np.ascontiguousarray(pixels[rows, columns])
            views = {size: resize(tile, size) for _, size in self.members}
            return merge_logits(self.logits(views), (tile.shape[1], tile.shape[0]))

        mask = np.empty(pixels.shape[:2], bool)
        for top, band in blend(pixels.shape[:2], self.tile, predict):
            mask[top : top + len(band)] = band > cut
        return mask


def _one_scale(runs: Sequence[TrainedModel]) -> Scale | None:
    """The intensity scale of the runs. Raises InputError where they differ in it."""
    scales = {Reading.of(vars(run.config)).intensity for run in runs}
    if len(scales) > 1:
        shown = " and ".join(sorted("16 bits" if s is None else f"{s[0]:.10g}:{s[1]:.10g}" for s in scales))
        raise InputError(f"The runs read images at different intensity scales ({shown}): use them one at a time.")
    return next(iter(scales), None)


def merge_logits(maps: Sequence[Logits], size: Size) -> Logits:
    """Enlarge the networks' logits to `size` = (width, height); return the logit of their mean probability, (H, W)."""
    enlarged = [torch.from_numpy(enlarge(logits, size)) for logits in maps]
    return mean_logits(torch.stack(enlarged)).numpy() if len(enlarged) > 1 else enlarged[0].numpy()


def predict_each(
    paths: Sequence[Path],
    predictor: Predictor,
    finish: Callable[[InputImage, Mask], Result],
    workers: int | None = None,
    cut: float = 0.0,
    size: Size | None = None,
) -> Iterator[tuple[Path, Result | InputError]]:
    """(path, `finish(image, mask)`) for each image, in order; for one that cannot be read, the reason.

    Reading and finishing run in `workers` threads each (None: one per core) while the networks predict, as many at a
    time as MEMORY allows: a thread waits until there is room for its image.
    """
    workers = workers or default_workers()
    ahead = 2 if predictor.tile else 2 * workers
    memory = MemoryLimit(min(MEMORY, psutil.virtual_memory().available // 4))

    def read(path: Path) -> tuple[Path, InputImage | InputError]:
        try:
            known, header = image_size(path), read_header(path)
            with memory.hold(known[0] * known[1] * (DEEP if header is not None and header.deep else READING)):
                return path, predictor.read(path, known)
        except InputError as unreadable:
            return path, unreadable

    def finishing(image: InputImage, mask: Callable[[], Mask]) -> Callable[[], Result]:
        pixels = math.prod(size or image.size)

        def work() -> Result:
            with memory.hold(pixels * max(WRITING, ENLARGED * len(predictor.members))):
                return finish(image, mask())

        return work

    def predicted() -> Iterator[tuple[Path, Callable[[], Result] | InputError]]:
        for path, image in prefetch(read, paths, workers, ahead):
            if isinstance(image, InputError):
                yield path, image
            else:
                yield path, finishing(image, predictor.mask(image, cut, size))

    return prefetch(_finished, predicted(), workers, ahead)


def _finished(job: tuple[Path, Callable[[], Result] | InputError]) -> tuple[Path, Result | InputError]:
    path, work = job
    return path, work if isinstance(work, InputError) else work()


def blend(
    shape: tuple[int, int], tile: Size, predict: Callable[[slice, slice], Logits]
) -> Iterator[tuple[int, Logits]]:
    """Blend the overlapping maps that `predict(rows, columns)` gives for each tile.

    Args:
        shape: (H, W) of the image.
        tile: (width, height); a smaller image takes no more than it has.
        predict: Logits of one tile.

    Yields:
        (first row, rows (n, W)), from top to bottom.
    """
    across, down = tile_slices(shape[1], tile[0]), tile_slices(shape[0], tile[1])
    band: Logits = np.zeros((0, shape[1]), np.float32)  # rows that tiles further down may still add to
    for number, (rows, row_weights) in enumerate(down):
        missing = rows.stop - rows.start - len(band)
        band = np.concatenate([band, np.zeros((missing, shape[1]), np.float32)])
        for columns, column_weights in across:
            band[:, columns] += predict(rows, columns) * (row_weights[:, None] * column_weights[None, :])
        finished = (down[number + 1][0].start if number + 1 < len(down) else shape[0]) - rows.start
        yield rows.start, band[:finished]
        band = band[finished:].copy()


def tile_slices(length: int, tile: int, overlap: float = OVERLAP) -> list[tuple[slice, Logits]]:
    """Evenly spaced tiles over an axis of `length`, each with its weights (tile,), which sum to one at every pixel."""
    tile = min(tile, length)
    count = 1 if tile == length else 1 + -(-(length - tile) // max(1, int(tile * (1 - overlap))))
    starts = np.linspace(0, length - tile, count).round().astype(int).tolist()
    triangle = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).astype(np.float64)
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += triangle
    return [
        (slice(start, start + tile), (triangle / total[start : start + tile]).astype(np.float32)) for start in starts
    ]
