"""Estimate a study's duration on this machine and the differences that it can detect."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from analysis.records.run_files import read_score_table
from analysis.statistics import power
from analysis.statistics.power import Spread, spread_of
from analysis.statistics.sequential_looks import look_level
from experiments.studies.definition import GUESS
from experiments.studies.plan import Plan, PlannedCell
from experiments.training.run_folder import RunFolder
from experiments.training.speed import training_speeds
from registry import InputError

CARS = ("carvana", "synthetic")  # the data for which the default guess of a spread was made
SCORING_SECONDS = 0.03  # per test image, without a finished run to measure it: 60 ms on one of two threads
TIMED = "a timed handful of steps"  # the source of a speed that no run has shown
# What the time of a training step depends on.
SPEED_FIELDS = ("model", "model_kwargs", "size", "batch_size", "device", "precision", "threads")


@dataclasses.dataclass(frozen=True)
class Speed:
    """Training images per second, seconds to score a test image, and the source of both."""

    images_per_second: float
    scoring: float
    source: str


@dataclasses.dataclass(frozen=True)
class PlannedPower:
    """What a study can detect, as plan.json has it: the assumed or measured spreads, and the detectable differences.

    Both are empty where nothing is known of the spread.
    """

    variances: dict[str, Any]
    detectable: dict[str, Any]


def estimate_speeds(plan: Plan) -> dict[str, Speed]:
    """The speed of every cell, from finished runs of the same network here, otherwise from a few timed steps."""
    known, speeds = _recorded(plan), {}
    for cell in plan.cells:
        key = _speed_key(cell.config.to_dict())
        if key not in known:
            known[key] = _measured(cell)
        speeds[cell.id] = known[key]
    return speeds


def run_seconds(cell: PlannedCell, speed: Speed, scored: bool = True) -> float:
    """Estimated seconds of a run of a cell (a trial is not `scored`); validation costs a third of a training image."""
    parts, config = cell.base.parts, cell.config
    trained = cell.steps * config.batch_size + len(parts.val) / 3
    return config.epochs * trained / speed.images_per_second + scored * len(parts.test) * speed.scoring


def _measured(cell: PlannedCell) -> Speed:
    """The speed over a few steps. A cell whose steps fail (out of memory, say) fails later, in its own run."""
    try:
        return Speed(_timed(cell), SCORING_SECONDS, TIMED)
    except (RuntimeError, MemoryError, OSError, InputError):
        return Speed(math.inf, 0.0, "nothing for those cells whose steps failed when they were timed")


def _timed(cell: PlannedCell) -> float:
    """Training images per second over a few steps, after as many to warm up; initial weights do not matter.

    Where some epochs see images of half the size, it is the harmonic mean of both speeds over the epochs.
    """
    config, small = cell.config, cell.config.half_size_epochs
    seconds = 0.0
    for epochs, progressive in ((small, 1.0), (config.epochs - small, 0.0)):
        if epochs:
            _, speed = training_speeds(dataclasses.replace(config, epochs=2, progressive=progressive), steps=3)
            seconds += epochs / speed
    return config.epochs / seconds


def _recorded(plan: Plan) -> dict[str, Speed]:
    """The speeds of finished runs; of several with the same settings the latest counts."""
    speeds = {}
    for path in sorted(plan.machine.runs_dir.glob("*/result.json"), key=lambda path: path.stat().st_mtime):
        record = RunFolder(path.parent)
        result, config = record.result(), record.saved().get("config")
        if result and config and result.get("images_per_second"):
            scoring = result["seconds"]["scoring"] / max(1, result["photographs"]["test"])
            speeds[_speed_key(config)] = Speed(result["images_per_second"], scoring, "finished runs")
    return speeds


def _speed_key(config: dict[str, Any]) -> str:
    small = [config.get("progressive"), config.get("epochs")] if config.get("progressive") else []
    return repr([*(config.get(name) for name in SPEED_FIELDS), *small])


def planned_power(plan: Plan) -> PlannedPower:
    """What the study can detect, by the pilot's variances where it is finished, otherwise by the assumed ones.

    With seeds until decided: at the first look. The default assumption was seen on cars, and made for no other data.
    """
    scores = pilot_scores(plan)
    if not scores and plan.study.guess == GUESS and plan.cells[0].config.data not in CARS:
        return PlannedPower({}, {})
    spread = spread_of(scores) if scores else Spread(**plan.study.guess)
    test_cars = len({sample.group for sample in plan.cells[0].base.parts.test})
    study = plan.study
    levels = {name: len(factor) for name, factor in study.factors.items()}
    matched, seeds = study.draw_training_cars, study.looks[0] if study.looks else len(study.seeds)
    level = 1 - look_level(study.looks, paired=matched) if study.looks else 0.95
    return PlannedPower(
        {"car": spread.car, "seed": spread.seed, "residual": spread.residual, "source": "pilot" if scores else "guess"},
        power.detectable(spread, seeds, test_cars, levels, study.cell_rope or study.rope, level, matched),
    )


def pilot_runs(plan: Plan) -> list[tuple[PlannedCell, int]]:
    """The runs of the pilot, seed by seed; its cells are spread evenly from the first to the last."""
    pilot = plan.study.pilot
    if pilot is None:
        return []
    last = len(plan.cells) - 1
    chosen = [plan.cells[round(i * last / max(1, pilot.cells - 1))] for i in range(pilot.cells)]
    return [(cell, seed) for seed in pilot_seeds(plan) for cell in chosen]


def pilot_seeds(plan: Plan) -> list[int]:
    """The study's own seeds first, then seeds that neither the study nor its tuning uses."""
    assert plan.study.pilot is not None
    taken = {*plan.study.seeds, *(plan.study.tuning.seeds if plan.study.tuning else ())}
    further = (seed for seed in itertools.count() if seed not in taken)
    own = list(plan.study.seeds)[: plan.study.pilot.seeds]
    return own + list(itertools.islice(further, plan.study.pilot.seeds - len(own)))


def pilot_scores(plan: Plan) -> list[np.ndarray] | None:
    """Dice of the last weights of the pilot's cells, each (seeds, cars); None until all its runs are finished."""
    scores: dict[str, list[np.ndarray]] = {}
    for cell, seed in pilot_runs(plan):
        prepared = plan.run(cell, seed)
        record = RunFolder(plan.machine.runs_dir / prepared.config.key) if prepared else None
        if record is None or record.result() is None:
            return None
        dice = read_score_table(record.folder / "scores_last.csv").groupby("group", sort=True)["dice"].mean()
        scores.setdefault(cell.id, []).append(dice.to_numpy())
    return [np.stack(rows) for rows in scores.values()] or None
