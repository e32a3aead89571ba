"""A finished run's network, found by key, by file or as the best one, and loaded without the training code.

from experiments.inference import load
model = load("outputs/runs/KEY")  # RGB in [0, 1] (N, 3, H, W) -> logits (N, 1, H, W)

A run stands for its headline weights, the ones that its reported scores are of: the last ones or, with early stopping,
the best by validation. A checkpoint that is named is used as it is. The weights are checked against their SHA-256,
nothing is unpickled, and no pretrained weights are fetched.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from torch import nn

from analysis.records import run_files
from analysis.records.files import read_json
from analysis.records.run_state import headline
from experiments.config.schema import RunConfig
from experiments.data.splits import LEAKING
from experiments.runtime.progress import log_to_stderr
from experiments.training import checkpoint, run_index
from experiments.training.run_folder import BEST, LAST, headline_file
from registry import MODELS, InputError, did_you_mean

LARGEST_SIDE = 100_000  # of a network's input, in pixels
WEIGHTS = {BEST: ", best weights by validation", LAST: ", last weights"}
UNCHOSEN = "validation_without_object"  # in result.json: no epoch is the best


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint and the run that it comes from."""

    path: Path
    config: RunConfig
    machine: dict[str, Any]  # as in config.json: where the run's inputs were

    @property
    def key(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        """Description in one line."""
        config, weights = self.config, WEIGHTS.get(self.path.name, "")
        if self.path.name == BEST and (read_json(self.path.parent / "result.json") or {}).get(UNCHOSEN):
            weights = ""
        return f"{self.key}: {config.model} with {config.loss} on {config.data}, seed {config.seed}{weights}"

    def model(self) -> nn.Module:
        """The network with its weights, on the CPU, in eval mode. Raises InputError for weights that cannot be used."""
        entry, options = MODELS[self.config.model], dict(self.config.model_kwargs)
        if self.config.weights:
            options["pretrained"] = self.machine.get("weights_file")
        model = entry.build(**entry.without_pretrained(options))  # the checkpoint has all weights
        try:
            model.load_state_dict(checkpoint.load(self.path)["model"])
        except checkpoint.Damaged as damaged:
            advice = damaged.advice or "Train the run again, or name another with --run."
            raise InputError(f"{damaged}. {advice}") from None
        except (KeyError, RuntimeError):
            raise InputError(
                f"The weights in {self.path} do not fit the {self.config.model} that config.json next to it describes."
            ) from None
        return model.eval()


def load(path: Path | str) -> nn.Module:
    """Load the network of a checkpoint with its run's config.json next to it, in eval mode on the CPU.

    Args:
        path: A checkpoint, or the folder of a run for its headline weights.

    Raises:
        InputError: The checkpoint or config.json is missing or cannot be used.
    """
    return from_path(Path(path)).model()


def from_path(path: Path) -> TrainedModel:
    """The checkpoint at `path`, or the headline weights of the run folder `path`.

    Raises InputError without config.json next to it.
    """
    path = path / headline_file(path) if path.is_dir() else path
    try:
        saved = read_json(path.parent / "config.json") or {}
        known = {field.name for field in dataclasses.fields(RunConfig)}
        values = {name: value for name, value in saved["config"].items() if name in known}
        values |= {name: tuple(values[name]) for name in ("size", "fold") if values.get(name)}
        machine = saved.get("machine") or {}
        _check_types(values, machine)
        return TrainedModel(path, RunConfig(**values), machine)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"There is no config.json of a run next to {path}; the config is required to rebuild the model. "
            "Copy it there from the run's folder."
        ) from None


def _check_types(config: dict[str, Any], machine: dict[str, Any]) -> None:
    """Raise TypeError for what no run writes, which would fail only once all images are scored."""
    kinds: dict[str, Any] = {
        "model": str,
        "loss": str,
        "data": str,
        "model_kwargs": dict,
        "loss_kwargs": dict,
        "size": tuple,
        "group_pattern": (str, NoneType),
        "foreground": (list, tuple, NoneType),
    }
    wrong = [name for name, kind in kinds.items() if name in config and not isinstance(config[name], kind)]
    size = config.get("size", (1, 1))
    if wrong or len(size) != 2 or not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in size):
        raise TypeError(", ".join(wrong or ["size"]))
    if not all(isinstance(place, (str, NoneType)) for place in machine.values()):
        raise TypeError("machine")


def find_run(name: str, output_dir: Path) -> TrainedModel:
    """The run that `--run` names: "best", a key (or its first digits) under `output_dir`, or a checkpoint or folder.

    Raises InputError, with what to type, if there is no such run or it has no weights.
    """
    if name == "best":
        return best_run(output_dir)
    if Path(name).exists():
        return from_path(Path(name))
    runs = output_dir / "runs"
    keys = sorted(path.parent.name for path in runs.glob("*/config.json"))
    matches = [key for key in keys if key.startswith(name)]
    if len(matches) != 1:
        several = f"Several runs begin with '{name}'"
        unknown = f"There is no run '{name}'{did_you_mean(name, keys)}"
        raise InputError(
            f"{several if matches else unknown} under {runs}. "
            f"List them: python run.py runs --output-dir {shlex.quote(str(output_dir))}; or use --run best."
        )
    folder = runs / matches[0]
    if not (folder / BEST).exists() and not (folder / "result.json").exists():  # last.ckpt may be of a part of an epoch
        raise InputError(
            f"The run {matches[0]} has no {BEST} yet: it has not finished an epoch. Name another run, or train it."
        )
    if not (folder / headline_file(folder)).exists():
        raise InputError(
            f"The run {matches[0]} has lost its {headline_file(folder)}, which its scores are of. Put it back from a "
            f"copy, name another checkpoint of {folder}, or train the run again."
        )
    return from_path(folder)


def best_run(output_dir: Path) -> TrainedModel:
    """The finished run whose headline weights have the highest validation Dice on Carvana or, without any, anywhere.

    Runs whose split leaks (`--split image`, `--split siblings`) do not count, nor do those without an object in their
    validation images. Raises InputError if no run is left.
    """
    finished = [
        (dice, run)
        for run in run_index.list_runs(output_dir / "runs")
        if run.state == "finished" and run.config.get("split") not in LEAKING
        if (run.folder / headline_file(run.folder)).exists()
        if (dice := _validation_dice(run.folder)) is not None
    ]
    if not finished:
        raise InputError(
            f"No finished run with weights that its validation Dice ranks lies under {output_dir / 'runs'}. "
            "Name a run, or train one: python run.py --model unet"
        )
    carvana = [(dice, run) for dice, run in finished if run.config.get("data") == "carvana"]
    candidates = carvana or finished
    dice, run = max(candidates, key=lambda candidate: candidate[0])
    where = "on Carvana" if carvana else "(no run on Carvana)"
    print(f"Best by validation Dice {where}: {dice:.4f}, of {len(candidates)} finished runs", flush=True)
    if len({_validated_on(run.config) for _, run in candidates}) > 1:
        log_to_stderr("These runs were validated on different images: a rough comparison. Choose a run with --run.")
    return from_path(run.folder)


def find_runs(name: str, ensemble: Sequence[str], output_dir: Path) -> list[TrainedModel]:
    """The runs of an ensemble or, without one, the run `name`; prints each in a line."""
    runs = [find_run(member, output_dir) for member in (ensemble or [name])]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise InputError("--ensemble names a run twice. Name each once; python run.py runs lists them.")
    for run in runs:
        print(run.name, flush=True)
    return runs


def _validated_on(config: dict[str, Any]) -> str:
    return json.dumps([config.get(name) for name in ("data_fingerprint", "split", "fold")])


def _validation_dice(folder: Path) -> float | None:
    """The validation Dice of a finished run's headline weights: of the last epoch, or the highest.

    None where none is on record, or no validation image has an object; the highest where the epochs are not.
    """
    result = read_json(folder / "result.json") or {}
    if result.get(UNCHOSEN):
        return None
    try:
        if headline(result) == "last" and (epochs := run_files.read_json_lines(folder / "metrics.jsonl")):
            return float(epochs[-1]["val/dice"])
        return float(result["validation_dice"])
    except (ValueError, KeyError, TypeError):
        return None
