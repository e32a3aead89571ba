"""Tune the learning rate of every cell: as many trials for each, then the top of a curve fitted to them.

With `fit = "pooled"` the trials of all cells of a network are fitted together, with one shape of the response and a
shift for each cell; their rates are staggered, so that together they cover the range. With `fit = "cell"`, the way of
older studies, each cell has its own curve. The cells take turns, so an interrupted tuning is a fair one with fewer
trials. Where the best learning rate of a cell lies at the end of the range, the range is extended for every cell, at
most `EXTENSIONS` times.

每种组合得到同样多的试验；它的学习率是拟合曲线的最高点，而不是得分最高的单次试验。
同一网络的各个组合可以一起拟合（`fit = "pooled"`）：曲线形状相同，每种组合各有一个偏移。
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from analysis.statistics.learning_rate_response import fit_response
from analysis.statistics.pooled_learning_rates import fit_pooled_rates
from experiments.runtime import progress
from experiments.runtime.errors import RunFailed
from experiments.studies import study_folder
from experiments.studies.definition import Tuning
from experiments.studies.executor import Executor, WorkerLost
from experiments.studies.plan import Plan, PlannedCell, Rate
from experiments.studies.trial_queue import has_storage
from experiments.studies.trials import CellTrials, network_of, place_in_network, run_trial, trial_row, trials_of_cell
from experiments.tracking import tracker
from registry import InputError

EXTENSIONS = 2
WRITE_INTERVAL = 10.0  # seconds between two writings of trials.csv, which is made from the records of all trials
POLL_SECONDS = 1.0  # between two looks at the trials of other workers


@dataclass
class Search:
    """The trials of all cells of a study, range by range. Fills `plan.rounds` and `plan.rates`."""

    plan: Plan
    ranges: list[list[CellTrials]] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.plan.study.tuning is not None
        self.plan.rounds, self.plan.rates = [], {}
        self._add(self.plan.study.tuning)

    def ended(self) -> int:
        """How many trials have ended."""
        return sum(cell.queue.ended() for cells in self.ranges for cell in cells)

    def left(self) -> int:
        """How many trials of the last range have not ended."""
        return sum(cell.queue.tuning.budget - cell.queue.ended() for cell in self.ranges[-1])

    def open_keys(self) -> list[str]:
        """The keys of the trials of the last range that were begun and have not ended."""
        return [cell.key(trial) for cell in self.ranges[-1] for trial, ended in cell.queue.trials() if not ended]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of trials.csv: all trials that have ended, cell by cell."""
        cells = [cell for of_cell in zip(*self.ranges, strict=True) for cell in of_cell]
        rows = [trial_row(self.plan, cell, trial) for cell in cells for trial, _ in cell.queue.trials()]
        return [row for row in rows if row is not None]

    def choose_rates(self) -> bool:
        """Choose the learning rates from all trials so far; True if the range had to be extended: more are to do."""
        rows, plan = self.rows(), self.plan
        by_cell = {cell.id: [row for row in rows if row["cell"] == cell.id] for cell in plan.cells}
        if plan.rounds[0].fit == "pooled":
            networks = {cell.id: network_of(cell) for cell in plan.cells}
            plan.rates = {}
            for network in dict.fromkeys(networks.values()):
                plan.rates |= choose_pooled_rates({c: by_cell[c] for c in by_cell if networks[c] == network})
        else:
            plan.rates = {cell: choose_rate(rows) for cell, rows in by_cell.items()}
        cells = max(place_in_network(plan, number)[1] for number in range(len(plan.cells)))
        further = extend_range(plan.rounds, list(plan.rates.values()), cells)
        if further is None or len(plan.rounds) > EXTENSIONS:
            return False
        self._add(further)
        return True

    def _add(self, tuning: Tuning) -> None:
        self.plan.rounds.append(tuning)
        self.ranges.append([trials_of_cell(self.plan, number) for number in range(len(self.plan.cells))])


def tune(plan: Plan, executor: Executor, session: tracker.Session) -> None:
    """Find every cell's learning rate: fill `plan.rates` and `plan.rounds`, write trials.csv.

    Raises Interrupted (resumable), and RunFailed where trials failed for another reason than divergence: such a cell
    would have had fewer trials than the others.
    """
    search = Search(plan)
    _run_trials(search, executor)
    while search.choose_rates():
        further = plan.rounds[-1]
        progress.log(
            f"A best learning rate lies at the end of the range: {further.budget} more trials for every cell, "
            f"{further.low:g} to {further.high:g}."
        )
        _run_trials(search, executor)
    # last of all, since a worker that was behind may have written only what it knew of
    study_folder.write_trials(plan, search.rows)
    for cell in plan.cells:
        _report_rate(plan, cell, session)


def load_rates(plan: Plan) -> int:
    """Fill `plan.rates` if all trials have ended; how many have. Runs no trial, and creates no storage.

    Raises InputError where the trials of a network would be too few to fit.
    """
    if plan.study.tuning is None:
        return 0
    _refuse_too_few_trials(plan, plan.study.tuning)
    if not has_storage(plan.machine.output_dir):
        return 0
    search = Search(plan)
    while not search.left() and search.choose_rates():
        pass
    if search.left():
        plan.rates = {}
    return search.ended()


def choose_rate(rows: list[dict[str, Any]]) -> Rate:
    """A cell's learning rate from all its own trials, as rows of trials.csv."""
    try:
        response = fit_response(*_rates_and_values(rows))
    except ValueError as error:
        return Rate(None, tuned=True, edge=True, reason=str(error))
    low, high = (response.low, response.high) if math.isfinite(response.expected_loss) else (None, None)
    return Rate(float(f"{response.rate:.4g}"), low, high, tuned=True, edge=response.at_edge)


def choose_pooled_rates(rows_of: dict[str, list[dict[str, Any]]]) -> dict[str, Rate]:
    """The learning rates of one network's cells, by cell, from all their trials, as rows of trials.csv."""
    trials = {cell: _rates_and_values(rows) for cell, rows in rows_of.items()}
    usable = {cell: part for cell, part in trials.items() if sum(map(math.isfinite, part[1])) > 1}
    hopeless = "fewer than two of its trials did not diverge. Try lower rates."
    try:
        fit = fit_pooled_rates(usable) if usable else None
    except ValueError as error:
        fit, hopeless = None, str(error)
    if fit is None:
        usable = {}
    none = Rate(None, tuned=True, edge=True, reason=f"A response cannot be fitted: {hopeless}")
    return {
        cell: Rate(float(f"{fit.rates[cell]:.4g}"), fit.low[cell], fit.high[cell], tuned=True, edge=fit.at_edge[cell])
        if fit and cell in usable
        else none
        for cell in trials
    }


def _rates_and_values(rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [row["rate"] for row in rows], [math.nan if row["value"] is None else row["value"] for row in rows]


def _refuse_too_few_trials(plan: Plan, tuning: Tuning) -> None:
    """Raise InputError before any trial where those of a network could not show the shape of its response."""
    cells = min(place_in_network(plan, number)[1] for number in range(len(plan.cells)))
    fewest = math.ceil((cells + 3) / cells)  # a level for each cell, a top, a curvature and one to spare
    if tuning.fit == "pooled" and tuning.budget < fewest:
        raise InputError(
            f"[tuning] gives each cell {progress.count(tuning.budget, 'trial')}, but a network with "
            f"{progress.count(cells, 'cell')} needs {fewest} each: raise points."
        )


def extend_range(rounds: list[Tuning], rates: list[Rate], cells: int = 1) -> Tuning | None:
    """The range to try next, for every cell; None where no best rate is at the end.

    It has a third of the first range's points and lies at the end at which most of those cells have their best rate.
    `cells` is the number of cells in a network, between which pooled trials are staggered.
    """
    first = rounds[0]
    low, high = min(part.low for part in rounds), max(part.high for part in rounds)
    middle = math.sqrt(low * high)
    cells = cells if first.fit == "pooled" else 1
    points = math.ceil(first.points / 3)
    ratio = (first.high / first.low) ** (1 / (first.points * cells - 1))
    reach = ratio ** (points * cells)
    ends = ["low" if rate.value is None or rate.value < middle else "high" for rate in rates if rate.edge]
    if not ends:
        return None
    if ends.count("low") >= ends.count("high"):
        return dataclasses.replace(first, low=low / reach, high=low / ratio, points=points)
    return dataclasses.replace(first, low=high * ratio, high=high * reach, points=points)


def _run_trials(search: Search, executor: Executor) -> None:
    """Run the trials of the last range that are left, the cells in turns; wait for those of other workers."""
    plan, failed = search.plan, dict[str, str]()  # the reason by the trial's key
    turns = math.ceil(executor.capacity() / len(plan.cells))
    while left := search.left():
        failed = {key: failed[key] for key in search.open_keys() if key in failed}  # the others ended elsewhere
        if failed and left == len(failed):
            trials = "1 trial failed, so its cell has" if left == 1 else f"{left} trials failed, so their cells have"
            raise RunFailed(f"{trials} no learning rate. {next(iter(failed.values()))}")
        tasks = [(number, frozenset(failed)) for _ in range(turns) for number in range(len(plan.cells))]
        idle, lost = True, ""
        with _writing_trials(search) as write:
            for (number, _), outcome in executor.run_tasks(run_trial, plan, tasks):
                if isinstance(outcome, WorkerLost):  # the other trials of this turn go on
                    lost = f"A trial of {plan.cells[number].id} failed: {outcome.reason} The same command resumes it."
                elif outcome is not None:
                    idle = False
                    progress.log(outcome.message)
                    failed |= outcome.failed
                    write()
        if lost:
            raise RunFailed(lost)
        if idle:
            time.sleep(POLL_SECONDS)


@contextmanager
def _writing_trials(search: Search) -> Iterator[Callable[[], None]]:
    """A function that writes trials.csv, at most once in `WRITE_INTERVAL`; the end of the block writes it in any case.

    Nothing is written once the last trial of these ranges has ended: by then another worker may know of a further one.
    """
    last = time.monotonic()

    def write() -> None:
        study_folder.write_trials(search.plan, lambda: search.rows() if search.left() else None)

    def write_seldom() -> None:
        nonlocal last
        if time.monotonic() > last + WRITE_INTERVAL:
            write()
            last = time.monotonic()

    try:
        yield write_seldom
    except BaseException:
        with suppress(RunFailed, InputError, OSError):  # the exception that ended the block is the one that counts
            write()
        raise
    write()


def _report_rate(plan: Plan, cell: PlannedCell, session: tracker.Session) -> None:
    rate = plan.rates[cell.id]
    if rate.value is None:
        progress.log(f"{cell.id} has no learning rate. {rate.reason}")
        return
    session.conclude(
        study_folder.parent_run_name(plan.study.name, cell.id),
        study_folder.tuning_metrics({"rate": rate.value, "rate_low": rate.low, "rate_high": rate.high}, plan.budget),
        [plan.folder / "trials.csv"],
    )
    edge = ", at the end of the range: no verdict" if rate.edge else ""
    interval = rate.interval(", ")
    progress.log(f"{cell.id}: learning rate {rate.value:g} [{interval}] from {plan.budget} trials{edge}")
