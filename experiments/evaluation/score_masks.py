"""Score masks of any origin against their ground truth: what `run.py score` writes and `run.py judge` reads."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from analysis.records.output_files import OutputFiles
from experiments.data.folder import by_place, compile_pattern, group_of, pair_files, unread_below
from experiments.data.groups import ungrouped
from experiments.data.listing import unusable_names, without_doubles
from experiments.data.masks import Foreground
from experiments.data.samples import Sample, read_mask
from experiments.evaluation.metrics import Scores, score
from experiments.runtime.errors import disk_errors
from experiments.runtime.prefetch import prefetch
from registry import InputError

COLUMNS = ("cell", "seed", "set", "group", "image", *(metric.name for metric in fields(Scores)))
Row = dict[str, str | int | float]
UNKNOWN = (
    "score does not know which images the method was trained on and writes set=test for all: leave its training images "
    "out of the folder of true masks."
)
TOO_NARROW = "if several show one patient or scene, the intervals of judge are too narrow"

LeftOut = list[tuple[str, Path]]  # (reason, file)


def pair_masks(
    predictions: Path, truth: Path, group_pattern: str | None = None
) -> tuple[list[Sample], LeftOut, list[InputError]]:
    """Pair each ground truth with its prediction by name, sub-folders included, as `--data folder` pairs its masks.

    Returns:
        Samples (`image` is the ground truth, `mask` the prediction) by name, what was left out of both folders, and
        why true masks are skipped.

    Raises:
        InputError: for folders that are missing or empty, no pair, or a pattern that does not match.
    """
    for folder in (predictions, truth):
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}. Name the folders of predicted and of true masks.")
    true_by_place, problems = by_place(truth)
    predicted_by_place, collisions = by_place(predictions)
    unnamed = unusable_names([*truth.rglob("*"), *predictions.rglob("*")])
    skipped = [InputError(problem.text) for problem in [*problems, *collisions, *unnamed]]
    if not true_by_place:
        raise InputError(
            f"No masks under {truth}. Masks are pictures such as PNG or TIFF: save NIfTI and DICOM slice by slice."
        )
    paired = _pairs(true_by_place, predicted_by_place)
    pattern, samples, used = compile_pattern(group_pattern), [], set()
    for place, path in sorted(true_by_place.items()):
        predicted = paired.get(place)
        name = path.relative_to(truth).as_posix() if "/" in place else ""
        group = group_of(path, pattern, name)
        if predicted is None:
            skipped.append(InputError(f"{path} has no prediction in {predictions}. Add it, or remove the true mask."))
            continue
        if group is None:
            raise InputError(
                f"--group-pattern '{group_pattern}' does not match {path.name}. Write one that matches all."
            )
        samples.append(Sample(path, predicted, group, place=name))
        used.add(predicted)
    samples = without_doubles(samples, [*problems, *collisions])
    if not samples:
        raise skipped[0]
    read = [*true_by_place.values(), *predicted_by_place.values()]
    left_out = [("no mask", path) for path in sorted(set(predicted_by_place.values()) - used)]
    return samples, left_out + _not_read(dict.fromkeys((predictions, truth)), read), skipped


def _not_read(folders: Iterable[Path], read: Sequence[Path]) -> LeftOut:
    """The files that are no masks, and the sub-folders that hold none."""
    folders, full = list(folders), {above for path in read for above in path.parents}
    problems = [problem for folder in folders for problem in unread_below(folder, "masks are images")]
    empty = {path for folder in folders for path in folder.rglob("*") if path.is_dir() and path not in full}
    return [(problem.what, problem.path) for problem in problems] + [("sub-folder", path) for path in sorted(empty)]


def _pairs(truths: dict[str, Path], predictions: dict[str, Path]) -> dict[str, Path]:
    """The prediction of each truth that has one: called like it, or one of both as the mask of the other."""
    paired = pair_files(truths, predictions)
    used = set(paired.values())
    others = {place: path for place, path in predictions.items() if path not in used}
    left = {path: place for place, path in truths.items() if place not in paired}
    found = pair_files(others, {place: path for path, place in left.items()})
    return paired | {left[truth]: others[place] for place, truth in found.items()}


def score_masks(
    samples: Sequence[Sample],
    cell: str,
    seed: str,
    show: Callable[[int, int], None],
    skipped: list[InputError],
    foreground: Foreground = (),
) -> list[Row]:
    """The scores of every pair, in order; for masks that cannot be read or differ in size, the reason in `skipped`.

    Args:
        samples: As `pair_masks` returns them.
        cell: Value of the column `cell`.
        seed: Value of the column `seed`.
        show: Called with (done, total) before each pair.
        skipped: Where the reasons are added.
        foreground: The values and colours that are the object, in both folders; see `masks.read_mask`.

    Raises InputError where no pair is left.
    """
    rows: list[Row] = []
    found = prefetch(functools.partial(_score, foreground), samples)
    for number, (sample, scores) in enumerate(zip(samples, found, strict=True), 1):
        show(number, len(samples))
        if isinstance(scores, InputError):
            skipped.append(scores)
            continue
        named = {"cell": cell, "seed": seed, "set": "test", "group": sample.group, "image": sample.name}
        rows.append(named | {k: round(v, 7) if isinstance(v, float) else v for k, v in asdict(scores).items()})
    if not rows:
        raise skipped[-1]
    return rows


def nothing_marked(rows: Sequence[Row]) -> str:
    """The sentence for true masks or predictions of which none marks an object; empty where some of both do."""
    kinds = {"true masks": "fn", "predictions": "fp"}
    empty = [kind for kind, missed in kinds.items() if not any(int(row["tp"]) + int(row[missed]) for row in rows)]
    if not empty:
        return ""
    return (
        f"WARNING: all {' and all '.join(empty)} are empty: these scores say nothing. If they hold classes, name all "
        "values of the object in both folders with --foreground."
    )


def mean_dice(rows: Sequence[Row]) -> str:
    """The mean Dice of the rows and, where some have no object, also that of the others: empty masks score 0 or 1."""
    dice = [float(row["dice"]) for row in rows]
    there = [value for value, row in zip(dice, rows, strict=True) if int(row["tp"]) + int(row["fn"])]
    text = f"mean Dice {sum(dice) / len(dice):.4f}"
    if not there or len(there) == len(dice):
        return text
    without = f"{len(dice) - len(there)} of {len(dice)} have none"
    return f"{text}, of images with an object {sum(there) / len(there):.4f} ({without})"


def suspicious_names(samples: Sequence[Sample], rows: Sequence[Row]) -> str:
    """The sentence for scored images whose names share prefixes though each is its own group; empty without such."""
    scored = {row["image"] for row in rows}
    return ungrouped([sample for sample in samples if sample.name in scored], TOO_NARROW)


def write_rows(path: Path, rows: Sequence[Row], append: bool, inputs: Iterable[Path] = ()) -> int:
    """Write rows as CSV, or add them to a file that `score` wrote. Returns the number of cells in the file.

    Raises:
        InputError: where the file is not the project's own or is an input; where, without `append`, it holds scores of
            other cells; where it has other columns, or, with `append`, holds these scores already.
    """
    files = OutputFiles.beside(path)
    files.check([path.name], inputs)
    before = _existing(path, rows, append) if path.exists() else ""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not before:
        table.writeheader()
    table.writerows(rows)
    with disk_errors(path, "another --output"):
        files.write(path.name, (before + text.getvalue()).encode())
    return len({row["cell"] for row in csv.DictReader(io.StringIO(before + text.getvalue()))})


def _existing(path: Path, rows: Sequence[Row], append: bool) -> str:
    """The text to which the rows are added; empty if they take the place of all that is there."""
    try:
        text = path.read_text(encoding="utf-8")
        table = csv.DictReader(io.StringIO(text))
        there = {(row["cell"], row["seed"]) for row in table}
    except (OSError, ValueError, KeyError, csv.Error):
        raise InputError(f"{path} was not written by score: it cannot be added to. Name another --output.") from None
    if tuple(table.fieldnames or ()) != COLUMNS:
        raise InputError(f"{path} has other columns than score writes. Name another --output.")
    new = {(str(row["cell"]), str(row["seed"])) for row in rows}
    if not append:
        if there - new:
            raise InputError(f"{path} holds other scores as well. Add to it with --append, or name another --output.")
        return ""
    for cell, seed in sorted(there):
        if any(name == cell and bool(other) != bool(seed) for name, other in new):
            how = "with" if seed else "without"
            raise InputError(f"{path} holds scores of {cell} {how} a seed. Give --seed to all of them or to none.")
    if again := there & new:
        cell, seed = sorted(again)[0]
        shown = f"{cell} with seed {seed}" if seed else cell
        raise InputError(f"{path} already holds scores of {shown}. Give another --cell or --seed.")
    return text if text.endswith("\n") else text + "\n"


def _score(foreground: Foreground, sample: Sample) -> Scores | InputError:
    try:
        truth, prediction = read_mask(sample.image, foreground), read_mask(sample.mask, foreground)
    except InputError as unreadable:
        return unreadable
    if truth.shape != prediction.shape:
        sizes = [f"{mask.shape[1]}x{mask.shape[0]}" for mask in (prediction, truth)]
        return InputError(
            f"{sample.mask} is {sizes[0]} and {sample.image} is {sizes[1]}: scores are taken at the ground truth's own "
            "size. Enlarge the predictions to it."
        )
    return score(prediction, truth)
