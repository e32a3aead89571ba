"""Speed of the training step: this project's loop, a plain loop for comparison, and the largest batch."""

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

import torch

from experiments.config.schema import RunConfig
from experiments.runtime.environment import peak_memory
from experiments.runtime.errors import RunFailed
from experiments.training.speed import synthetic_images, training_speeds
from registry import LOSSES, MODELS

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Workload:
    """What is measured: model, loss, size, batch and precision of `config`; `steps` per round, `repeats` rounds."""

    config: RunConfig
    steps: int = 8
    repeats: int = 5

    def model(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return MODELS[self.config.model].build(**self.config.model_kwargs)

    def loss(self) -> Callable[..., Any]:
        return LOSSES[self.config.loss].build(**self.config.loss_kwargs)


def own_loop(work: Workload) -> Callable[[], float]:
    """A function that trains one epoch by this project's loop and returns images per second (training alone)."""
    speeds = training_speeds(work.config, work.steps)
    return lambda: next(speeds)


def plain_loop(work: Workload, autocast: bool = False) -> Callable[[], float]:
    """The same work written the usual way: contiguous float32, default Adam, the loss read at every step.

    With `autocast` its forward pass runs in bfloat16, without any further optimization.
    """
    inputs = synthetic_images(work.config.size, work.steps * work.config.batch_size)
    loader = torch.utils.data.DataLoader(inputs, work.config.batch_size, shuffle=True)
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
        return len(inputs) / (time.perf_counter() - began)

    return epoch


class BenchmarkProcess:
    """A loop in its own process, so that its settings (memory, threads) do not affect the other loop."""

    def __init__(self, work: Workload, way: str) -> None:
        command = [sys.executable, "-c", f"from experiments.bench.step import serve; serve({way!r})"]
        environment = {name: value for name, value in os.environ.items() if way == "own" or name != "GOMP_SPINCOUNT"}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ask(json.dumps({"config": work.config.to_dict(), "steps": work.steps}))

    def speed(self) -> float:
        """Images per second of one epoch."""
        return self._ask("epoch")

    def close(self) -> float:
        """End the process; the peak memory of the steps in GB, without that of the packages."""
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
    """The other side of `BenchmarkProcess`: one line in, one number out."""
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
    """Call each way once to warm up, then `repeats` rounds of all of them one after another."""
    for way in ways.values():
        way()
    rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats)]
    return {name: [speeds[name] for speeds in rounds] for name in ways}


def ratio(over: list[float], under: list[float]) -> float:
    """The median over the rounds of one speed divided by another of the same round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def step_speeds(work: Workload) -> dict[str, Any]:
    """Images per second of this project's loop and of the plain one (on a GPU also with autocast), ratios, memory."""
    names = ["own", "plain"] + (["plain, autocast"] if work.config.device == "cuda" else [])
    processes = {name: BenchmarkProcess(work, name) for name in names}
    rounds = alternate({name: process.speed for name, process in processes.items()}, work.repeats)
    memory = {name: process.close() for name, process in processes.items()}
    speeds = {name: statistics.median(values) for name, values in rounds.items()}
    over = {name: ratio(rounds["own"], values) for name, values in rounds.items() if name != "own"}
    return {"images_per_second": speeds, "own_over": over, "rounds": rounds, "peak_memory_gb": memory}


def largest_batch(work: Workload, most: int = 4096) -> int:
    """The largest batch size, a power of two, that fits into the memory of the GPU."""
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
