"""Run a study, seed by seed: skip finished runs, wait for those of other workers, record failed ones.

Several processes may share a study: each takes the next run without a lease. An executor decides where the runs that
this process takes are carried out: here, or on a Ray cluster.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from experiments.runtime import leases, progress
from experiments.runtime.errors import Busy, RunFailed
from experiments.runtime.interrupts import Stop
from experiments.runtime.leases import hold
from experiments.studies import study_folder
from experiments.studies.plan import Plan, PlannedCell
from experiments.tracking.tracker import Session
from experiments.training.run_folder import RunFolder
from experiments.training.runner import run

POLL_SECONDS = 1.0  # between two checks of the runs of other workers
WORKER_EXIT_SECONDS = 10.0  # for which a lost worker may still hold the lease of its run

PlannedRun = tuple[PlannedCell, int]  # the cell and the seed
Task = tuple[Any, ...]  # plain data, so that it can be sent to another machine
RunTask = tuple[int, int, float]  # the cell's number, the seed, and when the command began
TaskFunction = Callable[[Plan, Any, Stop, Session], Any]


@dataclass(frozen=True)
class WorkerLost:
    """The result of a task whose worker died at every attempt."""

    reason: str


@dataclass(frozen=True)
class RunOutcome:
    """How a run of a study ended; `busy`: another worker has it, `no rate`: its cell has no learning rate."""

    state: Literal["finished", "skipped", "failed", "busy", "no rate"]
    message: str = ""


class Executor(Protocol):
    """Carries out tasks, here or on a cluster."""

    def capacity(self) -> int:
        """How many tasks are worth submitting at once."""

    def run_tasks(self, function: TaskFunction, plan: Plan, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield each task with the result of `function` (or WorkerLost) as it ends. Raises Interrupted (resumable)."""


@dataclass(frozen=True)
class LocalExecutor:
    """One task after another, in this process."""

    stop: Stop
    session: Session

    def capacity(self) -> int:
        return 1

    def run_tasks(self, function: TaskFunction, plan: Plan, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        for task in tasks:
            self.stop.check()
            yield task, function(plan, task, self.stop, self.session)


def run_all(plan: Plan, runs: Sequence[PlannedRun], executor: Executor, session: Session) -> list[PlannedRun]:
    """Carry out `runs` in their order; returns those that failed. Raises Interrupted (resumable) and InputError.

    A run that diverged is not repeated; one that failed otherwise before this command began is retried.
    """
    began, failed, ended = time.time(), list[PlannedRun](), 0
    number = {cell.id: place for place, cell in enumerate(plan.cells)}
    waiting: list[RunTask] = [(number[cell.id], seed, began) for cell, seed in runs]
    while waiting:
        settled = {task: outcome for task in waiting if (outcome := _settled(plan, task, session))}
        tasks = [task for task in waiting if task not in settled]
        busy = []
        for task, result in itertools.chain(settled.items(), executor.run_tasks(_run_one, plan, tasks)):
            outcome = _record_lost_worker(plan, task, result) if isinstance(result, WorkerLost) else result
            if outcome.state == "busy":
                busy.append(task)
                continue
            ended += 1
            cell, seed = plan.cells[task[0]], task[1]
            if outcome.message:
                progress.log(f"[{ended}/{len(runs)}] {cell.id}, seed {seed}: {outcome.message}")
            if outcome.state == "failed":
                failed.append((cell, seed))
        if busy and len(busy) == len(waiting):
            time.sleep(POLL_SECONDS)
        waiting = busy
    return failed


def _settled(plan: Plan, task: RunTask, session: Session) -> RunOutcome | None:
    """The outcome of a run that is skipped or has failed for good; None for one that has to run."""
    cell, seed, began = plan.cells[task[0]], task[1], task[2]
    prepared = plan.run(cell, seed)
    if prepared is None:
        return RunOutcome("no rate")
    record = RunFolder(plan.machine.runs_dir / prepared.config.key)
    if record.result() is not None:
        record.verify_config(prepared.config)
        record.verify_checksums()
        session.tag(prepared.config.key, study_folder.run_tags(plan.study.name, cell.id))
        return RunOutcome("skipped")
    if plan.committed_dice(cell, seed) is not None:
        return RunOutcome("skipped")
    failure = record.failure()
    if failure and (failure.get("diverged") or began <= failure.get("time", 0) <= time.time()):
        return RunOutcome("failed", f"failed: {failure['reason']}")
    return None


def _run_one(plan: Plan, task: RunTask, stop: Stop, session: Session) -> RunOutcome:
    """Carry out one run, unless another worker has settled it in the meantime."""
    settled = _settled(plan, task, session)
    if settled:
        return settled
    cell, seed = plan.cells[task[0]], task[1]
    prepared = plan.run(cell, seed)
    assert prepared is not None
    record, since = RunFolder(plan.machine.runs_dir / prepared.config.key), time.perf_counter()
    tags = study_folder.run_tags(plan.study.name, cell.id)
    try:
        with hold(record.folder) as lease, progress.quiet():
            if record.result() is not None:  # another worker finished it a moment ago
                return RunOutcome("skipped")
            result = run(prepared, stop, session=session, tags=tags, lease=lease)
    except Busy:
        return RunOutcome("busy")
    except (RunFailed, RuntimeError, MemoryError, OSError) as error:
        return RunOutcome("failed", f"failed: {error}")
    dice, seconds = result["test"]["last"]["dice"], time.perf_counter() - since
    overhead = max(seconds - result["seconds"]["training"] - result["seconds"]["scoring"], 0)
    return RunOutcome(
        "finished", f"test Dice {dice:.4f}, {seconds:.0f} s ({overhead:.1f} s of it neither training nor scoring)"
    )


def _record_lost_worker(plan: Plan, task: RunTask, lost: WorkerLost) -> RunOutcome:
    """Record the failure of a run whose worker died every time; the same command retries it."""
    prepared = plan.run(plan.cells[task[0]], task[1])
    assert prepared is not None
    record = RunFolder(plan.machine.runs_dir / prepared.config.key)
    deadline = time.monotonic() + WORKER_EXIT_SECONDS
    while leases.owner(record.folder) is not None and time.monotonic() < deadline:
        time.sleep(0.1)  # a cluster may report a worker's death before the process is gone
    if record.result() is None and leases.owner(record.folder) is None and record.folder.is_dir():
        record.fail(lost.reason)
    return RunOutcome("failed", f"failed: {lost.reason}")
