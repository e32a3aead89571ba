"""One trial of a cell of a study: run here or adopted from committed results, and a row of trials.csv.

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
    """The trials of one cell in one range of learning rates."""

    cell: PlannedCell
    queue: TrialQueue
    first: int  # the number of its first trial among all of its cell

    def prepared(self, trial: Trial) -> RunInputs:
        return self.cell.prepared(trial.seed, trial.rate)

    def key(self, trial: Trial) -> str:
        return self.prepared(trial).config.key


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended: a line to print, and the key and reason of one that failed."""

    message: str
    failed: dict[str, str]


def trials_of_cell(plan: Plan, number: int) -> CellTrials:
    """The trials of the cell with this number in the last range."""
    cell, tuning = plan.cells[number], plan.rounds[-1]

    def folder(rate: float, seed: int) -> Path:
        return plan.machine.trials_dir / cell.prepared(seed, rate).config.key

    place = place_in_network(plan, number)
    name = _queue_name(plan, cell, tuning, place)
    queue = TrialQueue(plan.machine.output_dir, name, tuning, folder, plan.machine.optuna_storage, place)
    return CellTrials(cell, queue, sum(earlier.budget for earlier in plan.rounds[:-1]))


def network_of(cell: PlannedCell) -> str:
    """What the trials of a cell are fitted together with: its model and the model's options."""
    return json.dumps([cell.config.model, dict(cell.config.model_kwargs)], sort_keys=True)


def place_in_network(plan: Plan, number: int) -> tuple[int, int]:
    """The number of a cell among those of its network, and how many those are."""
    networks = [network_of(cell) for cell in plan.cells]
    return networks[:number].count(networks[number]), networks.count(networks[number])


def _queue_name(plan: Plan, cell: PlannedCell, tuning: Tuning, place: tuple[int, int]) -> str:
    """Other settings, other data or another range are another tuning, even under the same name."""
    config = dataclasses.replace(cell.config, seed=0, learning_rate=1.0)
    *grid, fit = dataclasses.astuple(tuning)
    content = json.dumps([config.key, grid] + ([] if fit == "cell" else [fit, place]))
    return f"{plan.study.name}/{cell.id}/{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def run_trial(plan: Plan, task: TrialTask, stop: Stop, session: tracker.Session) -> TrialOutcome | None:
    """Run one trial of a cell, if one is free."""
    trials, failed_keys = trials_of_cell(plan, task[0]), task[1]
    with trials.queue.next(lambda trial: trials.key(trial) in failed_keys) as taken:
        if taken is None:
            return None
        trial, lease = taken
        began, failed = time.perf_counter(), dict[str, str]()
        try:
            value = _value(plan, trials, trial, lease, stop, session)
            trials.queue.tell(trial, value)
            how = "diverged" if value is None else f"validation Dice {value:.4f}"
        except Busy:  # another process took over while this one was suspended
            return None
        except (RunFailed, RuntimeError, MemoryError, OSError) as error:  # not told: the same command retries it
            how = f"failed: {error}"
            failed[trials.key(trial)] = how
    seconds = time.perf_counter() - began
    name = f"trial {trials.first + trial.number + 1:>2}/{plan.budget} of {trials.cell.id}"
    return TrialOutcome(f"{name}: learning rate {trial.rate:.2e}, seed {trial.seed}: {how}, {seconds:.0f} s", failed)


def _value(
    plan: Plan, trials: CellTrials, trial: Trial, lease: Lease, stop: Stop, session: tracker.Session
) -> float | None:
    """Run or adopt a trial; its validation Dice, None where it diverged."""
    prepared, name = trials.prepared(trial), plan.study.name
    _adopt(plan, prepared, lease)
    if (RunFolder(plan.machine.trials_dir / prepared.config.key).failure() or {}).get("diverged"):
        return None  # before a kill, or elsewhere: it would diverge again
    tags = study_folder.trial_tags(name, trials.cell.id, trials.first + trial.number)
    parent = study_folder.parent_run_name(name, trials.cell.id)
    try:
        with progress.quiet():
            return run(prepared, stop, run_type=TRIAL, session=session, tags=tags, parent=parent, lease=lease)["value"]
    except Diverged:
        return None


def _adopt(plan: Plan, prepared: RunInputs, lease: Lease) -> None:
    """Give a trial that is committed and was not begun here a folder that says how it ended."""
    row = plan.committed_trials.get(prepared.config.key)
    record = RunFolder(plan.machine.trials_dir / prepared.config.key, lease.confirm)
    if row is not None and not (record.folder / "config.json").exists():
        seconds = None if pd.isna(row["seconds"]) else row["seconds"]
        result = {"value": row["value"], "seconds": {"training": seconds}}
        record.import_result(prepared.config, result if row["state"] == "finished" else None)


def trial_row(plan: Plan, trials: CellTrials, trial: Trial) -> dict[str, Any] | None:
    """A trial as a row of trials.csv; None while it is running. Raises InputError for one that was changed since.

    The value is rounded as in the committed file: both must lead to the same learning rate.
    """
    record = RunFolder(plan.machine.trials_dir / trials.key(trial))
    record.verify_checksums()
    result, failure = record.result(), record.failure()
    if result is None and failure is None:
        return None
    state = "finished" if result else "diverged" if failure and failure.get("diverged") else "failed"
    return {
        "cell": trials.cell.id,
        "trial": trials.first + trial.number,
        "rate": trial.rate,
        "seed": trial.seed,
        "state": state,
        "value": result and round(result["value"], DIGITS),
        "key": trials.key(trial),
        "seconds": result and result["seconds"]["training"],
    }
