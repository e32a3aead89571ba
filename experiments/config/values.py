"""Parse and validate settings. Precedence: command line > config file > preset > defaults.

What needs torch, the model's signature or the machine is checked later, in `resolve`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.config.schema import PRESETS, RunConfig, RuntimeConfig, setting_fields, setting_types
from experiments.config.types import convert
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, InputError, did_you_mean

TABLES = {"model": MODELS, "loss": LOSSES, "augment": AUGMENTATIONS, "data": DATASETS}
PresetName: Any = Literal[tuple(PRESETS)]


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


def typed(name: str, value: Any) -> Any:
    """The value of a setting, from text or from a config file. Raises InputError with the setting's name."""
    types = {"preset": PresetName, **setting_types()}
    if name not in types:
        raise InputError(f"Unknown setting '{name}'{did_you_mean(name, setting_fields(RunConfig))}.")
    if name in TABLES:
        return TABLES[name][str(value)].name
    if name in setting_fields(RuntimeConfig) and name != "workers":
        if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
            raise InputError(f'Invalid value "{value}" for {name}. Must be a text.')
        return Path(value).expanduser() if types[name] is Path else types[name](value)
    try:
        return convert(types[name], value, name)
    except ValueError as error:
        raise InputError(str(error)) from None


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
            raise InputError(f"Unknown setting '{name}' in the config file {path}{did_you_mean(name, known)}.")
    return {name: value for name, value in settings.items() if value is not None}


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None  # PyYAML raises IndexError for `!!int "_"`, for example
