"""From the words of `run.py grid` and `run.py --tune` to a Study, by the road that a study file takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config.resolve import choose_preset
from experiments.config.schema import PRESETS
from experiments.config.values import ParsedArgs
from experiments.studies.definition import Study, grid_name
from experiments.studies.study_file import parse_study
from registry import InputError

POINTS, SEEDS = 7, ("100", "101")  # what a tuning gets where nothing else is said
WIDTH = 10.0  # its range: from a tenth of the preset's rate to ten times that


def grid(wanted: ParsedArgs, factors: Mapping[str, Sequence[str]], words: Mapping[str, Any]) -> Study:
    """The study of `run.py grid`: `factors` are lists of names, `words` the words of its other flags (None: not given)."""
    seeds = numbers("--seeds", words["seeds"])
    content: dict[str, Any] = {
        "settings": _settings(wanted),
        "factors": {name: list(levels) for name, levels in factors.items()},
        "design": {"seeds": seeds} | ({"rope": _number("--rope", words["rope"])} if words.get("rope") else {}),
    }
    if words.get("tune"):
        content["tuning"] = _tuning(wanted, words)
    name = words.get("name") or grid_name(content)
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"--name takes a-z, 0-9 and _ only, not '{name}'.")
    return parse_study(name, content, "The grid")


def single(wanted: ParsedArgs, words: Mapping[str, Any]) -> Study:
    """The tuning of the one combination that was asked for, as a study with one cell and one seed."""
    if "learning_rate" in wanted.fields:
        raise InputError("--tune finds the learning rate: leave out --learning-rate.")
    fields = {"model": "unet", **wanted.fields}
    content = {
        "settings": {k: v for k, v in _settings(wanted).items() if k not in ("model", "early_stopping")},
        "factors": {"model": [fields["model"]]},
        "design": {"seeds": [fields.get("seed", 0)]},
        "tuning": _tuning(wanted, words),
    }
    return parse_study(grid_name(content).replace("grid", "tune"), content, "The tuning")


def numbers(flag: str, words: Sequence[str]) -> list[int]:
    """Seeds: whole numbers and ranges such as 0-4."""
    found: list[int] = []
    for word in words:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(word).strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise InputError(f"{flag} takes whole numbers or ranges, such as 0 1 2 or 0-4, not '{word}'.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def _settings(wanted: ParsedArgs) -> dict[str, Any]:
    """The settings that all cells share, as a study file has them."""
    fields = {name: list(v) if isinstance(v, tuple) else v for name, v in wanted.fields.items() if name != "seed"}
    return fields | ({"preset": wanted.preset} if wanted.preset else {})


def _tuning(wanted: ParsedArgs, words: Mapping[str, Any]) -> dict[str, Any]:
    low, high = _range(wanted, words.get("tune_range"))
    points = words.get("tune_points") or str(POINTS)
    return {
        "low": low, "high": high, "points": int(points) if points.isdigit() else points,
        "seeds": numbers("--tune-seeds", words.get("tune_seeds") or SEEDS), "sampler": words.get("tune_sampler") or "grid",
    }  # fmt: skip


def _range(wanted: ParsedArgs, text: str | None) -> tuple[float, float]:
    if text is None:
        preset, _ = choose_preset(wanted)
        rate = PRESETS[preset]["learning_rate"]
        return rate / WIDTH, rate * WIDTH
    low, colon, high = text.partition(":")
    if not colon:
        raise InputError(f"--tune-range takes LOW:HIGH, such as 3e-4:3e-2, not '{text}'.")
    return _number("--tune-range", low), _number("--tune-range", high)


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{flag} takes numbers, not '{text}'.") from None
