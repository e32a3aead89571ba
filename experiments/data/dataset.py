"""Samples as a torch Dataset, and the training batches of an epoch.

from experiments.data import ImageDataset, carvana
dataset = ImageDataset(carvana.build("data/carvana"), size=(384, 256))
image, mask = dataset[0]  # (3, 256, 384) in [0, 1] and (1, 256, 384) of 0 and 1
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from experiments.data import augment
from experiments.data.cache import Pixels, decode, load_image
from experiments.data.samples import Sample

Key = tuple[int, int]  # (draw, index): which augmentation of which sample
PASS_OFFSET = 1_000_000  # more than any run has epochs: separates the draws of further passes within an epoch


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks at one size, decoded on access or read from the cache.

    Set `epoch` before each pass: augmentation depends on (seed, epoch, row) alone.

    Args:
        samples: The pairs.
        size: (width, height) in pixels.
        augmentation: Applied to image and mask on access; None for none.
        seed: Of the augmentation.
        pixels: The decoded cache; without it files are decoded on access.
        rows: `rows[i]` is the row of sample i in `pixels`, and seeds its augmentation. Default: i itself.
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
        self.samples, self.size, self.seed = list(samples), size, seed
        self.augmentation, self.pixels = augmentation, pixels
        self.rows = list(range(len(self.samples)) if rows is None else rows)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample `index`: image (3, H, W) float32 in [0, 1], mask (1, H, W) float32 of 0 and 1."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends a plain `for image, mask in dataset`
        image, mask = self.augmented(self.epoch, index % len(self))
        return torch.from_numpy(image).permute(2, 0, 1).float().div(255), torch.from_numpy(mask)[None].float()

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image as the network sees it, without augmentation: RGB (H, W, 3)."""
        if self.pixels is not None:
            return self.pixels.images[self.rows[index]]
        sample = self.samples[index]
        return load_image(sample.image, self.size, sample.reading.intensity)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and mask (H, W) of 0 and 1, without augmentation."""
        if self.pixels is not None:
            row = self.rows[index]
            return np.array(self.pixels.images[row]), np.array(self.pixels.masks[row])
        return decode(self.samples[index], self.size)

    def augmented(self, epoch: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image (H, W, 3) and mask (H, W) of 0 and 1, augmented as in `epoch`; writable copies."""
        image, mask = self.pair(index)
        if self.augmentation is not None:
            image, mask = augment.draw(self.augmentation, image, mask, self.seed, epoch, self.rows[index])
        return np.require(image, requirements=("C", "W")), np.require(mask, requirements=("C", "W"))


class _EpochDataset(Dataset[tuple[Tensor, Tensor]]):
    """The dataset indexed by (draw, index), so that long-lived workers need not be told the epoch."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        image, mask = self.dataset.augmented(*key)
        return torch.from_numpy(image), torch.from_numpy(mask)


class Batches:
    """Training batches of any epoch, from any step on; the order depends on (seed, epoch) alone.

    The last, smaller batch of a pass is dropped (BatchNorm over a few images is noise), unless it is the only one.
    With `steps`, an epoch is that many batches: part of a pass, or several passes, each shuffled anew.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        steps: int | None = None,
    ) -> None:
        self.dataset, self.batch_size = dataset, min(batch_size, len(dataset))
        self._steps_per_pass = len(dataset) // self.batch_size
        self._steps = steps or self._steps_per_pass
        self._keys: list[list[Key]] = []
        self._loader = DataLoader(
            _EpochDataset(dataset),
            batch_sampler=_KeySampler(self._keys),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_interrupt,
            generator=torch.Generator(),  # torch's own would be drawn from once an epoch, and twice in a resumed one
        )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start`, … of `epoch`: images uint8 (N, H, W, 3) and masks uint8 (N, H, W)."""
        passes = -(-len(self) // self._steps_per_pass)
        keys = [batch for number in range(passes) for batch in self._one_pass(epoch, number)]
        self._keys[:] = keys[start : len(self)]
        return iter(self._loader)

    def _one_pass(self, epoch: int, number: int) -> Iterator[list[Key]]:
        """The batches of pass `number` of an epoch; a further pass is augmented like an epoch of its own."""
        seeds = (self.dataset.seed, epoch, number) if number else (self.dataset.seed, epoch)
        order = np.random.default_rng(seeds).permutation(len(self.dataset)).tolist()
        draw = epoch + number * PASS_OFFSET
        for step in range(self._steps_per_pass):
            yield [(draw, i) for i in order[step * self.batch_size : (step + 1) * self.batch_size]]


class _KeySampler(Sampler[list[Key]]):
    def __init__(self, keys: list[list[Key]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(list(self.keys))

    def __len__(self) -> int:
        return len(self.keys)


def _ignore_interrupt(_: int) -> None:
    """Let the parent decide when a worker ends: Ctrl-C reaches the whole process group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def as_input(images: Tensor, device: torch.device) -> Tensor:
    """Images uint8 (N, H, W, 3) as network input: (N, 3, H, W) float32 in [0, 1], channels last in memory."""
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


def as_target(masks: Tensor, device: torch.device) -> Tensor:
    """Masks uint8 (N, H, W) as target of a loss: (N, 1, H, W) float32 of 0 and 1."""
    return masks.to(device, non_blocking=True)[:, None].float()
