"""Which segmentation model, with which loss, is better on your task, and can you believe the answer?

Without a command it trains one combination and scores it on cars it has never seen:

    python run.py --model attention_unet --loss bce_dice

哪个分割模型、配哪个损失函数更好？不带子命令时，训练一个组合，并在从未见过的汽车上评分。
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from experiments.config import DATA_DIRS, PRESETS, setting_fields
from experiments.errors import InputError, RunFailed
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, OptionError, UnknownName

TABLES = {"model": MODELS, "loss": LOSSES, "augment": AUGMENTATIONS, "data": DATASETS}
MACHINE_HELP = {
    "data_dir": "where the photographs lie (default: data/ and the data set's name)",
    "workers": "processes that load photographs (default: none on the CPU, up to 8 with a GPU)",
    "split_file": "a CSV of image,part that divides the data by hand; no group may be on two sides",
}

app = App(name="run.py", help_format="plaintext", version_flags=[], result_action="return_value")


def _words() -> type:
    """A dataclass of everything that decides a run, as it is typed: text, or None where nothing was given.

    It is made from RunConfig's own fields, so the command line cannot drift from what a run consists of.
    """
    fields: list[tuple[str, Any, Any]] = []
    for name, field in setting_fields().items():
        text = field.metadata["help"]
        if name in TABLES:
            text += f": {', '.join(TABLES[name])}"
        many = name.endswith("_kwargs")
        default = "the preset's" if any(name in preset for preset in PRESETS.values()) else _shown(field.default)
        default = "" if many or field.default is None else f" (default: {default})"
        kind = list[str] | None if many else str | None
        parameter = Parameter(help=text + default, consume_multiple=True, negative_iterable=(), show_default=False)
        fields.append((name, Annotated[kind, parameter], None))
    for name, text in MACHINE_HELP.items():
        fields.append((name, Annotated[str | None, Parameter(help=text, show_default=False)], None))
    return Parameter(name="*")(dataclasses.make_dataclass("Words", fields, kw_only=True, namespace={"__module__": __name__}))


def _help(name: str) -> str:
    return str(setting_fields()[name].metadata["help"])


def _shown(default: Any) -> str:
    return "x".join(map(str, default)) if isinstance(default, tuple) else str(default)


Words: Any = _words()
Output = Annotated[Path, Parameter(help="where runs, the cache and MLflow's store lie")]
Tracking = Annotated[
    str | None, Parameter(help="an MLflow server or store (default: sqlite under --output-dir)", show_default=False)
]
Preset = Annotated[
    str | None, Parameter(help=f"{', '.join(PRESETS)} (default: what fits the data that is there)", show_default=False)
]
Config = Annotated[Path | None, Parameter(help="settings from a YAML or TOML file; the command line wins", show_default=False)]


@app.default
def train(
    *,
    words: Words | None = None,
    preset: Preset = None,
    config: Config = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
) -> int:
    """Train one model with one loss and score it on test cars.

    Example: python run.py --model attention_unet --loss bce_dice --model-kwargs width=32
    """
    given = {name: value for name, value in vars(words).items() if value is not None} if words else {}
    given |= {name: value for name, value in {"preset": preset, "tracking_uri": tracking_uri}.items() if value is not None}
    from experiments import settings

    wanted = settings.read(given, config)
    wanted.machine["output_dir"] = output_dir
    from experiments import main

    return main.train_one(wanted)


@app.command(name="list")
def list_choices() -> int:
    """Show every model, loss, augmentation and data set with its source.

    Example: python run.py list
    """
    from experiments import main

    return main.list_choices()


@app.command
def ui(*, output_dir: Output = Path("outputs"), tracking_uri: Tracking = None, port: int = 5000) -> int:
    """Open MLflow's pages on this machine, with the runs of this project in them.

    Example: python run.py ui
    """
    from experiments import tracking

    tracking.serve(output_dir, tracking_uri, port)
    return 0


data = App(name="data", help="Get, make and check photographs.")
app.command(data)
DataDir = Annotated[Path, Parameter(help="the folder of the photographs")]


@data.command(name="verify")
def verify_data(
    *,
    data: Annotated[str, Parameter(help=f"the data set: {', '.join(DATASETS)}")] = "carvana",
    data_dir: Annotated[str | None, Parameter(help=MACHINE_HELP["data_dir"], show_default=False)] = None,
    group_pattern: Annotated[str | None, Parameter(help=_help("group_pattern"), show_default=False)] = None,
    split: Annotated[str | None, Parameter(help=_help("split"), show_default=False)] = None,
    split_file: Annotated[str | None, Parameter(help=MACHINE_HELP["split_file"], show_default=False)] = None,
    fold: Annotated[str | None, Parameter(help=_help("fold"), show_default=False)] = None,
    seed: Annotated[str | None, Parameter(help="the seed of --split image", show_default=False)] = None,
) -> int:
    """Decode every photograph and mask and list what is wrong: exit code 0 if nothing is, 1 if something is.

    Missing, truncated, empty and unreadable files, masks that are not binary or mark nothing, sizes that differ,
    duplicates, near-duplicates on two sides of the split; and which publicly known faulty masks of Carvana are there.

    Example: python run.py data verify --data folder --data-dir pairs
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from experiments import settings

    wanted = settings.read(given)
    from experiments import data_tools

    return data_tools.verify_data(wanted)


@data.command
def make(*, data_dir: DataDir = DATA_DIRS["synthetic"], cars: str = "24", seed: str = "0", size: str = "480x320") -> int:
    """Write synthetic cars, 16 photographs with exact masks of each, in Carvana's layout.

    Example: python run.py data make --data-dir data/synthetic --cars 24 --seed 0 --size 480x320
    """
    from experiments import data_tools

    return data_tools.make_cars(data_dir, cars, seed, size)


@data.command
def download(name: str, /, *, data_dir: DataDir = DATA_DIRS["carvana"]) -> int:
    """Fetch Carvana from Kaggle through kagglehub (pip install kagglehub; the rules must have been accepted).

    Example: python run.py data download carvana
    """
    from experiments import data_tools

    return data_tools.download(name, data_dir)


@data.command(name="import")
def import_zips(files: list[Path], /, *, data_dir: DataDir = DATA_DIRS["carvana"]) -> int:
    """Unpack Kaggle's train.zip and train_masks.zip, or the zip that holds both: all of it or nothing.

    Example: python run.py data import train.zip train_masks.zip --data-dir data/carvana
    """
    from experiments import data_tools

    return data_tools.import_zips(files, data_dir)


runs = App(name="runs", help="List the runs, and free the cache.")
app.command(runs)


@runs.default
def list_runs(*, output_dir: Output = Path("outputs")) -> int:
    """List the runs with their state (finished, interrupted, running, failed), test Dice and size on disk.

    Example: python run.py runs
    """
    from experiments import data_tools

    return data_tools.list_runs(output_dir)


@runs.command(name="clean-cache")
def clean_cache(*, output_dir: Output = Path("outputs")) -> int:
    """Delete the decoded photographs under --output-dir and nothing else; the next run makes them again.

    Example: python run.py runs clean-cache
    """
    from experiments import data_tools

    return data_tools.clean_cache(output_dir)


def main(words: list[str]) -> int:
    """Run a command line; the exit code says how it ended (0 done, 1 a run failed, 2 wrong input, 130/143 interrupted)."""
    place, rest = app, words
    while rest and not rest[0].startswith("-") and rest[0] in place:
        place, rest = place[rest[0]], rest[1:]
    called = " ".join(["python run.py", *words[: len(words) - len(rest)]])
    commands = [name for name in place if not name.startswith("-")]
    if commands and rest and not rest[0].startswith("-"):
        from experiments.settings import nearest

        return _complain(f"Unknown command '{rest[0]}'{nearest(rest[0], commands)}. Commands: {', '.join(commands)}; see --help.")
    try:
        return app(words, exit_on_error=False, print_error=False) or 0
    except UnknownOptionError as error:
        from experiments.settings import nearest

        flag = error.token.keyword or error.token.value
        return _complain(f"Unknown flag {flag}{nearest(flag, _flags(place))}. See {called} --help.")
    except CycloptsError as error:
        return _complain(f"{' '.join(str(error).split())} See {called} --help.")
    except (InputError, UnknownName, OptionError) as error:
        return _complain(str(error))
    except RunFailed as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain("Interrupted. Type the same command again: it goes on from what was finished.", 130)


def _flags(command: App) -> list[str]:
    return [name for argument in command.assemble_argument_collection() for name in argument.names if name.startswith("--")]


def _complain(sentence: str, code: int = 2) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.path.append(os.getcwd())  # for targets of one's own, from wherever the command is typed
    sys.exit(main(sys.argv[1:]))
