"""Score masks of any origin against their ground truth: what `run.py score` writes and `run.py judge` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from experiments.data.folder import compile_pattern, files_by_stem, group_of
from experiments.data.samples import Sample, read_mask
from experiments.evaluation.metrics import Scores, score
from experiments.runtime.errors import disk_errors
from experiments.runtime.files import write_atomically
from experiments.runtime.prefetch import prefetch
from registry import InputError

COLUMNS = ("cell", "seed", "set", "group", "image", *(metric.name for metric in fields(Scores)))
Row = dict[str, str | int | float]


def pair_masks(predictions: Path, truth: Path, group_pattern: str | None = None) -> tuple[list[Sample], list[Path]]:
    """Pair each ground truth with its prediction by name.

    Returns:
        Samples (`image` is the ground truth, `mask` the prediction) by name, and the predictions without ground truth.

    Raises:
        InputError: for folders that are missing or empty, names that collide, a ground truth without prediction, or a
            pattern that does not match.
    """
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}. Name the folders of predicted and of true masks.")
    true_by_stem, problems = files_by_stem(truth)
    predicted_by_stem, collisions = files_by_stem(predictions)
    for problem in [*problems, *collisions]:
        raise InputError(problem.text)
    if not true_by_stem:
        raise InputError(f"No masks under {truth}.")
    pattern, samples, used = compile_pattern(group_pattern), [], set()
    for stem, path in sorted(true_by_stem.items()):
        predicted = predicted_by_stem.get(stem) or predicted_by_stem.get(f"{stem}_mask")
        group = group_of(path, pattern)
        if predicted is None:
            raise InputError(f"{path} has no prediction in {predictions}. Add it, or remove the true mask.")
        if group is None:
            raise InputError(
                f"--group-pattern '{group_pattern}' does not match {path.name}. Write one that matches all."
            )
        samples.append(Sample(path, predicted, group))
        used.add(predicted)
    return samples, sorted(set(predicted_by_stem.values()) - used)


def score_masks(samples: Sequence[Sample], cell: str, seed: str, show: Callable[[int, int], None]) -> list[Row]:
    """The scores of every pair, in order. Raises InputError for masks that cannot be read or differ in size."""
    rows: list[Row] = []
    for sample, scores in zip(samples, prefetch(_score, samples), strict=True):
        named = {"cell": cell, "seed": seed, "set": "test", "group": sample.group, "image": sample.name}
        rows.append(named | {k: round(v, 7) if isinstance(v, float) else v for k, v in asdict(scores).items()})
        show(len(rows), len(samples))
    return rows


def write_rows(path: Path, rows: Sequence[Row], append: bool) -> None:
    """Write rows as CSV, or add them to a file that `score` wrote.

    Raises:
        InputError: where the file exists without `append`, has other columns, or holds these scores already.
    """
    before = _existing(path, rows) if append and path.exists() else ""
    if path.exists() and not append:
        raise InputError(f"{path} exists and is never overwritten. Name another --output, or add to it with --append.")
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not before:
        table.writeheader()
    table.writerows(rows)
    with disk_errors(path, "another --output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (before + text.getvalue()).encode())


def _existing(path: Path, rows: Sequence[Row]) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        table = csv.DictReader(io.StringIO(text))
        there = {(row["cell"], row["seed"]) for row in table}
    except (OSError, ValueError, KeyError, csv.Error):
        raise InputError(f"{path} was not written by score: it cannot be added to. Name another --output.") from None
    if tuple(table.fieldnames or ()) != COLUMNS:
        raise InputError(f"{path} has other columns than score writes. Name another --output.")
    if again := there & {(str(row["cell"]), str(row["seed"])) for row in rows}:
        cell, seed = sorted(again)[0]
        shown = f"{cell} with seed {seed}" if seed else cell
        raise InputError(f"{path} already holds scores of {shown}. Give another --cell or --seed.")
    return text if text.endswith("\n") else text + "\n"


def _score(sample: Sample) -> Scores:
    truth, prediction = read_mask(sample.image), read_mask(sample.mask)
    if truth.shape != prediction.shape:
        sizes = [f"{mask.shape[1]}x{mask.shape[0]}" for mask in (prediction, truth)]
        raise InputError(
            f"{sample.mask} is {sizes[0]} and {sample.image} is {sizes[1]}: scores are taken at the ground truth's own "
            "size. Enlarge the predictions to it."
        )
    return score(prediction, truth)
