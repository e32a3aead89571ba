"""`run.py predict`: masks, overlays and cut-outs of images."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.config.resolve import find_device
from experiments.inference.input_files import gather_images, report_skipped
from experiments.inference.pictures import cutout, grey, overlay, save
from experiments.inference.predictor import InputImage, Predictor, predict_each
from experiments.inference.trained_model import find_runs
from experiments.runtime import progress
from experiments.runtime.errors import disk_errors
from experiments.runtime.interrupts import Stop, interruptible
from registry import InputError


@dataclass(frozen=True)
class PredictArgs:
    """Validated arguments of `predict`."""

    photographs: list[str]  # files, folders and patterns
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


def predict(args: PredictArgs) -> int:
    """Write the masks. Returns the exit code: 1 if an image could not be read."""
    names = gather_images(args.photographs, args.output)
    runs = find_runs(args.run, args.ensemble, args.output_dir)
    predictor = Predictor(runs, find_device(args.device), args.flips, args.tile)
    return interruptible(lambda stop: _predict(args, names, predictor, stop), "The masks written so far are complete.")


def _predict(args: PredictArgs, names: dict[Path, Path], predictor: Predictor, stop: Stop) -> int:
    cut = math.log(args.threshold / (1 - args.threshold))
    skipped: list[InputError] = []

    def write(image: InputImage, mask: NDArray[np.bool_]) -> None:
        stem = args.output / names[image.path]
        stem.parent.mkdir(parents=True, exist_ok=True)
        save(stem.with_name(stem.name + ".png"), grey(mask))
        if args.overlay and image.pixels is not None:
            save(stem.with_name(stem.name + "_overlay.jpg"), overlay(image.pixels, mask))
        if args.cutout and image.pixels is not None:
            save(stem.with_name(stem.name + "_cutout.png"), cutout(image.pixels, mask))

    began = time.perf_counter()
    with disk_errors(args.output, "another --output"), progress.progress_counter("predicting", stop.check) as show:
        keep_pixels = args.overlay or args.cutout
        results = predict_each(list(names), predictor, write, args.workers, cut, keep_pixels)
        for done, (_, result) in enumerate(results, 1):
            skipped += [result] if isinstance(result, InputError) else []
            show(done, len(names))
    seconds = time.perf_counter() - began
    written = len(names) - len(skipped)
    print(f"{written} masks in {args.output}, {written / seconds:.1f} images per second.")
    return report_skipped(skipped)
