"""What one or several trained networks say of a photograph of any size.

A photograph is reduced to each network's input size, and the logits are enlarged to the photograph's own size, as in
scoring (`evaluate.py`): one network's masks are those that its run was scored by, pixel for pixel. Several networks, and
the photograph with its mirror image (`flips`), are averaged as probabilities. `tile` cuts a large photograph into
overlapping tiles that are each predicted as a photograph of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from experiments.data.cache import load_image, resize
from experiments.data.dataset import as_input
from experiments.data.samples import image_size, read_image
from experiments.evaluation.evaluator import enlarge
from experiments.inference.trained_model import TrainedModel
from registry import InputError

Size = tuple[int, int]  # (width, height)

Logits = NDArray[np.float32]

Finished = TypeVar("Finished")


def mean_logits(logits: Tensor) -> Tensor:
    """The logit of the mean probability over the first axis, finite where every logit is: `(K, ...)` -> `(...)`."""
    if len(logits) == 1:
        return logits[0]
    return logsigmoid(logits).logsumexp(0) - logsigmoid(-logits).logsumexp(0)


class FlipEnsemble(nn.Module):
    """A network that looks at the photograph and at its mirror image (left and right exchanged), and averages the probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return mean_logits(torch.stack([self.model(image), self.model(image.flip(-1)).flip(-1)]))


@dataclass(frozen=True)
class InputImage:
    """A photograph as it is read for predicting: its own size, what each network sees, and itself where it is needed whole."""

    path: Path
    size: Size
    views: Mapping[Size, NDArray[np.uint8]]
    whole: NDArray[np.uint8] | None = None  # RGB (H, W, 3)


class Predictor:
    """Networks at their input sizes, on a device."""

    def __init__(
        self, runs: Sequence[TrainedModel], device: str, flips: bool = False, tile: Size | None = None
    ) -> None:
        self.device, self.tile = torch.device(device), tile
        self.members = [(FlipEnsemble(one.model()) if flips else one.model(), one.config.size) for one in runs]
        for model, _ in self.members:
            model.to(self.device).eval()

    def read(self, path: Path, whole: bool = False) -> InputImage:
        """A photograph with what the networks see of it. Raises InputError for a file that is no whole photograph."""
        size = image_size(path)
        if self.tile is not None and (size[0] > self.tile[0] or size[1] > self.tile[1]):
            return InputImage(path, size, {}, read_image(path))
        views = {wanted: load_image(path, wanted) for _, wanted in self.members}
        return InputImage(path, size, views, read_image(path) if whole else None)

    def look(self, views: Mapping[Size, NDArray[np.uint8]]) -> list[Logits]:
        """Each network's logits (h, w) at its input size."""
        with torch.no_grad():
            stacked = [(model, torch.from_numpy(np.array(views[size]))[None]) for model, size in self.members]
            return [model(as_input(image, self.device)).float().cpu().numpy()[0, 0] for model, image in stacked]

    def mask(self, photo: InputImage, cut: float = 0.0, size: Size | None = None) -> Callable[[], NDArray[np.bool_]]:
        """Look at `photo` now; what comes back makes the mask (H, W) at `size` (its own), logits above `cut`, in any thread."""
        if not photo.views:
            mask = self._tiled(photo, cut)
            return lambda: mask if size in (None, photo.size) else resize(mask.astype(np.uint8), size or photo.size) > 0
        maps = self.look(photo.views)
        return lambda: merge_logits(maps, size or photo.size) > cut

    def _tiled(self, photo: InputImage, cut: float) -> NDArray[np.bool_]:
        """The mask of a large photograph; besides it and the photograph, only one row of tiles is held in memory."""
        assert photo.whole is not None and self.tile is not None
        image = photo.whole

        def of(rows: slice, columns: slice) -> Logits:
            tile = image[rows, columns]
            views = {size: resize(np.ascontiguousarray(tile), size) for _, size in self.members}
            return merge_logits(self.look(views), (tile.shape[1], tile.shape[0]))

        mask = np.empty(image.shape[:2], bool)
        for top, band in blend(image.shape[:2], self.tile, of):
            mask[top : top + len(band)] = band > cut
        return mask


def merge_logits(maps: Sequence[Logits], size: Size) -> Logits:
    """The networks' logits enlarged to `size`, and the logit of their mean probability there: (H, W)."""
    enlarged = [torch.from_numpy(enlarge(one, size)) for one in maps]
    return mean_logits(torch.stack(enlarged)).numpy() if len(enlarged) > 1 else enlarged[0].numpy()


def predict_each(
    photographs: Sequence[Path],
    predictor: Predictor,
    finish: Callable[[InputImage, NDArray[np.bool_]], Finished],
    workers: int,
    cut: float = 0.0,
    whole: bool = False,
    size: Size | None = None,
) -> Iterator[tuple[Path, Finished | InputError]]:
    """(photograph, what `finish` made of it and its mask), in order; for one that cannot be read, the reason.

    Reading and finishing go on in threads while the networks look; a few photographs are held at a time.
    """
    with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(workers) as finishers:
        ahead = 2 if predictor.tile else 2 * workers
        coming = iter(photographs)
        reading = deque((path, readers.submit(predictor.read, path, whole)) for path in islice(coming, ahead))
        finishing: deque[tuple[Path, Future[Finished] | InputError]] = deque()
        while reading:
            path, read = reading.popleft()
            reading.extend((later, readers.submit(predictor.read, later, whole)) for later in islice(coming, 1))
            try:
                photo = read.result()
                finishing.append((path, finishers.submit(_finish, finish, photo, predictor.mask(photo, cut, size))))
            except InputError as unreadable:
                finishing.append((path, unreadable))
            if len(finishing) > ahead:
                path, one = finishing.popleft()
                yield path, one if isinstance(one, InputError) else one.result()
        for path, one in finishing:
            yield path, one if isinstance(one, InputError) else one.result()


def _finish(
    finish: Callable[[InputImage, NDArray[np.bool_]], Finished],
    photo: InputImage,
    mask: Callable[[], NDArray[np.bool_]],
) -> Finished:
    return finish(photo, mask())


OVERLAP = 0.25  # of a tile, at least

Map = NDArray[np.float32]


def blend(
    shape: tuple[int, int], tile: tuple[int, int], look: Callable[[slice, slice], Map]
) -> Iterator[tuple[int, Map]]:
    """(first row, rows (n, W)) from top to bottom of the blended maps that `look(rows, columns)` gives for each tile.

    `shape` is (H, W); `tile` is (width, height), of which a smaller picture takes no more than it has.
    """
    across, down = tile_slices(shape[1], tile[0]), tile_slices(shape[0], tile[1])
    band: Map = np.zeros((0, shape[1]), np.float32)  # rows that tiles further down may still add to
    for number, (rows, row_weights) in enumerate(down):
        missing = rows.stop - rows.start - len(band)
        band = np.concatenate([band, np.zeros((missing, shape[1]), np.float32)])
        for columns, column_weights in across:
            band[:, columns] += look(rows, columns) * (row_weights[:, None] * column_weights[None, :])
        finished = (down[number + 1][0].start if number + 1 < len(down) else shape[0]) - rows.start
        yield rows.start, band[:finished]
        band = band[finished:].copy()


def tile_slices(length: int, tile: int, overlap: float = OVERLAP) -> list[tuple[slice, Map]]:
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
