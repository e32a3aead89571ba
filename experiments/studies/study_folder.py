"""What a study leaves on the disk: its plan and its trials; and what the disk says about its runs."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.config.schema import PROTOCOL
from experiments.data.carvana import is_known_faulty
from experiments.runtime.files import write_atomically
from experiments.runtime.leases import MOMENTS, wait_for_lock
from experiments.studies.plan import Plan, PlannedCell
from experiments.training.run_index import state_of

TRIALS = ("cell", "trial", "rate", "seed", "state", "value", "key", "seconds")


def write_plan(plan: Plan, variances: Mapping[str, Any], detectable: Mapping[str, Any]) -> None:
    """Write plan.json: the study as it stands now."""
    study = plan.study
    tuning = study.tuning
    content = {
        "name": study.name, "question": dict(study.question),
        "factors": {name: [level.label for level in levels] for name, levels in study.factors.items()},
        "settings": _shared(plan),
        "design": {
            "seeds": list(study.seeds), "rope": study.rope,
            "confirmatory": list(study.confirmatory), "exploratory": list(study.exploratory),
            "simple_effects": list(study.simple_effects), "baseline": dict(study.baseline), "at_budget": study.at_budget,
        },
        "tuning": tuning and {
            "low": tuning.low, "high": tuning.high, "points": tuning.points, "seeds": list(tuning.seeds),
            "sampler": tuning.sampler, "budget": plan.budget, "extended": len(plan.rounds) - 1,
        },
        "variances": dict(variances), "detectable": dict(detectable), "protocol": PROTOCOL,
        "data_fingerprint": "+".join(dict.fromkeys(cell.config.data_fingerprint for cell in plan.cells)),
        "cells": [_cell(plan, cell) for cell in plan.cells], "known_faulty": _known_faulty(plan), "photographs": _photographs(plan),
    }  # fmt: skip
    _write(plan.folder / "plan.json", json.dumps(content, indent=1, ensure_ascii=False))


def write_trials(plan: Plan, rows: Callable[[], Iterable[Mapping[str, Any]] | None]) -> Path:
    """Write trials.csv, one row a trial that has ended. `rows` is asked under the lock, so no worker writes what it knew before
    another did; where it gives None, nothing is written."""
    path = plan.folder / "trials.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(path.parent / "study.lock", patience=MOMENTS):
        made = rows()
        if made is None:
            return path
        text = io.StringIO()
        table = csv.DictWriter(text, TRIALS, lineterminator="\n")
        table.writeheader()
        table.writerows({name: "" if row[name] is None else row[name] for name in TRIALS} for row in made)
        write_atomically(path, text.getvalue().encode())
    return path


def run_tags(study: str, cell: str) -> dict[str, str]:
    """The tags, in MLflow, of a run of a study."""
    return {f"study.{study}": "true", "cell": cell}


def trial_tags(study: str, cell: str, number: int) -> dict[str, str]:
    """The tags, in MLflow, of a trial of a study."""
    return {f"tuning.{study}": "true", "trial": str(number), "cell": cell}


def parent_run_name(study: str, cell: str) -> str:
    """The name, in MLflow, of what a cell's trials are nested in."""
    return f"tune/{study}/{cell}"


def tuning_metrics(rate: Mapping[str, Any], budget: int) -> dict[str, float]:
    """What MLflow shows of a cell's tuning: the rate with its interval (`rate`, `rate_low`, `rate_high`) as far as they are known, and
    its trials."""
    known = {name: float(rate[name]) for name in ("rate", "rate_low", "rate_high") if rate[name] is not None}
    return {**known, "trials": float(budget)}


def run_state(plan: Plan, cell: PlannedCell, seed: int) -> tuple[str, str]:
    """What the disk says of one run, and a word on it: done (Dice), running (where), failed (why) or missing."""
    prepared = plan.run(cell, seed)
    if prepared is None:
        return "missing", plan.rate(cell).reason
    state = state_of(plan.machine.runs_dir / prepared.config.key)
    if state.name in ("finished", "running") and state.result:  # it is held for a moment after its end
        return "done", f"{state.result['test']['last']['dice']:.4f}"
    if (dice := plan.elsewhere(cell, seed)) is not None:
        return "done", f"{dice:.4f}"
    if state.name in ("running", "failed"):
        return state.name, state.reason
    if state.name == "damaged":
        return "failed", state.reason
    return "missing", "interrupted" if state.name == "interrupted" else ""


def _shared(plan: Plan) -> dict[str, Any]:
    """The settings that every cell has."""
    every = [cell.config.settings() for cell in plan.cells]
    left_out = ("seed", "learning_rate") if plan.study.tuning else ("seed",)
    return {k: v for k, v in every[0].items() if k not in left_out and all(one[k] == v for one in every)}


def _known_faulty(plan: Plan) -> list[str] | None:
    """The test photographs whose masks are publicly listed as faulty: a report gives its verdicts with and without them.

    None where no cell is on Carvana, whose photographs the list is of.
    """
    parts = [cell.base.parts.test for cell in plan.cells if cell.config.data == "carvana"]
    return sorted({s.name for part in parts for s in part if is_known_faulty(s.name)}) if parts else None


def _photographs(plan: Plan) -> dict[str, Any]:
    """How many photographs of how many groups the data have, and the sizes of the test masks, at which everything is scored."""
    found = {sample.image: sample for cell in plan.cells for sample in cell.base.samples}.values()
    sizes = {_size(sample.mask) for cell in plan.cells for sample in cell.base.parts.test}
    return {"photographs": len(found), "groups": len({sample.group for sample in found}), "sizes": sorted(sizes)}


@functools.cache
def _size(mask: Path) -> str:
    with Image.open(mask) as picture:
        return f"{picture.width}x{picture.height}"


def _cell(plan: Plan, cell: PlannedCell) -> dict[str, Any]:
    rate, shared = plan.rate(cell), _shared(plan)
    runs = {
        str(seed): prepared.config.key for seed in plan.study.seeds if (prepared := plan.run(cell, seed)) is not None
    }
    own = {k: v for k, v in cell.config.settings().items() if k not in shared and k not in ("seed", "learning_rate")}
    return {
        "cell": cell.id, "levels": dict(cell.cell.levels), "settings": own, "rate": rate.value, "rate_low": rate.low,
        "rate_high": rate.high, "tuned": rate.tuned, "edge": rate.edge, "runs": runs,
    }  # fmt: skip


def _write(path: Path, text: str) -> None:
    """Several workers of one study write the same files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(path.parent / "study.lock", patience=MOMENTS):
        write_atomically(path, text.encode())
