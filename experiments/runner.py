"""One run, from its settings to its record.

settings -> samples -> split -> cache -> loader -> for epoch in train(...): write, checkpoint, track
         -> best and last weights on the test cars, once -> scores -> result.json -> MLflow
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from analysis import figures, records
from experiments import checkpoint, evaluate, pictures, progress, tracking
from experiments.config import Machine, RunConfig
from experiments.data import split as splitting
from experiments.data.cache import Pixels, open_cache
from experiments.data.loader import Batches, Photographs
from experiments.data.samples import Sample, fingerprint
from experiments.errors import InputError, RunFailed
from experiments.failures import explain
from experiments.record import Record, refuse_changed, versions
from experiments.stopping import Interrupted, Stop
from experiments.train import Epoch, State, network, start, train
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS

PICTURES = 5  # moments of the training at which the validation photographs are shown


@dataclass(frozen=True)
class Prepared:
    """A run with its data at hand: the config is complete now."""

    config: RunConfig
    machine: Machine
    samples: list[Sample]
    parts: splitting.Split


def prepare(config: RunConfig, machine: Machine, stop: Stop) -> Prepared:
    """List the samples, fingerprint them and divide them. Raises InputError for data that cannot be used."""
    entry = DATASETS[config.data]
    known = entry.options()
    options: dict[str, Any] = {"data_dir": machine.data_dir}
    if "group_pattern" in known:
        options["group_pattern"] = config.group_pattern
    if "progress" in known:
        with progress.counting(f"making synthetic cars in {machine.data_dir}", stop.check) as show:
            samples = entry.build(**options, progress=show)
    else:
        samples = entry.build(**options)
    if machine.split_file:
        parts = splitting.read_manifest(machine.split_file, samples)
        config = dataclasses.replace(config, split=f"file:{_manifest_hash(parts)}")
    else:
        parts = splitting.split(samples, by=config.split, seed=config.seed, fold=config.fold)
    if config.train_cars is not None:
        parts = dataclasses.replace(parts, train=splitting.first_cars(parts.train, config.train_cars))
    return Prepared(dataclasses.replace(config, data_fingerprint=fingerprint(samples)), machine, samples, parts)


def run(prepared: Prepared, stop: Stop, command: list[str] | None = None) -> dict[str, Any]:
    """Carry out one run, or go on with it, or find it finished; returns its result.

    Raises InputError (nothing was done), RunFailed (the reason is in the record too) and Interrupted (resumable).
    """
    config, machine = prepared.config, prepared.machine
    record = Record(machine.runs_dir / config.key)
    finished = record.result()
    if finished is not None:
        record.refuse_altered(config)
        progress.say(f"The run {config.key} is finished; this is its result again. Another --seed makes another run.")
        return finished
    refuse_changed(config, machine)
    model = build_model(config, machine)  # before anything is written: a model may refuse its options
    machine.runs_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(machine.runs_dir / f"{config.key}.lock", timeout=0):
            return _carry_out(prepared, model, record, stop, command or sys.argv)
    except Timeout:
        raise InputError(
            f"The run {config.key} is being carried out by another process. Wait for it, or choose another --seed."
        ) from None


def _carry_out(prepared: Prepared, model: nn.Module, record: Record, stop: Stop, command: list[str]) -> dict[str, Any]:
    config, machine = prepared.config, prepared.machine
    began = time.perf_counter()
    loss = LOSSES[config.loss].build(**config.loss_kwargs)
    with progress.counting("decoding photographs", stop.check) as show:
        pixels = open_cache(prepared.samples, config.size, machine.cache_dir, config.data_fingerprint, show)
    record.begin(config, machine, command)
    splitting.write_manifest(record.folder / "split.csv", prepared.parts)
    tracker = tracking.Tracker(machine.tracking_uri, machine.output_dir, progress.say)
    tracker.open(config, machine.data_dir)
    status, numbers = "FAILED", {}
    try:
        state = start(model, config)
        _take_up(state, record, config)
        _train(prepared, pixels, state, loss, record, tracker, stop)
        result = _score(prepared, pixels, state, record, tracker, stop)
        result["seconds"]["this_sitting"] = round(time.perf_counter() - began, 1)
        record.finish(result)
        status, numbers = "FINISHED", _test_metrics(result)
    except Interrupted:
        status = "KILLED"
        raise
    except (RunFailed, torch.OutOfMemoryError, RuntimeError, OSError) as error:
        reason = explain(error, config)
        record.fail(reason or f"{type(error).__name__}: {error}")
        if reason is None:
            raise
        raise RunFailed(reason) from error
    finally:
        tracker.close(status, numbers, [p for p in sorted(record.folder.iterdir()) if p.suffix in (".json", ".jsonl", ".csv")])
    return result


def build_model(config: RunConfig, machine: Machine) -> nn.Module:
    """The model of `config`; its initial weights depend on the seed alone."""
    torch.manual_seed(config.seed)
    options = dict(config.model_kwargs)
    if config.weights:
        options["pretrained"] = str(machine.weights_file)
    return MODELS[config.model].build(**options)


def _take_up(state: State, record: Record, config: RunConfig) -> None:
    """Go on from the newest valid checkpoint; without one, begin."""
    saved, passed_over = checkpoint.newest(record.folder)
    for sentence in passed_over:
        progress.say(f"Passed over: {sentence}.")
    if saved is not None and saved["best_epoch"]:
        try:
            best = checkpoint.load(record.folder / "best.ckpt")
            if best["epoch"] != saved["best_epoch"]:  # written just before a kill; its epoch will be trained again
                saved["best_epoch"], saved["best_dice"] = best["epoch"], best["dice"]
        except checkpoint.Damaged as damaged:
            progress.say(f"{damaged}; the best weights are lost with it, so training begins again.")
            saved = None
    elif saved is None and passed_over:
        progress.say("No valid checkpoint is left: training begins again.")
    if saved is None:
        record.keep_epochs(0)
        return
    state.load(saved)
    record.keep_epochs(state.epoch)
    progress.say(f"Resuming the run {config.key} after epoch {state.epoch} of {config.epochs}, step {state.step}.")


def _train(
    prepared: Prepared, pixels: Pixels, state: State, loss: Any, record: Record, tracker: tracking.Tracker, stop: Stop
) -> None:
    config, machine, parts = prepared.config, prepared.machine, prepared.parts
    rows = {sample: row for row, sample in enumerate(prepared.samples)}
    augmentation = AUGMENTATIONS[config.augment].build()
    training = Photographs(parts.train, config.size, augmentation, config.seed, pixels, [rows[s] for s in parts.train])
    validation = Photographs(parts.val, config.size, pixels=pixels, rows=[rows[s] for s in parts.val])
    batches = Batches(training, config.batch_size, machine.workers or 0, pin_memory=config.device == "cuda")
    progress.say(
        f"{config.model} with {config.loss}, run {config.key}: {len(parts.train)} photographs to train on, "
        f"{len(parts.val)} to validate, {len(parts.test)} to test; {config.epochs} epochs of {len(batches)} steps."
    )
    shown = {max(1, round(config.epochs * (i + 1) / PICTURES)) for i in range(PICTURES)}
    watch = progress.watched("training")
    try:
        for epoch in train(state, batches, validation, loss, config, stop, watch):
            _keep(epoch, state, record, tracker, config)
            if epoch.number in shown:
                path = record.folder / "pictures" / f"validation-epoch-{epoch.number:03}.png"
                pictures.save_validation(path, state, validation)
                tracker.picture(path, "validation", epoch.number)
    except Interrupted:
        if state.step:  # a finished epoch has been saved already
            _save_last(state, record.folder)
        raise


def _keep(epoch: Epoch, state: State, record: Record, tracker: tracking.Tracker, config: RunConfig) -> None:
    """Write an epoch down: the line, then the best weights, then the checkpoint that makes it count; then track it."""
    line = {
        "epoch": epoch.number, "train/loss": epoch.train_loss, "val/loss": epoch.val_loss, "val/dice": epoch.val_dice,
        "val/iou": epoch.val_iou, "learning_rate": epoch.learning_rate,
    }  # fmt: skip
    record.add("metrics.jsonl", line)
    record.add("timing.jsonl", {"epoch": epoch.number, "seconds": epoch.seconds, "images_per_second": epoch.images_per_second})
    if epoch.is_best:
        weights = network(state.model).state_dict()
        checkpoint.save(record.folder / "best.ckpt", {"epoch": epoch.number, "dice": epoch.val_dice, "model": weights})
    _save_last(state, record.folder)
    tracker.metrics(
        {**{k: v for k, v in line.items() if k != "epoch"}, "images_per_second": epoch.images_per_second}, epoch.number
    )
    progress.say(
        f"epoch {epoch.number:>3}/{config.epochs}  train loss {epoch.train_loss:.4f}  val loss {epoch.val_loss:.4f}  "
        f"val Dice {epoch.val_dice:.4f}  IoU {epoch.val_iou:.4f}  {epoch.images_per_second:.0f} images/s  "
        f"{epoch.seconds:.1f} s{'  best' if epoch.is_best else ''}"
    )


def _save_last(state: State, folder: Path) -> None:
    checkpoint.rotate(folder)
    checkpoint.save(folder / "last.ckpt", state.to_dict())


def _score(
    prepared: Prepared, pixels: Pixels, state: State, record: Record, tracker: tracking.Tracker, stop: Stop
) -> dict[str, Any]:
    """Best and last weights on the test photographs, which are read here for the first and only time."""
    config, parts = prepared.config, prepared.parts
    models = [_twin(state, checkpoint.load(record.folder / "best.ckpt")["model"]), network(state.model)]
    rows = {sample: row for row, sample in enumerate(prepared.samples)}
    test = Photographs(parts.test, config.size, pixels=pixels, rows=[rows[s] for s in parts.test])
    scored: list[evaluate.Scored] = []
    began = time.perf_counter()
    with progress.counting("scoring test photographs", stop.check) as show:

        def collect(one: evaluate.Scored) -> None:
            scored.append(dataclasses.replace(one, predictions=[]))
            show(len(scored), len(test))

        lowest = evaluate.worst(evaluate.evaluate(models, test, state.fabric.device), pictures.SHOWN, collect)
    for name, which in (("scores.csv", 0), ("scores_last.csv", 1)):
        evaluate.write_scores(record.folder / name, (one.rows[which] for one in scored))
    worst, curves = record.folder / "pictures" / "worst-test-photographs.png", record.folder / "pictures" / "curves.png"
    pictures.save_worst(worst, test, lowest)
    figures.save_curves(curves, record.epochs(), f"{config.model} with {config.loss}, seed {config.seed}")
    tracker.picture(worst, "worst")
    tracker.picture(curves, "curves")
    tables = {
        name: records.read_scores(record.folder / file) for name, file in (("best", "scores.csv"), ("last", "scores_last.csv"))
    }
    return {
        "key": config.key, "model": config.model, "loss": config.loss, "augment": config.augment, "seed": config.seed,
        "data": config.data, "split": config.split, "size": list(config.size), "device": _device_name(state),
        "precision": config.precision, "threads": config.threads,
        "test": {name: records.summarise(table) for name, table in tables.items()},
        "ceiling": sum(one.ceiling for one in scored) / len(scored),
        "validation_dice": state.best_dice, "best_epoch": state.best_epoch, "epochs": state.epoch,
        "photographs": {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)},
        "cars": {name: len({s.group for s in getattr(parts, name)}) for name in splitting.PARTS},
        "parameters": sum(p.numel() for p in network(state.model).parameters()),
        "seconds": {"training": round(state.seconds, 1), "scoring": round(time.perf_counter() - began, 1)},
        "peak_memory_gb": _peak_memory(state),
    }  # fmt: skip


def _twin(state: State, weights: dict[str, Any]) -> nn.Module:
    """A second network of the same kind with other weights."""
    twin = copy.deepcopy(network(state.model))
    twin.load_state_dict(weights)
    return twin


def _test_metrics(result: dict[str, Any]) -> dict[str, float]:
    best, last = result["test"]["best"], result["test"]["last"]
    names = ("dice", "iou", "boundary_iou", "hd95_median")
    return {
        **{f"test/{name}": best[name] for name in names},
        **{f"test_last/{name}": last[name] for name in names},
        "ceiling": result["ceiling"], "parameters": result["parameters"], "training_seconds": result["seconds"]["training"],
        "peak_memory_gb": result["peak_memory_gb"],
    }  # fmt: skip


def _device_name(state: State) -> str:
    return torch.cuda.get_device_name(state.fabric.device) if state.fabric.device.type == "cuda" else versions()["processor"]


def _peak_memory(state: State) -> float:
    """Of the device on CUDA, of the process elsewhere; gigabytes."""
    if state.fabric.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(state.fabric.device) / 1e9, 3)
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def _manifest_hash(parts: splitting.Split) -> str:
    lines = sorted(f"{s.name},{name}\n" for name in splitting.PARTS for s in getattr(parts, name))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
