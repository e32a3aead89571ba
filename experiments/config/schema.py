"""What decides a result (RunConfig), what does not (Machine), and the presets.

A run's identity is the hash of its RunConfig: the name of its folder, a tag in MLflow, and the reason why a finished
run is skipped and an interrupted one is resumed. So every field of RunConfig must be able to change the result, and
nothing that can change it may be missing. Paths, workers and addresses live in Machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Raised by hand whenever the code's meaning changes: the numbers of two protocols are never put into one table.
PROTOCOL = 1

PRECISIONS = ("auto", "bf16", "fp16", "fp32")

DEVICES = ("auto", "cuda", "mps", "cpu")

OPTIMIZERS = ("adam", "adamw")

SCHEDULES = ("cosine", "one-cycle", "constant")

COMPILE = ("off", "default", "graphs")

SPLITS = ("car", "image", "siblings", "strangers")  # see data/split.py


def setting(default: Any, text: str) -> Any:
    """A field that a user sets: its default and its line in `--help`."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of one run. The first block is set by the user, the second found out."""

    model: str = setting("unet", "the network")
    model_kwargs: Mapping[str, Any] = setting({}, "the model's options, as KEY=VALUE words")
    loss: str = setting("bce_dice", "the loss function")
    loss_kwargs: Mapping[str, Any] = setting({}, "the loss's options, as KEY=VALUE words")
    augment: str = setting("flip", "the augmentation of the training photographs")
    data: str = setting("carvana", "the data set")
    group_pattern: str | None = setting(
        None, "folder data: a regular expression whose (first) group names a photo's group"
    )
    size: tuple[int, int] = setting((192, 128), "the size that the network sees, WIDTHxHEIGHT in pixels")
    epochs: int = setting(10, "passes over the training photographs")
    batch_size: int = setting(8, "photographs in a step")
    epoch_steps: int | None = setting(
        None, "steps in an epoch (default: as many as show each training photograph once)"
    )
    learning_rate: float = setting(1e-3, "the highest learning rate of the schedule")
    optimizer: str = setting("adamw", "adam or adamw")
    weight_decay: float = setting(0.01, "decay of the weights (adamw: decoupled; adam: L2)")
    schedule: str = setting("one-cycle", "cosine (after a warm-up), one-cycle or constant (after a warm-up)")
    clip: float = setting(1.0, "largest norm of the gradient")
    early_stopping: int = setting(0, "stop after this many epochs without a better validation Dice (0: never)")
    progressive: float = setting(
        0.0, "share of the epochs, from the first, that see photographs at half the size, for speed"
    )
    accumulate: int = setting(1, "divide each batch into so many parts, for less memory; BatchNorm then sees the parts")
    compile: str = setting("off", "torch.compile: off, default, or graphs (with CUDA graphs, for small steps on a GPU)")
    seed: int = setting(0, "decides initial weights, batch order and augmentation")
    split: str = setting(
        "car",
        "car; image (by photograph), siblings and strangers (with and without others of the test cars) measure the leak",
    )
    fold: tuple[int, int] | None = setting(None, "cross-validation over cars: K/N is fold K of N, counted from 0")
    train_cars: int | None = setting(None, "train on the first N training cars only")
    precision: str = setting("auto", "auto, bf16, fp16 or fp32")
    device: str = setting("auto", "auto (CUDA, else MPS, else CPU), cuda, mps or cpu")

    data_fingerprint: str = ""  # of the photographs and masks themselves
    weights: str = ""  # SHA-256 of the file that `pretrained=PATH` names
    threads: int = 0  # on the CPU they decide the order of sums, hence the last bits; 0 elsewhere
    protocol: int = PROTOCOL

    @property
    def key(self) -> str:
        """The run's identity: 16 hexadecimal digits of the SHA-256 of all fields."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON knows them (tuples are lists)."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The inverse of `to_dict`. Raises TypeError for a field that is not known or missing."""
        missing = {f.name for f in dataclasses.fields(cls)} - set(values)
        if missing:
            raise TypeError(f"missing fields: {', '.join(sorted(missing))}")
        pairs = {name: tuple(values[name]) for name in ("size", "fold") if values[name] is not None}
        return cls(**{**values, **pairs})

    def settings(self) -> dict[str, Any]:
        """The fields that a user sets, as JSON knows them: what "the same command" means."""
        names = setting_fields()
        return {name: value for name, value in self.to_dict().items() if name in names}


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how a run is carried out: none of it changes the result, so none of it is in the key."""

    data_dir: Path = Path("data/carvana")
    output_dir: Path = Path("outputs")
    tracking_uri: str | None = None
    optuna_storage: str | None = None
    workers: int | None = None
    split_file: Path | None = None
    weights_file: Path | None = None
    progress: bool = True

    @property
    def runs_dir(self) -> Path:
        return self.output_dir / "runs"

    @property
    def trials_dir(self) -> Path:
        return self.output_dir / "trials"

    @property
    def cache_dir(self) -> Path:
        return self.output_dir / "cache"


def without_password(text: str) -> str:
    """`text` with the password of every URI in it left out: what may be printed and recorded."""
    return re.sub(r"(\w://[^\s/:@]*):[^\s/]*@", r"\1:***@", text)


# The lines of `--help` for what a user sets of Machine.
RUNTIME_HELP = {
    "data_dir": "where the photographs lie (default: data/ and the data set's name)",
    "workers": "processes that load photographs (default: none on the CPU, up to 8 with a GPU)",
    "split_file": "a CSV of image,part that divides the data by hand; no group may be on two sides",
}


def setting_fields() -> dict[str, dataclasses.Field[Any]]:
    """The fields of RunConfig that a user sets, by name."""
    return {f.name: f for f in dataclasses.fields(RunConfig) if "help" in f.metadata}


# What a preset sets; `width` goes to the models that take it. The command line and the config file win over a preset.
PRESETS: dict[str, dict[str, Any]] = {
    "demo": dict(
        data="synthetic", size=(192, 128), width=16, epochs=8, batch_size=8, learning_rate=3e-3, augment="flip",
    ),
    "carvana": dict(  # the classic set-up of the Kaggle U-Nets
        data="carvana", size=(572, 572), width=64, epochs=20, batch_size=4, learning_rate=1e-4, augment="flip",
        optimizer="adam", weight_decay=0.0, schedule="cosine", early_stopping=5,
    ),
    "carvana-fast": dict(
        data="carvana", size=(384, 256), width=64, epochs=20, batch_size=16, learning_rate=1e-3, augment="flip",
    ),
    "carvana-cpu": dict(
        data="carvana", size=(192, 128), width=16, epochs=10, batch_size=8, learning_rate=3e-3, augment="flip",
    ),
}  # fmt: skip

# Where each data set is looked for when `--data-dir` is not given.
DATA_DIRS = {"carvana": Path("data/carvana"), "folder": Path("data/folder"), "synthetic": Path("data/synthetic")}


def output_flag(output_dir: Path) -> str:
    """What to add to a command that is to look there: nothing for the folder that it would look in anyway."""
    return "" if near(output_dir) == Path("outputs") else f" --output-dir {near(output_dir)}"


def near(place: Path) -> Path:
    return place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
