"""Every cell of a study gets the same trials, and its learning rate from a curve fitted to those around its top.

The trials of all cells go on in turns, so a tuning that was interrupted is an equal one with fewer trials. Where a cell's
best rate lies at the end of the range, the range is extended for every cell, at most `EXTENSIONS` times.

每个单元得到同样多的试验；它的学习率是拟合曲线的最高点，而不是最幸运的一次试验。
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.measured import DIGITS
from analysis.response import fit_response
from experiments import progress, study_record, tracking
from experiments.claim import Lease
from experiments.errors import Busy, Diverged, InputError, RunFailed
from experiments.executor import Executor, Lost
from experiments.prepare import Prepared
from experiments.record import Record
from experiments.runner import TRIAL, run
from experiments.stopping import Stop
from experiments.study import Tuning
from experiments.study_plan import Plan, PlannedCell, Rate
from experiments.tune import Cell, Trial, begun

EXTENSIONS = 2
SELDOM = 10.0  # seconds between two writings of trials.csv: it is made from the records of all trials
PAUSE = 1.0  # seconds between two looks at what other workers are doing
Job = tuple[int, frozenset[str]]  # the cell's number, and the keys of trials that failed in this command


@dataclass(frozen=True)
class _Work:
    """One cell in one range of rates."""

    planned: PlannedCell
    trials: Cell
    first: int  # the number of its first trial among all of its cell

    def prepared(self, rate: float, seed: int) -> Prepared:
        return self.planned.prepared(seed, rate)


def tune(plan: Plan, executor: Executor, session: tracking.Session) -> None:
    """Find every cell's rate: fills `plan.rates` and `plan.rounds`, writes trials.csv.

    Raises Interrupted (resumable) and RunFailed where trials failed for another reason than divergence: such a cell would
    have had fewer trials than the others.
    """
    done = _begin(plan)
    while True:
        _carry_out(plan, done, executor)
        if not _settle(plan, done):
            break
        part = plan.rounds[-1]
        progress.say(
            f"A best rate lies at the end of the range: {part.budget} more trials for every cell, {part.low:g} to {part.high:g}."
        )
        done.append(_works(plan))
    # last of all, since a worker that was behind may have written only what it knew of
    study_record.write_trials(plan, lambda: _all_rows(plan, done))
    for cell in plan.cells:
        _conclude(plan, cell, session)


def look(plan: Plan) -> int:
    """How many trials have ended; where all have, the rates too. Nothing is run, and nothing created where nothing was begun."""
    if plan.study.tuning is None or not begun(plan.machine.output_dir):
        return 0
    done = _begin(plan)
    while not _left(done[-1]) and _settle(plan, done):
        done.append(_works(plan))
    if _left(done[-1]):
        plan.rates = {}
    return sum(ended for works in done for work in works for _, ended in work.trials.trials())


def _begin(plan: Plan) -> list[list[_Work]]:
    """The cells in the first range of rates; whatever was found before is found again from the trials."""
    assert plan.study.tuning is not None
    plan.rounds, plan.rates = [plan.study.tuning], {}
    return [_works(plan)]


def _settle(plan: Plan, done: list[list[_Work]]) -> bool:
    """Choose the rates from all trials so far; whether the range was extended, so that there is more to do."""
    rows = _all_rows(plan, done)
    plan.rates = {cell.id: choose([row for row in rows if row["cell"] == cell.id]) for cell in plan.cells}
    part = extension(plan.rounds, list(plan.rates.values()))
    if part is None or len(plan.rounds) > EXTENSIONS:
        return False
    plan.rounds.append(part)
    return True


def choose(rows: list[dict[str, Any]]) -> Rate:
    """A cell's rate from all its trials, as rows of trials.csv."""
    rates, values = [row["rate"] for row in rows], [math.nan if row["value"] is None else row["value"] for row in rows]
    try:
        found = fit_response(rates, values)
    except ValueError as error:
        return Rate(None, tuned=True, edge=True, reason=str(error))
    low, high = (found.low, found.high) if math.isfinite(found.expected_loss) else (None, None)
    return Rate(float(f"{found.rate:.4g}"), low, high, tuned=True, edge=found.at_edge)


def extension(rounds: list[Tuning], rates: list[Rate]) -> Tuning | None:
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


def _works(plan: Plan) -> list[_Work]:
    """The cells in the last range of rates."""
    return [_work(plan, number) for number in range(len(plan.cells))]


def _work(plan: Plan, number: int) -> _Work:
    first, cell = sum(part.budget for part in plan.rounds[:-1]), plan.cells[number]
    return _Work(cell, _cell(plan, cell, plan.rounds[-1]), first)


def _left(works: list[_Work]) -> int:
    """Trials that have not ended yet."""
    return sum(work.trials.tuning.budget - sum(ended for _, ended in work.trials.trials()) for work in works)


def _open(works: list[_Work]) -> list[str]:
    """The keys of the trials that were begun and have not ended."""
    return [
        work.prepared(trial.rate, trial.seed).config.key for work in works for trial, ended in work.trials.trials() if not ended
    ]


def _cell(plan: Plan, cell: PlannedCell, tuning: Tuning) -> Cell:
    def place(rate: float, seed: int) -> Path:
        return plan.machine.trials_dir / cell.prepared(seed, rate).config.key

    return Cell(plan.machine.output_dir, _name(plan, cell, tuning), tuning, place, plan.machine.optuna_storage)


def _name(plan: Plan, cell: PlannedCell, tuning: Tuning) -> str:
    """Other settings, other data or another range are another tuning, even under the same name."""
    config = dataclasses.replace(cell.config, seed=0, learning_rate=1.0)
    about = json.dumps([config.key, dataclasses.astuple(tuning)])
    return f"{plan.study.name}/{cell.id}/{hashlib.sha256(about.encode()).hexdigest()[:8]}"


def _carry_out(plan: Plan, rounds: list[list[_Work]], executor: Executor) -> None:
    """Run the trials of the last round that are left, in turns; wait for those of other workers."""
    failed: dict[str, str] = {}
    turns = math.ceil(executor.at_once() / len(plan.cells))
    while left := _left(rounds[-1]):
        failed = {key: failed[key] for key in _open(rounds[-1]) if key in failed}  # another worker may have made up for some
        if failed and left == len(failed):
            told = "1 trial failed, so its cell has" if left == 1 else f"{left} trials failed, so their cells have"
            raise RunFailed(f"{told} no rate. {next(iter(failed.values()))}")
        jobs = [(number, frozenset(failed)) for _ in range(turns) for number in range(len(plan.cells))]
        idle, lost = True, ""
        with _written(plan, rounds) as write:
            for (number, _), answer in executor.each(_one, plan, jobs):
                if isinstance(answer, Lost):  # the others of this turn are not its fault
                    lost = f"A trial of {plan.cells[number].id} failed: {answer.reason} The same command goes on with it."
                elif answer is not None:
                    idle = False
                    progress.say(answer.said)
                    failed |= answer.failed
                    write()
        if lost:
            raise RunFailed(lost)
        if idle:
            time.sleep(PAUSE)


@contextmanager
def _written(plan: Plan, rounds: list[list[_Work]]) -> Iterator[Callable[[], None]]:
    """A function that writes trials.csv, at most once in `SELDOM` seconds; it is written at the end of the block, too, however it ends.

    Where the last trial of these ranges has ended nothing is written: by then another worker may know of a further range.
    """
    last = time.monotonic()

    def write() -> None:
        study_record.write_trials(plan, lambda: _all_rows(plan, rounds) if _left(rounds[-1]) else None)

    def seldom() -> None:
        nonlocal last
        if time.monotonic() > last + SELDOM:
            write()
            last = time.monotonic()

    try:
        yield seldom
    except BaseException:
        with suppress(RunFailed, InputError, OSError):  # what ended the block is what counts
            write()
        raise
    write()


@dataclass(frozen=True)
class _Ended:
    """How a trial ended: a line about it, and the key and reason of one that failed."""

    said: str
    failed: dict[str, str]


def _one(plan: Plan, job: Job, stop: Stop, session: tracking.Session) -> _Ended | None:
    """Run one trial of a cell, if one is free."""
    work, failed = _work(plan, job[0]), job[1]
    broken: dict[str, str] = {}

    def is_failed(trial: Trial) -> bool:
        return work.prepared(trial.rate, trial.seed).config.key in failed

    with work.trials.next(is_failed) as found:
        if found is None:
            return None
        trial, lease = found
        prepared = work.prepared(trial.rate, trial.seed)
        name = plan.study.name
        tags = study_record.trial_tags(name, work.planned.id, work.first + trial.number)
        began = time.perf_counter()
        try:
            _adopt(plan, prepared, lease)
            if (Record(plan.machine.trials_dir / prepared.config.key).failure() or {}).get("diverged"):
                raise Diverged  # here before a kill, or elsewhere: it would do so again
            with progress.quietly():
                result = run(
                    prepared,
                    stop,
                    kind=TRIAL,
                    session=session,
                    tags=tags,
                    parent=study_record.group(name, work.planned.id),
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
    return _Ended(f"trial {number:>2}/{plan.budget} of {work.planned.id}: {said}", broken)


def _adopt(plan: Plan, prepared: Prepared, lease: Lease) -> None:
    """Where this trial was tried elsewhere and not begun here, give it a folder that says how it ended."""
    row = plan.tried.get(prepared.config.key)
    record = Record(plan.machine.trials_dir / prepared.config.key, lease.confirm)
    if row is not None and not (record.folder / "config.json").exists():
        seconds = None if pd.isna(row["seconds"]) else row["seconds"]
        ended = {"value": row["value"], "seconds": {"training": seconds}}
        record.adopt(prepared.config, ended if row["state"] == "finished" else None)


def _all_rows(plan: Plan, rounds: list[list[_Work]]) -> list[dict[str, Any]]:
    works = [work for cells in zip(*rounds, strict=True) for work in cells]  # cell by cell
    rows = [_row(plan, work, trial) for work in works for trial, _ in work.trials.trials()]
    return [row for row in rows if row is not None]


def _row(plan: Plan, work: _Work, trial: Trial) -> dict[str, Any] | None:
    """A trial as a row of trials.csv; None for one that is still under way. Raises InputError for one that was changed since.

    The value is as the committed file has it: both must lead to the same rate.
    """
    key = work.prepared(trial.rate, trial.seed).config.key
    record = Record(plan.machine.trials_dir / key)
    record.refuse_unsealed()
    result, failure = record.result(), record.failure()
    if result is None and failure is None:
        return None
    state = "finished" if result else "diverged" if failure and failure.get("diverged") else "failed"
    return {
        "cell": work.planned.id, "trial": work.first + trial.number, "rate": trial.rate, "seed": trial.seed, "state": state,
        "value": result and round(result["value"], DIGITS), "key": key, "seconds": result and result["seconds"]["training"],
    }  # fmt: skip


def _conclude(plan: Plan, cell: PlannedCell, session: tracking.Session) -> None:
    rate = plan.rates[cell.id]
    if rate.value is None:
        progress.say(f"{cell.id} has no rate. {rate.reason}")
        return
    numbers = {"rate": rate.value, "rate_low": rate.low, "rate_high": rate.high}
    session.conclude(
        study_record.group(plan.study.name, cell.id), study_record.numbers(numbers, plan.budget), [plan.folder / "trials.csv"]
    )
    edge = ", at the end of the range: no verdict" if rate.edge else ""
    progress.say(f"{cell.id}: rate {rate.value:g} [{rate.interval(', ')}] from {plan.budget} trials{edge}")
