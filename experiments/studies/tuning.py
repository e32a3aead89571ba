"""Every cell of a study gets the same trials, and its learning rate from a curve fitted to those around its top.

The trials of all cells go on in turns, so a tuning that was interrupted is an equal one with fewer trials. Where a cell's
best rate lies at the end of the range, the range is extended for every cell, at most `EXTENSIONS` times.

每个单元得到同样多的试验；它的学习率是拟合曲线的最高点，而不是最幸运的一次试验。
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from analysis.statistics.learning_rate_response import fit_response
from experiments.runtime import progress
from experiments.runtime.errors import RunFailed
from experiments.studies import study_folder
from experiments.studies.definition import Tuning
from experiments.studies.executor import Executor, WorkerLost
from experiments.studies.plan import Plan, PlannedCell, Rate
from experiments.studies.trial_queue import has_storage
from experiments.studies.trials import CellTrials, all_rows, run_trial, trials_of_cell
from experiments.tracking import tracker
from registry import InputError

EXTENSIONS = 2
WRITE_INTERVAL = 10.0  # seconds between two writings of trials.csv: it is made from the records of all trials
POLL_SECONDS = 1.0  # seconds between two looks at what other workers are doing


def tune(plan: Plan, executor: Executor, session: tracker.Session) -> None:
    """Find every cell's rate: fills `plan.rates` and `plan.rounds`, writes trials.csv.

    Raises Interrupted (resumable) and RunFailed where trials failed for another reason than divergence: such a cell would
    have had fewer trials than the others.
    """
    done = _begin(plan)
    while True:
        _run_trials(plan, done, executor)
        if not _settle(plan, done):
            break
        part = plan.rounds[-1]
        progress.log(
            f"A best rate lies at the end of the range: {part.budget} more trials for every cell, {part.low:g} to {part.high:g}."
        )
        done.append(_works(plan))
    # last of all, since a worker that was behind may have written only what it knew of
    study_folder.write_trials(plan, lambda: all_rows(plan, done))
    for cell in plan.cells:
        _conclude(plan, cell, session)


def load_rates(plan: Plan) -> int:
    """How many trials have ended; where all have, the rates too. Nothing is run, and nothing created where nothing was begun."""
    if plan.study.tuning is None or not has_storage(plan.machine.output_dir):
        return 0
    done = _begin(plan)
    while not _left(done[-1]) and _settle(plan, done):
        done.append(_works(plan))
    if _left(done[-1]):
        plan.rates = {}
    return sum(ended for works in done for work in works for _, ended in work.trials.trials())


def _begin(plan: Plan) -> list[list[CellTrials]]:
    """The cells in the first range of rates; whatever was found before is found again from the trials."""
    assert plan.study.tuning is not None
    plan.rounds, plan.rates = [plan.study.tuning], {}
    return [_works(plan)]


def _settle(plan: Plan, done: list[list[CellTrials]]) -> bool:
    """Choose the rates from all trials so far; whether the range was extended, so that there is more to do."""
    rows = all_rows(plan, done)
    plan.rates = {cell.id: choose_rate([row for row in rows if row["cell"] == cell.id]) for cell in plan.cells}
    part = extend_range(plan.rounds, list(plan.rates.values()))
    if part is None or len(plan.rounds) > EXTENSIONS:
        return False
    plan.rounds.append(part)
    return True


def choose_rate(rows: list[dict[str, Any]]) -> Rate:
    """A cell's rate from all its trials, as rows of trials.csv."""
    rates, values = [row["rate"] for row in rows], [math.nan if row["value"] is None else row["value"] for row in rows]
    try:
        found = fit_response(rates, values)
    except ValueError as error:
        return Rate(None, tuned=True, edge=True, reason=str(error))
    low, high = (found.low, found.high) if math.isfinite(found.expected_loss) else (None, None)
    return Rate(float(f"{found.rate:.4g}"), low, high, tuned=True, edge=found.at_edge)


def extend_range(rounds: list[Tuning], rates: list[Rate]) -> Tuning | None:
    """The range to try further on, for every cell: a third of the first one's points, at the end where a cell's best rate is."""
    first = rounds[0]
    low, high = min(part.low for part in rounds), max(part.high for part in rounds)
    middle = math.sqrt(low * high)
    ratio = (first.high / first.low) ** (1 / (first.points - 1))
    points = math.ceil(first.points / 3)
    ends = ["low" if rate.value is None or rate.value < middle else "high" for rate in rates if rate.edge]
    if not ends:
        return None
    if ends.count("low") >= ends.count("high"):
        return dataclasses.replace(first, low=low / ratio**points, high=low / ratio, points=points)
    return dataclasses.replace(first, low=high * ratio, high=high * ratio**points, points=points)


def _works(plan: Plan) -> list[CellTrials]:
    """The cells in the last range of rates."""
    return [trials_of_cell(plan, number) for number in range(len(plan.cells))]


def _left(works: list[CellTrials]) -> int:
    """Trials that have not ended yet."""
    return sum(work.trials.tuning.budget - sum(ended for _, ended in work.trials.trials()) for work in works)


def _open(works: list[CellTrials]) -> list[str]:
    """The keys of the trials that were begun and have not ended."""
    return [
        work.prepared(trial.rate, trial.seed).config.key
        for work in works
        for trial, ended in work.trials.trials()
        if not ended
    ]


def _run_trials(plan: Plan, rounds: list[list[CellTrials]], executor: Executor) -> None:
    """Run the trials of the last round that are left, in turns; wait for those of other workers."""
    failed: dict[str, str] = {}
    turns = math.ceil(executor.capacity() / len(plan.cells))
    while left := _left(rounds[-1]):
        failed = {
            key: failed[key] for key in _open(rounds[-1]) if key in failed
        }  # another worker may have made up for some
        if failed and left == len(failed):
            told = "1 trial failed, so its cell has" if left == 1 else f"{left} trials failed, so their cells have"
            raise RunFailed(f"{told} no rate. {next(iter(failed.values()))}")
        jobs = [(number, frozenset(failed)) for _ in range(turns) for number in range(len(plan.cells))]
        idle, lost = True, ""
        with _written(plan, rounds) as write:
            for (number, _), answer in executor.run_tasks(run_trial, plan, jobs):
                if isinstance(answer, WorkerLost):  # the others of this turn are not its fault
                    lost = (
                        f"A trial of {plan.cells[number].id} failed: {answer.reason} The same command goes on with it."
                    )
                elif answer is not None:
                    idle = False
                    progress.log(answer.said)
                    failed |= answer.failed
                    write()
        if lost:
            raise RunFailed(lost)
        if idle:
            time.sleep(POLL_SECONDS)


@contextmanager
def _written(plan: Plan, rounds: list[list[CellTrials]]) -> Iterator[Callable[[], None]]:
    """A function that writes trials.csv, at most once in `SELDOM` seconds; it is written at the end of the block, too, however it ends.

    Where the last trial of these ranges has ended nothing is written: by then another worker may know of a further range.
    """
    last = time.monotonic()

    def write() -> None:
        study_folder.write_trials(plan, lambda: all_rows(plan, rounds) if _left(rounds[-1]) else None)

    def seldom() -> None:
        nonlocal last
        if time.monotonic() > last + WRITE_INTERVAL:
            write()
            last = time.monotonic()

    try:
        yield seldom
    except BaseException:
        with suppress(RunFailed, InputError, OSError):  # what ended the block is what counts
            write()
        raise
    write()


def _conclude(plan: Plan, cell: PlannedCell, session: tracker.Session) -> None:
    rate = plan.rates[cell.id]
    if rate.value is None:
        progress.log(f"{cell.id} has no rate. {rate.reason}")
        return
    numbers = {"rate": rate.value, "rate_low": rate.low, "rate_high": rate.high}
    session.conclude(
        study_folder.parent_run_name(plan.study.name, cell.id),
        study_folder.tuning_metrics(numbers, plan.budget),
        [plan.folder / "trials.csv"],
    )
    edge = ", at the end of the range: no verdict" if rate.edge else ""
    progress.log(f"{cell.id}: rate {rate.value:g} [{rate.interval(', ')}] from {plan.budget} trials{edge}")
