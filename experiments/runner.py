"""One run, from its settings to its record.

settings -> samples -> split -> cache -> loader -> for epoch in train(...): write, checkpoint, track
         -> best and last weights on the test cars, once -> scores -> result.json -> MLflow
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments import checkpoint, pictures, progress, tracking
from experiments.claim import Lease, hold
from experiments.config import Machine, RunConfig
from experiments.data import split as splitting
from experiments.data.cache import Pixels, open_cache
from experiments.data.loader import Batches
from experiments.data.samples import CHANGED, fingerprint
from experiments.errors import Diverged, InputError, RunFailed, disk_trouble
from experiments.failures import explain
from experiments.prepare import Prepared
from experiments.record import Record, refuse_changed
from experiments.rehearse import rehearse
from experiments.scoring import score, test_metrics
from experiments.stopping import Interrupted, Stop
from experiments.train import Epoch, State, network, start, train
from registry import AUGMENTATIONS, LOSSES, MODELS

VALIDATION = "validation-epoch-"  # how the pictures of those moments are named
PICTURES = 5  # moments of the training at which the validation photographs are shown


@dataclass(frozen=True)
class Kind:
    """What a training is for: a run, whose result is scored on the test cars, or a tuning trial, which never sees them."""

    folder: Callable[[Machine], Path]
    conclude: Callable[[Prepared, Pixels, State, Record, tracking.Tracker, Stop], dict[str, Any]]
    numbers: Callable[[dict[str, Any]], dict[str, float]]  # of the result, for MLflow
    pictures: bool
    weights: bool  # whether the checkpoints are kept when it is finished


def validated(
    prepared: Prepared, pixels: Pixels, state: State, record: Record, tracker: tracking.Tracker, stop: Stop
) -> dict[str, Any]:
    """The result of a trial: the validation Dice of its last epoch, which nothing has selected."""
    config = prepared.config
    speeds = [row["images_per_second"] for row in record.timings()]
    return {
        "key": config.key, "model": config.model, "loss": config.loss, "seed": config.seed, "epochs": state.epoch,
        "learning_rate": config.learning_rate, "value": record.epochs()[-1]["val/dice"],
        "images_per_second": round(statistics.median(speeds), 2), "seconds": {"training": round(state.seconds, 1)},
    }  # fmt: skip


RUN = Kind(lambda machine: machine.runs_dir, score, test_metrics, pictures=True, weights=True)
TRIAL = Kind(lambda machine: machine.trials_dir, validated, lambda result: {"value": result["value"]}, False, False)


def run(
    prepared: Prepared,
    stop: Stop,
    command: list[str] | None = None,
    *,
    kind: Kind = RUN,
    session: tracking.Session | None = None,
    tags: Mapping[str, str] | None = None,
    parent: str = "",
    lease: Lease | None = None,
) -> dict[str, Any]:
    """Carry out one run, or go on with it, or find it finished; returns its result.

    A study hands over its `session`, and `tags` for MLflow; a trial is nested in its `parent` there. Who holds the run
    already hands over the `lease`.
    Raises InputError (nothing was done; Busy: another process has the run), RunFailed (the reason is in the record too)
    and Interrupted (resumable).
    """
    config, machine = prepared.config, prepared.machine
    if kind is TRIAL:
        prepared = prepared.without_test()
    record = Record(kind.folder(machine) / config.key)
    finished = record.result()
    if finished is not None:
        record.refuse_altered(config)
        record.refuse_unsealed()
        progress.say(f"The run {config.key} is finished; this is its result again. Another --seed makes another run.")
        return finished
    if kind is RUN:
        refuse_changed(config, machine)
    if config.threads:  # the order of sums depends on it; a Ray worker, say, begins with another number
        torch.set_num_threads(config.threads)
    model = build_model(config, machine)  # before anything is written: a model may refuse its options
    rehearse(model, config, len(prepared.parts.train))
    with contextlib.ExitStack() as opened:
        lease = lease or opened.enter_context(hold(record.folder))
        if (finished := record.result()) is not None:  # by another process, a moment ago
            return finished
        if session is None:
            session = opened.enter_context(tracking.session(machine.tracking_uri, machine.output_dir, progress.say))
        tracker, held = tracking.Tracker(session, tags, parent), lease
        job = _Job(prepared, kind, record, held, tracker, stop.also(lambda: held.lost))
        try:
            return _carry_out(job, model, command or sys.argv)
        except OSError as error:  # before there was a record to note it in
            if (reason := disk_trouble(error, machine.output_dir)) is None:
                raise
            raise RunFailed(reason) from error


@dataclass(frozen=True)
class _Job:
    """One training under way, and what it reports to."""

    prepared: Prepared
    kind: Kind
    record: Record
    lease: Lease
    tracker: tracking.Tracker
    stop: Stop


def _carry_out(job: _Job, model: nn.Module, command: list[str]) -> dict[str, Any]:
    prepared, record, tracker, stop = job.prepared, job.record, job.tracker, job.stop
    config, machine = prepared.config, prepared.machine
    began = time.perf_counter()
    loss = LOSSES[config.loss].build(**config.loss_kwargs)
    _refuse_other_data(prepared)
    with progress.counting("decoding photographs", stop.check) as show:
        pixels = open_cache(prepared.samples, config.size, machine.cache_dir, config.data_fingerprint, show)
    record.begin(config, machine, command)
    splitting.write_manifest(record.folder / "split.csv", prepared.parts)
    tracker.open(config, machine.data_dir)
    status, numbers, tags = "FAILED", {}, {}
    try:
        state = start(model, config)
        _take_up(state, record, config)
        _train(job, pixels, state, loss)
        result = job.kind.conclude(prepared, pixels, state, record, tracker, stop)
        _refuse_other_data(prepared)
        result["seconds"]["this_sitting"] = round(time.perf_counter() - began, 1)
        job.lease.confirm()
        record.finish(result)
        if not job.kind.weights:
            record.drop_weights()
        status, numbers = "FINISHED", job.kind.numbers(result)
    except Interrupted:
        status = "KILLED"
        job.lease.confirm()  # it is another process now that goes on with it
        raise
    except (RunFailed, torch.OutOfMemoryError, RuntimeError, MemoryError, OSError) as error:
        reason = explain(error, config)
        diverged = isinstance(error, Diverged)
        tags = {"diverged": str(diverged).lower()}
        job.lease.confirm()
        record.fail(reason or f"{type(error).__name__}: {error}", diverged)
        if reason is None or isinstance(error, RunFailed):
            raise
        raise RunFailed(reason) from error
    finally:
        if job.lease.is_mine():
            tracker.close(status, numbers, record.files(), tags)
        else:  # whoever took the run over has it in MLflow, too
            tracker.leave()
    return result


def _refuse_other_data(prepared: Prepared) -> None:
    """Raise RunFailed where the files are no longer those of the run's fingerprint, which may be days old in a study."""
    if fingerprint(prepared.samples) != prepared.config.data_fingerprint:
        raise RunFailed(CHANGED.format(prepared.samples[0].image.parent))


def try_model(config: RunConfig, machine: Machine) -> None:
    """Raise InputError or OptionError where the model refuses its options, the size or the batch. Nothing is kept."""
    rehearse(build_model(config, machine), config, config.batch_size)


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


def _train(job: _Job, pixels: Pixels, state: State, loss: Any) -> None:
    prepared, record = job.prepared, job.record
    config, machine, parts = prepared.config, prepared.machine, prepared.parts
    training = prepared.photographs("train", pixels, AUGMENTATIONS[config.augment].build())
    validation = prepared.photographs("val", pixels)
    batches = Batches(
        training, config.batch_size, machine.workers or 0, pin_memory=config.device == "cuda", steps=config.epoch_steps
    )
    progress.say(
        f"{config.model} with {config.loss}, run {config.key}: {len(parts.train)} photographs to train on, "
        f"{len(parts.val)} to validate, {len(parts.test)} to test; {config.epochs} epochs of {len(batches)} steps."
    )
    shown = {max(1, round(config.epochs * (i + 1) / PICTURES)) for i in range(PICTURES)} if job.kind.pictures else set()
    watch = progress.watched("training")
    try:
        for epoch in train(state, batches, validation, loss, config, job.stop, watch):
            _keep(epoch, state, job, config)
            if epoch.number in shown:
                path = record.folder / "pictures" / f"{VALIDATION}{epoch.number:03}.png"
                pictures.save_validation(path, state, validation)
                job.tracker.picture(path, "validation", epoch.number)
    except Interrupted:
        job.lease.confirm()
        if state.step:  # a finished epoch has been saved already
            _save_last(state, job)
        raise
    except RuntimeError as error:
        # A signal to the whole group of processes ends those that load photographs, too, and torch says so at any moment, in the
        # midst of a step: nothing is saved here, and the run goes on from its last checkpoint.
        if "DataLoader worker" in str(error) and _was_stopped(job.stop):
            raise Interrupted from error
        raise


def _was_stopped(stop: Stop) -> bool:
    """Whether this process was asked to stop: its own signal may come a moment after its children's."""
    until = time.monotonic() + 1
    while not stop() and time.monotonic() < until:
        time.sleep(0.05)
    return stop()


def _keep(epoch: Epoch, state: State, job: _Job, config: RunConfig) -> None:
    """Write an epoch down: the line, then the best weights, then the checkpoint that makes it count; then track it.

    Who has the run is asked before each write: a process that was stopped in between must not write into another's.
    """
    record, tracker = job.record, job.tracker
    line = {
        "epoch": epoch.number, "train/loss": epoch.train_loss, "val/loss": epoch.val_loss, "val/dice": epoch.val_dice,
        "val/iou": epoch.val_iou, "learning_rate": epoch.learning_rate,
    }  # fmt: skip
    job.lease.confirm()
    record.add("metrics.jsonl", line)
    job.lease.confirm()
    record.add("timing.jsonl", {"epoch": epoch.number, "seconds": epoch.seconds, "images_per_second": epoch.images_per_second})
    if epoch.is_best:
        weights = network(state.model).state_dict()
        job.lease.confirm()
        checkpoint.save(record.folder / "best.ckpt", {"epoch": epoch.number, "dice": epoch.val_dice, "model": weights})
    _save_last(state, job)
    tracker.metrics(
        {**{k: v for k, v in line.items() if k != "epoch"}, "images_per_second": epoch.images_per_second}, epoch.number
    )
    progress.say(
        f"epoch {epoch.number:>3}/{config.epochs}  train loss {epoch.train_loss:.4f}  val loss {epoch.val_loss:.4f}  "
        f"val Dice {epoch.val_dice:.4f}  IoU {epoch.val_iou:.4f}  {epoch.images_per_second:.0f} images/s  "
        f"{epoch.seconds:.1f} s{'  best' if epoch.is_best else ''}"
    )


def _save_last(state: State, job: _Job) -> None:
    job.lease.confirm()
    checkpoint.rotate(job.record.folder)
    job.lease.confirm()
    checkpoint.save(job.record.folder / "last.ckpt", state.to_dict())
