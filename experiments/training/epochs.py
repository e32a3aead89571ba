"""The epochs of a run: taken up where it was left, trained, and each written down so that a crash at any moment costs little."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.schema import RunConfig
from experiments.data.cache import Pixels
from experiments.data.dataset import Batches
from experiments.data.run_inputs import RunInputs
from experiments.runtime import progress
from experiments.runtime.interrupts import Interrupted, Stop
from experiments.runtime.leases import Lease
from experiments.tracking import tracker as tracking
from experiments.training import checkpoint, pictures
from experiments.training.loop import Epoch, State, network, train
from experiments.training.run_folder import RunFolder
from registry import AUGMENTATIONS

VALIDATION = "validation-epoch-"  # how the pictures of those moments are named
PICTURES = 5  # moments of the training at which the validation photographs are shown


@dataclass(frozen=True)
class TrainingJob:
    """One training under way, and what it reports to."""

    prepared: RunInputs
    record: RunFolder
    lease: Lease
    tracker: tracking.Tracker
    stop: Stop
    pictures: bool  # whether the validation photographs are shown on the way


def resume(state: State, record: RunFolder, config: RunConfig) -> None:
    """Go on from the newest valid checkpoint; without one, begin."""
    saved, passed_over = checkpoint.newest(record.folder)
    for sentence in passed_over:
        progress.log(f"Passed over: {sentence}.")
    if saved is not None and saved["best_epoch"]:
        try:
            best = checkpoint.load(record.folder / "best.ckpt")
            if best["epoch"] != saved["best_epoch"]:  # written just before a kill; its epoch will be trained again
                saved["best_epoch"], saved["best_dice"] = best["epoch"], best["dice"]
        except checkpoint.Damaged as damaged:
            progress.log(f"{damaged}; the best weights are lost with it, so training begins again.")
            saved = None
    elif saved is None and passed_over:
        progress.log("No valid checkpoint is left: training begins again.")
    if saved is None:
        record.truncate_after(0)
        return
    state.load(saved)
    record.truncate_after(state.epoch)
    progress.log(f"Resuming the run {config.key} after epoch {state.epoch} of {config.epochs}, step {state.step}.")


def logged_epochs(record: RunFolder) -> tuple[float, list[tuple[dict[str, float], int, float]]]:
    """When a run began; of each of its epochs what MLflow gets, the number, and the moment, which never goes back: MLflow sorts by it."""
    spent = {row["epoch"]: row for row in record.timings()}
    ended = [row["ended"] - row.get("seconds", 0.0) for row in spent.values() if "ended" in row]
    # a folder that was copied is younger than its epochs
    began = moment = min([(record.folder / "config.json").stat().st_mtime, *ended])
    found, last = [], 0.0
    for line in record.epochs():
        timing = spent.get(line["epoch"], {})
        moment = last = max(last, timing.get("ended", moment + timing.get("seconds", 0.0)))
        speed = {name: timing[name] for name in ("images_per_second",) if name in timing}
        found.append(
            ({**{name: value for name, value in line.items() if name != "epoch"}, **speed}, int(line["epoch"]), moment)
        )
    return began, found


def picture_files(record: RunFolder) -> dict[str | tuple[str, int], Path]:
    """A run's pictures by what MLflow calls them."""
    found: dict[str | tuple[str, int], Path] = {}
    for path in sorted((record.folder / "pictures").glob("*.png")):
        number = path.stem.removeprefix(VALIDATION)
        found[("validation", int(number)) if number.isdigit() else path.name] = path
    return found


def backfill_tracker(record: RunFolder, tracker: tracking.Tracker) -> None:
    """Send what a kill kept from being sent: of the epochs that are taken up, those that MLflow lacks, and their pictures."""
    epochs = logged_epochs(record)[1]
    for values, number, moment in epochs:
        tracker.metrics(values, number, moment)
    taken_up = {number for _, number, _ in epochs}
    for name, path in picture_files(record).items():
        if isinstance(name, tuple) and name[1] in taken_up:
            tracker.picture(path, *name)


def train_epochs(job: TrainingJob, pixels: Pixels, state: State, loss: Any) -> None:
    """Train to the last epoch and write each down. Raises Interrupted, Busy once the run is another's, and what training raises."""
    prepared, record = job.prepared, job.record
    config, machine, parts = prepared.config, prepared.machine, prepared.parts
    training = prepared.dataset("train", pixels, AUGMENTATIONS[config.augment].build())
    validation = prepared.dataset("val", pixels)
    batches = Batches(
        training, config.batch_size, machine.workers or 0, pin_memory=config.device == "cuda", steps=config.epoch_steps
    )
    progress.log(
        f"{config.model} with {config.loss}, run {config.key}: {len(parts.train)} photographs to train on, "
        f"{len(parts.val)} to validate, {len(parts.test)} to test; {config.epochs} epochs of {len(batches)} steps."
    )
    shown = {max(1, round(config.epochs * (i + 1) / PICTURES)) for i in range(PICTURES)} if job.pictures else set()
    watch = progress.step_bar("training")
    try:
        for epoch in train(state, batches, validation, loss, config, job.stop, watch):
            _keep(epoch, state, job, config)
            if epoch.number in shown:
                path = record.folder / "pictures" / f"{VALIDATION}{epoch.number:03}.png"
                pictures.save_validation(path, state, validation, record.confirm)
                job.tracker.picture(path, "validation", epoch.number)
    except Interrupted:
        job.lease.confirm()
        if state.step:  # a finished epoch has been saved already
            record.save_last(state.to_dict())
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


def _keep(epoch: Epoch, state: State, job: TrainingJob, config: RunConfig) -> None:
    """Write an epoch down: the line, then the best weights, then the checkpoint that makes it count; then track it."""
    record, tracker = job.record, job.tracker
    line = {
        "epoch": epoch.number, "train/loss": epoch.train_loss, "val/loss": epoch.val_loss, "val/dice": epoch.val_dice,
        "val/iou": epoch.val_iou, "learning_rate": epoch.learning_rate,
    }  # fmt: skip
    record.add("metrics.jsonl", line)
    speed, ended = {"images_per_second": epoch.images_per_second}, time.time()
    record.add("timing.jsonl", {"epoch": epoch.number, "ended": ended, "seconds": epoch.seconds, **speed})
    if epoch.is_best:
        weights = network(state.model).state_dict()
        record.save_best({"epoch": epoch.number, "dice": epoch.val_dice, "model": weights})
    record.save_last(state.to_dict())
    tracker.metrics({**{k: v for k, v in line.items() if k != "epoch"}, **speed}, epoch.number, ended)
    progress.log(
        f"epoch {epoch.number:>3}/{config.epochs}  train loss {epoch.train_loss:.4f}  val loss {epoch.val_loss:.4f}  "
        f"val Dice {epoch.val_dice:.4f}  IoU {epoch.val_iou:.4f}  {epoch.images_per_second:.0f} images/s  "
        f"{epoch.seconds:.1f} s{'  best' if epoch.is_best else ''}"
    )
