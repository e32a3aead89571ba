"""The epochs of a run: resumed from the last checkpoint, trained, each recorded so that a crash costs little."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.config.schema import RunConfig
from experiments.data.cache import Pixels
from experiments.data.dataset import Batches
from experiments.data.run_inputs import RunInputs
from experiments.runtime import progress
from experiments.runtime.interrupts import Interrupted, Stop
from experiments.runtime.leases import Lease
from experiments.runtime.progress import count
from experiments.tracking.upload import RUNNING, RunUpload
from experiments.training import checkpoint, pictures
from experiments.training.loop import Epoch, State, network, train
from experiments.training.run_folder import RunFolder
from experiments.training.run_snapshot import VALIDATION, snapshot
from registry import AUGMENTATIONS, InputError

PICTURES = 5  # epochs after which validation images are drawn
FEW_STEPS, USUAL_STEPS = 200, 1000  # below the first a run says so; the second is what networks of this size need


@dataclass(frozen=True)
class TrainingJob:
    """One training in progress: its inputs, its folder, and what it reports to."""

    inputs: RunInputs
    run_folder: RunFolder
    lease: Lease
    stop: Stop
    pictures: bool  # whether pictures of validation images are drawn during training
    upload: RunUpload
    tags: Mapping[str, str]  # in MLflow, besides those that every run has
    parent: str  # the key of the run that this one is nested in there

    def track(
        self, status: str = RUNNING, metrics: Mapping[str, float] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Upload to MLflow what it lacks of the run's folder."""
        config, data_dir = self.inputs.config, self.inputs.machine.data_dir
        every = {**self.tags, **(tags or {})}
        try:
            run = snapshot(self.run_folder, config, data_dir, every, self.parent, status, metrics)
        except (InputError, KeyError, TypeError, ValueError):  # damaged, which the run itself refuses
            self.upload.leave()
        else:
            self.upload.update(run)


def _announce(inputs: RunInputs, steps: int) -> None:
    """Say what will be trained on what for how long, and whether that is short."""
    config, parts = inputs.config, inputs.parts
    progress.log(
        f"{config.model} with {config.loss}, run {config.key}: {count(len(parts.train), 'image')} to train on, "
        f"{len(parts.val)} to validate, {len(parts.test)} to test; {count(config.epochs, 'epoch')} of "
        f"{count(steps, 'step')}."
    )
    if advice := few_steps(config.epochs, steps):
        progress.log(f"That is {advice}.")


def few_steps(epochs: int, steps: int) -> str:
    """What to say of a training with few steps in all; nothing where there are enough."""
    if epochs * steps >= FEW_STEPS:
        return ""
    return f"very little training: --epochs {math.ceil(USUAL_STEPS / steps)} would give about {USUAL_STEPS:,} steps"


def resume(state: State, run_folder: RunFolder, config: RunConfig) -> None:
    """Load the newest valid checkpoint; without one, training starts from the beginning."""
    saved, damages = checkpoint.newest(run_folder.folder)
    for damage in damages:
        progress.log(f"Skipping checkpoint: {damage}.")
    if saved is not None and saved["best_epoch"]:
        try:
            best = checkpoint.load(run_folder.folder / "best.ckpt")
            if best["epoch"] != saved["best_epoch"]:  # written just before a kill; its epoch will be trained again
                saved["best_epoch"], saved["best_dice"] = best["epoch"], best["dice"]
        except checkpoint.Damaged as damaged:
            progress.log(f"{damaged}; the best weights are lost with it, so training begins again.")
            saved = None
    elif saved is None and damages:
        progress.log("No valid checkpoint is left: training begins again.")
    if saved is None:
        run_folder.truncate_after(0)
        return
    state.load(saved)
    run_folder.truncate_after(state.epoch)
    progress.log(f"Resuming the run {config.key} after epoch {state.epoch} of {config.epochs}, step {state.step}.")


def train_epochs(job: TrainingJob, pixels: Pixels, state: State, loss: Any) -> None:
    """Train to the last epoch and record each. Raises Interrupted, Busy (lease lost), and what training raises."""
    inputs, run_folder = job.inputs, job.run_folder
    config, machine = inputs.config, inputs.machine
    training = inputs.dataset("train", pixels, AUGMENTATIONS[config.augment].build())
    validation = inputs.dataset("val", pixels)
    batches = Batches(
        training, config.batch_size, machine.workers or 0, pin_memory=config.device == "cuda", steps=config.epoch_steps
    )
    _announce(inputs, len(batches))
    pictured = {max(1, round(config.epochs * (i + 1) / PICTURES)) for i in range(PICTURES)} if job.pictures else set()
    watch, chosen = progress.step_bar("training"), inputs.objects("val", pixels) > 0
    try:
        for epoch in train(state, batches, validation, loss, config, job.stop, watch):
            _record_epoch(epoch, state, run_folder, config, chosen)
            if epoch.number in pictured:
                path = run_folder.folder / "pictures" / f"{VALIDATION}{epoch.number:03}.png"
                pictures.save_validation(path, state, validation, run_folder.confirm)
            job.track()
    except Interrupted:
        job.lease.confirm()
        if state.step:  # a finished epoch has been saved already
            run_folder.save_last(state.to_dict())
        raise
    except RuntimeError as error:
        # A signal to the whole process group also ends the data-loading workers, and torch reports that in the middle
        # of a step: nothing is saved here, and the run resumes from its last checkpoint.
        if "DataLoader worker" in str(error) and _was_stopped(job.stop):
            raise Interrupted from error
        raise


def _was_stopped(stop: Stop) -> bool:
    """Whether this process was asked to stop: its own signal may come a moment after its children's."""
    until = time.monotonic() + 1
    while not stop() and time.monotonic() < until:
        time.sleep(0.05)
    return stop()


def _record_epoch(epoch: Epoch, state: State, run_folder: RunFolder, config: RunConfig, chosen: bool) -> None:
    """Write an epoch's line, then the best weights, then the checkpoint that makes it count.

    `chosen`: the validation images hold an object, so that their Dice says which epoch is best.
    """
    line = {
        "epoch": epoch.number,
        "train/loss": epoch.train_loss,
        "val/loss": epoch.val_loss,
        "val/dice": epoch.val_dice,
        "val/iou": epoch.val_iou,
        "learning_rate": epoch.learning_rate,
    }
    run_folder.add("metrics.jsonl", line)
    speed, ended = {"images_per_second": epoch.images_per_second}, time.time()
    run_folder.add("timing.jsonl", {"epoch": epoch.number, "ended": ended, "seconds": epoch.seconds, **speed})
    if epoch.is_best:
        weights = network(state.model).state_dict()
        run_folder.save_best({"epoch": epoch.number, "dice": epoch.val_dice, "model": weights})
    run_folder.save_last(state.to_dict())
    progress.log(
        f"epoch {epoch.number:>3}/{config.epochs}  train loss {epoch.train_loss:.4f}  val loss {epoch.val_loss:.4f}  "
        f"val Dice {epoch.val_dice:.4f}  IoU {epoch.val_iou:.4f}  {epoch.images_per_second:.0f} images/s  "
        f"{epoch.seconds:.1f} s{'  best' if epoch.is_best and chosen else ''}"
    )
