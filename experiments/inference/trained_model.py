"""A finished run's network, found by key, by file or as the best one, and loaded without the training code.

from experiments.trained import load
model = load("outputs/runs/KEY/best.ckpt")  # RGB in [0, 1] (N, 3, H, W) -> logits (N, 1, H, W)

The weights are checked against their SHA-256, nothing is unpickled, and no pretrained weights are fetched.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from experiments.config.schema import RunConfig
from experiments.data.splits import LEAKING
from experiments.runtime.files import read_json
from experiments.runtime.progress import log_to_stderr
from experiments.training import checkpoint, run_index
from registry import MODELS, InputError, did_you_mean

BEST, LAST = "best.ckpt", "last.ckpt"


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint and the run that it comes from: its settings, and where its inputs lay."""

    path: Path
    config: RunConfig
    machine: dict[str, Any]

    @property
    def key(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        """What it is, in a line."""
        return f"{self.key}: {self.config.model} with {self.config.loss} on {self.config.data}, seed {self.config.seed}"

    def model(self) -> nn.Module:
        """The network with its weights, on the CPU, ready to predict. Raises InputError for weights that cannot be used."""
        entry, options = MODELS[self.config.model], dict(self.config.model_kwargs)
        if "pretrained" in entry.options():
            options["pretrained"] = False  # the checkpoint has all of them
        model = entry.build(**options)
        try:
            model.load_state_dict(checkpoint.load(self.path)["model"])
        except checkpoint.Damaged as damaged:
            raise InputError(f"{damaged}. Train the run again, or name another with --run.") from None
        except (KeyError, RuntimeError):
            raise InputError(
                f"The weights in {self.path} are not those of the {self.config.model} that config.json beside it describes."
            ) from None
        return model.eval()


def load(path: Path | str) -> nn.Module:
    """The network of a checkpoint whose run's config.json lies beside it. Raises InputError where it cannot be used."""
    return from_path(Path(path)).model()


def from_path(path: Path) -> TrainedModel:
    """The checkpoint at `path`, or that of the run whose folder `path` is. Raises InputError where config.json is not beside it."""
    path = path / BEST if path.is_dir() else path
    try:
        saved = read_json(path.parent / "config.json") or {}
        known = {field.name for field in dataclasses.fields(RunConfig)}
        values = {name: value for name, value in saved["config"].items() if name in known}
        values |= {name: tuple(values[name]) for name in ("size", "fold") if values.get(name)}
        return TrainedModel(path, RunConfig(**values), saved.get("machine") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"There is no config.json of a run beside {path}; without it nobody knows what network the weights belong to. "
            "Copy it there from the run's folder."
        ) from None


def find_run(asked: str, output_dir: Path) -> TrainedModel:
    """What `--run` names: "best", a key (or its first digits) under `output_dir`, or a checkpoint's file or folder.

    Raises InputError, with what to type, where there is no such run or it has no weights.
    """
    if asked == "best":
        return best_run(output_dir)
    if Path(asked).exists():
        return from_path(Path(asked))
    runs = output_dir / "runs"
    keys = sorted(path.parent.name for path in runs.glob("*/config.json"))
    found = [key for key in keys if key.startswith(asked)]
    if len(found) != 1:
        what = (
            f"Several runs begin with '{asked}'" if found else f"There is no run '{asked}'{did_you_mean(asked, keys)}"
        )
        raise InputError(
            f"{what} under {runs}. See them: python run.py runs --output-dir {output_dir}; or type --run best."
        )
    if not (runs / found[0] / BEST).exists():
        raise InputError(
            f"The run {found[0]} has no {BEST} yet: it has not finished an epoch. Name another run, or train it."
        )
    return from_path(runs / found[0])


def best_run(output_dir: Path) -> TrainedModel:
    """The finished run with the highest validation Dice on Carvana or, where there is none, on what there is.

    Runs whose split leaks (`--split image`, `--split siblings`) are left out. Raises InputError
    where no run is finished.
    """
    finished = [
        (dice, run)
        for run in run_index.list_runs(output_dir / "runs")
        if run.state == "finished" and run.config.get("split") not in LEAKING and (run.folder / BEST).exists()
        if (dice := _validation_dice(run.folder)) is not None
    ]
    if not finished:
        raise InputError(
            f"No finished run with weights lies under {output_dir / 'runs'}. Train one: python run.py --model unet"
        )
    carvana = [one for one in finished if one[1].config.get("data") == "carvana"]
    dice, run = max(carvana or finished, key=lambda one: one[0])
    data = "Carvana" if carvana else "what there is, none being on Carvana"
    print(f"Best by validation Dice on {data} ({dice:.4f}, of {len(carvana or finished)} finished):", flush=True)
    if len({_validated_on(one.config) for _, one in carvana or finished}) > 1:
        log_to_stderr(
            "They were validated on different photographs, so the comparison is rough: name a run with --run if you know better."
        )
    return from_path(run.folder)


def find_runs(asked: str, ensemble: Sequence[str], output_dir: Path) -> list[TrainedModel]:
    """The runs that are to predict, each named in a line of output: the ensemble where there is one, else `asked`."""
    found = [find_run(one, output_dir) for one in (ensemble or [asked])]
    if len({one.path.resolve() for one in found}) < len(found):
        raise InputError("--ensemble names a run twice. Name each once; python run.py runs lists them.")
    for one in found:
        print(one.name, flush=True)
    return found


def _validated_on(config: dict[str, Any]) -> str:
    return json.dumps([config.get(name) for name in ("data_fingerprint", "split", "fold")])


def _validation_dice(folder: Path) -> float | None:
    try:
        return float((read_json(folder / "result.json") or {})["validation_dice"])
    except (ValueError, KeyError, TypeError):
        return None
