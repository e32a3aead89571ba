"""One run, from its settings to its record.

settings -> samples -> split -> cache -> loader -> for epoch in train(...): write, checkpoint, track
         -> best and last weights on the test cars, once -> scores -> result.json -> MLflow
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from experiments import checkpoint, pictures, progress, tracking
from experiments.config import Machine, RunConfig
from experiments.data import split as splitting
from experiments.data.cache import Pixels, open_cache
from experiments.data.loader import Batches
from experiments.errors import InputError, RunFailed
from experiments.failures import explain
from experiments.prepare import Prepared
from experiments.record import Record, refuse_changed
from experiments.rehearse import rehearse
from experiments.scoring import score, test_metrics
from experiments.stopping import Interrupted, Stop
from experiments.train import Epoch, State, network, start, train
from registry import AUGMENTATIONS, LOSSES, MODELS

PICTURES = 5  # moments of the training at which the validation photographs are shown


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
    rehearse(model, config, len(prepared.parts.train))
    machine.runs_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(machine.runs_dir / f"{config.key}.lock", timeout=0.2):  # `run.py runs` tries it for a moment
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
    status, numbers, patience = "FAILED", {}, 60
    try:
        state = start(model, config)
        _take_up(state, record, config)
        _train(prepared, pixels, state, loss, record, tracker, stop)
        result = score(prepared, pixels, state, record, tracker, stop)
        result["seconds"]["this_sitting"] = round(time.perf_counter() - began, 1)
        record.finish(result)
        status, numbers = "FINISHED", test_metrics(result)
    except Interrupted:
        status, patience = "KILLED", 8  # who asked to stop does not wait for MLflow
        raise
    except (RunFailed, torch.OutOfMemoryError, RuntimeError, OSError) as error:
        reason = explain(error, config)
        record.fail(reason or f"{type(error).__name__}: {error}")
        if reason is None:
            raise
        raise RunFailed(reason) from error
    finally:
        tracker.close(
            status, numbers, [p for p in sorted(record.folder.iterdir()) if p.suffix in (".json", ".jsonl", ".csv")], patience
        )
    return result


def build_model(config: RunConfig, machine: Machine) -> nn.Module:
    """The model of `config`; its initial weights depend on the seed alone."""
    torch.manual_seed(config.seed)
    options = dict(config.model_kwargs)
    if config.weights:
        options["pretrained"] = str(machine.weights_file)
    try:
        return MODELS[config.model].build(**options)
    except OSError as error:  # weights that could not be fetched or read; the text says what to type
        raise InputError(str(error)) from None


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
    training = prepared.photographs("train", pixels, AUGMENTATIONS[config.augment].build())
    validation = prepared.photographs("val", pixels)
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
