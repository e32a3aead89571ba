"""Terminal output for studies: the plan with its cost, the matrix of runs, the tuned learning rates."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from experiments.runtime.progress import count
from experiments.studies import estimates
from experiments.studies.estimates import PlannedPower
from experiments.studies.looks import OpenComparison, open_comparisons_of
from experiments.studies.plan import Plan
from experiments.studies.study_folder import run_states
from experiments.studies.trial_queue import learning_rate_grid
from experiments.studies.trials import place_in_network
from experiments.training.epochs import few_steps

MOST_SEEDS = 5  # next to each other: more would be cut in a terminal of 80 columns
BUSY = 1.4  # processes that want to run for each processor: more than one training run alone makes
MARKS = {"done": "", "running": "running", "failed": "FAILED", "missing": "-"}


def print_plan(plan: Plan, power: PlannedPower, ended_trials: int) -> None:
    """Print what is compared, how many runs there are, what is finished, how long it takes, what it can detect."""
    study = plan.study
    for notice in plan.notices:
        print(notice)
    if study.question["en"]:
        print("\n" + "\n".join(filter(None, study.question.values())))
    table = Table(show_header=False, title=f"The study {study.name}", title_justify="left")
    for name, value in [*_design_rows(plan, ended_trials), *_power_rows(plan, power)]:
        table.add_row(name, value)
    table.add_row("confirmatory", ", ".join(study.confirmatory) or "nothing")
    table.add_row(
        "compared with", ", ".join(f"{name}: {level}" for name, level in study.baselines.items()) or "nothing"
    )
    Console().print(table)


def _design_rows(plan: Plan, ended_trials: int) -> list[tuple[str, str]]:
    study, parts, config = plan.study, plan.cells[0].base.parts, plan.cells[0].config
    train, val, test = (len({sample.group for sample in part}) for part in (parts.train, parts.val, parts.test))
    unit = f"{config.unit}s"
    states = [state for state, _ in run_states(plan).values()]
    counts = ", ".join(f"{states.count(name)} {name}" for name in MARKS if name in states)
    epochs, steps = count(config.epochs, "epoch"), count(plan.cells[0].steps, "step")
    budget = f"{epochs} of {steps}, no early stopping, the last weights are compared"
    if advice := few_steps(config.epochs, plan.cells[0].steps):
        budget = f"{budget}; {advice}"
    rows = [
        *((name, ", ".join(level.label for level in levels)) for name, levels in study.factors.items()),
        ("data", f"{config.data}: {train} {unit} to train on, {val} to validate, {test} to test (first cell)"),
        ("input", _input(plan)),
        ("every cell", budget),
        ("runs", f"{len(plan.cells)} cells x {len(plan.seeds)} seeds = {len(states)}: {counts}"),
        *([("looks", _looks(plan))] if study.looks else []),
    ]
    if study.tuning:
        rows.append(("tuning", _tuning(plan, ended_trials)))
    if study.pilot:
        names = dict.fromkeys(cell.id for cell, _ in estimates.pilot_runs(plan))
        rows.append(("pilot", f"{' and '.join(names)}, seeds {', '.join(map(str, estimates.pilot_seeds(plan)))}"))
    return [*rows, ("time left", _time_left(plan, ended_trials))]


def _input(plan: Plan) -> str:
    """What every network sees, and the learning rate where all have the same: much of it comes from the preset."""
    config = plan.cells[0].config
    text = f"{config.size[0]}x{config.size[1]}"
    if config.half_size_epochs:
        text += f", the first {count(config.half_size_epochs, 'epoch')} at half of it"
    if len({(cell.config.size, cell.config.half_size_epochs) for cell in plan.cells}) > 1:
        text += " (first cell)"
    rates = {cell.config.learning_rate for cell in plan.cells}
    rate = f"; learning rate {min(rates):g}" if len(rates) == 1 and not plan.study.tuning else ""
    augments = {cell.config.augment for cell in plan.cells}
    return text + rate + (f"; augmentation {config.augment}" if len(augments) == 1 else "")


def _looks(plan: Plan) -> str:
    first, last = plan.study.looks[0], plan.study.looks[-1]
    taken = ", ".join(str(look["seeds"]) for look in plan.looks_taken) or "none"
    return f"after {first} to {last} seeds, until every comparison with a baseline is decided; taken: {taken}"


def look_line(plan: Plan, left: Sequence[OpenComparison]) -> str:
    """What a look found, in a line."""
    look = plan.looks_taken[-1]
    head = f"Look at {look['seeds']} seeds (error rate {look['level']:.4f}): "
    if not look["open"]:
        return f"{head}every comparison is decided."
    known = {part.name: _open_comparison(part) for part in left}  # lacks those whose runs are on another machine
    undecided = [known.get(name, name) for name in look["open"]]
    end = " The last planned look is taken." if len(plan.looks_taken) == len(plan.study.looks) else ""
    return f"{head}{len(undecided)} undecided: {'; '.join(undecided)}.{end}"


def _open_comparison(left: OpenComparison) -> str:
    if left.more is None:
        more = "no number of seeds is likely to decide it"
    else:
        more = f"about {count(left.more, 'seed')} more"
    return f"{left.factor} {left.level} against {left.baseline} ({more})"


def _tuning(plan: Plan, ended_trials: int) -> str:
    tuning = plan.study.tuning
    assert tuning is not None
    pooled = " fitted together for each network," if tuning.fit == "pooled" else ""
    return (
        f"every cell gets the same {plan.budget} trials ({tuning.sampler}: {tuning.points} learning rates from "
        f"{tuning.low:g} to {tuning.high:g} x seeds {', '.join(map(str, tuning.seeds))}),{pooled} on validation "
        f"{plan.cells[0].config.unit}s only; {_ended(plan, ended_trials)}"
    )


def _ended(plan: Plan, ended_trials: int) -> str:
    committed = _committed_trials(plan)
    more = f", and {committed} more are committed" if committed else ""
    return f"{ended_trials} of {plan.budget * len(plan.cells)} have ended{more}"


def _committed_trials(plan: Plan) -> int:
    """Committed trials that will be adopted when it is their turn."""
    places = {place_in_network(plan, number) for number in range(len(plan.cells))}
    planned = {rate for tuning in plan.rounds for place in places for rate in learning_rate_grid(tuning, place)}
    return sum(
        row["rate"] in planned and not (plan.machine.trials_dir / key).exists()
        for key, row in plan.committed_trials.items()
    )


def _time_left(plan: Plan, ended_trials: int) -> str:
    """The estimated time of what is left, from this machine's own runs where there are any."""
    load = _load()
    speeds = estimates.estimate_speeds(plan)
    states = run_states(plan, list(dict.fromkeys([*estimates.pilot_runs(plan), *plan.runs()])))
    left = [cell for (cell, _), (state, _) in states.items() if state in ("missing", "running")]
    total = sum(estimates.run_seconds(cell, speeds[cell.id]) for cell in left)
    if plan.study.tuning:
        per_trial = sum(estimates.run_seconds(c, speeds[c.id], scored=False) for c in plan.cells) / len(plan.cells)
        total += per_trial * (plan.budget * len(plan.cells) - ended_trials - _committed_trials(plan))
    sources = " and ".join(sorted({speed.source for speed in speeds.values()}))
    timed = any(speed.source == estimates.TIMED for speed in speeds.values())
    busy = "; other work may be slowing this machine, and then it takes less" if timed and load > BUSY else ""
    return f"about {_duration(total)} on this machine in one process: an estimate, from {sources}{busy}"


def _load() -> float:
    """How many processes want to run for each processor; 0 where that is not known, as on Windows."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return 0.0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def _power_rows(plan: Plan, power: PlannedPower) -> list[tuple[str, str]]:
    spread, limits = power.variances, power.detectable
    if not spread:
        return [("can detect", _unknown_power(plan))]
    source = "measured by the pilot" if spread["source"] == "pilot" else "guessed, not measured"
    unit = plan.cells[0].config.unit
    text = f"{unit}s {spread['car']:.4f}, seeds {spread['seed']:.4f}, rest {spread['residual']:.4f}: {source}"
    rows = [("spread of a difference", text)]
    if limits["pair"] is None and limits["equivalent"] is None:
        return [*rows, ("can detect", no_power(len(plan.seeds), unit))]
    smallest = {"a cell against the baseline's": limits["pair"]}
    smallest |= {f"{name}, over all else": value for name, value in limits["main"].items()}
    text = "\n".join(f"{name}: a difference of {value:.4f}" for name, value in smallest.items() if value is not None)
    margin = plan.study.cell_rope or plan.study.rope
    equivalent = f"are found equivalent (within {margin:g}) with probability {limits['equivalent']:.2f}"
    return [*rows, ("can detect (80 % power)", text or "there is one cell only"), ("two equal cells", equivalent)]


def _unknown_power(plan: Plan) -> str:
    cell = plan.cells[0]
    if len(plan.seeds) < 2 or len({sample.group for sample in cell.base.parts.test}) < 2:
        return no_power(len(plan.seeds), cell.config.unit)
    return "not known before the first seeds are in: report states it then, from their spread"


def no_power(seeds: int, unit: str) -> str:
    """Say why a plan states no detectable difference: it has one seed, or one test group."""
    if seeds < 2:
        return "nothing: with one seed every verdict is undecided"
    return f"not known: with one test {unit}, verdicts compare seeds alone and hold for this {unit} only"


def print_status(plan: Plan, ended_trials: int) -> None:
    """Print the matrix of cells and seeds, and why runs failed."""
    states = run_states(plan)
    title = f"The study {plan.study.name}: Dice of the last weights on test {plan.cells[0].config.unit}s"
    print(title)
    for first in range(0, len(plan.seeds), MOST_SEEDS):
        seeds = plan.seeds[first : first + MOST_SEEDS]
        table = Table("cell", *(f"seed {seed}" for seed in seeds))
        for cell in plan.cells:
            row = [states[cell, seed] for seed in seeds]
            table.add_row(cell.id, *(detail if state == "done" else MARKS[state] for state, detail in row))
        Console().print(table)
    counts = [state for state, _ in states.values()]
    print(", ".join(f"{counts.count(name)} {name}" for name in MARKS))
    if plan.looks_taken:
        print(look_line(plan, open_comparisons_of(plan)))
    elif plan.study.looks:
        print(f"The first look is after {plan.study.looks[0]} seeds of every cell.")
    if plan.study.tuning:
        print(f"tuning: of the trials {_ended(plan, ended_trials)}")
    for (cell, seed), (state, detail) in states.items():
        if state in ("failed", "running"):
            print(f"{cell.id}, seed {seed}: {state} ({detail})")


def print_rates(plan: Plan) -> None:
    """Print the tuned learning rates, their uncertainty and the trials that they took."""
    columns = ("cell", "learning rate", "95 % interval", "trials", "")
    table = Table(*columns, title="Learning rates", title_justify="left")
    for cell in plan.cells:
        rate = plan.rate(cell)
        value = "none" if rate.value is None else f"{rate.value:.4g}"
        interval = rate.interval(" to ") if rate.tuned and rate.value is not None else ""
        note = rate.reason or ("at the end of the range: no verdict" if rate.edge else "")
        table.add_row(cell.id, value, interval, str(plan.budget), note)
    Console().print(table)
    times = len(plan.rounds) - 1
    extended = {0: "not extended", 1: "extended once"}.get(times, f"extended {times} times")
    print(f"Every cell had the same {plan.budget} trials; the range was {extended}.")
