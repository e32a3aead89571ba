"""Train one configuration and print its scores: `run.py` without a command."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.records.files import relative_to_cwd
from analysis.records.run_state import headline
from experiments.config.resolve import resolve
from experiments.config.schema import RuntimeConfig
from experiments.config.values import ParsedArgs
from experiments.data.run_inputs import load_run_inputs
from experiments.data.splits import LEAKING
from experiments.runtime import progress
from experiments.runtime.interrupts import Stop, interruptible
from experiments.runtime.progress import count
from experiments.training import runner
from experiments.training.initial_weights import with_initial_weights


def train_one(args: ParsedArgs) -> int:
    """Train the configuration, or resume it, and print its scores; the exit code."""
    began = time.perf_counter()
    config, machine, notices = resolve(args)
    config, machine = with_initial_weights(config, machine)
    for notice in notices:
        print(notice, flush=True)
    model = runner.try_model(config, machine)  # a wrong option is found before cars are made or images are read

    warnings: list[str] = []

    def warn(sentence: str) -> None:
        warnings.append(sentence)
        progress.log(sentence)

    def work(stop: Stop) -> int:
        inputs = load_run_inputs(config, machine, stop.check)
        finished = (machine.runs_dir / inputs.config.key / "result.json").exists()
        result = runner.run(inputs, stop, model=model, warn=warn)
        show_result(result, machine, time.perf_counter() - began, config.unit)
        if finished and (machine.tracking_uri is not None or not (machine.output_dir / "mlflow.db").exists()):
            print(f"Nothing was sent to MLflow now; to have it there: python run.py sync{machine.tracking_flag}")
        elif not warnings:
            print(f"Open it in MLflow: python run.py ui{machine.tracking_flag}")
        return 0

    return interruptible(work)


NOTABLE = 0.001  # the other weights' Dice is printed where it differs by more than this


def show_result(result: dict[str, Any], machine: RuntimeConfig, seconds: float, unit: str = "group") -> None:
    """Print the scores of a run as a table; `unit` is what a group of the data is called."""
    weights, cars = headline(result), result["cars"]
    test = result["test"][weights]
    data = "" if result["data"] == "folder" else f"{result['data']} "
    seen = "test" if result["split"] in LEAKING else "unseen"
    number = count(test["images"] if unit == "image" else cars["test"], f"{seen} {data}{unit}")
    number = number if unit == "image" else f"{count(test['images'], 'image')} of {number}"
    print(f"\n{result['model']} with {result['loss']}: {number}")
    table = Table(show_header=False)
    for name, value in (
        ("test Dice", f"{test['dice']:.4f}"),
        *_of_objects(test),
        ("test IoU", f"{test['iou']:.4f}"),
        ("test boundary IoU", f"{test['boundary_iou']:.4f}"),
        ("test HD95, median", f"{test['hd95_median']:.1f} px ({count(test['hd95_failures'], 'failure')})"),
        ("parameters", f"{result['parameters']:,}"),
        ("time", f"training {result['seconds']['training']:.0f} s, total {seconds:.0f} s"),
    ):
        table.add_row(name, value)
    Console().print(table)
    width, height = result["size"]
    print(f"{_named(weights, result)}, scored at the images' original size.")
    other = "last" if weights == "best" else "best"
    if result.get("validation_without_object"):
        print("No validation image has an object at this size: their Dice says nothing, and no epoch is the best.")
    elif abs((dice := result["test"][other]["dice"]) - test["dice"]) > NOTABLE:
        print(f"{_named(other, result)}: test Dice {dice:.4f}.")
    print(
        f"Ceiling at {width}x{height} pixels: the ground truth, downscaled and upscaled again, "
        f"scores {result['ceiling']:.4f}."
    )
    if result["split"] in LEAKING:
        groups = "groups" if unit == "image" else f"{unit}s"
        print(f"WARNING: data leakage - --split {result['split']} trains on other images of the test {groups}.")
    if result["data"] == "synthetic":
        print("These are SYNTHETIC CARS: the scores say nothing about real images.")
    print(f"Run folder: {relative_to_cwd(machine.runs_dir) / result['key']}")


def _of_objects(test: dict[str, Any]) -> list[tuple[str, str]]:
    """Dice without the images that have no object: these score 1 where nothing is found in them."""
    if "dice_with_object" not in test:
        return []
    return [
        (
            "test Dice, images with an object",
            f"{test['dice_with_object']:.4f} ({test['images_without_object']} of {test['images']} have none)",
        )
    ]


def _named(weights: str, result: dict[str, Any]) -> str:
    """Name the last or best weights with the epoch that they are of."""
    name = "Last weights" if weights == "last" else "Best weights by validation Dice"
    return f"{name} (epoch {result['epochs' if weights == 'last' else 'best_epoch']} of {result['epochs']})"
