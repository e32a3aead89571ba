"""The words that several commands of run.py take: their flags, help and defaults. Nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from experiments.config.schema import PRESETS, RUNTIME_HELP, setting_fields
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS

TABLES = {"model": MODELS, "loss": LOSSES, "augment": AUGMENTATIONS, "data": DATASETS}


def run_flags(without: tuple[str, ...] = ()) -> type:
    """A dataclass of everything that decides a run, as it is typed: text, or None where nothing was given.

    It is made from RunConfig's own fields, so the command line cannot drift from what a run consists of.
    """
    fields: list[tuple[str, Any, Any]] = []
    for name, field in setting_fields().items():
        if name in without:
            continue
        text = field.metadata["help"]
        if name in TABLES:
            text += f": {', '.join(TABLES[name])}"
        many = name.endswith("_kwargs")
        default = "the preset's" if any(name in preset for preset in PRESETS.values()) else _shown(field.default)
        default = "" if many or field.default is None else f" (default: {default})"
        kind = list[str] | None if many else str | None
        parameter = Parameter(help=text + default, consume_multiple=True, negative_iterable=(), show_default=False)
        fields.append((name, Annotated[kind, parameter], None))
    for name, text in RUNTIME_HELP.items():
        fields.append((name, Annotated[str | None, Parameter(help=text, show_default=False)], None))
    return Parameter(name="*")(
        dataclasses.make_dataclass("Words", fields, kw_only=True, namespace={"__module__": __name__})
    )


def _shown(default: Any) -> str:
    return "x".join(map(str, default)) if isinstance(default, tuple) else str(default)


RunFlags: Any = run_flags()
Output = Annotated[Path, Parameter(help="where runs, the cache and MLflow's store lie")]
Tracking = Annotated[
    str | None, Parameter(help="an MLflow server or store (default: sqlite under --output-dir)", show_default=False)
]
Preset = Annotated[
    str | None, Parameter(help=f"{', '.join(PRESETS)} (default: what fits the data that is there)", show_default=False)
]
Config = Annotated[
    Path | None, Parameter(help="settings from a YAML or TOML file; the command line wins", show_default=False)
]
DataDir = Annotated[Path | None, Parameter(help=RUNTIME_HELP["data_dir"], show_default=False)]
OptunaStorage = Annotated[
    str | None,
    Parameter(
        help="where Optuna keeps the trials, such as postgresql+pg8000://… (default: sqlite under --output-dir)",
        show_default=False,
    ),
]
Workers = Annotated[str | None, Parameter(help=RUNTIME_HELP["workers"], show_default=False)]


@Parameter(name="*")
@dataclasses.dataclass(kw_only=True)
class TuningFlags:
    """How a learning rate is found: trials on validation cars, a curve fitted to all of them."""

    tune: Annotated[bool, Parameter(help="first find the learning rate, by trials on validation cars", negative=())] = (
        False
    )
    tune_range: Annotated[
        str | None,
        Parameter(help="the rates to try, LOW:HIGH (default: a tenth to ten times the preset's)", show_default=False),
    ] = None
    tune_points: Annotated[
        str | None, Parameter(help="how many rates in that range (default: 7)", show_default=False)
    ] = None
    tune_seeds: Annotated[
        list[str] | None,
        Parameter(
            help="the seeds of the trials, never those of reported runs (default: 100 101)",
            show_default=False, consume_multiple=True, negative_iterable=(),
        ),
    ] = None  # fmt: skip
    tune_sampler: Annotated[
        str | None, Parameter(help="grid (the same rates for every cell) or tpe (default: grid)", show_default=False)
    ] = None


@Parameter(name="*")
@dataclasses.dataclass(kw_only=True)
class ExecutorFlags:
    """Where the runs of a study are carried out."""

    executor: Annotated[
        str, Parameter(help="here (one run after another), or ray: many at a time, on many machines")
    ] = "here"
    ray_address: Annotated[
        str | None,
        Parameter(help="a Ray cluster, HOST:PORT or auto (default: Ray on this machine alone)", show_default=False),
    ] = None
    gpus_per_run: Annotated[
        str | None,
        Parameter(help="the share of a GPU that a run takes: 0.25 puts four on each (default: 1)", show_default=False),
    ] = None
    parallel: Annotated[str | None, Parameter(help="runs at a time (default: as many as fit)", show_default=False)] = (
        None
    )


def parse_flags(
    run_flags: Any, preset: str | None, config: Path | None, output_dir: Path, tracking_uri: str | None
) -> Any:
    """What was typed, checked."""
    given = {name: value for name, value in vars(run_flags).items() if value is not None} if run_flags else {}
    given |= {
        name: value for name, value in {"preset": preset, "tracking_uri": tracking_uri}.items() if value is not None
    }
    from experiments.config import values

    found = values.read(given, config)
    found.machine["output_dir"] = output_dir
    return found
