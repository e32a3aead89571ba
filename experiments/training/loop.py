"""The training loop: a generator that yields one Epoch at a time.

Tracking, tuning, progress bars and tests all watch it from outside, in a `for` loop, and none of them is inside it.
Read it from top to bottom: the schedule, what is trained (State), one step, one epoch, validation.

    state = start(model, config)
    for epoch in train(state, batches, validation, loss, config):
        print(epoch.number, epoch.val_dice)
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.config.schema import RunConfig
from experiments.data.dataset import Batches, ImageDataset, as_input, as_target
from experiments.runtime.environment import keep_freed_memory, reset_peak_memory
from experiments.runtime.errors import Diverged
from experiments.runtime.interrupts import Interrupted
from experiments.runtime.out_of_memory import in_fitting_parts

Loss = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[Iterable[Any]], Iterable[Any]]  # wraps the steps of an epoch, to draw a progress bar

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}  # what the network computes in
CHECK_EVERY = 50  # steps between two checks for non-finite values: each waits for the device


@dataclass
class Epoch:
    """The results of one epoch. Validation runs at the training size; Dice and IoU are averaged by car."""

    number: int  # from 1
    train_loss: float
    val_loss: float
    val_dice: float
    val_iou: float
    learning_rate: float  # of the last step
    is_best: bool
    images_per_second: float  # training alone
    seconds: float  # with validation


@dataclass
class State:
    """The complete training state between two steps: everything that a checkpoint holds."""

    device: torch.device
    autocast: torch.dtype | None  # None: float32 throughout
    model: nn.Module  # the network, or as torch.compile wraps it: see `network`
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of the loss; passes it through unless training is in fp16
    loss_sum: Tensor  # of the steps of this epoch, kept on the device
    broken: Tensor  # 1.0 once a loss or gradient was not finite; all later updates are skipped
    epoch: int = 0  # epochs finished
    step: int = 0  # steps done in the next one
    best_epoch: int = 0
    best_dice: float = -1.0
    seconds: float = 0.0  # of the finished epochs, over all sessions
    spent: float = 0.0  # on the next one, in interrupted sessions
    trained: float = 0.0  # of these, without validation

    def to_dict(self) -> dict[str, Any]:
        """The state as plain data and tensors."""
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return {
            "epoch": self.epoch,
            "step": self.step,
            "best_epoch": self.best_epoch,
            "best_dice": self.best_dice,
            "seconds": self.seconds,
            "spent": self.spent,
            "trained": self.trained,
            "loss_sum": self.loss_sum,
            "broken": self.broken,
            "model": network(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": cuda,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Restore a state saved by `to_dict`."""
        for name in ("epoch", "step", "best_epoch", "best_dice", "seconds"):
            setattr(self, name, saved[name])
        self.spent, self.trained = saved.get("spent", 0.0), saved.get("trained", 0.0)  # absent in old checkpoints
        self.loss_sum = saved["loss_sum"].to(self.device)
        self.broken = saved.get("broken", 1.0 - torch.isfinite(self.loss_sum).float()).to(self.device)
        network(self.model).load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["random"])
        if saved["cuda_random"]:  # earlier checkpoints hold that of every GPU of their machine
            torch.cuda.set_rng_state(saved["cuda_random"][0], self.device)


def learning_rate(config: RunConfig, step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps`: a function of the step alone, so there is no scheduler to save.

    one-cycle (Smith & Topin 2019): cosine up from 1/25 over the first quarter, cosine down to 1/1000 of the peak.
    cosine (Loshchilov & Hutter 2017): linear warm-up over the first 5 %, then cosine down to 0.
    `config.warmup` is the fraction of the rise where it is given.
    """
    one_cycle = config.schedule == "one-cycle"
    share = config.warmup if config.warmup is not None else 0.25 if one_cycle else 0.05
    rise = max(1, round(share * steps))
    if one_cycle:
        if step < rise:
            return config.learning_rate * _cosine(1 / 25, 1.0, step / rise)
        return config.learning_rate * _cosine(1.0, 1e-3, (step - rise) / max(1, steps - rise))
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    falls = config.schedule == "cosine"
    return config.learning_rate * (_cosine(1.0, 0.0, (step - rise) / max(1, steps - rise)) if falls else 1.0)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def start(model: nn.Module, config: RunConfig) -> State:
    """Move the model to its device in channels-last memory and create its optimizer; return the initial state."""
    reset_peak_memory()  # of an earlier run in this process
    if config.device == "cuda":
        _repeatable_cuda()
        torch.cuda.reset_peak_memory_stats()
    keep_freed_memory()
    device, autocast = torch.device(config.device), AUTOCAST[config.precision]
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    optimizer = kind(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    scaler = torch.amp.GradScaler(config.device, enabled=autocast is torch.float16)
    zero = torch.zeros((), device=device)
    if config.compile != "off":
        torch.compiler.reset()  # of earlier networks: the code that they share is compiled 8 times at most, in silence
        mode = "reduce-overhead" if config.compile == "graphs" else "default"
        model = torch.compile(model, mode=mode)  # type: ignore[assignment]
    return State(device, autocast, model, optimizer, scaler, loss_sum=zero.clone(), broken=zero.clone())


def on_device(loss: Loss, device: torch.device) -> Loss:
    """The same loss; the constants of one that is a module, such as `pos_weight`, are moved to the device."""
    if isinstance(module := getattr(loss, "func", loss), nn.Module):  # an object has its options bound
        module.to(device)
    return loss


def network(model: nn.Module) -> nn.Module:
    """The network itself, without the wrapper of torch.compile."""
    return getattr(model, "_orig_mod", model)


def forward(state: State, images: Tensor) -> Tensor:
    """Logits in float32 of images (N, 3, H, W), computed in the precision of the training."""
    if state.autocast is None:
        return state.model(images)
    with torch.autocast(state.device.type, state.autocast):
        logits = state.model(images.to(state.autocast))
    return logits.float()


def _repeatable_cuda() -> None:
    """Make the same seed give the same weights on the same GPU; warn where CUDA has no deterministic kernel."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling costs time, and nothing here reads memory before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def take_step(state: State, images: Tensor, masks: Tensor, loss: Loss, clip: float, parts: int = 1) -> None:
    """Forward, backward, clip, update. Nothing here waits for the device.

    With `parts` above 1 the batch is split into that many micro-batches whose gradients add up to those of the whole
    batch (gradient accumulation), except that BatchNorm statistics are per micro-batch.

    A non-finite loss or gradient sets `state.broken`, which disables all further updates: fused Adam reads `found_inf`
    on the device, as it does for a gradient scaler. (With fp16 an overflowing gradient is normal and left to the
    scaler, so only the loss counts, and a scale that has fallen below 1.)
    """
    value = torch.zeros_like(state.loss_sum)
    for some, truth in zip(images.chunk(parts), masks.chunk(parts), strict=True):
        piece = loss(forward(state, some), truth) * (len(some) / len(images))
        state.scaler.scale(piece).backward()
        value += piece.detach()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.optimizer.param_groups[0]["params"], clip)
    watched = value if state.scaler.is_enabled() else value + norm
    state.broken = torch.maximum(state.broken, 1.0 - torch.isfinite(watched).float())
    state.optimizer.found_inf = state.broken  # type: ignore[attr-defined]
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    state.loss_sum += value


def halved(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Halve height and width: colours are averaged; a mask pixel is 1 if more than half of its area is."""
    return F.avg_pool2d(images, 2), (F.avg_pool2d(masks, 2) > 0.5).float()


def train(
    state: State,
    batches: Batches,
    validation: ImageDataset,
    loss: Loss,
    config: RunConfig,
    stop: Callable[[], bool] = lambda: False,
    watch: Watch = lambda steps: steps,
) -> Iterator[Epoch]:
    """Train from `state` to the last epoch, yielding each Epoch once it is validated.

    Raises Interrupted between two steps once `stop()` is true, and Diverged when a loss or gradient is not finite, in
    training or in validation.
    """
    for number in range(state.epoch + 1, config.epochs + 1):
        if config.early_stopping and state.epoch - state.best_epoch >= config.early_stopping:
            return
        began = time.perf_counter()
        try:
            _steps(state, batches, loss, config, number, stop, watch)
            train_loss = float(state.loss_sum) / len(batches)
            val_loss, val_dice, val_iou = validate(state, validation, loss, config.batch_size, stop)
            if not math.isfinite(val_loss):
                raise Diverged(
                    f"The loss on the validation images is not finite after epoch {number}, which therefore does "
                    "not count. Try a lower --learning-rate, or --precision fp32."
                )
        except Interrupted:
            state.spent += time.perf_counter() - began
            raise
        is_best = val_dice > state.best_dice
        if is_best:
            state.best_epoch, state.best_dice = number, val_dice
        state.epoch, state.step = number, 0
        state.loss_sum = torch.zeros_like(state.loss_sum)
        seconds = state.spent + time.perf_counter() - began
        speed = len(batches) * batches.batch_size / state.trained
        state.seconds, state.spent, state.trained = state.seconds + seconds, 0.0, 0.0
        rate = learning_rate(config, number * len(batches) - 1, config.epochs * len(batches))
        yield Epoch(number, train_loss, val_loss, val_dice, val_iou, rate, is_best, speed, seconds)


def _steps(
    state: State, batches: Batches, loss: Loss, config: RunConfig, number: int, stop: Callable[[], bool], watch: Watch
) -> None:
    """Run the remaining steps of an epoch and time them. Raises Interrupted and Diverged."""
    device, small = state.device, config.half_size_epochs
    began = time.perf_counter()
    state.model.train()
    try:
        for images, masks in watch(batches.epoch(number, state.step)):
            rate = learning_rate(config, (number - 1) * len(batches) + state.step, config.epochs * len(batches))
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            batch = as_input(images, device), as_target(masks, device)
            if number <= small:
                batch = halved(*batch)
            take_step(state, *batch, loss, config.clip, config.accumulate)
            state.step += 1
            if state.step % CHECK_EVERY == 0:
                _refuse_broken(state, number)
            if stop():
                raise Interrupted
        _refuse_broken(state, number)
    finally:
        state.trained += time.perf_counter() - began


def _refuse_broken(state: State, epoch: int) -> None:
    if state.broken.item():
        raise Diverged(
            f"The loss or its gradient stopped being finite in epoch {epoch}; no update was made from then on. "
            "Try a lower --learning-rate, or --precision fp32."
        )
    if state.scaler.is_enabled() and state.scaler.get_scale() < 1:
        raise Diverged(
            f"In fp16 the gradient was not finite at any scale of the loss, down to 1, by epoch {epoch}; no update was "
            "made meanwhile. Try a lower --learning-rate, or --precision fp32."
        )


@torch.no_grad()
def validate(
    state: State, dataset: ImageDataset, loss: Loss, batch_size: int, stop: Callable[[], bool] = lambda: False
) -> tuple[float, float, float]:
    """Loss, Dice and IoU on `dataset` at the training size: averaged over the images of a car, then over cars.

    `batch_size` images at once, or as many as fit: a training with --accumulate needs less memory than its batch.
    """
    state.model.eval()
    counts, losses, fitting = [], [], batch_size
    for at in range(0, len(dataset), batch_size):
        if stop():
            raise Interrupted
        pairs = [dataset.augmented(0, i) for i in range(at, min(at + batch_size, len(dataset)))]
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        compare = functools.partial(_compare, state, images, masks, loss)
        parts, fitting = in_fitting_parts(compare, len(images), fitting)
        for pixels, value in parts:
            counts.append(pixels)
            losses.append(value)
    overlap, predicted, true = torch.cat(counts).cpu().numpy().astype(np.float64).T  # the only wait for the device
    dice = _ratio(2 * overlap, predicted + true)
    iou = _ratio(overlap, predicted + true - overlap)
    cars = [sample.group for sample in dataset.samples]
    return float(torch.stack(losses).sum()) / len(dataset), _by_car(dice, cars), _by_car(iou, cars)


def _compare(state: State, images: Tensor, masks: Tensor, loss: Loss, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Pixels in both, predicted, true of the images from `start` to `stop`, (N, 3); and their losses' sum."""
    truth = as_target(masks[start:stop], state.device)
    logits = forward(state, as_input(images[start:stop], state.device))
    return _counts(logits > 0, truth > 0), loss(logits, truth).detach() * (stop - start)


def _counts(prediction: Tensor, truth: Tensor) -> Tensor:
    """Pixels in both, predicted, true: (N, 3)."""
    pairs = (prediction & truth, prediction, truth)
    return torch.stack([part.flatten(1).sum(1) for part in pairs], dim=1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)  # both masks empty: a perfect score


def _by_car(values: np.ndarray, cars: list[str]) -> float:
    return float(np.mean([values[[c == car for c in cars]].mean() for car in dict.fromkeys(cars)]))
