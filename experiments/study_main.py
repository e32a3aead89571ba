"""What `run.py study`, `grid`, `tune` and `--tune` do, once their words are checked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments import cluster, main, progress, published, study_cost, study_record, study_run, study_show, tracking, tune_cells
from experiments.executor import Executor, Here
from experiments.pool import Pool
from experiments.settings import Wanted
from experiments.stopping import Stop
from experiments.study import Study
from experiments.study_plan import Plan, build


def carry_out(
    study: Study,
    machine: Mapping[str, Any],
    dry_run: bool,
    status: bool,
    pool: Pool | None = None,
    results: Path | None = None,
) -> int:
    """Print the plan and, unless that was all, tune, run the pilot and then the rest (in `pool`); or show how far it is.

    What is committed under `results` counts as done.
    """

    def work(stop: Stop) -> int:
        plan = build(study, machine, stop.check)
        if results is not None:
            published.count(plan, results)
        trials = tune_cells.look(plan)
        if status:
            study_show.status(plan, trials)
            return 0
        _show_plan(plan, trials)
        if dry_run:
            return 0
        return _run(plan, stop, pool)

    return main.interruptible(work)


def tune(study: Study, machine: Mapping[str, Any], pool: Pool | None = None) -> int:
    """Only the tuning of a study."""

    def work(stop: Stop) -> int:
        plan = build(study, machine, stop.check)
        trials = tune_cells.look(plan)
        print(f"{len(plan.cells)} cells x {plan.budget} trials each = {len(plan.cells) * plan.budget}, {trials} have ended.")
        _write(plan)  # so that `report` can commit the trials of a tuning that is not finished
        with _at_work(plan, stop, pool) as (executor, session):
            tune_cells.tune(plan, executor, session)
        _write(plan)
        study_show.rates(plan)
        return 0

    return main.interruptible(work)


def tune_one(study: Study, wanted: Wanted) -> int:
    """Find the rate of one combination, then train it with that rate."""
    found: list[float] = []

    def work(stop: Stop) -> int:
        plan = build(study, wanted.machine, stop.check)
        with _at_work(plan, stop, None) as (executor, session):
            tune_cells.tune(plan, executor, session)
        _write(plan)
        study_show.rates(plan)
        rate = plan.rate(plan.cells[0])
        found.extend([] if rate.value is None else [rate.value])
        return 0 if found else 1

    code = main.interruptible(work)
    if code:
        return code
    return main.train_one(dataclasses.replace(wanted, fields={**wanted.fields, "learning_rate": found[0]}))


@contextlib.contextmanager
def _at_work(plan: Plan, stop: Stop, pool: Pool | None) -> Iterator[tuple[Executor, tracking.Session]]:
    """Who does the work, this process or a cluster, and the way to MLflow."""
    with contextlib.ExitStack() as opened:
        many = None if pool is None else opened.enter_context(cluster.opened(pool, plan, stop))
        session = opened.enter_context(tracking.session(plan.machine.tracking_uri, plan.machine.output_dir, progress.say))
        yield many or Here(stop, session), session


def _run(plan: Plan, stop: Stop, pool: Pool | None) -> int:
    _write(plan)  # so that `report` can commit the trials of a tuning that is not finished
    with _at_work(plan, stop, pool) as (executor, session):
        if plan.study.tuning:
            tune_cells.tune(plan, executor, session)
            study_show.rates(plan)
        _write(plan)
        pilot = study_cost.pilot_runs(plan)
        if pilot and study_cost.pilot_scores(plan) is None:
            progress.say("The pilot comes first: it measures how much seeds and cars vary.")
            study_run.carry_out(plan, pilot, executor, session)
            _show_plan(plan, tune_cells.look(plan))
            _write(plan)
        failed = study_run.carry_out(plan, plan.runs(), executor, session)
    _write(plan)
    study_show.status(plan, tune_cells.look(plan))
    print(f"What it means: python run.py report {plan.study.name}{main.output_flag(plan.machine.output_dir)}")
    return 1 if failed or any(plan.rate(cell).value is None for cell in plan.cells) else 0


def _show_plan(plan: Plan, trials: int) -> None:
    spreads = study_cost.variances(plan)
    study_show.plan(plan, spreads, study_cost.detectable(plan, spreads), trials)


def _write(plan: Plan) -> None:
    spreads = study_cost.variances(plan)
    study_record.write_plan(plan, spreads, study_cost.detectable(plan, spreads))
