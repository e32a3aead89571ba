"""`run.py evaluate`: a trained model on anybody's photographs with masks, scored as a run scores its test photographs."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from analysis.plots import panels
from analysis.records import run_files
from experiments.config.resolve import find_device
from experiments.config.schema import DATA_DIRS, RuntimeConfig
from experiments.data.dataset import ImageDataset
from experiments.data.run_inputs import list_samples
from experiments.data.samples import Sample, fingerprint
from experiments.evaluation import calibration
from experiments.evaluation import evaluator as scoring
from experiments.inference.predictor import FlipEnsemble
from experiments.inference.trained_model import TrainedModel, find_runs
from experiments.runtime import progress
from experiments.runtime.errors import disk_errors
from experiments.runtime.files import write_atomically
from experiments.runtime.interrupts import Stop, interruptible
from registry import DATASETS, InputError


@dataclass(frozen=True)
class EvaluateArgs:
    """What `evaluate` was asked for, checked and typed."""

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


def evaluate(wanted: EvaluateArgs) -> int:
    """Write scores.csv and what was asked for besides, and show the means; the exit code."""
    (trained,) = find_runs(wanted.run, [], wanted.output_dir)
    if wanted.group_pattern is not None and "group_pattern" not in DATASETS[wanted.data].options():
        raise InputError(f"--group-pattern is for --data folder; {wanted.data} knows its groups.")
    place = wanted.data_dir or DATA_DIRS.get(wanted.data, Path("data"))
    config = dataclasses.replace(trained.config, data=wanted.data, group_pattern=wanted.group_pattern)
    samples = list_samples(config, RuntimeConfig(data_dir=place))
    output = wanted.output or wanted.output_dir / "evaluations" / f"{trained.key}-{fingerprint(samples)}"
    return interruptible(lambda stop: _evaluate(wanted, trained, samples, place, output, stop), "Nothing was written.")


def _evaluate(
    wanted: EvaluateArgs, trained: TrainedModel, samples: list[Sample], place: Path, output: Path, stop: Stop
) -> int:
    device = torch.device(find_device(wanted.device))
    model = (FlipEnsemble(trained.model()) if wanted.flips else trained.model()).to(device)
    measure = calibration.count_pixels if wanted.sweep or wanted.calibration else None
    scored: list[scoring.ScoredImage] = []
    photographs = ImageDataset(samples, trained.config.size)
    with progress.progress_counter("scoring photographs", stop.check) as show:
        for one in scoring.evaluate([model], photographs, device, workers=wanted.workers, measure=measure):
            scored.append(dataclasses.replace(one, predictions=[]))
            show(len(scored), len(samples))
    part = parts(trained, wanted.data, place)
    rows = [{**one.rows[0], "set": part.get(str(one.rows[0]["image"]), "test")} for one in scored]
    with disk_errors(output, "another --output"):
        output.mkdir(parents=True, exist_ok=True)
        scoring.write_scores(output / "scores.csv", rows)
        found = _show(trained, output, rows)
        chosen = [one for one, row in zip(scored, rows, strict=True) if found["fair"] is False or row["set"] == "test"]
        if wanted.sweep:
            found["sweep"] = _sweep(output, chosen)
        if wanted.calibration:
            found["expected_calibration_error"] = _calibration(output, chosen)
        found |= {
            "run": trained.key,
            "data": wanted.data,
            "data_fingerprint": fingerprint(samples),
            "flips": wanted.flips,
        }
        write_atomically(output / "evaluation.json", json.dumps(found, indent=1).encode())
    print(f"Written: {output}")
    return 0


def parts(trained: TrainedModel, data: str, place: Path) -> dict[str, str]:
    """The part (train, val or test) that photographs of these names had in the run, as far as they are the same photographs.

    Carvana's names are unique. Photographs of one's own are taken for the run's where they lie in the folder that it used.
    """
    same_place = Path(trained.machine.get("data_dir") or "").resolve() == place.resolve()
    if data != trained.config.data or not (same_place or data == "carvana"):
        return {}
    try:
        with open(trained.path.parent / "split.csv", newline="", encoding="utf-8") as file:
            return {row["image"]: row["part"] for row in csv.DictReader(file)}
    except (OSError, KeyError):
        return {}


def _show(trained: TrainedModel, output: Path, rows: Sequence[scoring.Row]) -> dict[str, Any]:
    """The means of the photographs that the run did not learn from or, where there are none, of all: printed and returned."""
    table = run_files.read_score_table(output / "scores.csv")
    learned = int((table.set != "test").sum())
    unseen = table[table.set == "test"] if learned < len(table) else table
    means = run_files.summarise_scores(unseen)
    shown = Table(show_header=False)
    for name in ("dice", "iou", "precision", "recall", "boundary_iou"):
        shown.add_row(name.replace("_", " "), f"{means[name]:.4f}")
    shown.add_row("HD95, median", f"{means['hd95_median']:.1f} px ({means['hd95_failures']} failures)")
    print(f"\n{means['images']} photographs in {means['cars']} groups, each at its own size")
    Console().print(shown)
    if learned == len(table):
        print("NOT A FAIR SCORE: the run has learned from these photographs, or was chosen by them.")
    elif learned:
        print(
            f"Left out of the means: {learned} photographs that the run has learned from, or was chosen by (see the column set)."
        )
    return {"scores": means, "left_out": learned % len(table), "fair": learned < len(table)}


def _sweep(output: Path, scored: Sequence[scoring.ScoredImage]) -> dict[str, float]:
    """Dice and IoU at each threshold: a table, a picture and the best of them."""
    rows = calibration.sweep([one.measured for one in scored], [str(one.rows[0]["group"]) for one in scored])
    _write(output / "sweep.csv", ("threshold", "dice", "iou"), rows)
    panels.save_sweep(output / "sweep.png", rows)
    best, usual = max(rows, key=lambda row: row[1]), next(row for row in rows if row[0] == 0.5)
    print(
        f"Highest Dice at the threshold {best[0]}: {best[1]:.4f} (at 0.5: {usual[1]:.4f}), chosen on these very photographs."
    )
    return {"threshold": best[0], "dice": best[1]}


def _calibration(output: Path, scored: Sequence[scoring.ScoredImage]) -> float:
    """The reliability curve: a table, a picture and its expected error."""
    bins = calibration.reliability(one.measured for one in scored)
    rows = [dataclasses.astuple(one) for one in bins]
    _write(output / "reliability.csv", ("low", "high", "pixels", "confidence", "frequency"), rows)
    error = calibration.expected_calibration_error(bins)
    panels.save_reliability(output / "reliability.png", rows, error)
    print(
        f"Expected calibration error: {error:.4f} ({calibration.BINS} bins of equal width, all pixels pooled; Guo et al. 2017)."
    )
    return error


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows([round(value, 7) if isinstance(value, float) else value for value in row] for row in rows)
