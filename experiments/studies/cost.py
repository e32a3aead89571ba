"""Before spending: how long a study will take on this machine, and what so many seeds and cars can detect."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from analysis.records.run_files import read_score_table
from analysis.statistics import power
from analysis.statistics.power import Spread, spread_of
from experiments.bench.step import Workload, own_loop
from experiments.studies.plan import Plan, PlannedCell
from experiments.training.run_folder import RunFolder

SCORING = 0.03  # seconds a test photograph where no record tells: 60 ms on one of two threads
KIND = (
    "model",
    "model_kwargs",
    "size",
    "batch_size",
    "device",
    "precision",
    "threads",
)  # what a step's time depends on


@dataclasses.dataclass(frozen=True)
class Speed:
    """Photographs trained on in a second, and seconds that a test photograph takes to score; how it is known."""

    images_per_second: float
    scoring: float
    source: str  # "finished runs", "a timed handful of steps", or why neither


def estimate_speeds(plan: Plan) -> dict[str, Speed]:
    """The speed of every cell: from finished runs of the same network on this kind of machine, else timed here and now."""
    known, found = _recorded(plan), {}
    for cell in plan.cells:
        kind = _kind(cell.config.to_dict())
        if kind not in known:
            known[kind] = _tried(cell)
        found[cell.id] = known[kind]
    return found


def run_seconds(cell: PlannedCell, speed: Speed, scored: bool = True) -> float:
    """How long one run of a cell takes (a trial is not `scored`): validation costs a third of a training photograph."""
    parts, config = cell.base.parts, cell.config
    trained = cell.steps * config.batch_size + len(parts.val) / 3
    return config.epochs * trained / speed.images_per_second + scored * len(parts.test) * speed.scoring


def _tried(cell: PlannedCell) -> Speed:
    """The speed over a few steps. A cell that cannot make them (out of memory, say) fails when it is its turn, and alone."""
    try:
        return Speed(_timed(cell), SCORING, "a timed handful of steps")
    except (RuntimeError, MemoryError):
        return Speed(math.inf, 0.0, "nothing for those cells whose steps failed when they were timed")


def _timed(cell: PlannedCell) -> float:
    """Photographs a second over a few steps, after as many to warm up; whose weights the network begins with does not matter."""
    options = {name: False if name == "pretrained" else value for name, value in cell.config.model_kwargs.items()}
    measure = own_loop(Workload(dataclasses.replace(cell.config, model_kwargs=options, epochs=2), steps=3))
    measure()
    return measure()


def _recorded(plan: Plan) -> dict[str, Speed]:
    """The speeds that finished runs tell, by kind; the last one of each kind counts."""
    found = {}
    for path in sorted(plan.machine.runs_dir.glob("*/result.json"), key=lambda path: path.stat().st_mtime):
        record = RunFolder(path.parent)
        result, config = record.result(), record.config()
        if result and config and result.get("images_per_second"):
            photographs = max(1, result["photographs"]["test"])
            scoring = result["seconds"]["scoring"] / photographs
            found[_kind(config)] = Speed(result["images_per_second"], scoring, "finished runs")
    return found


def _kind(config: dict[str, Any]) -> str:
    return repr([config.get(name) for name in KIND])


def variances(plan: Plan) -> dict[str, Any]:
    """Standard deviations of the difference of two cells' Dice: the pilot's, where it is finished, else those guessed."""
    scores = pilot_scores(plan)
    if scores is None:
        return {**plan.study.guess, "source": "guess"}
    spread = spread_of(scores)
    return {"car": spread.car, "seed": spread.seed, "residual": spread.residual, "source": "pilot"}


def pilot_runs(plan: Plan) -> list[tuple[PlannedCell, int]]:
    """The runs of the pilot, seed by seed: the first and the last cells, on the study's seeds and as many more as it needs."""
    pilot = plan.study.pilot
    if pilot is None:
        return []
    chosen = [plan.cells[round(i * (len(plan.cells) - 1) / (pilot.cells - 1))] if pilot.cells > 1 else plan.cells[0]
              for i in range(pilot.cells)]  # fmt: skip
    return [(cell, seed) for seed in pilot_seeds(plan) for cell in chosen]


def pilot_seeds(plan: Plan) -> list[int]:
    """The study's own seeds first; further ones that neither it nor its tuning uses."""
    assert plan.study.pilot is not None
    taken = {*plan.study.seeds, *(plan.study.tuning.seeds if plan.study.tuning else ())}
    further = (seed for seed in range(10**6) if seed not in taken)
    own = list(plan.study.seeds)[: plan.study.pilot.seeds]
    return own + [next(further) for _ in range(plan.study.pilot.seeds - len(own))]


def pilot_scores(plan: Plan) -> list[np.ndarray] | None:
    """Dice of the last weights of the pilot's cells, each (seeds, cars); None until all its runs are finished."""
    found: dict[str, list[np.ndarray]] = {}
    for cell, seed in pilot_runs(plan):
        prepared = plan.run(cell, seed)
        record = RunFolder(plan.machine.runs_dir / prepared.config.key) if prepared else None
        if record is None or record.result() is None:
            return None
        dice = read_score_table(record.folder / "scores_last.csv").groupby("group", sort=True)["dice"].mean()
        found.setdefault(cell.id, []).append(dice.to_numpy())
    return [np.stack(rows) for rows in found.values()] or None


def detectable(plan: Plan, spreads: dict[str, Any]) -> dict[str, Any]:
    """What the study can detect, as `analysis.statistics.power.detectable` says it."""
    cars = len({sample.group for sample in plan.cells[0].base.parts.test})
    spread = Spread(seed=spreads["seed"], car=spreads["car"], residual=spreads["residual"])
    levels = {name: len(found) for name, found in plan.study.factors.items()}
    return power.detectable(spread, len(plan.study.seeds), cars, levels, plan.study.rope)
