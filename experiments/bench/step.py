"""The training step: this project's own loop beside a plain one, and both beside what the machine could do at most."""

from __future__ import annotations

import json
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

from experiments.config.schema import RunConfig
from experiments.data.cache import Pixels
from experiments.data.dataset import Batches, ImageDataset
from experiments.data.samples import Sample
from experiments.runtime.environment import peak_memory
from experiments.runtime.errors import RunFailed
from experiments.training.loop import start, train
from registry import LOSSES, MODELS

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Workload:
    """What the step is measured on: model, loss, size, batch and precision of `config`, `steps` a turn, `repeats` turns."""

    config: RunConfig
    steps: int = 8
    repeats: int = 5

    def model(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return MODELS[self.config.model].build(**self.config.model_kwargs)

    def loss(self) -> Callable[..., Any]:
        return LOSSES[self.config.loss].build(**self.config.loss_kwargs)


def synthetic_images(work: Workload, count: int) -> ImageDataset:
    """Photographs of noise with a disc for a mask, in memory: the step does not care what it sees."""
    width, height = work.config.size
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(width, height) / 3) ** 2).astype(np.uint8)
    samples = [Sample(Path(f"{i}.jpg"), Path(f"{i}.gif"), str(i)) for i in range(count)]
    return ImageDataset(samples, work.config.size, pixels=Pixels(images, np.repeat(disc[None], count, 0)))


def own_loop(work: Workload) -> Callable[[], float]:
    """A function that runs one epoch of this project's `train` and returns images a second (training alone)."""
    photographs = synthetic_images(work, work.steps * work.config.batch_size)
    batches = Batches(photographs, work.config.batch_size, pin_memory=work.config.device == "cuda")
    epochs = train(start(work.model(), work.config), batches, synthetic_images(work, 1), work.loss(), work.config)
    return lambda: next(epochs).images_per_second


def plain_loop(work: Workload, autocast: bool = False) -> Callable[[], float]:
    """The same work written the usual way: contiguous float32, Adam as it comes, the loss read at every step.

    With `autocast` its forward pass runs in bfloat16, still without anything else.
    """
    photographs = synthetic_images(work, work.steps * work.config.batch_size)
    loader = torch.utils.data.DataLoader(photographs, work.config.batch_size, shuffle=True)
    device = torch.device(work.config.device)
    model, loss = work.model().to(device), work.loss()
    optimizer = torch.optim.Adam(model.parameters(), lr=work.config.learning_rate)

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


class BenchmarkProcess:
    """A loop in a fresh process of its own: what it sets (memory, threads) does not reach the other, which stays plain."""

    def __init__(self, work: Workload, way: str) -> None:
        words = [sys.executable, "-c", f"from experiments.bench.step import serve; serve({way!r})"]
        surroundings = {name: value for name, value in os.environ.items() if way == "own" or name != "GOMP_SPINCOUNT"}
        self._process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=surroundings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ask(json.dumps({"config": work.config.to_dict(), "steps": work.steps}))

    def speed(self) -> float:
        """Images a second of one epoch."""
        return self._ask("epoch")

    def close(self) -> float:
        """End the process; gigabytes that the steps took at most, without what the packages take."""
        memory = self._ask("memory")
        self._process.communicate()
        return memory

    def _ask(self, word: str) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RunFailed("The benchmark's process ended early. Is there memory enough? Try a smaller --batch-size.")
        return float(answer)


def serve(way: str) -> None:
    """The other side of `Process`: one line in, one number out."""
    asked = json.loads(input())
    work = Workload(RunConfig.from_dict(asked["config"]), asked["steps"])
    before = peak_memory()
    print(before, flush=True)
    loop = own_loop(work) if way == "own" else plain_loop(work, autocast=way != "plain")
    for word in sys.stdin:
        cuda = work.config.device == "cuda"
        if word.strip() == "memory":
            print((torch.cuda.max_memory_allocated() if cuda else peak_memory() - before) / 1e9, flush=True)
            return
        print(loop(), flush=True)


def alternate(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Each way once to warm up, then `repeats` rounds of all of them one after another."""
    for way in ways.values():
        way()
    rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats)]
    return {name: [one[name] for one in rounds] for name in ways}


def ratio(over: list[float], under: list[float]) -> float:
    """The median over the rounds of one figure divided by another of the same round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def step_speeds(work: Workload) -> dict[str, Any]:
    """Images a second of the own loop and of the plain one (and of its autocast form on a GPU), their ratios and memory."""
    names = ["own", "plain"] + (["plain, autocast"] if work.config.device == "cuda" else [])
    processes = {name: BenchmarkProcess(work, name) for name in names}
    rounds = alternate({name: process.speed for name, process in processes.items()}, work.repeats)
    memory = {name: process.close() for name, process in processes.items()}
    speeds = {name: statistics.median(values) for name, values in rounds.items()}
    over = {name: ratio(rounds["own"], values) for name, values in rounds.items() if name != "own"}
    return {"images_per_second": speeds, "own_over": over, "rounds": rounds, "peak_memory_gb": memory}


def largest_batch(work: Workload, most: int = 4096) -> int:
    """The largest power of two of photographs that a step on the GPU has memory for."""
    import dataclasses

    fits = 0
    for size in (2**n for n in range(most.bit_length())):
        try:
            own_loop(dataclasses.replace(work, steps=1, config=dataclasses.replace(work.config, batch_size=size)))()
        except torch.OutOfMemoryError:
            break
        fits = size
    torch.cuda.empty_cache()
    return fits
