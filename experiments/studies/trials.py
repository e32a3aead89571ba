"""One trial of a cell of a study: run here or adopted from where it was tried before, and a row of trials.csv.

一次试验：在这里运行，或采用别处已有的结果；并成为 trials.csv 中的一行。
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.study_results import DIGITS
from experiments.data.run_inputs import RunInputs
from experiments.runtime import progress
from experiments.runtime.errors import Busy, Diverged, RunFailed
from experiments.runtime.interrupts import Stop
from experiments.runtime.leases import Lease
from experiments.studies import study_folder
from experiments.studies.definition import Tuning
from experiments.studies.plan import Plan, PlannedCell
from experiments.studies.trial_queue import Trial, TrialQueue
from experiments.tracking import tracker
from experiments.training.run_folder import RunFolder
from experiments.training.runner import TRIAL, run

TrialTask = tuple[int, frozenset[str]]  # the cell's number, and the keys of trials that failed in this command


@dataclass(frozen=True)
class CellTrials:
    """One cell in one range of rates."""

    planned: PlannedCell
    trials: TrialQueue
    first: int  # the number of its first trial among all of its cell

    def prepared(self, rate: float, seed: int) -> RunInputs:
        return self.planned.prepared(seed, rate)


def trials_of_cell(plan: Plan, number: int) -> CellTrials:
    """The cell of this number in the last range of rates."""
    first, cell = sum(part.budget for part in plan.rounds[:-1]), plan.cells[number]
    return CellTrials(cell, _cell(plan, cell, plan.rounds[-1]), first)


def _cell(plan: Plan, cell: PlannedCell, tuning: Tuning) -> TrialQueue:
    def place(rate: float, seed: int) -> Path:
        return plan.machine.trials_dir / cell.prepared(seed, rate).config.key

    return TrialQueue(plan.machine.output_dir, _name(plan, cell, tuning), tuning, place, plan.machine.optuna_storage)


def _name(plan: Plan, cell: PlannedCell, tuning: Tuning) -> str:
    """Other settings, other data or another range are another tuning, even under the same name."""
    config = dataclasses.replace(cell.config, seed=0, learning_rate=1.0)
    about = json.dumps([config.key, dataclasses.astuple(tuning)])
    return f"{plan.study.name}/{cell.id}/{hashlib.sha256(about.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended: a line about it, and the key and reason of one that failed."""

    said: str
    failed: dict[str, str]


def run_trial(plan: Plan, job: TrialTask, stop: Stop, session: tracker.Session) -> TrialOutcome | None:
    """Run one trial of a cell, if one is free."""
    work, failed = trials_of_cell(plan, job[0]), job[1]
    broken: dict[str, str] = {}

    def is_failed(trial: Trial) -> bool:
        return work.prepared(trial.rate, trial.seed).config.key in failed

    with work.trials.next(is_failed) as found:
        if found is None:
            return None
        trial, lease = found
        prepared = work.prepared(trial.rate, trial.seed)
        name = plan.study.name
        tags = study_folder.trial_tags(name, work.planned.id, work.first + trial.number)
        began = time.perf_counter()
        try:
            _adopt(plan, prepared, lease)
            if (RunFolder(plan.machine.trials_dir / prepared.config.key).failure() or {}).get("diverged"):
                raise Diverged  # here before a kill, or elsewhere: it would do so again
            with progress.quiet():
                result = run(
                    prepared,
                    stop,
                    kind=TRIAL,
                    session=session,
                    tags=tags,
                    parent=study_folder.parent_run_name(name, work.planned.id),
                    lease=lease,
                )
            work.trials.tell(trial, result["value"])
            said = f"validation Dice {result['value']:.4f}"
        except Diverged:
            work.trials.tell(trial, None)
            said = "diverged"
        except Busy:  # taken over while this process stood still
            return None
        except (RunFailed, RuntimeError, MemoryError, OSError) as error:  # not told: the same command tries it again
            broken[prepared.config.key] = said = f"failed: {error}"
    number = work.first + trial.number + 1
    said = f"rate {trial.rate:.2e}, seed {trial.seed}: {said}, {time.perf_counter() - began:.0f} s"
    return TrialOutcome(f"trial {number:>2}/{plan.budget} of {work.planned.id}: {said}", broken)


def _adopt(plan: Plan, prepared: RunInputs, lease: Lease) -> None:
    """Where this trial was tried elsewhere and not begun here, give it a folder that says how it ended."""
    row = plan.tried.get(prepared.config.key)
    record = RunFolder(plan.machine.trials_dir / prepared.config.key, lease.confirm)
    if row is not None and not (record.folder / "config.json").exists():
        seconds = None if pd.isna(row["seconds"]) else row["seconds"]
        ended = {"value": row["value"], "seconds": {"training": seconds}}
        record.import_result(prepared.config, ended if row["state"] == "finished" else None)


def all_rows(plan: Plan, rounds: list[list[CellTrials]]) -> list[dict[str, Any]]:
    """The rows of trials.csv: of all trials that have ended, cell by cell."""
    works = [work for cells in zip(*rounds, strict=True) for work in cells]
    rows = [_row(plan, work, trial) for work in works for trial, _ in work.trials.trials()]
    return [row for row in rows if row is not None]


def _row(plan: Plan, work: CellTrials, trial: Trial) -> dict[str, Any] | None:
    """A trial as a row of trials.csv; None for one that is still under way. Raises InputError for one that was changed since.

    The value is as the committed file has it: both must lead to the same rate.
    """
    key = work.prepared(trial.rate, trial.seed).config.key
    record = RunFolder(plan.machine.trials_dir / key)
    record.verify_checksums()
    result, failure = record.result(), record.failure()
    if result is None and failure is None:
        return None
    state = "finished" if result else "diverged" if failure and failure.get("diverged") else "failed"
    return {
        "cell": work.planned.id, "trial": work.first + trial.number, "rate": trial.rate, "seed": trial.seed, "state": state,
        "value": result and round(result["value"], DIGITS), "key": key, "seconds": result and result["seconds"]["training"],
    }  # fmt: skip
