"""`--init RUN|FILE`: start from the weights of an earlier run, or of anybody else.

Tensors of the same name and shape are loaded, the others keep their random values, and the log says which. The
digest of the tensors, not the file's path, is part of the run's identity.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.training import checkpoint
from experiments.training.run_folder import headline_file
from models.weights import read_weights
from registry import InputError


def with_initial_weights(config: RunConfig, machine: RuntimeConfig) -> tuple[RunConfig, RuntimeConfig]:
    """Replace what `--init` names by the digest of its tensors, and note their file. Raises InputError."""
    if config.init is None:
        return config, machine
    path = _find(config.init, machine.output_dir)
    digest = digest_of(_read(path))
    return dataclasses.replace(config, init=digest), dataclasses.replace(machine, init_file=path.absolute())


def load_initial_weights(model: nn.Module, config: RunConfig, machine: RuntimeConfig) -> str:
    """Load the weights that fit into `model`; what was loaded, in a sentence.

    Raises InputError where the file has other tensors than the run's key says, or none fits.
    """
    assert machine.init_file is not None
    given, own = _read(machine.init_file), model.state_dict()
    if digest_of(given) != config.init:
        raise InputError(f"The weights in {machine.init_file} are no longer those that this run began with.")
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise InputError(
            f"--init: no tensor of {machine.init_file} has the name and shape of one of {config.model}. Name weights "
            "of the same network, with the same --model-kwargs."
        )
    model.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    rest = f"; random: {', '.join(left[:3])}{' …' if len(left) > 3 else ''}" if left else ""
    return f"Initial weights: {len(fitting)} of {len(own)} tensors from {machine.init_file}{rest}."


def digest_of(state: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that identify tensors by name, type, shape and bytes, however they are stored."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\t{value.dtype}\t{tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _find(name: str, output_dir: Path) -> Path:
    """The file of weights: a path, or a run's headline weights, by its folder, its key or the key's first digits."""
    path = Path(name).expanduser()
    found = (output_dir / "runs").glob(f"{name}*/config.json") if name.isalnum() else ()
    folders = [path] if path.is_dir() else sorted(config.parent for config in found)
    if path.is_file():
        return path
    if len(folders) != 1:
        what = f"{len(folders)} runs begin with it" if folders else "there is no such file or run"
        raise InputError(f"--init {name}: {what}. Give a file of weights, the folder of a run, or its key.")
    weights = folders[0] / headline_file(folders[0])
    if not weights.exists():
        raise InputError(f"--init {name}: the run has no {weights.name}. Name another run, or a file of weights.")
    return weights


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of this project, or of a state dict of anybody's. Raises InputError."""
    try:
        state = checkpoint.load(path)["model"]
    except (checkpoint.Damaged, KeyError):
        try:
            state = read_weights(path)
        except ValueError as error:
            raise InputError(f"--init: {error}") from None
    if not all(isinstance(name, str) and name.isprintable() and _is_plain(value) for name, value in state.items()):
        raise InputError(
            f"--init: {path} holds tensors that cannot be read (sparse, without data, or with names that are no text). "
            "Save an ordinary state dict."
        )
    return {name.removeprefix("module."): value for name, value in state.items()}  # of DataParallel


def _is_plain(value: Tensor) -> bool:
    return value.layout == torch.strided and not (value.is_meta or value.is_conj() or value.is_neg())
