"""The work behind `run.py study`, `grid`, `tune` and `--tune`: print the plan, tune, run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.records.study_paths import RESULTS
from experiments.config.values import ParsedArgs
from experiments.runtime import interrupts, progress
from experiments.runtime.interrupts import Stop
from experiments.studies import (
    display,
    estimates,
    looks,
    ray_executor,
    reuse_results,
    study_folder,
    summary_runs,
    tuning,
)
from experiments.studies.definition import Study
from experiments.studies.estimates import PlannedPower
from experiments.studies.executor import Executor, LocalExecutor, run_all
from experiments.studies.from_flags import RayOptions
from experiments.studies.plan import Plan, PlannedCell, build
from experiments.studies.study_folder import write_plan
from experiments.tracking import tracker
from experiments.training.runner import try_model
from experiments.training.single_run import train_one
from registry import InputError

# What decides whether a network can be trained.
TRIED = ("model", "model_kwargs", "size", "batch_size", "accumulate", "progressive")


def run_study(
    study: Study,
    machine: Mapping[str, Any],
    dry_run: bool,
    status: bool,
    pool: RayOptions | None = None,
    results: Path | None = None,
    extend: bool = False,
) -> int:
    """Print the plan (or the status); unless that was all, tune, run the pilot and the other runs; the exit code.

    Runs and trials that are committed under `results` count as done. A plan on disk that differs is replaced only with
    `extend`.
    """

    machine = study_folder.with_store(study.name, machine)

    def work(stop: Stop) -> int:
        plan = build(study, machine, stop.check)
        if results is not None:
            reuse_results.count_committed(plan, results)
        ended_trials = tuning.load_rates(plan)
        looks.load_looks(plan, results)
        if status:
            display.print_status(plan, ended_trials)
            return 0
        if not dry_run:
            study_folder.refuse_replaced(plan, extend)
            study_folder.record_store(plan)
        elif not extend:
            _note_refusal(plan)
        _try_models(plan)
        power = estimates.planned_power(plan)
        display.print_plan(plan, power, ended_trials)
        return 0 if dry_run else _run(plan, power, stop, pool)

    return interrupts.interruptible(work)


def _try_models(plan: Plan) -> None:
    """Try each network with its batches before anything is trained. Raises InputError where it refuses them."""
    tried = set()
    for cell in plan.cells:
        what = repr([getattr(cell.config, name) for name in TRIED])
        if what not in tried:
            try_model(cell.config, cell.base.machine)
            tried.add(what)


def _note_refusal(plan: Plan) -> None:
    """Print why the command would be refused without `--dry-run`, if it would be."""
    try:
        study_folder.refuse_replaced(plan, extend=False)
    except InputError as differs:
        progress.note(str(differs))


def tune(study: Study, machine: Mapping[str, Any], pool: RayOptions | None = None, extend: bool = False) -> int:
    """Tune the learning rates of a study and run nothing else; the exit code."""
    machine = study_folder.with_store(study.name, machine)

    def work(stop: Stop) -> int:
        plan = build(study, machine, stop.check)
        ended_trials, count = tuning.load_rates(plan), len(plan.cells)
        looks.load_looks(plan)
        study_folder.refuse_replaced(plan, extend)
        study_folder.record_store(plan)
        print(f"{count} cells x {plan.budget} trials each = {count * plan.budget}, {ended_trials} have ended.")
        with open_executor(plan, stop, pool) as (executor, session):
            _tune_and_write(plan, estimates.planned_power(plan), executor, session)
        return 0

    return interrupts.interruptible(work)


def tune_and_train(study: Study, args: ParsedArgs) -> int:
    """Tune the learning rate of the one cell of a study, then train it with that; the exit code."""
    rates: list[float | None] = []

    def work(stop: Stop) -> int:
        plan = build(study, args.machine, stop.check)
        with open_executor(plan, stop, None) as (executor, session):
            _tune_and_write(plan, estimates.planned_power(plan), executor, session)
        rates.append(plan.rate(plan.cells[0]).value)
        return int(rates == [None])

    code = interrupts.interruptible(work)
    if code:
        return code
    return train_one(dataclasses.replace(args, fields={**args.fields, "learning_rate": rates[0]}))


@contextlib.contextmanager
def open_executor(plan: Plan, stop: Stop, pool: RayOptions | None) -> Iterator[tuple[Executor, tracker.Session]]:
    """What runs the tasks, this process or a Ray cluster, and the connection to MLflow."""
    with contextlib.ExitStack() as opened:
        cluster = None if pool is None else opened.enter_context(ray_executor.open_cluster(pool, plan, stop))
        session = opened.enter_context(
            tracker.session(plan.machine.tracking_uri, plan.machine.output_dir, progress.log)
        )
        yield cluster or LocalExecutor(stop, session), session


def _tune_and_write(plan: Plan, power: PlannedPower, executor: Executor, session: tracker.Session) -> None:
    """Tune every cell and print the learning rates; plan.json has them at the end."""
    write_plan(plan, power)  # before it, so that `report` can commit the trials of an unfinished tuning
    tuning.tune(plan, executor, session)
    write_plan(plan, power)
    display.print_rates(plan)


def _committed(plan: Plan) -> Path | None:
    """Where committed runs count, beside those of this machine."""
    return RESULTS if plan.committed_runs else None


def _run_until_decided(
    plan: Plan, power: PlannedPower, executor: Executor, session: tracker.Session
) -> list[tuple[PlannedCell, int]]:
    """Carry out the runs: all of a fixed list of seeds, else seed by seed with a look after each; those that failed."""
    write_plan(plan, power)
    failed = run_all(plan, plan.runs(), executor, session)
    while looks.is_due(plan):
        left = looks.take_look(plan)
        write_plan(plan, power)
        progress.log(display.look_line(plan, left))
        if not looks.is_over(plan):
            failed = run_all(plan, plan.runs(), executor, session)
    return failed


def _run(plan: Plan, power: PlannedPower, stop: Stop, pool: RayOptions | None) -> int:
    with open_executor(plan, stop, pool) as (executor, session):
        if plan.study.tuning:
            _tune_and_write(plan, power, executor, session)
        pilot = estimates.pilot_runs(plan)
        if pilot and estimates.pilot_scores(plan) is None:
            write_plan(plan, power)
            progress.log("The pilot comes first: it measures how much seeds and groups vary.")
            run_all(plan, pilot, executor, session)
            power = estimates.planned_power(plan)
            display.print_plan(plan, power, tuning.load_rates(plan))
        failed = _run_until_decided(plan, power, executor, session)
        write_plan(plan, power)  # in case another worker, which was behind, wrote an earlier state
        summary_runs.summarise_study(plan.study.name, plan.machine.output_dir, session, _committed(plan))
    display.print_status(plan, tuning.load_rates(plan))
    print(f"Next: python run.py report {plan.study.name}{plan.machine.output_flag}")
    return 1 if failed or any(plan.rate(cell).value is None for cell in plan.cells) else 0
