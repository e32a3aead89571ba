"""Time training steps on synthetic images; the cost of a step does not depend on the image content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from experiments.config.schema import RunConfig
from experiments.data.cache import Pixels
from experiments.data.dataset import Batches, ImageDataset
from experiments.data.samples import Sample
from experiments.training.loop import on_device, start, train
from registry import LOSSES, MODELS


def synthetic_images(size: tuple[int, int], count: int) -> ImageDataset:
    """`count` images of noise in memory, with a disc for a mask; `size` is (width, height) in pixels."""
    width, height = size
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(width, height) / 3) ** 2).astype(np.uint8)
    samples = [Sample(Path(f"{i}.jpg"), Path(f"{i}.gif"), str(i)) for i in range(count)]
    return ImageDataset(samples, size, pixels=Pixels(images, np.repeat(disc[None], count, 0)))


def training_speeds(config: RunConfig, steps: int) -> Iterator[float]:
    """Yield the images per second, without validation, of `config.epochs` epochs of `steps` steps each."""
    model = untrained_model(config)
    images = synthetic_images(config.size, steps * config.batch_size)
    batches = Batches(images, config.batch_size, pin_memory=config.device == "cuda")
    state = start(model, config)
    loss = on_device(LOSSES[config.loss].build(**config.loss_kwargs), state.device)
    for epoch in train(state, batches, synthetic_images(config.size, 1), loss, config):
        yield epoch.images_per_second


def untrained_model(config: RunConfig) -> nn.Module:
    """The model of `config` without pretrained weights, which cost no time and may be a file."""
    torch.manual_seed(0)
    entry = MODELS[config.model]
    return entry.build(**entry.without_pretrained(config.model_kwargs))
