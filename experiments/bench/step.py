"""Speed of the training step: this project's loop, a plain loop for comparison, and the largest batch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.config.schema import RunConfig
from experiments.runtime.environment import peak_memory, reset_peak_memory
from experiments.runtime.errors import RunFailed
from experiments.runtime.out_of_memory import is_out_of_memory
from experiments.training.loop import on_device
from experiments.training.speed import synthetic_images, training_speeds, untrained_model
from registry import LOSSES

ROUNDS = 10_000  # epochs of a loop that is measured: more than anybody asks for
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Workload:
    """What is measured: model, loss, size, batch and precision of `config`; `steps` per round, `repeats` rounds."""

    config: RunConfig
    steps: int = 8
    repeats: int = 5

    def model(self) -> torch.nn.Module:
        return untrained_model(self.config)

    def loss(self) -> Callable[..., Any]:
        return on_device(LOSSES[self.config.loss].build(**self.config.loss_kwargs), torch.device(self.config.device))


def own_loop(work: Workload) -> Callable[[], float]:
    """Return a function that trains one epoch with this project's loop and returns training images per second."""
    speeds = training_speeds(dataclasses.replace(work.config, epochs=ROUNDS, progressive=0.0), work.steps)
    return lambda: next(speeds)


def plain_loop(work: Workload, autocast: bool = False) -> Callable[[], float]:
    """Return the same for a conventional loop: contiguous float32, default Adam, the loss read at every step.

    With `autocast` the forward pass runs in bfloat16; nothing else is optimized.
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
    """A training loop in a process of its own, so that its memory and thread settings do not affect the others."""

    def __init__(self, work: Workload, name: str) -> None:
        command = [sys.executable, "-c", f"from experiments.bench.step import serve; serve({name!r})"]
        environment = dict(os.environ)
        if name != "own":
            environment.pop("GOMP_SPINCOUNT", None)  # a setting of this project
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process; a pipe would fill up
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        self._request(json.dumps({"config": work.config.to_dict(), "steps": work.steps}))

    def speed(self) -> float:
        """Train one epoch; return its images per second."""
        return self._request("epoch")

    def close(self) -> float:
        """End the process; return the peak memory of the steps in GB, without that of the imported packages."""
        memory = self._request("memory")
        self._process.communicate()
        return memory

    def _request(self, message: str) -> float:
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.write(message + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            reason = self._last_line()
            if reason and not is_out_of_memory(RuntimeError(reason)):
                raise RunFailed(f"The benchmark's process ended early: {reason}")
            raise RunFailed("The benchmark's process ended early, perhaps out of memory: try a smaller --batch-size.")
        return float(answer)

    def _last_line(self) -> str:
        """The last line that the process wrote to stderr; none where the system killed it."""
        self._process.wait()
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def serve(name: str) -> None:
    """Run the child process of `BenchmarkProcess`: answer each line on stdin with a number on stdout."""
    request = json.loads(input())
    work = Workload(RunConfig.from_dict(request["config"]), request["steps"])
    reset_peak_memory()
    before = peak_memory()
    print(before, flush=True)
    loop = own_loop(work) if name == "own" else plain_loop(work, autocast=name != "plain")
    for message in sys.stdin:
        cuda = work.config.device == "cuda"
        if message.strip() == "memory":
            print((torch.cuda.max_memory_allocated() if cuda else peak_memory() - before) / 1e9, flush=True)
            return
        print(loop(), flush=True)


def alternate(loops: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run each loop once to warm up, then `repeats` rounds of all loops in turn; return the speeds of each."""
    for loop in loops.values():
        loop()
    rounds = [{name: loop() for name, loop in loops.items()} for _ in range(repeats)]
    return {name: [speeds[name] for speeds in rounds] for name in loops}


def ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of the ratio of two speeds, each pair measured in the same round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def step_speeds(work: Workload) -> dict[str, Any]:
    """Measure this project's loop and the conventional one (on a GPU also with autocast): speeds, ratios, memory."""
    names = ["own", "plain"] + (["plain, autocast"] if work.config.device == "cuda" else [])
    processes = {name: BenchmarkProcess(work, name) for name in names}
    rounds = alternate({name: process.speed for name, process in processes.items()}, work.repeats)
    memory = {name: process.close() for name, process in processes.items()}
    speeds = {name: statistics.median(values) for name, values in rounds.items()}
    over = {name: ratio(rounds["own"], values) for name, values in rounds.items() if name != "own"}
    return {"images_per_second": speeds, "own_over": over, "rounds": rounds, "peak_memory_gb": memory}


def largest_batch(work: Workload, most: int = 4096) -> int:
    """Return the largest power of two that fits into GPU memory as a batch size."""
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
