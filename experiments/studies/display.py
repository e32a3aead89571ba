"""What a person sees of a study: the plan before anything is spent, the matrix of its runs, the rates that were found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.studies import cost, study_folder
from experiments.studies.executor import matrix
from experiments.studies.plan import Plan
from experiments.studies.trial_queue import learning_rate_grid

MARKS = {"done": "", "running": "running", "failed": "FAILED", "missing": "-"}


def print_plan(found: Plan, spreads: Mapping[str, Any], limits: Mapping[str, Any], trials: int) -> None:
    """The plan: what is compared, how many runs, what is finished, how long it takes, what it can detect."""
    study = found.study
    for notice in found.notices:
        print(notice)
    if study.question["en"]:
        print("\n" + "\n".join(filter(None, study.question.values())))
    table = Table(show_header=False, title=f"The study {study.name}", title_justify="left")
    for name, value in _rows(found, spreads, limits, trials):
        table.add_row(name, value)
    Console().print(table)


def _rows(found: Plan, spreads: Mapping[str, Any], limits: Mapping[str, Any], trials: int) -> list[tuple[str, str]]:
    study, parts, config = found.study, found.cells[0].base.parts, found.cells[0].config
    cars = [len({sample.group for sample in part}) for part in (parts.train, parts.val, parts.test)]
    unit = "groups" if config.data == "folder" else "cars"
    states = [state for state, _ in matrix(found).values()]
    counts = ", ".join(f"{states.count(name)} {name}" for name in MARKS if name in states)
    rows = [
        *((name, ", ".join(level.label for level in levels)) for name, levels in study.factors.items()),
        ("data", f"{config.data}: {cars[0]} {unit} to train on, {cars[1]} to validate, {cars[2]} to test (first cell)"),
        (
            "every cell",
            f"{config.epochs} epochs of {found.cells[0].steps} steps, no early stopping, the last weights are compared"
            + (", whether they have converged or not" if study.at_budget else ""),
        ),
        ("runs", f"{len(found.cells)} cells x {len(study.seeds)} seeds = {len(states)}: {counts}"),
    ]
    if study.tuning:
        rows.append(("tuning", _tuning(found, trials)))
    if study.pilot:
        names = dict.fromkeys(cell.id for cell, _ in cost.pilot_runs(found))
        rows.append(("pilot", f"{' and '.join(names)}, seeds {', '.join(map(str, cost.pilot_seeds(found)))}"))
    return [
        *rows, ("time left", _time(found, trials)), *_detectable(found, spreads, limits),
        ("confirmatory", ", ".join(study.confirmatory) or "nothing"), ("exploratory", ", ".join(study.exploratory) or "nothing"),
    ]  # fmt: skip


def _tuning(found: Plan, trials: int) -> str:
    tuning = found.study.tuning
    assert tuning is not None
    waiting = _committed(found)
    more = f", and {waiting} more are committed" if waiting else ""
    return (
        f"every cell gets the same {found.budget} trials ({tuning.sampler}: {tuning.points} rates from {tuning.low:g} to {tuning.high:g} "
        f"x seeds {', '.join(map(str, tuning.seeds))}), on validation cars only; {trials} of {found.budget * len(found.cells)} have ended{more}"
    )


def _committed(found: Plan) -> int:
    """Trials that were tried elsewhere and will be taken from there when it is their turn."""
    tried_rates = {rate for part in found.rounds for rate in learning_rate_grid(part)}
    return sum(
        row["rate"] in tried_rates and not (found.machine.trials_dir / key).exists() for key, row in found.tried.items()
    )


def _time(found: Plan, trials: int) -> str:
    """The time that is left, from this machine's own runs where there are any."""
    speeds = cost.estimate_speeds(found)
    runs = dict.fromkeys([*cost.pilot_runs(found), *found.runs()])
    left = [cell for cell, seed in runs if study_folder.run_state(found, cell, seed)[0] in ("missing", "running")]
    total = sum(cost.run_seconds(cell, speeds[cell.id]) for cell in left)
    if found.study.tuning:
        per_trial = sum(cost.run_seconds(c, speeds[c.id], scored=False) for c in found.cells) / len(found.cells)
        total += per_trial * (found.budget * len(found.cells) - trials - _committed(found))
    sources = " and ".join(sorted({speed.source for speed in speeds.values()}))
    return f"about {_duration(total)} on this machine in one process: an estimate, from {sources}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def _detectable(found: Plan, spreads: Mapping[str, Any], limits: Mapping[str, Any]) -> list[tuple[str, str]]:
    source = "measured by the pilot" if spreads["source"] == "pilot" else "guessed, not measured"
    rows = [
        (
            "spread of a difference",
            f"cars {spreads['car']:.4f}, seeds {spreads['seed']:.4f}, rest {spreads['residual']:.4f}: {source}",
        )
    ]
    if limits["pair"] is None and limits["equivalent"] is None:
        return [*rows, ("can detect", "nothing: with one seed or one test car every verdict is undecided")]
    smallest = {
        "a pair of cells": limits["pair"],
        **{f"{name}, over all else": value for name, value in limits["main"].items()},
    }
    text = "\n".join(f"{name}: a difference of {value:.4f}" for name, value in smallest.items() if value is not None)
    rows.append(("can detect (80 % power)", text or "there is one cell only"))
    rows.append(
        (
            "two equal cells",
            f"are found equivalent (within {found.study.rope:g}) with probability {limits['equivalent']:.2f}",
        )
    )
    return rows


def print_status(found: Plan, trials: int) -> None:
    """The matrix of cells and seeds, and the reasons of what failed."""
    states = matrix(found)
    table = Table(
        "cell", title=f"The study {found.study.name}: Dice of the last weights on test cars", title_justify="left"
    )
    for seed in found.study.seeds:
        table.add_column(f"seed {seed}")
    for cell in found.cells:
        row = [states[cell, seed] for seed in found.study.seeds]
        table.add_row(cell.id, *(word if state == "done" else MARKS[state] for state, word in row))
    Console().print(table)
    counts = [state for state, _ in states.values()]
    print(", ".join(f"{counts.count(name)} {name}" for name in MARKS))
    if found.study.tuning:
        print(f"tuning: {trials} of {found.budget * len(found.cells)} trials have ended")
    for (cell, seed), (state, word) in states.items():
        if state in ("failed", "running"):
            print(f"{cell.id}, seed {seed}: {state} ({word})")


def print_rates(found: Plan) -> None:
    """The rates that tuning found, with their uncertainty and what they cost."""
    table = Table("cell", "rate", "95 % of the rate", "trials", "", title="Learning rates", title_justify="left")
    for cell in found.cells:
        rate = found.rate(cell)
        value = "none" if rate.value is None else f"{rate.value:.4g}"
        interval = rate.interval(" to ") if rate.tuned and rate.value is not None else ""
        note = rate.reason or ("at the end of the range: no verdict" if rate.edge else "")
        table.add_row(cell.id, value, interval, str(found.budget), note)
    Console().print(table)
    extended = {0: "not extended", 1: "extended once"}.get(
        further := len(found.rounds) - 1, f"extended {further} times"
    )
    print(f"Every cell had the same {found.budget} trials; the range was {extended}.")
