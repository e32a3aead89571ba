"""From words to a RunConfig: the command line, a config file, a preset and the defaults, in this order of precedence.

What can be refused without importing anything heavy is refused here; what needs torch, the model's signature or the
machine comes after it, in `resolve`.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config.schema import (
    COMPILE,
    DEVICES,
    OPTIMIZERS,
    PRECISIONS,
    PRESETS,
    SCHEDULES,
    SPLITS,
    setting_fields,
)
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, InputError

RUNTIME_SETTINGS = ("data_dir", "output_dir", "tracking_uri", "optuna_storage", "workers", "split_file")

WHOLE = "[0-9]{1,18}"  # more digits than anything here could mean, and fewer than Python refuses to read


@dataclass
class ParsedArgs:
    """What the user asked for, checked and typed: fields of RunConfig, fields of Machine, and the preset by name."""

    fields: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None


def read(words: Mapping[str, Any], config: Path | None = None) -> ParsedArgs:
    """Check and type what was given; `words` (the command line) wins over the file. Raises InputError or UnknownName."""
    given = {**(_file(config) if config else {}), **words}
    wanted = ParsedArgs()
    for name, value in given.items():
        if name == "preset":
            wanted.preset = one_of("preset", value, PRESETS)
        elif name in RUNTIME_SETTINGS:
            wanted.machine[name] = _machine_value(name, value)
        else:
            wanted.fields[name] = typed(name, value)
    if "split_file" in wanted.machine and ("split" in wanted.fields or "fold" in wanted.fields):
        raise InputError("--split-file divides the data itself: leave out --split and --fold.")
    return wanted


def _file(path: Path) -> dict[str, Any]:
    """The settings in a YAML or TOML file, by name. Unknown names are refused with the nearest."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else _yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The config file {path} cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InputError(f"The config file {path} should hold lines like 'model: unet'.")
    known = {*setting_fields(), *RUNTIME_SETTINGS, "preset"}
    named = {str(name).replace("-", "_"): value for name, value in content.items()}
    for name in named:
        if name not in known:
            raise InputError(f"The config file {path} holds the unknown setting '{name}'{nearest(name, known)}.")
    return {name: value for name, value in named.items() if value is not None}


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (
        yaml.YAMLError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:  # `!!int "_"`, say, is an IndexError of PyYAML's
        raise ValueError(str(error)) from None


def typed(name: str, value: Any) -> Any:
    """The value of a RunConfig field, from a word or from a config file's value. Raises InputError with the flag's name."""
    flag = f"--{name.replace('_', '-')}"
    check = _CHECKS.get(name)
    if check is None:
        raise InputError(f"Unknown setting '{name}'{nearest(name, setting_fields())}.")
    return check(flag, value)


def one_of(what: str, value: Any, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """`value`, if it is one of `known`; else InputError with the nearest."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"Unknown {what} '{value}'{nearest(str(value), known)}. Choose from: {', '.join(known)}.")
    return str(value)


def nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def pairs(flag: str, value: Any) -> dict[str, Any]:
    """Options from KEY=VALUE words (or from a config file's table)."""
    if isinstance(value, Mapping):
        return {str(k): v for k, v in value.items()}
    found = {}
    for word in value if isinstance(value, (list, tuple)) else [value]:
        key, equals, text = str(word).partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"{flag} takes KEY=VALUE words, such as width=16; '{word}' is none.")
        found[key] = _literal(text)
    return found


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def whole(flag: str, value: Any, least: int = 1) -> int:
    """`value` as a whole number from `least` up; else InputError with the flag's name."""
    if isinstance(value, bool) or not re.fullmatch(rf"[+-]?{WHOLE}", str(value).strip()) or int(value) < least:
        raise InputError(f"{flag} takes a whole number from {least} up, not '{value}'.")
    return int(value)


def _whole(least: int) -> Callable[[str, Any], int]:
    return lambda flag, value: whole(flag, value, least)


def _number(above: bool) -> Callable[[str, Any], float]:
    def check(flag: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number) or number < 0 or (above and number == 0):
            raise InputError(f"{flag} takes a {'positive number' if above else 'number from 0 up'}, not '{value}'.")
        return number

    return check


def _share(flag: str, value: Any) -> float:
    share = _number(above=False)(flag, value)
    if share > 1:
        raise InputError(f"{flag} takes a share from 0 to 1, not '{value}'.")
    return share


def _size(flag: str, value: Any) -> tuple[int, int]:
    words = value if isinstance(value, (list, tuple)) else re.split(r"[x×X]", str(value).strip())
    if len(words) != 2 or not all(re.fullmatch(WHOLE, str(word).strip()) for word in words):
        raise InputError(f"{flag} takes WIDTHxHEIGHT in pixels, such as 192x128, not '{value}'.")
    width, height = (int(word) for word in words)
    if min(width, height) < 32:
        raise InputError(
            f"{flag} {width}x{height} is too small: the networks halve it four times; give at least 32x32."
        )
    return width, height


def _fold(flag: str, value: Any) -> tuple[int, int]:
    words = value if isinstance(value, (list, tuple)) else str(value).split("/")
    if len(words) != 2 or not all(re.fullmatch(WHOLE, str(word).strip()) for word in words):
        raise InputError(f"{flag} takes K/N, such as 0/5 for the first of five folds, not '{value}'.")
    k, folds = (int(word) for word in words)
    if not (folds >= 2 and k < folds):
        raise InputError(f"{flag} {k}/{folds} does not exist: K is counted from 0 and less than N, N is at least 2.")
    return k, folds


def _choice(known: tuple[str, ...]) -> Callable[[str, Any], str]:
    return lambda flag, value: one_of(flag, value, known)


def _named(table: Mapping[str, Any]) -> Callable[[str, Any], str]:
    return lambda flag, value: table[str(value)].name


def _text(flag: str, value: Any) -> str:
    return str(value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "model": _named(MODELS), "loss": _named(LOSSES), "augment": _named(AUGMENTATIONS), "data": _named(DATASETS),
    "model_kwargs": pairs, "loss_kwargs": pairs, "group_pattern": _text, "size": _size, "fold": _fold,
    "epochs": _whole(1), "batch_size": _whole(1), "epoch_steps": _whole(1), "accumulate": _whole(1), "progressive": _share,
    "seed": _whole(0),
    "train_cars": _whole(1), "early_stopping": _whole(0), "compile": _choice(COMPILE),
    "learning_rate": _number(above=True), "clip": _number(above=True), "weight_decay": _number(above=False),
    "optimizer": _choice(OPTIMIZERS), "schedule": _choice(SCHEDULES), "split": _choice(SPLITS),
    "precision": _choice(PRECISIONS), "device": _choice(DEVICES),
}  # fmt: skip


def _machine_value(name: str, value: Any) -> Any:
    if name == "workers":
        return _whole(0)("--workers", value)
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise InputError(f"--{name.replace('_', '-')} takes a text, not '{value}'.")
    return str(value) if name in ("tracking_uri", "optuna_storage") else Path(value)
