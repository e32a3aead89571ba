"""`run.py predict`: masks, overlays and cut-outs of photographs."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.config.resolve import find_device
from experiments.inference.input_files import gather_images
from experiments.inference.predictor import InputImage, Predictor, predict_each
from experiments.inference.trained_model import find_runs
from experiments.runtime import progress
from experiments.runtime.errors import disk_errors
from experiments.runtime.interrupts import Stop, interruptible
from registry import InputError

TINT = (0, 114, 178)  # blue of Okabe & Ito, RGB: no car in Carvana's studio has it for a background
RIM = (230, 159, 0)


@dataclass(frozen=True)
class PredictArgs:
    """What `predict` was asked for, checked and typed."""

    photographs: list[str]
    run: str
    ensemble: list[str]
    output: Path
    output_dir: Path
    overlay: bool
    cutout: bool
    flips: bool
    tile: tuple[int, int] | None
    threshold: float
    device: str
    workers: int | None


def predict(wanted: PredictArgs) -> int:
    """Write the masks; 1 where a photograph could not be read."""
    names = gather_images(wanted.photographs, wanted.output)
    runs = find_runs(wanted.run, wanted.ensemble, wanted.output_dir)
    predictor = Predictor(runs, find_device(wanted.device), wanted.flips, wanted.tile)
    return interruptible(lambda stop: _predict(wanted, names, predictor, stop), "The masks written so far are whole.")


def _predict(wanted: PredictArgs, names: dict[Path, Path], predictor: Predictor, stop: Stop) -> int:
    cut = math.log(wanted.threshold / (1 - wanted.threshold))
    pictures = wanted.overlay or wanted.cutout

    def write(photo: InputImage, mask: NDArray[np.bool_]) -> None:
        stem = wanted.output / names[photo.path]
        stem.parent.mkdir(parents=True, exist_ok=True)
        save(stem.with_name(stem.name + ".png"), mask.astype(np.uint8) * 255)
        if wanted.overlay and photo.whole is not None:
            save(stem.with_name(stem.name + "_overlay.jpg"), overlay(photo.whole, mask))
        if wanted.cutout and photo.whole is not None:
            save(stem.with_name(stem.name + "_cutout.png"), np.dstack([photo.whole, mask.astype(np.uint8) * 255]))

    skipped: list[str] = []
    began = time.perf_counter()
    with disk_errors(wanted.output, "another --output"), progress.progress_counter("predicting", stop.check) as show:
        done = predict_each(list(names), predictor, write, threads(wanted.workers), cut, pictures)
        for number, (_, outcome) in enumerate(done, 1):
            skipped += [str(outcome)] if isinstance(outcome, InputError) else []
            show(number, len(names))
    seconds = time.perf_counter() - began
    written = len(names) - len(skipped)
    print(f"{written} masks in {wanted.output}, {written / seconds:.1f} images a second.")
    return name_skipped(skipped)


def overlay(photo: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The photograph (H, W, 3) with the object tinted blue inside an orange rim."""
    picture = photo.copy()
    picture[mask] = (0.6 * photo[mask] + 0.4 * np.array(TINT)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(picture, outlines, -1, RIM, max(1, round(max(mask.shape) / 500))), np.uint8)


def save(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write (H, W), RGB (H, W, 3) or RGBA (H, W, 4) in the format that the name's ending says."""
    orders = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    picture = picture if picture.ndim == 2 else np.asarray(cv2.cvtColor(picture, orders[picture.shape[2]]), np.uint8)
    whole, encoded = cv2.imencode(path.suffix, picture)
    assert whole
    path.write_bytes(encoded.tobytes())  # cv2.imwrite reports a full disk as False, and only that


def name_skipped(skipped: list[str]) -> int:
    """Name what could not be read; the exit code."""
    for reason in skipped:
        progress.log_to_stderr(f"Skipped: {reason}")
    return 1 if skipped else 0


def threads(workers: int | None) -> int:
    """Threads that read and write photographs."""
    return workers or min(16, os.cpu_count() or 1)
