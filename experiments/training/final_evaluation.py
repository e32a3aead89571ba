"""The end of a run: last and best weights on the test set, and the content of result.json; of a trial, validation."""

from __future__ import annotations

import copy
import dataclasses
import functools
import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.plots import training
from analysis.records import files, run_files
from analysis.records.run_state import headline
from experiments.config.schema import RunConfig
from experiments.data import splits as splitting
from experiments.data.cache import Pixels
from experiments.data.run_inputs import RunInputs
from experiments.evaluation import evaluator
from experiments.runtime import progress
from experiments.runtime.environment import peak_memory, versions
from experiments.runtime.interrupts import Stop
from experiments.training import checkpoint, pictures
from experiments.training.loop import State, network
from experiments.training.run_folder import RunFolder


def evaluate_on_test(
    inputs: RunInputs, pixels: Pixels, state: State, run_folder: RunFolder, stop: Stop
) -> dict[str, Any]:
    """Score last and best weights on the test images, which are read here for the first and only time.

    The headline weights come first, so the picture of test images shows theirs: the last ones, which nothing has
    selected, unless early stopping was asked for.
    """
    config = inputs.config
    models = {"last": network(state.model)}
    models["best"] = _twin(state, checkpoint.load(run_folder.folder / "best.ckpt")["model"])
    weights = ("best", "last") if config.early_stopping else ("last", "best")
    test = inputs.dataset("test", pixels)
    scored: list[evaluator.ScoredImage] = []
    began = time.perf_counter()
    with progress.progress_counter("scoring test images", stop.check) as show:
        for one in evaluator.evaluate([models[name] for name in weights], test, state.device):
            scored.append(dataclasses.replace(one, predictions=[]))
            show(len(scored), len(test))
    for place, name in enumerate(weights):
        path = run_folder.folder / f"scores_{name}.csv"
        evaluator.write_scores(path, (one.rows[place] for one in scored), run_folder.confirm)
    evaluator.write_ceilings(run_folder.folder / "ceilings.csv", scored, run_folder.confirm)
    (run_folder.folder / "scores.csv").unlink(missing_ok=True)  # left by an early version that was interrupted here
    folder = run_folder.folder / "pictures"
    examples, curves = folder / "test-images.png", folder / "curves.png"
    predict = functools.partial(evaluator.predict_logits, models[weights[0]], device=state.device)
    pictures.save_examples(examples, test, [one.dice for one in scored], predict, run_folder.confirm)
    drawn = training.curves_png(run_folder.epochs(), f"{config.model} with {config.loss}, seed {config.seed}")
    files.write_atomically(curves, drawn, confirm=run_folder.confirm)
    result = _result(inputs, state, run_folder, weights[0], scored, time.perf_counter() - began)
    return result if inputs.objects("val", pixels) else {**result, "validation_without_object": True}


def _result(
    inputs: RunInputs,
    state: State,
    run_folder: RunFolder,
    headline_weights: str,
    scored: list[evaluator.ScoredImage],
    seconds: float,
) -> dict[str, Any]:
    """The content of result.json."""
    config, parts = inputs.config, inputs.parts
    tables = {name: run_files.read_score_table(run_folder.folder / f"scores_{name}.csv") for name in ("best", "last")}
    return {
        "key": config.key,
        "model": config.model,
        "loss": config.loss,
        "augment": config.augment,
        "seed": config.seed,
        "data": config.data,
        "split": config.split,
        "size": list(config.size),
        "device": _device_name(state),
        "precision": config.precision,
        "threads": config.threads,
        "headline": headline_weights,
        "test": {name: run_files.summarise_scores(table) for name, table in tables.items()},
        "ceiling": sum(one.ceiling for one in scored) / len(scored),
        "validation_dice": state.best_dice,
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        "photographs": {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)},
        "cars": {name: len({s.group for s in getattr(parts, name)}) for name in splitting.PARTS},
        "parameters": sum(p.numel() for p in network(state.model).parameters()),
        "gmacs": _gmacs(state, config.size),
        "images_per_second": _speed(run_folder, config),
        "seconds": {"training": round(state.seconds, 1), "scoring": round(seconds, 1)},
        "peak_memory_gb": _peak_memory(state),
    }


def validation_result(
    inputs: RunInputs, pixels: Pixels, state: State, run_folder: RunFolder, stop: Stop
) -> dict[str, Any]:
    """Return the result of a trial: the validation Dice of its last epoch, which nothing has selected."""
    config = inputs.config
    return {
        "key": config.key,
        "model": config.model,
        "loss": config.loss,
        "seed": config.seed,
        "epochs": state.epoch,
        "learning_rate": config.learning_rate,
        "value": run_folder.epochs()[-1]["val/dice"],
        "images_per_second": _speed(run_folder, config),
        "seconds": {"training": round(state.seconds, 1)},
    }


def _gmacs(state: State, size: tuple[int, int]) -> float:
    """Multiply-accumulates of one forward pass of one image, in billions.

    The meta device counts without computing; a network that it cannot run is counted on the run's own device.
    """
    try:
        return _gmacs_on("meta", state, size)
    except Exception:  # the network reads values, or creates a tensor on the CPU
        return _gmacs_on(state.device, state, size)


def _gmacs_on(device: torch.device | str, state: State, size: tuple[int, int]) -> float:
    model = copy.deepcopy(network(state.model)).to(device).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size[1], size[0], device=device))
    return round(counter.get_total_flops() / 2e9, 4)


def _speed(run_folder: RunFolder, config: RunConfig) -> float:
    """Training images per second, the median over epochs; the harmonic mean where they have two sizes."""
    speeds = [row["images_per_second"] for row in run_folder.timings()]
    mean = statistics.harmonic_mean if config.half_size_epochs else statistics.median
    return round(mean(speeds), 2) if speeds else 0.0


def _twin(state: State, weights: dict[str, Any]) -> nn.Module:
    """A copy of the network with other weights."""
    twin = copy.deepcopy(network(state.model))
    twin.load_state_dict(weights)
    return twin


def test_metrics(result: dict[str, Any]) -> dict[str, float]:
    """Metrics of a finished run by their MLflow names; `test/*` are those of the headline weights."""
    scores = {"test": headline(result), "test_last": "last"}
    scores |= {} if result.get("validation_without_object") else {"test_best": "best"}
    names = ("dice", "iou", "boundary_iou", "hd95_median")
    return {
        **{f"{group}/{name}": result["test"][weights][name] for group, weights in scores.items() for name in names},
        "ceiling": result["ceiling"],
        "parameters": result["parameters"],
        "gmacs": result["gmacs"],
        "training_seconds": result["seconds"]["training"],
        "peak_memory_gb": result["peak_memory_gb"],
    }


def _device_name(state: State) -> str:
    return torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else versions()["processor"]


def _peak_memory(state: State) -> float:
    """Peak memory in GB: of the device on CUDA, of the process elsewhere."""
    if state.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(state.device) / 1e9, 3)
    return round(peak_memory() / 1e9, 3)
