"""From flags to a Study (`run.py grid`, `run.py --tune`), parsed as a study file is, and to the options of Ray."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config.resolve import choose_preset
from experiments.config.schema import PRESETS
from experiments.config.values import ParsedArgs
from experiments.studies.definition import Study, grid_name
from experiments.studies.study_file import parse_study
from registry import MODELS, InputError, OptionError

POINTS, SEEDS = 7, [100, 101]  # the defaults of a tuning
WIDTH = 10.0  # its range: from a tenth of the preset's learning rate to ten times that


def grid_study(args: ParsedArgs, factors: Mapping[str, Sequence[str]], flags: Mapping[str, Any]) -> Study:
    """The study of `run.py grid`: `factors` are lists of names, `flags` the other flags (None: not given)."""
    _check_options(args, factors.get("model", ()))
    rope = {} if flags.get("rope") is None else {"rope": flags["rope"]}
    content: dict[str, Any] = {
        "settings": _settings(args),
        "factors": {name: list(levels) for name, levels in factors.items()},
        "design": {"seeds": flags["seeds"], **rope},
    }
    if flags.get("tune"):
        content["tuning"] = _tuning(args, flags)
    name = flags.get("name") or grid_name(content)
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"--name takes a-z, 0-9 and _ only, not '{name}'.")
    return parse_study(name, content, "The grid")


def _check_options(args: ParsedArgs, models: Sequence[str]) -> None:
    """Raise InputError for --model-kwargs that one of several models does not take."""
    refused: dict[str, OptionError] = {}
    for model in models:
        try:
            MODELS[model].check(args.fields.get("model_kwargs", {}))
        except OptionError as error:
            refused[model] = error
    for refusal in refused.values():
        if len(refused) == len(models):
            raise refusal
        raise InputError(
            f"{refusal} --model-kwargs are given to every model of a grid. For options of one model, write a function "
            "that builds it and name it as module:function (docs/en/extending.md), or write a study file."
        )


def tuning_study(args: ParsedArgs, flags: Mapping[str, Any]) -> Study:
    """The tuning of a single combination, as a study with one cell and one seed."""
    if "learning_rate" in args.fields:
        raise InputError("--tune finds the learning rate: leave out --learning-rate.")
    fields = {"model": "unet", **args.fields}
    content = {
        "settings": {k: v for k, v in _settings(args).items() if k not in ("model", "early_stopping")},
        "factors": {"model": [fields["model"]]},
        "design": {"seeds": [fields.get("seed", 0)]},
        "tuning": _tuning(args, flags),
    }
    return parse_study(grid_name(content).replace("grid", "tune"), content, "The tuning")


@dataclass(frozen=True)
class RayOptions:
    """The cluster's address (None: this machine), the fraction of a GPU per run, the number of concurrent runs."""

    address: str | None = None
    gpus_per_run: float | None = None
    parallel: int | None = None


def ray_options(
    executor: str, ray_address: str | None, gpus_per_run: float | None, parallel: int | None
) -> RayOptions | None:
    """The options of `--executor ray`; None for this process. Raises InputError."""
    flags = {"--ray-address": ray_address, "--gpus-per-run": gpus_per_run, "--parallel": parallel}
    if executor == "here":
        for flag in (name for name, value in flags.items() if value is not None):
            raise InputError(f"{flag} is an option of Ray: add --executor ray, or leave it out.")
        return None
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "Ray is not installed. Type: pip install -r requirements-ray.txt, or leave out --executor ray."
        )
    return RayOptions(ray_address, gpus_per_run, parallel)


def _settings(args: ParsedArgs) -> dict[str, Any]:
    """The settings that all cells share, as a study file has them."""
    fields = {name: list(v) if isinstance(v, tuple) else v for name, v in args.fields.items() if name != "seed"}
    return fields | ({"preset": args.preset} if args.preset else {})


def _tuning(args: ParsedArgs, flags: Mapping[str, Any]) -> dict[str, Any]:
    low, high = flags.get("tune_range") or _range(args)
    return {
        "low": low,
        "high": high,
        "points": flags.get("tune_points") or POINTS,
        "seeds": flags.get("tune_seeds") or SEEDS,
        "sampler": flags.get("tune_sampler") or "grid",
        "fit": "pooled",
    }


def _range(args: ParsedArgs) -> tuple[float, float]:
    rate = PRESETS[choose_preset(args)[0]]["learning_rate"]
    return rate / WIDTH, rate * WIDTH
