"""What the commands of run.py do, once their words are checked."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.data.split import LEAKING
from experiments.resolve import resolve
from experiments.settings import Wanted
from experiments.stopping import Interrupted, Stop, listening
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS


def train_one(wanted: Wanted) -> int:
    """Train the combination that was asked for, and show what came out."""
    from experiments import runner
    from experiments.prepare import prepare

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


def interruptible(work: Callable[[Stop], int], then: str = "The same command goes on from here.") -> int:
    """Do `work` so that a signal stops it at the next step, and say what `then`; the exit code."""
    with listening() as stop:
        try:
            return work(stop)
        except Interrupted:
            name = signal.Signals(stop.signal).name
            print(f"Interrupted by {name}. {then}", file=sys.stderr)
            return 130 if stop.signal == signal.SIGINT else 143


def show_result(result: dict[str, Any], output_dir: Path, seconds: float) -> None:
    """The scores of a run in a small table, and the command that opens it in MLflow."""
    test = result["test"]["best"]
    cars = result["cars"]
    print(f"\n{result['model']} with {result['loss']}: {cars['test']} unseen {result['data']} cars, {test['images']} photographs")
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
    print(f"Record: {_near(output_dir) / 'runs' / result['key']}\nSee it in MLflow: python run.py ui{output_flag(output_dir)}")


def output_flag(output_dir: Path) -> str:
    """What to add to a command that is to look there: nothing for the folder that it would look in anyway."""
    return "" if _near(output_dir) == Path("outputs") else f" --output-dir {_near(output_dir)}"


def _near(place: Path) -> Path:
    return place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place


def bench(wanted: Wanted, words: list[str] | None, steps: int, repeats: int, as_json: bool) -> int:
    """Measure the machine, and show what was found."""
    from experiments.bench import report

    parts = report.need_parts(words)
    config, machine, _ = resolve(wanted)
    report.show(report.measure(config, machine, parts, steps, repeats), as_json)
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
