"""Parse and validate settings. Precedence: command line > config file > preset > defaults.

What needs torch, the model's signature or the machine is checked later, in `resolve`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.config.schema import PRESETS, RunConfig, RuntimeConfig, setting_fields, setting_types
from experiments.config.types import convert
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, InputError, did_you_mean

TABLES = {"model": MODELS, "loss": LOSSES, "augment": AUGMENTATIONS, "data": DATASETS}
PresetName: Any = Literal[tuple(PRESETS)]

# What other tools call these settings and flags.
HABITS = {
    "lr": "learning_rate", "bs": "batch_size", "batch": "batch_size", "wd": "weight_decay",
    "arch": "model", "architecture": "model", "backbone": "model", "encoder": "model",
    "criterion": "loss", "dataset": "data", "root": "data_dir", "imgsz": "size",
    "img_size": "size", "image_size": "size", "resize": "size", "num_epochs": "epochs",
    "n_epochs": "epochs", "max_epochs": "epochs", "optim": "optimizer", "scheduler": "schedule",
    "lr_scheduler": "schedule", "num_workers": "workers", "jobs": "workers", "amp": "precision",
    "fp16": "precision", "gpu": "device", "gpus": "device", "cuda": "device", "patience": "early_stopping",
    "augmentation": "augment", "transforms": "augment", "out": "output", "save_dir": "output_dir",
    "logdir": "output_dir", "out_dir": "output_dir", "cv": "fold", "kfold": "fold", "random_state": "seed",
    "checkpoint": "run", "weights": "run", "ckpt": "run", "mask_values": "foreground", "classes": "foreground",
    "labels": "foreground", "class_values": "foreground", "window": "intensity",
}  # fmt: skip


@dataclass
class ParsedArgs:
    """The settings that were given, checked and typed: fields of RunConfig, of RuntimeConfig, and the preset's name."""

    fields: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None


def read(flags: Mapping[str, Any], config: Path | None = None) -> ParsedArgs:
    """Check and type the given settings; `flags` win over the config file. Raises InputError."""
    args = ParsedArgs()
    for name, value in {**(_read_file(config) if config else {}), **flags}.items():
        if name == "preset":
            args.preset = typed(name, value)
        elif name in setting_fields(RuntimeConfig):
            args.machine[name] = typed(name, value)
        else:
            args.fields[name] = typed(name, value)
    if "split_file" in args.machine and ("split" in args.fields or "fold" in args.fields):
        raise InputError("--split-file defines the split: leave out --split and --fold.")
    return args


def suggest(name: str, known: Iterable[str]) -> str:
    """The suggestion for an unknown setting or flag: what other tools call so, else the nearest name."""
    by_setting = {word.removeprefix("--").replace("-", "_"): word for word in known}
    usual = HABITS.get(name.removeprefix("--").replace("-", "_"))
    return f" (did you mean '{by_setting[usual]}'?)" if usual in by_setting else did_you_mean(name, by_setting.values())


def typed(name: str, value: Any) -> Any:
    """The value of a setting, from text or from a config file. Raises InputError with the setting's name."""
    types = {"preset": PresetName, **setting_types()}
    if name not in types:
        raise InputError(f"Unknown setting '{name}'{suggest(name, setting_fields(RunConfig))}.")
    if name in TABLES:
        return TABLES[name][str(value)].name
    if name in setting_fields(RuntimeConfig) and name != "workers":
        if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
            raise InputError(f'Invalid value "{value}" for {name}. Must be a text.')
        if name == "tracking_uri":
            return check_tracking_uri(str(value))
        return Path(value).expanduser() if types[name] is Path else types[name](value)
    try:
        return convert(types[name], value, name)
    except ValueError as error:
        raise InputError(str(error)) from None


def check_tracking_uri(uri: str, source: str = "--tracking-uri") -> str:
    """The address of an MLflow store. Raises InputError for a folder, which MLflow 3 no longer takes."""
    if uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks")):
        raise InputError(
            f"{source} {uri}: MLflow 3 keeps no runs in folders. Name a database, such as sqlite:///mlflow.db, or a "
            "server, such as http://127.0.0.1:5000."
        )
    return uri


def _read_file(path: Path) -> dict[str, Any]:
    """The settings in a YAML or TOML file, by name. Raises InputError for an unknown one."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else _yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Cannot read the config file {path}: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InputError(f"The config file {path} should have lines like 'model: unet'.")
    known = {*setting_types(), "preset"}
    settings = {str(name).replace("-", "_"): value for name, value in content.items()}
    for name in settings:
        if name not in known:
            raise InputError(f"Unknown setting '{name}' in the config file {path}{suggest(name, known)}.")
    return {name: value for name, value in settings.items() if value is not None}


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None  # PyYAML raises IndexError for `!!int "_"`, for example
