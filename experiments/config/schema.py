"""What decides a result (RunConfig), what does not (RuntimeConfig), and the presets.

A run's identity is the hash of its RunConfig: the name of its folder, a tag in MLflow, and the reason why a finished
run is skipped and an interrupted one is resumed. So every field of RunConfig must be able to change the result, and
nothing that can change it may be missing. Paths, workers and addresses live in RuntimeConfig.

Keys are for ever. A field added later is declared with `since=VERSION` and defaults to the old behaviour: it is left
out of `to_dict` (and so of the key) while it has its default, and counts as its default where a saved config lacks it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import shlex
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from analysis.records.files import relative_to_cwd
from experiments.config.types import (
    Compile,
    Count,
    CountOrZero,
    Device,
    Fold,
    Foreground,
    Intensity,
    MaskChannel,
    MaskExif,
    NonNegative,
    Optimizer,
    Options,
    Positive,
    Precision,
    Schedule,
    Share,
    Size,
    SplitBy,
    TrainDraw,
    without_none,
)

# Results of two protocols are never put into one table. New behaviour is a new field, so this stays 1.
PROTOCOL = 1


# Settings that are determined from the data where they are not given.
FROM_DATA = ("intensity", "mask_channel")


UNITS = {"carvana": "car", "synthetic": "car", "nuclei": "image", "oxford_pet": "image"}


def setting(default: Any, text: str, group: str = "Training", since: str | None = None) -> Any:
    """A field that a user sets: its default, its line and group in `--help`, and the version that added it."""
    metadata = {"help": text, "group": group} | ({"since": since} if since else {})
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of one run. The user sets the first block; the second is determined."""

    model: str = setting("unet", "network", "Model and loss")
    model_kwargs: Options = setting({}, "model options, as KEY=VALUE", "Model and loss")
    init: str | None = setting(
        None, "start from the weights of a run (its key) or of a file", "Model and loss", since="0.2"
    )
    loss: str = setting("bce_dice", "loss function", "Model and loss")
    loss_kwargs: Options = setting({}, "loss options, as KEY=VALUE", "Model and loss")
    augment: str = setting("flip", "augmentation of the training images", "Data")
    data: str = setting("carvana", "data set", "Data")
    group_pattern: str | None = setting(
        None, "folder data: regular expression whose (first) group is an image's group", "Data"
    )
    foreground: Foreground = setting(
        (),
        "masks of classes: values and colours (R,G,B) that are the object, or nonzero: any value but 0 "
        "(default: masks are binary)",
        "Data",
        since="0.2",
    )
    mask_channel: MaskChannel = setting(
        "auto", "channel that holds the masks; auto is alpha where nothing else varies", "Data", since="0.2"
    )
    mask_exif: MaskExif = setting(
        "own",
        "EXIF rotation of masks: their own, or that of their image, for masks drawn on raw pixels",
        "Data",
        since="0.2",
    )
    intensity: Intensity | None = setting(
        None,
        "black and white in images of more than 8 bits (default: the training images' lowest and highest value)",
        "Data",
        since="0.2",
    )
    size: Size = setting((192, 128), "input size of the network, in pixels", "Data")
    epochs: Count = setting(10, "number of epochs")
    batch_size: Count = setting(8, "batch size")
    epoch_steps: Count | None = setting(None, "steps per epoch (default: one pass over the training set)")
    learning_rate: Positive = setting(1e-3, "peak learning rate")
    optimizer: Optimizer = setting("adamw", "optimizer")
    weight_decay: NonNegative = setting(0.01, "weight decay (adamw: decoupled; adam: L2)")
    schedule: Schedule = setting("one-cycle", "learning-rate schedule (cosine and constant start with a warm-up)")
    warmup: Share | None = setting(
        None,
        "fraction of the steps in which the learning rate rises (default: 0.25 with one-cycle, else 0.05)",
        since="0.2",
    )
    clip: Positive = setting(1.0, "gradient-clipping norm")
    early_stopping: CountOrZero = setting(
        0, "early-stopping patience, in epochs (0 disables); with it the best weights by validation count, not the last"
    )
    progressive: Share = setting(0.0, "fraction of the epochs, from the first, at half the input size, for speed")
    accumulate: Count = setting(
        1, "gradient accumulation: number of micro-batches per step (BatchNorm statistics are per micro-batch)"
    )
    compile: Compile = setting(
        "off", "torch.compile mode; graphs uses CUDA graphs, for small steps on a GPU", "Machine"
    )
    seed: CountOrZero = setting(0, "seed of the initial weights, batch order and augmentation")
    split: SplitBy | str = setting(  # or "file:" and the hash of --split-file
        "car",
        "split by group (car) or image; siblings and strangers (with and without other views of test cars) show leaks",
        "Data",
    )
    fold: Fold | None = setting(None, "cross-validation over groups: fold K of N, counted from 0", "Data")
    train_cars: Count | None = setting(None, "train on N training groups (cars) only", "Data")
    train_draw: TrainDraw = setting(
        "first", "which --train-cars: the first in the ranking, or a draw by --seed", "Data", since="0.2"
    )
    test_views: Count | None = setting(
        None, "score only N images of each test group, chosen by the hash of their names", "Data", since="0.2"
    )
    precision: Precision = setting("auto", "floating-point precision of training", "Machine")
    device: Device = setting("auto", "device; auto is CUDA, else MPS, else CPU", "Machine")

    data_fingerprint: str = ""  # of the images and masks themselves
    weights: str = ""  # SHA-256 of the file that `pretrained=PATH` names
    threads: int = 0  # on the CPU they decide the order of sums, hence the last bits; 0 elsewhere
    protocol: int = PROTOCOL

    @property
    def unit(self) -> str:
        """What a group of these data is called: a split never divides one."""
        own = "image" if self.data == "folder" and self.group_pattern is None else "group"
        return UNITS.get(self.data, own)

    @property
    def half_size_epochs(self) -> int:
        """The number of epochs that see images at half the size: never the last, unless all shall (a share of 1)."""
        share = round(self.progressive * self.epochs)
        return share if self.progressive == 1 else min(share, self.epochs - 1)

    @property
    def key(self) -> str:
        """The run's identity: 16 hexadecimal digits of the SHA-256 of `to_dict`."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types (tuples are lists), without those added later that have their default."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        added = self.added_later()
        return {name: value for name, value in values.items() if name not in added or value != added[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The inverse of `to_dict`. Raises TypeError for an unknown field and for a missing original one."""
        complete = {**cls.added_later(), **values}
        missing = {f.name for f in dataclasses.fields(cls)} - set(complete)
        if missing:
            raise TypeError(f"missing fields: {', '.join(sorted(missing))}")
        fields: dict[str, Any] = {
            n: tuple(value) if isinstance(value, list) else value for n, value in complete.items()
        }
        return cls(**fields)

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        """The fields that were added after the first version, with their defaults as JSON types."""
        return {f.name: json.loads(json.dumps(_default(f))) for f in dataclasses.fields(cls) if "since" in f.metadata}

    def settings(self) -> dict[str, Any]:
        """The fields that a user sets, as in `to_dict`."""
        names = setting_fields(type(self))
        return {name: value for name, value in self.to_dict().items() if name in names}

    def same_settings(self, saved: Mapping[str, Any]) -> bool:
        """Whether a saved config has the same settings: whether the same command made it.

        Of other data the settings that were determined from them may differ.
        """
        added = self.added_later()
        own, other = {**added, **self.to_dict()}, {**added, **saved}
        ignored = FROM_DATA if own["data_fingerprint"] != other.get("data_fingerprint") else ()
        return all(other.get(name) == own[name] for name in setting_fields(type(self)) if name not in ignored)


def _default(setting: dataclasses.Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how a run is carried out: none of it changes the result, so none of it is in the key."""

    data_dir: Path = setting(Path("data/carvana"), "dataset directory (default: data/ and the data set's name)", "Data")
    output_dir: Path = setting(
        Path("outputs"), "directory of runs, cache and the MLflow store (default: outputs)", "Tracking"
    )
    tracking_uri: str | None = setting(None, "MLflow server or store (default: SQLite in --output-dir)", "Tracking")
    optuna_storage: str | None = setting(
        None, "Optuna storage URL, such as postgresql+pg8000://… (default: SQLite in --output-dir)", "Tuning"
    )
    workers: CountOrZero | None = setting(
        None, "data-loading worker processes (default: none on the CPU, up to 8 with a GPU)", "Machine"
    )
    mask_pattern: str | None = setting(
        None, "folder data: name of an image's mask without suffix, such as mask_{name} or {name}_seg", "Data"
    )
    split_file: Path | None = setting(
        None, "CSV of image,part that defines the split; a group may be in one part only", "Data"
    )
    weights_file: Path | None = None
    init_file: Path | None = None

    @property
    def output_flag(self) -> str:
        """What a command needs to find `output_dir`: nothing for the default."""
        place = relative_to_cwd(self.output_dir)
        return "" if place == Path("outputs") else f" --output-dir {shlex.quote(str(place))}"

    @property
    def tracking_flag(self) -> str:
        """What `run.py ui` needs to open this store: nothing for the one in the output folder."""
        if self.tracking_uri is None:
            return self.output_flag
        return f"{self.output_flag} --tracking-uri {shlex.quote(without_password(self.tracking_uri))}"

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


def setting_fields(config: type = RunConfig) -> dict[str, dataclasses.Field[Any]]:
    """The fields of RunConfig (or RuntimeConfig) that a user sets, by name."""
    return {f.name: f for f in dataclasses.fields(config) if "help" in f.metadata}


@functools.cache
def setting_types() -> dict[str, Any]:
    """The type of each setting of both configs, without `| None`: one of `config.types`, str or Path."""
    hints = typing.get_type_hints(RuntimeConfig, include_extras=True)
    hints |= typing.get_type_hints(RunConfig, include_extras=True)
    return {name: without_none(hints[name]) for name in (*setting_fields(), *setting_fields(RuntimeConfig))}


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
    "carvana-cpu": dict(  # from docs/en/performance.md, "Quality in time"; 0.8 at half size loses with few steps
        data="carvana", size=(192, 128), width=16, epochs=15, batch_size=8, learning_rate=1e-2, augment="flip",
        clip=0.25, progressive=0.5,
    ),
}  # fmt: skip

# Where each data set is looked for when `--data-dir` is not given.
DATA_DIRS = {name: Path("data", name) for name in ("carvana", "folder", "nuclei", "oxford_pet", "synthetic")}

# The values that are the object in data sets whose masks are of classes, where `--foreground` is not given.
FOREGROUNDS: dict[str, tuple[int, ...]] = {"oxford_pet": (1, 3)}  # the pet and its border
