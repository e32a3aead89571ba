"""Samples as a torch Dataset, and the batches of an epoch.

from experiments.data import carvana
from experiments.data.dataset import Photographs
photographs = Photographs(carvana.build("data/carvana"), size=(384, 256))
image, mask = photographs[0]  # (3, 256, 384) in [0, 1] and (1, 256, 384) of 0 and 1
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.data import augment
from experiments.data.cache import Pixels, decode, photo_at
from experiments.data.samples import Sample

MANY_EPOCHS = 1_000_000  # more than any run has: what a second pass within an epoch is drawn by lies beyond


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Photographs and masks at one size, decoded on the spot or, with `pixels`, from the cache.

    `rows[i]` is the row of sample i in `pixels`, and what its augmentation is drawn by; without it, i itself.
    Set `epoch` before each pass: augmentation depends on (seed, epoch, photograph) alone.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: tuple[int, int],
        augmentation: augment.Pipeline | None = None,
        seed: int = 0,
        pixels: Pixels | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.samples, self.size, self.augmentation, self.seed, self.pixels = (
            list(samples),
            size,
            augmentation,
            seed,
            pixels,
        )
        self.rows = list(range(len(self.samples))) if rows is None else list(rows)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample `index`: image (3, H, W) float32 in [0, 1], mask (1, H, W) float32 of 0 and 1."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends a plain `for image, mask in photographs`
        image, mask = self.drawn(self.epoch, index % len(self))
        return torch.from_numpy(image).permute(2, 0, 1).float().div(255), torch.from_numpy(mask)[None].float()

    def photo(self, index: int) -> NDArray[np.uint8]:
        """The photograph as the network sees it before any augmentation: RGB (H, W, 3)."""
        if self.pixels is not None:
            return self.pixels.images[self.rows[index]]
        return photo_at(self.samples[index].image, self.size)

    def drawn(self, epoch: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Photograph (H, W, 3) and mask (H, W) as they are drawn in `epoch`."""
        row = self.rows[index]
        if self.pixels is not None:
            image, mask = np.array(self.pixels.images[row]), np.array(self.pixels.masks[row])
        else:
            image, mask = decode(self.samples[index], self.size)
        if self.augmentation is not None:
            image, mask = augment.draw(self.augmentation, image, mask, self.seed, epoch, row)
        return np.require(image, requirements=("C", "W")), np.require(
            mask, requirements=("C", "W")
        )  # torch wants arrays of its own


class _Draws(Dataset[tuple[Tensor, Tensor]]):
    """The same photographs asked for by (epoch, index), so that long-lived workers need no word on the epoch."""

    def __init__(self, photographs: ImageDataset) -> None:
        self.photographs = photographs

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        image, mask = self.photographs.drawn(*key)
        return torch.from_numpy(image), torch.from_numpy(mask)


class Batches:
    """The training batches of any epoch, from any step on: the order depends on (seed, epoch) alone.

    The last, smaller batch of a pass is left out (BatchNorm over a few photographs is noise), unless it is the only one.
    With `steps`, an epoch is that many batches: part of a pass, or several passes, each in an order of its own.
    """

    def __init__(
        self,
        photographs: ImageDataset,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        steps: int | None = None,
    ) -> None:
        self.photographs, self.batch_size = photographs, min(batch_size, len(photographs))
        self._a_pass = len(photographs) // self.batch_size
        self._steps = steps or self._a_pass
        self._keys: list[list[tuple[int, int]]] = []
        self._loader = DataLoader(
            _Draws(photographs),
            batch_sampler=_Keys(self._keys),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_quiet_worker,
            generator=torch.Generator(),  # else each epoch draws from torch's own generator, and a resumed one draws twice
        )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, … of `epoch`: images uint8 (N, H, W, 3) and masks uint8 (N, H, W)."""
        passes = -(-len(self) // self._a_pass)
        whole = [batch for number in range(passes) for batch in self._one_pass(epoch, number)]
        self._keys[:] = whole[start : len(self)]
        return iter(self._loader)

    def _one_pass(self, epoch: int, number: int) -> Iterator[list[tuple[int, int]]]:
        """The batches of pass `number` of an epoch, as (draw, photograph): a later pass augments as an epoch of its own."""
        seeds = (self.photographs.seed, epoch, number) if number else (self.photographs.seed, epoch)
        order = np.random.default_rng(seeds).permutation(len(self.photographs)).tolist()
        draw = epoch + number * MANY_EPOCHS
        for step in range(self._a_pass):
            yield [(draw, i) for i in order[step * self.batch_size : (step + 1) * self.batch_size]]


class _Keys(torch.utils.data.Sampler[list[tuple[int, int]]]):
    def __init__(self, keys: list[list[tuple[int, int]]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(list(self.keys))

    def __len__(self) -> int:
        return len(self.keys)


def _quiet_worker(_: int) -> None:
    """A worker ends with its parent and not by itself: Ctrl-C reaches the whole group, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def as_input(images: Tensor, device: torch.device) -> Tensor:
    """Photographs uint8 (N, H, W, 3) as a network wants them: (N, 3, H, W) float32 in [0, 1], channels last in memory."""
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


def as_target(masks: Tensor, device: torch.device) -> Tensor:
    """Masks uint8 (N, H, W) as a loss wants them: (N, 1, H, W) float32 of 0 and 1."""
    return masks.to(device, non_blocking=True)[:, None].float()
