"""How fast this machine is at it: the step, the loader, scoring, start-up, each measured against a plain way in one run.

Figures of a shared machine drift by tens of percent within minutes. So what is compared is measured in turns, a ratio is
the median of the ratios of the turns, and the machine's own peak is measured in the same run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.config import RunConfig
from experiments.data.cache import Pixels, decode, mask_at
from experiments.data.loader import Batches, Photographs
from experiments.data.samples import Sample, read_mask
from experiments.evaluate import ceiling, enlarge
from experiments.metrics import score
from experiments.train import start, train
from registry import AUGMENTATIONS, LOSSES, MODELS

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Work:
    """What the step is measured on."""

    config: RunConfig
    steps: int = 8
    repeats: int = 5


def made_photographs(work: Work, count: int) -> Photographs:
    """Photographs of noise with a disc for a mask, in memory: the step does not care what it sees."""
    width, height = work.config.size
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(width, height) / 3) ** 2).astype(np.uint8)
    samples = [Sample(Path(f"{i}.jpg"), Path(f"{i}.gif"), str(i)) for i in range(count)]
    return Photographs(samples, work.config.size, seed=0, pixels=Pixels(images, np.repeat(disc[None], count, 0)))


def own_loop(work: Work) -> Callable[[], float]:
    """A function that runs one epoch of this project's `train` and returns images a second."""
    photographs = made_photographs(work, work.steps * work.config.batch_size)
    validation = made_photographs(work, 1)
    torch.manual_seed(0)
    state = start(MODELS[work.config.model].build(**work.config.model_kwargs), work.config)
    batches = Batches(photographs, work.config.batch_size, pin_memory=work.config.device == "cuda")
    loss = LOSSES[work.config.loss].build(**work.config.loss_kwargs)
    epochs = train(state, batches, validation, loss, work.config)
    return lambda: next(epochs).images_per_second


def plain_loop(work: Work, autocast: bool = False) -> Callable[[], float]:
    """The same work written the usual way: contiguous float32, Adam as it comes, the loss read at every step."""
    photographs = made_photographs(work, work.steps * work.config.batch_size)
    loader = torch.utils.data.DataLoader(photographs, work.config.batch_size, shuffle=True)
    device = torch.device(work.config.device)
    torch.manual_seed(0)
    model = MODELS[work.config.model].build(**work.config.model_kwargs).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=work.config.learning_rate)
    loss = LOSSES[work.config.loss].build(**work.config.loss_kwargs)

    def epoch() -> float:
        model.train()
        began, total = time.perf_counter(), 0.0
        for images, masks in loader:
            images, masks = images.to(device), masks.to(device)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                value = loss(model(images), masks)
            value.backward()
            optimizer.step()
            total += value.item()
        return len(photographs) / (time.perf_counter() - began)

    return epoch


def in_turns(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Each way once to warm up, then `repeats` rounds of all of them one after another."""
    for way in ways.values():
        way()
    rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats)]
    return {name: [one[name] for one in rounds] for name in ways}


def ratio(over: list[float], under: list[float]) -> float:
    """The median over the rounds of one figure divided by another of the same round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def step_flop(work: Work) -> float:
    """Floating-point operations of forward and backward for one image: a multiplication and an addition are two."""
    width, height = work.config.size
    model = MODELS[work.config.model].build(**work.config.model_kwargs).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(2, 3, height, width, device="meta")).sum().backward()
    return counter.get_total_flops() / 2


def matrix_peak(device: str, kind: torch.dtype, size: int) -> float:
    """Operations a second of a square matrix product, the best of several: what this machine can do at most."""
    a, b = (torch.rand(size, size, device=device).to(kind) for _ in range(2))
    best = 0.0
    for _ in range(6):
        began = time.perf_counter()
        product = a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
        del product
    return best


def loader_speeds(samples: list[Sample], size: tuple[int, int], seconds: float) -> dict[str, dict[str, float]]:
    """Photographs a second, from the cache and decoding each time, with each augmentation policy."""
    few = samples[: min(len(samples), 96)]
    decoded = [decode(sample, size) for sample in few]
    pixels = Pixels(np.stack([d[0] for d in decoded]), np.stack([d[1] for d in decoded]))
    found: dict[str, dict[str, float]] = {"cached": {}, "decoding": {}}
    for name in AUGMENTATIONS:
        for way, source in (("cached", pixels), ("decoding", None)):
            photographs = Photographs(few, size, AUGMENTATIONS[name].build(), pixels=source)
            found[way][name] = _throughput(photographs, seconds)
    return found


def _throughput(photographs: Photographs, seconds: float) -> float:
    """Photographs a second through the batches of as many epochs as fit into `seconds`."""
    batches, seen, epoch, began = Batches(photographs, 16), 0, 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        epoch += 1
        for images, _ in batches.epoch(epoch):
            seen += len(images)
            if time.perf_counter() - began >= seconds:
                break
    return seen / (time.perf_counter() - began)


def scoring_milliseconds(samples: list[Sample], size: tuple[int, int], count: int = 12) -> dict[str, float]:
    """Milliseconds a photograph on one thread: reading its mask, scoring a prediction, the ceiling."""
    spent: dict[str, list[float]] = {"read the mask": [], "score": [], "ceiling": []}
    for sample in samples[:: max(1, len(samples) // count)][:count]:
        truth, seconds = _timed(lambda s=sample: read_mask(s.mask))
        spent["read the mask"].append(seconds)
        small = mask_at(truth, size).astype(np.float32) - 0.5
        prediction = enlarge(small, (truth.shape[1], truth.shape[0])) > 0
        spent["score"].append(_timed(lambda p=prediction, t=truth: score(p, t))[1])
        spent["ceiling"].append(_timed(lambda t=truth: ceiling(t, size))[1])
    return {name: 1000 * statistics.median(values) for name, values in spent.items()}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def startup_seconds() -> dict[str, float]:
    """Seconds of a fresh process that imports what each command needs."""
    codes = {"--help": "import run; run.main(['--help'])", "a run's imports": "import experiments.runner", "mlflow": "import mlflow"}
    found = {}
    for name, code in codes.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, env=os.environ)
        found[name] = time.perf_counter() - began
    return found
