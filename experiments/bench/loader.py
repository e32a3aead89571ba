"""Speed of everything but the training step: data loading with each augmentation, scoring, overhead of a run."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from experiments.bench.step import ROOT
from experiments.data.cache import Pixels, decode, resize_mask
from experiments.data.dataset import Batches, ImageDataset
from experiments.data.samples import Sample, read_mask
from experiments.evaluation.evaluator import ceiling, enlarge
from experiments.evaluation.metrics import score
from registry import AUGMENTATIONS

IMAGES = 96  # at most, from as many cars as possible


def spread(samples: list[Sample], count: int = IMAGES) -> list[Sample]:
    """Pick `count` samples, evenly spaced."""
    return samples[:: max(1, len(samples) // count)][:count]


def loader_speeds(
    samples: list[Sample], size: tuple[int, int], seconds: float, workers: int = 0
) -> dict[str, dict[str, float]]:
    """Measure images per second with each augmentation policy, from the cache and decoding every time."""
    decoded = [decode(sample, size) for sample in samples]
    pixels = Pixels(np.stack([d[0] for d in decoded]), np.stack([d[1] for d in decoded]))
    speeds: dict[str, dict[str, float]] = {}
    for name in AUGMENTATIONS:
        cached, decoding = (
            _throughput(ImageDataset(samples, size, AUGMENTATIONS[name].build(), pixels=source), seconds, workers)
            for source in (pixels, None)
        )
        speeds[name] = {"cached": cached, "decoding": decoding, "ratio": cached / decoding}
    return speeds


def _throughput(dataset: ImageDataset, seconds: float, workers: int) -> float:
    """Measure images per second over as many epochs as fit into `seconds`, from the first batch on."""
    batches, seen, epoch, began = Batches(dataset, 16, workers), 0, 0, 0.0
    while not began or time.perf_counter() - began < seconds:
        epoch += 1
        for images, _ in batches.epoch(epoch):
            if not began:  # the workers have started and made the first batch
                began = time.perf_counter()
                continue
            seen += len(images)
            if time.perf_counter() - began >= seconds:
                break
    return seen / (time.perf_counter() - began)


def scoring_milliseconds(samples: list[Sample], size: tuple[int, int], count: int = 12) -> dict[str, Any]:
    """Measure median milliseconds per image on one thread: reading the mask, scoring, ceiling; with the image size."""
    spent: dict[str, list[float]] = {"read the mask": [], "score": [], "ceiling": []}
    for sample in spread(samples, count):
        truth = _timed(spent["read the mask"], lambda s=sample: read_mask(s.mask))  # type: ignore[misc]
        prediction = blurred(truth, size)
        _timed(spent["score"], lambda p=prediction, t=truth: score(p, t))  # type: ignore[misc]
        _timed(spent["ceiling"], lambda t=truth: ceiling(t, size))  # type: ignore[misc]
    medians: dict[str, Any] = {name: 1000 * statistics.median(values) for name, values in spent.items()}
    return {**medians, "photograph": f"{truth.shape[1]}x{truth.shape[0]}"}


def blurred(truth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Imitate the prediction of a good network: the ground truth reduced to the input size and enlarged again."""
    small = resize_mask(truth, size).astype(np.float32) - 0.5
    return enlarge(small, (truth.shape[1], truth.shape[0])) > 0


def _timed(spent: list[float], work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    spent.append(time.perf_counter() - began)
    return result


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have OpenCV and torch use one thread, as `scoring_milliseconds` reports."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


# One-epoch runs on three small synthetic cars, one for each seed, in one process; cars and cache exist already.
RUN_TWICE = """
import json, pathlib, sys, time
began = time.perf_counter()
import run
out = pathlib.Path(sys.argv[1])
store = f"sqlite:///{out / 'outputs' / 'mlflow.db'}"  # MLFLOW_TRACKING_URI may name the user's own
flags = ["--data", "carvana", "--data-dir", str(out / "cars"), "--output-dir", str(out / "outputs"), "--preset", "demo",
         "--tracking-uri", store,
         "--size", "48x32", "--epochs", "1", "--model", "unet", "--model-kwargs", "width=4", "--loss", "bce_dice"]
for seed in sys.argv[2:]:
    code = run.main([*flags, "--seed", seed])
    assert code == 0, code
    print("SECONDS", seed, time.perf_counter() - began, flush=True)
    began = time.perf_counter()
"""


def run_seconds() -> dict[str, float]:
    """Measure the overhead of a run, neither training nor scoring: of the first and of the second in a process."""
    from experiments.data.synthetic.cars import write_cars

    with tempfile.TemporaryDirectory() as folder:
        write_cars(Path(folder) / "cars", cars=3, size=(96, 64))
        subprocess.run(_command(folder, "0"), cwd=ROOT, capture_output=True, check=True)  # makes store and cache
        shown = subprocess.run(_command(folder, "1", "2"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
        walls = [float(line.split()[2]) for line in shown.splitlines() if line.startswith("SECONDS")]
        results = [json.loads(p.read_text()) for p in Path(folder).glob("outputs/runs/*/result.json")]
        work = {r["seed"]: r["seconds"]["training"] + r["seconds"]["scoring"] for r in results}
    return {"in a fresh process": walls[0] - work[1], "after another run": walls[1] - work[2]}


def import_seconds() -> dict[str, float]:
    """Measure how long a fresh process takes to start and to import what commands need."""
    codes = {
        "--help": "import run; run.main(['--help'])",
        "a run's packages": "import experiments.training.runner",
        "MLflow": "import mlflow",
    }
    seconds = {}
    for name, code in codes.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
        seconds[name] = time.perf_counter() - began
    return seconds


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", RUN_TWICE, *arguments]
