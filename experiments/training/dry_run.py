"""Dry run of a model before anything is written: a forward pass of shapes shows whether it takes size and batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from experiments.config.schema import RunConfig
from experiments.runtime import progress
from registry import InputError

FULL_SIZE = "; type --progressive 0 to train at full size from the first epoch"


def dry_run(model: Any, config: RunConfig, photographs: int) -> None:
    """Try `model` on the meta device, which computes nothing, as it will be trained (on `photographs`) and evaluated.

    Raises InputError where it is no module, refuses a batch (or a micro-batch) with ValueError, or returns something
    else than float logits of the right shape. A model that the meta device cannot run passes: training will show.
    """
    name = f"--model {config.model}"
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} builds a {type(model).__name__}; it should build a torch.nn.Module.")
    if any(isinstance(weight, nn.parameter.UninitializedParameter) for weight in model.parameters()):
        raise InputError(
            f"{name} has lazy layers, whose shapes are not known yet. Run it once on an image before it is returned."
        )
    if {weight.dtype for weight in model.parameters()} - {torch.float32}:
        raise InputError(f"{name} has weights that are not float32. Return model.float().")
    width, height = config.size
    batch = max(1, min(config.batch_size, photographs))
    sizes = [(height, width)] + ([(height // 2, width // 2)] if config.half_size_epochs else [])
    fits = True  # at full size, as far as the meta device can tell
    batches = [(n, size, True) for size in sizes for n in (batch, *_parts(batch, config.accumulate))]
    for n, size, training in (*batches, (1, sizes[0], False)):
        advice = _advice(config, n) if training and n != batch else ""
        advice += "" if size == sizes[0] else f" (--progressive begins at half the size){FULL_SIZE}"
        logits = _logits(model, name, (n, 3, *size), training, advice)
        if logits is None and size != sizes[0] and fits:
            raise InputError(
                f"{name} takes images of {width}x{height}, but not of half that size, which come first{FULL_SIZE}."
            )
        fits = fits and logits is not None
        if logits is not None and tuple(logits.shape) != (n, 1, *size):
            raise InputError(
                f"{name} makes {_shape(logits.shape)} of images {_shape((n, 3, *size))}; "
                f"it should return logits {_shape((n, 1, *size))}."
            )
    if ":" in config.model and _seems_to_end_in_sigmoid(model):
        progress.log(
            f"All outputs of {name} lie between 0 and 1: it seems to end in a sigmoid. It should return logits "
            "(foreground is where they are above 0), or everything becomes foreground: leave the sigmoid out."
        )


def _seems_to_end_in_sigmoid(model: nn.Module) -> bool:
    """Whether the outputs lie between 0 and 1 even for an image of huge values, as those of a sigmoid do.

    Logits of 0 and more are foreground, so that such a model predicts foreground everywhere.
    """
    before, size = model.training, (1, 3, 64, 64)
    image = torch.rand(size, generator=torch.Generator().manual_seed(0))
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = torch.cat([model(part).flatten() for part in (image, 1e4 * image, -1e4 * image)])
    except Exception:  # too small an image, another device: unknown
        return False
    finally:
        model.train(before)
    return bool(((outputs >= 0) & (outputs <= 1)).all() and outputs.max() > outputs.min())


def _parts(batch: int, accumulate: int) -> list[int]:
    """The sizes of the micro-batches of a batch, where they differ from it."""
    each = -(-batch // min(accumulate, batch))  # as torch.chunk divides
    return sorted({each, batch % each or each} - {batch})


def _advice(config: RunConfig, part: int) -> str:
    return (
        f" (--accumulate {config.accumulate} trains a batch of {config.batch_size} in parts, one of them of {part}: "
        f"give a --batch-size that is a multiple of it, at least {2 * config.accumulate})"
    )


@torch.no_grad()
def _logits(model: nn.Module, name: str, shape: tuple[int, ...], training: bool, advice: str) -> torch.Tensor | None:
    """The model's output for a batch of this shape; None where the meta device cannot run it."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {key: value.to("meta") for key, value in state.items()}
    before = model.training
    model.train(training)
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws numbers, which the run itself must not depend on
            logits = torch.func.functional_call(model, state, (torch.empty(shape, device="meta"),))
    except ValueError as error:
        raise InputError(f"{name}: {error}{advice}") from None
    except Exception:  # it reads values, or creates a tensor on the CPU: meta tensors do neither
        return None
    finally:
        model.train(before)
    if not isinstance(logits, torch.Tensor):
        raise InputError(f"{name} returns a {type(logits).__name__}; it should return logits, one tensor.")
    return logits


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
