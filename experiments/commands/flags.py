"""Flags shared by several commands: their types, help and groups. Nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from experiments.config import types, values
from experiments.config.schema import PRESETS, RunConfig, RuntimeConfig, setting_fields, setting_types
from experiments.config.types import Count, Gpus, RateRange, Seeds
from experiments.config.values import TABLES, ParsedArgs, PresetName

GROUPS = {
    name: Group(name, sort_key=number)
    for number, name in enumerate(("Model and loss", "Data", "Training", "Tuning", "Machine", "Tracking"), 1)
}


def flag(text: str, group: str = "", **more: Any) -> Parameter:
    """A flag whose default is not shown: the text says what it is, where it needs saying."""
    if group:
        more["group"] = GROUPS[group]
    return Parameter(help=text, show_default=False, **more)


def switch(text: str, group: str = "") -> Parameter:
    """A flag without a value."""
    return flag(text, group, negative=())


def many(text: str, group: str = "") -> Parameter:
    """A flag with several values."""
    return flag(text, group, consume_multiple=True, negative=())


def setting(name: str) -> Parameter:
    """The flag of a setting: its help and group are those that RunConfig or RuntimeConfig declares."""
    field = {**setting_fields(RunConfig), **setting_fields(RuntimeConfig)}[name]
    text = field.metadata["help"]
    if name in TABLES:
        text += f": {', '.join(TABLES[name])}"
    if name in setting_fields(RunConfig) and field.default not in (None, (), dataclasses.MISSING):
        default = "the preset's" if any(name in preset for preset in PRESETS.values()) else field.default
        text += f" (default: {default})"
    return flag(text, field.metadata["group"])


def setting_flags(*names: str) -> Any:
    """A dataclass of the flags of these settings; None stands for a flag that is not given."""
    fields: list[Any] = [(name, Annotated[setting_types()[name] | None, setting(name)], None) for name in names]
    made = dataclasses.make_dataclass("SettingFlags", fields, kw_only=True, namespace={"__module__": __name__})
    return Parameter(name="*")(made)


def run_flags(without: tuple[str, ...] = ()) -> Any:
    """The flags that decide a run, made from RunConfig's fields: the two cannot drift apart."""
    names = [name for name in setting_fields(RunConfig) if name not in without]
    return setting_flags(*names, "data_dir", "mask_pattern", "workers", "split_file")


RunFlags: Any = run_flags()
ImageFlags: Any = setting_flags(  # where images and masks are, and how they are read
    "data_dir", "group_pattern", "mask_pattern", "foreground", "mask_channel", "mask_exif", "intensity"
)
OutputDir = Annotated[Path, setting("output_dir")]
TrackingUri = Annotated[str | None, setting("tracking_uri")]
Preset = Annotated[PresetName | None, flag("preset (default: the one that fits the available data)", "Training")]
ConfigFile = Annotated[Path | None, flag("YAML or TOML file with settings; flags win over it", "Training")]
DataDir = Annotated[Path | None, setting("data_dir")]
MaskPattern = Annotated[str | None, setting("mask_pattern")]
OptunaStorage = Annotated[str | None, setting("optuna_storage")]
Device = Annotated[types.Device, flag("device; auto is CUDA, else MPS, else CPU (default: auto)", "Machine")]


@Parameter(name="*")
@dataclasses.dataclass(kw_only=True)
class TuningFlags:
    """How the learning rate is found: trials on validation images, and a curve fitted to all of them."""

    tune: Annotated[bool, switch("first find the learning rate, by trials on validation images", "Tuning")] = False
    tune_range: Annotated[
        RateRange | None, flag("learning rates to try (default: a tenth to ten times the preset's)", "Tuning")
    ] = None
    tune_points: Annotated[Count | None, flag("number of learning rates in that range (default: 7)", "Tuning")] = None
    tune_seeds: Annotated[
        Seeds | None, flag("seeds of the trials, never those of reported runs (default: 100 101)", "Tuning")
    ] = None
    tune_sampler: Annotated[
        Literal["grid", "tpe"] | None,
        flag("grid tries the same learning rates for every cell (default: grid)", "Tuning"),
    ] = None


@Parameter(name="*")
@dataclasses.dataclass(kw_only=True)
class ExecutorFlags:
    """Where the runs of a study are executed."""

    executor: Annotated[
        Literal["here", "ray"],
        flag("here (one run after another) or ray (many at a time, on many machines) (default: here)", "Machine"),
    ] = "here"
    ray_address: Annotated[
        str | None, flag("Ray cluster, HOST:PORT or auto (default: Ray on this machine alone)", "Machine")
    ] = None
    gpus_per_run: Annotated[
        Gpus | None, flag("fraction of a GPU per run: 0.25 puts four runs on each (default: 1)", "Machine")
    ] = None
    parallel: Annotated[Count | None, flag("number of concurrent runs (default: as many as fit)", "Machine")] = None


def parse_flags(flags: Any, config: Path | None = None, **more: Any) -> ParsedArgs:
    """Check and type the given flags, those in a dataclass and `more`, and the config file."""
    given = {**(vars(flags) if flags else {}), **more}
    return values.read({name: value for name, value in given.items() if value is not None}, config)
