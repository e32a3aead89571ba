"""`run.py predict`: masks, overlays and cut-outs of images."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.records.output_files import LONGEST_NAME, OutputFiles, refuse_shared_names
from experiments.config.resolve import find_device
from experiments.data.images import read_headers
from experiments.data.reading import FULL, deep_ranges
from experiments.inference.input_files import InputFiles, gather_images, report_skipped
from experiments.inference.pictures import cutout, encode, grey, overlay
from experiments.inference.predictor import InputImage, Predictor, predict_each
from experiments.inference.trained_model import find_runs
from experiments.runtime import progress
from experiments.runtime.errors import disk_errors
from experiments.runtime.interrupts import Stop, interruptible
from experiments.runtime.progress import count
from registry import InputError


@dataclass(frozen=True)
class PredictArgs:
    """Validated arguments of `predict`."""

    photographs: list[str]  # files, folders and patterns
    run: str
    ensemble: list[str]
    output: Path | None  # predictions/ in output_dir
    output_dir: Path
    overlay: bool
    cutout: bool
    flips: bool
    tile: tuple[int, int] | None
    threshold: float
    device: str
    workers: int | None
    list_skipped: bool = False


DARK, CHECKED = FULL[1] / 4, 32  # the values below which 16 bits are dark; images that are decoded to see it, at most
UNFIT = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # names that a file system does not take


def predict(args: PredictArgs) -> int:
    """Write the masks. Returns the exit code: 1 if an image could not be read or its mask not be written."""
    output = args.output or args.output_dir / "predictions"
    found = gather_images(args.photographs, output)
    files = OutputFiles(output)
    found = _check_outputs(args, found, files)
    runs = find_runs(args.run, args.ensemble, args.output_dir)
    predictor = Predictor(runs, find_device(args.device), args.flips, args.tile)
    return interruptible(
        lambda stop: _predict(args, found, files, predictor, stop), "The masks written so far are complete."
    )


def _check_outputs(args: PredictArgs, found: InputFiles, files: OutputFiles) -> InputFiles:
    """The images whose outputs have names that can be written. Raises InputError where one would replace a file."""
    endings = [".png"] + ["_overlay.jpg"] * args.overlay + ["_cutout.png"] * args.cutout
    names, errors = {}, list(found.errors)
    for path, stem in found.names.items():
        if max(len(os.fsencode(stem.name + ending)) for ending in endings) > LONGEST_NAME:
            errors.append(InputError(f"{path} has a name that is too long for {endings[-1]} files. Shorten it."))
        else:
            names[path] = stem
    outputs = [(path, stem.with_name(stem.name + ending)) for path, stem in names.items() for ending in endings]
    refuse_shared_names(outputs, files.folder, "Rename one, or use two commands with two --output folders.")
    files.check((name for _, name in outputs), names)
    return replace(found, names=names, errors=errors)


def _encoded(
    args: PredictArgs, predictor: Predictor, image: InputImage, mask: NDArray[np.bool_]
) -> Iterator[tuple[str, bytes]]:
    """(ending, content) of each file of an image, one at a time: large images need much memory."""
    if args.overlay or args.cutout:  # the mask comes last: an image with a picture that is refused has none
        pixels, profile = predictor.display(image)
        if args.overlay:
            yield "_overlay.jpg", encode(".jpg", overlay(pixels, mask), image.path, profile)
        if args.cutout:
            yield "_cutout.png", encode(".png", cutout(pixels, mask), image.path, profile)
    yield ".png", encode(".png", grey(mask), image.path)


def _warn_of_dark(paths: list[Path], predictor: Predictor) -> None:
    """Say if images of 16 bits, of which only the lower values are used, are read almost black."""
    headers = read_headers(paths) if predictor.intensity is None else []
    deep = [path for path, header in zip(paths, headers, strict=False) if header is not None and header.deep]
    ranges = deep_ranges(deep[:: max(1, len(deep) // CHECKED)][:CHECKED]).values()
    high = max((found.high for found in ranges if found.integer), default=FULL[1])
    if high < DARK and any(found.is_ordinary for found in ranges):
        progress.log(
            f"WARNING: {len(deep)} of {len(paths)} images have more than 8 bits, with values up to {high:.10g}, and "
            "the run, which has no intensity scale, reads them as full 16 bits, almost black: save them with 8 bits, "
            f"or train with --intensity 0:{high:.10g}."
        )


def _predict(args: PredictArgs, found: InputFiles, files: OutputFiles, predictor: Predictor, stop: Stop) -> int:
    cut, names = math.log(args.threshold / (1 - args.threshold)), found.names
    skipped = list(found.errors)
    _warn_of_dark(list(names), predictor)

    def write(image: InputImage, mask: NDArray[np.bool_]) -> InputError | None:
        stem = names[image.path]
        try:
            for ending, content in _encoded(args, predictor, image, mask):
                files.write(stem.with_name(stem.name + ending), content)
        except InputError as error:  # a file that came into being meanwhile, an image that is not what it was
            return error
        except OSError as error:
            if error.errno not in UNFIT:
                raise
            return InputError(f"The outputs of {image.path} cannot be written ({error.strerror}). Rename it.")
        return None

    began = time.perf_counter()
    with disk_errors(files.folder, "another --output"), progress.progress_counter("predicting", stop.check) as show:
        results = predict_each(list(names), predictor, write, args.workers, cut)
        for done, (_, result) in enumerate(results, 1):
            skipped += [result] if isinstance(result, InputError) else []
            show(done, len(names))
    seconds = time.perf_counter() - began
    written = len(names) + len(found.errors) - len(skipped)
    print(f"{count(written, 'mask')} in {files.folder}, {written / seconds:.1f} images per second.")
    return report_skipped(skipped, found.left_out, args.list_skipped)
