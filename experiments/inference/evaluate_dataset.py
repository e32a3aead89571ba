"""`run.py evaluate`: score a trained model on a user's images with masks, as a run scores its test images."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from analysis.plots import training
from analysis.records import run_files
from analysis.records.files import write_atomically
from analysis.records.output_files import OutputFiles
from experiments.config.resolve import find_device
from experiments.config.schema import DATA_DIRS
from experiments.data.dataset import ImageDataset
from experiments.data.listing import Listing, without_doubles
from experiments.data.reading import Reading
from experiments.data.run_inputs import describe_turned, determine_reading_elsewhere, list_folder, read_as
from experiments.data.samples import Sample, fingerprint
from experiments.data.splits import LEAKING
from experiments.evaluation import calibration, evaluator
from experiments.evaluation.evaluator import Row, ScoredImage
from experiments.inference import seen_images
from experiments.inference.input_files import report_skipped
from experiments.inference.predictor import FlipEnsemble
from experiments.inference.trained_model import TrainedModel, find_runs
from experiments.runtime import progress
from experiments.runtime.errors import disk_errors
from experiments.runtime.interrupts import Stop, interruptible
from experiments.runtime.progress import count
from experiments.training.run_folder import headline_file
from registry import InputError


@dataclass(frozen=True)
class EvaluateArgs:
    """Validated arguments of `evaluate`."""

    run: str
    data: str
    data_dir: Path | None
    group_pattern: str | None
    sweep: bool
    calibration: bool
    flips: bool
    output: Path | None
    device: str
    workers: int | None
    output_dir: Path
    mask_pattern: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)  # choices for these files, instead of the run's


def evaluate(args: EvaluateArgs) -> int:
    """Write scores.csv and whatever else was requested, and print the means. Returns the exit code."""
    (trained,) = find_runs(args.run, [], args.output_dir)
    data_dir = args.data_dir or DATA_DIRS.get(args.data, Path("data"))
    samples, skipped = _samples(args, trained, data_dir)
    output = args.output or args.output_dir / "evaluations" / _folder_name(args, trained, samples)

    files = OutputFiles(output)
    folders = {path.parent.resolve() for sample in samples for path in sample.files}
    if any(output.resolve().is_relative_to(folder) for folder in folders):
        raise InputError(
            f"{output} holds the images or masks, or lies below them: the plots would be taken for some. "
            "Name another --output."
        )
    files.check(_names(args), (path for sample in samples for path in sample.files))

    def work(stop: Stop) -> int:
        scored = _score(args, trained, samples, stop, skipped)
        if not scored:
            raise min(skipped, key=str)
        part = seen_images.parts(trained, args.data, data_dir, samples)
        rows = [{**image.rows[0], "set": part.get(str(image.rows[0]["image"]), "test")} for image in scored]
        with disk_errors(output, "another --output"), tempfile.TemporaryDirectory() as folder:
            _write(args, trained, samples, Path(folder), scored, rows)
            files.take(Path(folder))
        print(f"Written: {output}")
        return report_skipped(sorted(skipped, key=str))

    return interruptible(work, "Nothing was written.")


def _samples(args: EvaluateArgs, trained: TrainedModel, data_dir: Path) -> tuple[list[Sample], list[InputError]]:
    """The pairs to score, and why others are skipped. Raises InputError where no pair is left."""
    listing = _listing(args, trained, data_dir)
    skipped = [InputError(problem.text) for problem in sorted(listing.problems)]
    kept = []
    for sample in without_doubles(listing.samples, listing.problems):
        lost = next((path for path in sample.files if not path.is_file()), None)
        if lost is None:
            kept.append(sample)
        else:
            skipped.append(InputError(f"{lost} is a broken link or no ordinary file. Restore it, or remove the pair."))
    if skipped and not kept:
        raise skipped[0]
    verify = f"--data {args.data} --data-dir {shlex.quote(str(data_dir))}"
    samples = Listing(kept, [], listing.left_out).usable(verify)
    return read_as(samples, _reading(args, trained, samples)), skipped


def _reading(args: EvaluateArgs, trained: TrainedModel, samples: Sequence[Sample]) -> Reading:
    """How these files are read: as the run's or as chosen, and otherwise by one rule for all of them. Prints it."""
    reading = dataclasses.replace(Reading.elsewhere(vars(trained.config), args.data), **args.reading)
    learned = functools.partial(seen_images.own_samples, trained, "train")
    advice = "Choose other values with --intensity LOW:HIGH."
    reading, notices = determine_reading_elsewhere(reading, samples, learned, advice)
    for notice in (*notices, describe_turned(read_as(samples, reading))):
        if notice:
            progress.log(notice)
    return reading


def _folder_name(args: EvaluateArgs, trained: TrainedModel, samples: Sequence[Sample]) -> str:
    """The name of the folder where none is given: the run, the data, and whatever is not the default."""
    weights = f"-{trained.path.stem}" if trained.path.name != headline_file(trained.path.parent) else ""
    reading = samples[0].reading
    other = (reading.suffix or "-default") if reading != Reading.elsewhere(vars(trained.config), args.data) else ""
    return f"{trained.key}-{fingerprint(samples)}{weights}{other}{'-tta' if args.flips else ''}"


def _listing(args: EvaluateArgs, trained: TrainedModel, data_dir: Path) -> Listing:
    """What lies in the folder; grouped as the run's images were, where nothing else is said and all names allow it."""
    if args.group_pattern is None and args.data == trained.config.data and trained.config.group_pattern:
        listing = list_folder(args.data, data_dir, trained.config.group_pattern, args.mask_pattern)
        if not (unlike := [problem.path for problem in listing.problems if problem.what == "no group"]):
            return listing
        progress.log(
            f"The run's --group-pattern '{trained.config.group_pattern}' does not match {unlike[0].name}: each image "
            "is a group of its own here. Give a --group-pattern for these names."
        )
    return list_folder(args.data, data_dir, args.group_pattern, args.mask_pattern)


def _names(args: EvaluateArgs) -> list[str]:
    """The files that `_write` writes."""
    sweep = ["sweep.csv", "sweep.png"] if args.sweep else []
    return ["scores.csv", "evaluation.json", *sweep, *(["reliability.csv", "reliability.png"] * args.calibration)]


def _score(
    args: EvaluateArgs, trained: TrainedModel, samples: list[Sample], stop: Stop, skipped: list[InputError]
) -> list[ScoredImage]:
    device = torch.device(find_device(args.device))
    model = (FlipEnsemble(trained.model()) if args.flips else trained.model()).to(device)
    measure = calibration.count_pixels if args.sweep or args.calibration else None
    dataset = ImageDataset(samples, trained.config.size)
    scored: list[ScoredImage] = []
    with progress.progress_counter("scoring images", stop.check) as show:
        found = evaluator.evaluate([model], dataset, device, workers=args.workers, measure=measure, skip=skipped.append)
        for image in found:
            scored.append(dataclasses.replace(image, predictions=[]))
            show(len(scored), len(samples))
    return scored


def _write(
    args: EvaluateArgs,
    trained: TrainedModel,
    samples: Sequence[Sample],
    output: Path,
    scored: Sequence[ScoredImage],
    rows: Sequence[Row],
) -> None:
    evaluator.write_scores(output / "scores.csv", rows)
    known = any(row["set"] != "test" for row in rows)
    summary = _summarise(output, trained.config.split if known and trained.config.split in LEAKING else "")
    kept = [image for image, row in zip(scored, rows, strict=True) if not summary["fair"] or row["set"] == "test"]
    if args.sweep:
        summary["sweep"] = _sweep(output, kept)
    if args.calibration:
        summary["expected_calibration_error"] = _calibration(output, kept)
    summary |= {"run": trained.key, "weights": trained.path.name, "flips": args.flips, "data": args.data}
    summary |= {"data_fingerprint": fingerprint(samples), "reading": dataclasses.asdict(samples[0].reading)}
    write_atomically(output / "evaluation.json", json.dumps(summary, indent=1).encode())


def _summarise(output: Path, leaking: str) -> dict[str, Any]:
    """Print and return the means over the images that the run did not learn from or, without any, over all.

    `leaking`: how the run's own data were split, where the split leaks and images that it knew are among these.
    """
    table = run_files.read_score_table(output / "scores.csv")
    learned = int((table.set != "test").sum())
    unseen = table[table.set == "test"] if learned < len(table) else table
    means = run_files.summarise_scores(unseen)
    shown = Table(show_header=False)
    for name in ("dice", "iou", "precision", "recall", "boundary_iou"):
        shown.add_row(name.replace("_", " "), f"{means[name]:.4f}")
        if name == "dice" and "dice_with_object" in means:
            without = f"{int(means['images_without_object'])} of {int(means['images'])} have none"
            shown.add_row("dice, images with an object", f"{means['dice_with_object']:.4f} ({without})")
    shown.add_row("HD95, median", f"{means['hd95_median']:.1f} px ({count(int(means['hd95_failures']), 'failure')})")
    images, groups = count(int(means["images"]), "image"), count(int(means["cars"]), "group")
    print(f"\n{images} in {groups}, each at its own size")
    Console().print(shown)
    if leaking:
        print(f"WARNING: data leakage - the run was trained with --split {leaking}, on other images of these groups.")
    if not (table.tp + table.fn).any():
        print(
            "WARNING: all true masks are empty: these scores say nothing. Name the object's values with "
            "--foreground, or look at the masks: python run.py data verify."
        )
    if learned == len(table):
        print("WARNING: data leakage - these images, or others of their groups, were used for training or selection.")
    elif learned:
        print(
            f"Excluded: {count(learned, 'image')} that the run was trained or selected on, or whose group was (column "
            "'set' of scores.csv)."
        )
    return {"scores": means, "left_out": learned % len(table), "fair": learned < len(table)}


def _sweep(output: Path, scored: Sequence[ScoredImage]) -> dict[str, float]:
    """Write Dice and IoU at each threshold as a table and a plot; return the best threshold."""
    rows = calibration.sweep([image.measured for image in scored], [str(image.rows[0]["group"]) for image in scored])
    _write_table(output / "sweep.csv", ("threshold", "dice", "iou"), rows)
    training.save_sweep(output / "sweep.png", rows)
    best, usual = max(rows, key=lambda row: row[1]), next(row for row in rows if row[0] == 0.5)
    print(
        f"Highest Dice at the threshold {best[0]}: {best[1]:.4f} (at 0.5: {usual[1]:.4f}), "
        "selected on these same images."
    )
    return {"threshold": best[0], "dice": best[1]}


def _calibration(output: Path, scored: Sequence[ScoredImage]) -> float:
    """Write the reliability curve as a table and a plot; return its expected calibration error."""
    bins = calibration.reliability(image.measured for image in scored)
    rows = [dataclasses.astuple(reliability_bin) for reliability_bin in bins]
    _write_table(output / "reliability.csv", ("low", "high", "pixels", "confidence", "frequency"), rows)
    error = calibration.expected_calibration_error(bins)
    training.save_reliability(output / "reliability.png", rows, error)
    print(
        f"Expected calibration error: {error:.4f} "
        f"({calibration.BINS} bins of equal width, all pixels pooled; Guo et al. 2017)."
    )
    return error


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows([round(value, 7) if isinstance(value, float) else value for value in row] for row in rows)
