"""What the commands of run.py do, once their words are checked."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.commands import train
from experiments.config.resolve import resolve
from experiments.config.schema import near, output_flag
from experiments.config.values import ParsedArgs
from experiments.data.splits import LEAKING
from experiments.runtime import interrupts
from experiments.runtime.interrupts import Stop, interruptible
from experiments.studies import display, tuning
from experiments.studies.definition import Study
from experiments.studies.plan import build
from experiments.studies.run_study import at_work, write_plan
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS


def train_one(wanted: ParsedArgs) -> int:
    """Train the combination that was asked for, and show what came out."""
    from experiments.data.prepare import prepare
    from experiments.training import runner

    began = time.perf_counter()
    config, machine, notices = resolve(wanted)
    for notice in notices:
        print(notice, flush=True)
    runner.try_model(config, machine)  # a wrong option is found before cars are made or photographs are read

    def work(stop: Stop) -> int:
        result = runner.run(prepare(config, machine, stop.check), stop)
        show_result(result, machine.output_dir, time.perf_counter() - began)
        return 0

    return interruptible(work)


def show_result(result: dict[str, Any], output_dir: Path, seconds: float) -> None:
    """The scores of a run in a small table, and the command that opens it in MLflow."""
    test = result["test"]["best"]
    cars = result["cars"]
    print(
        f"\n{result['model']} with {result['loss']}: {cars['test']} unseen {result['data']} cars, {test['images']} photographs"
    )
    table = Table(show_header=False)
    for name, value in (
        ("test Dice", f"{test['dice']:.4f}"),
        ("test IoU", f"{test['iou']:.4f}"),
        ("test boundary IoU", f"{test['boundary_iou']:.4f}"),
        ("test HD95, median", f"{test['hd95_median']:.1f} px ({test['hd95_failures']} failures)"),
        ("parameters", f"{result['parameters']:,}"),
        ("seconds", f"{result['seconds']['training']:.0f} of training, {seconds:.0f} in all just now"),
    ):
        table.add_row(name, value)
    Console().print(table)
    width, height = result["size"]
    print(
        f"Best weights by validation Dice (epoch {result['best_epoch']} of {result['epochs']}), scored at the photographs' own size."
    )
    print(
        f"Ceiling of {width}x{height} pixels: the truth itself, reduced to them and enlarged again, scores {result['ceiling']:.4f} here."
    )
    if result["split"] in LEAKING:
        print(f"NOT A FAIR SCORE: --split {result['split']} puts other photographs of the test cars into training.")
    if result["data"] == "synthetic":
        print("These are SYNTHETIC CARS: the scores say nothing about real photographs.")
    print(
        f"Record: {near(output_dir) / 'runs' / result['key']}\nSee it in MLflow: python run.py ui{output_flag(output_dir)}"
    )


def bench(wanted: ParsedArgs, words: list[str] | None, steps: int, repeats: int, as_json: bool) -> int:
    """Measure the machine, and show what was found."""
    from experiments.bench import report

    parts = report.parse_parts(words)
    config, machine, _ = resolve(wanted)
    report.print_results(report.measure(config, machine, parts, steps, repeats), as_json)
    return 0


def list_choices() -> int:
    """Every choice with its summary and source."""
    console = Console()
    for flag, choices in (("--model", MODELS), ("--loss", LOSSES), ("--augment", AUGMENTATIONS), ("--data", DATASETS)):
        table = Table(title=flag, title_justify="left")
        for name in ("name", "what it is", "中文", "source"):
            table.add_column(name, overflow="fold")
        for entry in choices.values():
            table.add_row(entry.name, entry.summary, entry.summary_zh, entry.source)
        console.print(table)
    return 0


def tune_one(study: Study, wanted: ParsedArgs) -> int:
    """Find the rate of one combination, then train it with that rate."""
    found: list[float] = []

    def work(stop: Stop) -> int:
        plan = build(study, wanted.machine, stop.check)
        with at_work(plan, stop, None) as (executor, session):
            tuning.tune(plan, executor, session)
        write_plan(plan)
        display.print_rates(plan)
        rate = plan.rate(plan.cells[0])
        found.extend([] if rate.value is None else [rate.value])
        return 0 if found else 1

    code = interrupts.interruptible(work)
    if code:
        return code
    return train.train_one(dataclasses.replace(wanted, fields={**wanted.fields, "learning_rate": found[0]}))
