"""What `run.py study`, `grid`, `tune` and `--tune` do, once their words are checked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.config.values import ParsedArgs
from experiments.runtime import interrupts, progress
from experiments.runtime.interrupts import Stop
from experiments.studies import committed_results, cost, display, ray_executor, study_folder, tuning
from experiments.studies import executor as study_run
from experiments.studies.definition import Study
from experiments.studies.executor import Executor, LocalExecutor
from experiments.studies.plan import Plan, build
from experiments.studies.ray_options import RayOptions
from experiments.tracking import tracker
from experiments.training.single_run import train_one


def run_study(
    study: Study,
    machine: Mapping[str, Any],
    dry_run: bool,
    status: bool,
    pool: RayOptions | None = None,
    results: Path | None = None,
) -> int:
    """Print the plan and, unless that was all, tune, run the pilot and then the rest (in `pool`); or show how far it is.

    What is committed under `results` counts as done.
    """

    def work(stop: Stop) -> int:
        plan = build(study, machine, stop.check)
        if results is not None:
            committed_results.count_committed(plan, results)
        trials = tuning.load_rates(plan)
        if status:
            display.print_status(plan, trials)
            return 0
        _show_plan(plan, trials)
        if dry_run:
            return 0
        return _run(plan, stop, pool)

    return interrupts.interruptible(work)


def tune(study: Study, machine: Mapping[str, Any], pool: RayOptions | None = None) -> int:
    """Only the tuning of a study."""

    def work(stop: Stop) -> int:
        plan = build(study, machine, stop.check)
        trials = tuning.load_rates(plan)
        print(
            f"{len(plan.cells)} cells x {plan.budget} trials each = {len(plan.cells) * plan.budget}, {trials} have ended."
        )
        write_plan(plan)  # so that `report` can commit the trials of a tuning that is not finished
        with at_work(plan, stop, pool) as (executor, session):
            tuning.tune(plan, executor, session)
        write_plan(plan)
        display.print_rates(plan)
        return 0

    return interrupts.interruptible(work)


def tune_and_train(study: Study, args: ParsedArgs) -> int:
    """Find the learning rate of one configuration, then train it with that."""
    rates: list[float] = []

    def work(stop: Stop) -> int:
        plan = build(study, args.machine, stop.check)
        with at_work(plan, stop, None) as (executor, session):
            tuning.tune(plan, executor, session)
        write_plan(plan)
        display.print_rates(plan)
        rate = plan.rate(plan.cells[0])
        rates.extend([] if rate.value is None else [rate.value])
        return 0 if rates else 1

    code = interrupts.interruptible(work)
    if code:
        return code
    return train_one(dataclasses.replace(args, fields={**args.fields, "learning_rate": rates[0]}))


@contextlib.contextmanager
def at_work(plan: Plan, stop: Stop, pool: RayOptions | None) -> Iterator[tuple[Executor, tracker.Session]]:
    """Who does the work, this process or a cluster, and the way to MLflow."""
    with contextlib.ExitStack() as opened:
        many = None if pool is None else opened.enter_context(ray_executor.open_cluster(pool, plan, stop))
        session = opened.enter_context(
            tracker.session(plan.machine.tracking_uri, plan.machine.output_dir, progress.log)
        )
        yield many or LocalExecutor(stop, session), session


def _run(plan: Plan, stop: Stop, pool: RayOptions | None) -> int:
    write_plan(plan)  # so that `report` can commit the trials of a tuning that is not finished
    with at_work(plan, stop, pool) as (executor, session):
        if plan.study.tuning:
            tuning.tune(plan, executor, session)
            display.print_rates(plan)
        write_plan(plan)
        pilot = cost.pilot_runs(plan)
        if pilot and cost.pilot_scores(plan) is None:
            progress.log("The pilot comes first: it measures how much seeds and cars vary.")
            study_run.run_all(plan, pilot, executor, session)
            _show_plan(plan, tuning.load_rates(plan))
            write_plan(plan)
        failed = study_run.run_all(plan, plan.runs(), executor, session)
    write_plan(plan)
    display.print_status(plan, tuning.load_rates(plan))
    print(f"What it means: python run.py report {plan.study.name}{plan.machine.output_flag}")
    return 1 if failed or any(plan.rate(cell).value is None for cell in plan.cells) else 0


def _show_plan(plan: Plan, trials: int) -> None:
    spreads = cost.variances(plan)
    display.print_plan(plan, spreads, cost.detectable(plan, spreads), trials)


def write_plan(plan: Plan) -> None:
    spreads = cost.variances(plan)
    study_folder.write_plan(plan, spreads, cost.detectable(plan, spreads))
