"""The runs of a study, seed by seed: finished ones are skipped, those of other workers waited for, failed ones recorded.

Several processes may carry out one study: each takes the next run that nobody holds (see `claim`). Who does the runs that
this one takes, it or a cluster, is the executor's to say.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from experiments.runtime import leases, progress
from experiments.runtime.errors import Busy, RunFailed
from experiments.runtime.interrupts import Stop
from experiments.runtime.leases import hold
from experiments.studies import study_folder
from experiments.studies.plan import Plan, PlannedCell
from experiments.tracking import tracker
from experiments.tracking.tracker import Session
from experiments.training.run_folder import RunFolder
from experiments.training.runner import run

POLL_SECONDS = 1.0  # seconds between two looks at what other workers are doing

WORKER_EXIT_SECONDS = 10.0  # seconds for which a worker that was lost may still hold its run

PlannedRun = tuple[PlannedCell, int]

RunTask = tuple[int, int, float]  # the cell's number, the seed, and when the command began


def run_all(plan: Plan, runs: Sequence[PlannedRun], executor: Executor, session: tracker.Session) -> list[PlannedRun]:
    """Carry out `runs` in their order; returns those that failed. Raises Interrupted (resumable) and InputError.

    A run that diverged is not repeated; one that failed otherwise before this command began is tried again.
    """
    began, failed, ended = time.time(), list[PlannedRun](), 0
    number = {cell.id: place for place, cell in enumerate(plan.cells)}
    waiting: list[RunTask] = [(number[cell.id], seed, began) for cell, seed in runs]
    while waiting:
        settled = {job: how for job in waiting if (how := _outcome_if_settled(plan, job, session))}
        to_do = [job for job in waiting if job not in settled]
        waited_for = []
        for job, answer in itertools.chain(settled.items(), executor.run_tasks(_run_one, plan, to_do)):
            how = _record_lost_worker(plan, job, answer) if isinstance(answer, WorkerLost) else answer
            if how == "busy":
                waited_for.append(job)
                continue
            ended += 1
            cell = plan.cells[job[0]]
            if how not in ("skipped", "no rate"):
                progress.log(f"[{ended}/{len(runs)}] {cell.id}, seed {job[1]}: {how}")
            if how.startswith("failed"):
                failed.append((cell, job[1]))
        if waited_for and len(waited_for) == len(waiting):
            time.sleep(POLL_SECONDS)
        waiting = waited_for
    return failed


def _outcome_if_settled(plan: Plan, job: RunTask, session: tracker.Session) -> str:
    """How a run ended that is not to be carried out (again); empty for one that is."""
    cell, seed, began = plan.cells[job[0]], job[1], job[2]
    prepared = plan.run(cell, seed)
    if prepared is None:
        return "no rate"
    record = RunFolder(plan.machine.runs_dir / prepared.config.key)
    if record.result() is not None:
        record.verify_config(prepared.config)
        record.verify_checksums()
        session.tag(prepared.config.key, _tags(plan, cell))
        return "skipped"
    if plan.elsewhere(cell, seed) is not None:
        return "skipped"
    failure = record.failure()
    if failure and (failure.get("diverged") or began <= failure.get("time", 0) <= time.time()):
        return f"failed: {failure['reason']}"
    return ""


def _tags(plan: Plan, cell: PlannedCell) -> dict[str, str]:
    return study_folder.run_tags(plan.study.name, cell.id)


def _run_one(plan: Plan, job: RunTask, stop: Stop, session: tracker.Session) -> str:
    """Carry out one run, unless it is settled; how it ended, in words."""
    settled = _outcome_if_settled(plan, job, session)  # another worker may have been at it
    if settled:
        return settled
    cell, seed = plan.cells[job[0]], job[1]
    prepared = plan.run(cell, seed)
    assert prepared is not None
    record, since = RunFolder(plan.machine.runs_dir / prepared.config.key), time.perf_counter()
    try:
        with hold(record.folder) as lease, progress.quiet():
            if record.result() is not None:  # another worker finished it a moment ago
                return "skipped"
            result = run(prepared, stop, session=session, tags=_tags(plan, cell), lease=lease)
    except Busy:
        return "busy"
    except (RunFailed, RuntimeError, MemoryError, OSError) as error:
        return f"failed: {error}"
    dice, spent = result["test"]["last"]["dice"], time.perf_counter() - since
    over = spent - result["seconds"]["training"] - result["seconds"]["scoring"]
    return f"test Dice {dice:.4f}, {spent:.0f} s ({max(over, 0):.1f} s of it neither training nor scoring)"


def _record_lost_worker(plan: Plan, job: RunTask, lost: WorkerLost) -> str:
    """Note a run whose worker died each time; the same command tries it again."""
    prepared = plan.run(plan.cells[job[0]], job[1])
    assert prepared is not None
    record = RunFolder(plan.machine.runs_dir / prepared.config.key)
    patience = time.monotonic() + WORKER_EXIT_SECONDS
    while leases.owner(record.folder) is not None and time.monotonic() < patience:
        time.sleep(0.1)  # a cluster may tell of a worker's death before the process is gone
    if record.result() is None and leases.owner(record.folder) is None and record.folder.is_dir():
        record.fail(lost.reason)
    return f"failed: {lost.reason}"


def matrix(plan: Plan) -> dict[PlannedRun, tuple[str, str]]:
    """The state of every run, and a word on it."""
    return {(cell, seed): study_folder.run_state(plan, cell, seed) for cell, seed in plan.runs()}


Task = tuple[Any, ...]

TaskFunction = Callable[[Plan, Any, Stop, Session], Any]


@dataclass(frozen=True)
class WorkerLost:
    """The answer to a job whose worker died each time that it was tried."""

    reason: str


class Executor(Protocol):
    """A way to carry out jobs."""

    def capacity(self) -> int:
        """How many jobs are worth handing over at once."""

    def run_tasks(self, act: TaskFunction, plan: Plan, jobs: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Do `jobs` and yield each with what `act` returned (or Lost), as they end. Raises Interrupted (resumable)."""


@dataclass(frozen=True)
class LocalExecutor:
    """One job after another, in this process."""

    stop: Stop
    session: Session

    def capacity(self) -> int:
        return 1

    def run_tasks(self, act: TaskFunction, plan: Plan, jobs: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        for job in jobs:
            self.stop.check()
            yield job, act(plan, job, self.stop, self.session)
