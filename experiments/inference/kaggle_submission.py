"""`run.py submit`: masks of the competition's test images as a submission file."""

from __future__ import annotations

import contextlib
import gzip
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from analysis.records.output_files import OutputFiles
from experiments.config.resolve import find_device
from experiments.data.listing import is_system_file
from experiments.inference.input_files import report_skipped
from experiments.inference.predictor import Predictor, predict_each
from experiments.inference.rle import encode_rle
from experiments.inference.trained_model import find_runs
from experiments.runtime import progress
from experiments.runtime.errors import disk_errors
from experiments.runtime.interrupts import Stop, interruptible
from registry import InputError

NATIVE = (1918, 1280)  # size of the competition's images, in whose pixels runs are counted
TEST_IMAGES = 100_064  # of the competition, and lines that a submission needs


def submit(
    test_dir: Path,
    run: str,
    ensemble: Sequence[str],
    output: Path,
    flips: bool,
    device: str,
    workers: int | None,
    runs: Path,
    list_skipped: bool = False,
) -> int:
    """Write the file, one image after another. Returns the exit code: 1 if an image could not be read."""
    images = _images(test_dir)
    if not images:
        raise InputError(f"No images (*.jpg) in {test_dir}. Unpack the competition's test.zip or test_hq.zip there.")
    files = OutputFiles.beside(output)
    files.check([output.name], images)
    predictor = Predictor(find_runs(run, ensemble, runs), find_device(device), flips)
    if not output.parent.is_dir():
        raise InputError(
            f"There is no folder {output.parent} to write {output.name} into. Create it, or name another --output."
        )
    left_out = _left_out(test_dir)

    def work(stop: Stop) -> int:
        skipped = _submit(images, predictor, files, output, workers, stop)
        return report_skipped(skipped, left_out, list_skipped)

    return interruptible(work, "Nothing was written.")


def _images(test_dir: Path) -> list[Path]:
    """The images with Kaggle's names, which end in .jpg; where there are none, a copy's that end in .JPG."""
    named = (path for suffix in (".jpg", ".JPG") for path in sorted(test_dir.glob(f"*{suffix}")))
    found = [path for path in named if not path.name.startswith(".")]
    return [path for path in found if path.suffix == found[0].suffix]


def _left_out(test_dir: Path) -> list[tuple[str, Path]]:
    """(reason, file) of what lies in the folder and has no line in the submission."""
    read = {*_images(test_dir)}
    rest = [path for path in sorted(test_dir.iterdir()) if path not in read and not is_system_file(path)]
    return [("sub-folder" if path.is_dir() else "not read", path) for path in rest]


def _submit(
    images: list[Path], predictor: Predictor, files: OutputFiles, output: Path, workers: int | None, stop: Stop
) -> list[InputError]:
    """Write the file; returns why images were skipped."""
    skipped: list[InputError] = []
    began = time.perf_counter()
    with (
        disk_errors(output, "another --output"),
        _open_text(files, output.name) as file,
        progress.progress_counter("predicting and encoding", stop.check) as show,
    ):
        file.write("img,rle_mask\n")
        results = predict_each(images, predictor, lambda _, mask: encode_rle(mask), workers, size=NATIVE)
        for done, (path, runs) in enumerate(results, 1):
            skipped += [runs] if isinstance(runs, InputError) else []
            file.write(f"{path.stem}.jpg,{'' if isinstance(runs, InputError) else runs}\n")
            show(done, len(images))
    speed = len(images) / (time.perf_counter() - began)
    print(f"{output}: {len(images)} images, {speed:.1f} per second.")
    if len(images) != TEST_IMAGES:
        print(f"Kaggle's test set has {TEST_IMAGES:,} images, and Kaggle accepts no submission with fewer lines.")
    if skipped:
        progress.log_to_stderr(f"{len(skipped)} images could not be read; their masks are empty in {output}.")
    return skipped


@contextmanager
def _open_text(files: OutputFiles, name: str) -> Iterator[IO[str]]:
    """Open a text file atomically, compressed if its name ends in .gz; the same text gives the same bytes."""
    with files.open(name) as file, contextlib.ExitStack() as stack:
        compressed, stem = name.endswith(".gz"), name.removesuffix(".gz")
        raw: Any = stack.enter_context(gzip.GzipFile(stem, "wb", 6, file, mtime=0)) if compressed else file
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        yield text
        text.detach()  # flushes it, and leaves the file open
