"""`run.py submit`: masks of the competition's test photographs as its submission file."""

from __future__ import annotations

import contextlib
import gzip
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from experiments.config.resolve import find_device
from experiments.inference.predict import name_skipped, threads
from experiments.inference.predictor import InputImage, Predictor, predict_each
from experiments.inference.rle import encode_rle
from experiments.inference.trained_model import find_runs
from experiments.runtime import progress
from experiments.runtime.errors import disk_errors
from experiments.runtime.files import open_atomically
from experiments.runtime.interrupts import Stop, interruptible
from registry import InputError

NATIVE = (1918, 1280)  # the competition's photographs, by whose pixels it counts
PHOTOGRAPHS = 100_064  # that the competition's test set has, and a submission needs


def submit(
    test_dir: Path,
    run: str,
    ensemble: Sequence[str],
    output: Path,
    flips: bool,
    device: str,
    workers: int | None,
    runs: Path,
) -> int:
    """Write the file, one photograph after another; 1 where a photograph could not be read."""
    photographs = sorted(path for path in test_dir.glob("*.jpg") if not path.name.startswith("."))
    if not photographs:
        raise InputError(
            f"No photographs (*.jpg) in {test_dir}. Unpack the competition's test.zip or test_hq.zip there."
        )
    predictor = Predictor(find_runs(run, ensemble, runs), find_device(device), flips)
    if not output.parent.is_dir():
        raise InputError(
            f"There is no folder {output.parent} to write {output.name} into. Make it, or name another --output."
        )
    return interruptible(
        lambda stop: _submit(photographs, predictor, output, threads(workers), stop), "Nothing was written."
    )


def _submit(photographs: list[Path], predictor: Predictor, output: Path, workers: int, stop: Stop) -> int:
    skipped: list[str] = []
    began = time.perf_counter()
    with (
        disk_errors(output, "another --output"),
        _whole(output) as file,
        progress.progress_counter("predicting and encoding", stop.check) as show,
    ):
        file.write("img,rle_mask\n")
        for number, (path, runs) in enumerate(predict_each(photographs, predictor, _encoded, workers, size=NATIVE), 1):
            skipped += [str(runs)] if isinstance(runs, InputError) else []
            file.write(f"{path.name},{'' if isinstance(runs, InputError) else runs}\n")
            show(number, len(photographs))
    speed = len(photographs) / (time.perf_counter() - began)
    print(f"{output}: {len(photographs)} photographs, {speed:.1f} images a second.")
    if len(photographs) != PHOTOGRAPHS:
        print(f"Kaggle's test set has {PHOTOGRAPHS:,} photographs and it takes no submission with fewer lines.")
    if skipped:
        progress.log_to_stderr(f"{len(skipped)} photographs could not be read; their masks are empty in {output}.")
    return name_skipped(skipped)


def _encoded(_: InputImage, mask: NDArray[np.bool_]) -> str:
    return encode_rle(mask)


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A text file, compressed if its name ends in .gz, that has its name only once it is whole; the same text, the same bytes."""
    with open_atomically(path) as file, contextlib.ExitStack() as opened:
        compressed = path.suffix == ".gz"
        raw: Any = opened.enter_context(gzip.GzipFile(path.stem, "wb", 6, file, mtime=0)) if compressed else file
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        yield text
        text.detach()  # flushes it, and leaves the file open for its fsync
