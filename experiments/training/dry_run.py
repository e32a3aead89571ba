"""A forward pass of shapes alone, before anything is written: a model that cannot take the size or the batch says so
now.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from experiments.config.schema import RunConfig
from registry import InputError


def dry_run(model: Any, config: RunConfig, photographs: int) -> None:
    """Try `model` as it will be trained on `photographs` and evaluated, on the meta device, which computes no values.

    Raises InputError where it is no module, refuses a batch with ValueError, or returns logits of another shape. A
    model that the meta device cannot run is let through: the training will tell.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"--model {config.model} builds a {type(model).__name__}; it should build a torch.nn.Module.")
    width, height = config.size
    for training, n in ((True, max(1, min(config.batch_size, photographs))), (False, 1)):
        shape = _shape(model, config.model, (n, 3, height, width), training)
        if shape is not None and shape != (n, 1, height, width):
            raise InputError(
                f"--model {config.model} makes {_words(shape)} of photographs {_words((n, 3, height, width))}; "
                f"it should return logits {_words((n, 1, height, width))}."
            )


@torch.no_grad()
def _shape(model: nn.Module, name: str, shape: tuple[int, ...], training: bool) -> tuple[int, ...] | None:
    """The shape of the model's logits for a batch of that shape; None where it cannot be told, () where they are no
    tensor.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {key: value.to("meta") for key, value in state.items()}
    before = model.training
    model.train(training)
    try:
        with torch.random.fork_rng(
            devices=[]
        ):  # dropout draws; the run's own numbers should not depend on the rehearsal
            logits = torch.func.functional_call(model, state, (torch.empty(shape, device="meta"),))
    except ValueError as error:
        raise InputError(f"--model {name}: {error}") from None
    except Exception:  # values are looked at, a tensor is made on the CPU: whatever meta tensors do not do
        return None
    finally:
        model.train(before)
    return tuple(logits.shape) if isinstance(logits, torch.Tensor) else ()


def _words(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "something that is no tensor"
