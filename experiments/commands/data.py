"""The commands `run.py data …` and `run.py runs …`: their words and help. The work is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from experiments.config.schema import DATA_DIRS, RUNTIME_HELP, setting_fields
from registry import DATASETS

Output = Annotated[Path, Parameter(help="where the runs and the cache lie")]
DataDir = Annotated[Path, Parameter(help="the folder of the photographs")]


def _help(name: str) -> str:
    return str(setting_fields()[name].metadata["help"])


data = App(name="data", help="Get, make and check photographs.\n\nExample: python run.py data make --cars 8")


@data.command(name="verify")
def verify_data(
    *,
    data: Annotated[str, Parameter(help=f"the data set: {', '.join(DATASETS)}")] = "carvana",
    data_dir: Annotated[str | None, Parameter(help=RUNTIME_HELP["data_dir"], show_default=False)] = None,
    group_pattern: Annotated[str | None, Parameter(help=_help("group_pattern"), show_default=False)] = None,
    split: Annotated[str | None, Parameter(help=_help("split"), show_default=False)] = None,
    split_file: Annotated[str | None, Parameter(help=RUNTIME_HELP["split_file"], show_default=False)] = None,
    fold: Annotated[str | None, Parameter(help=_help("fold"), show_default=False)] = None,
    seed: Annotated[str | None, Parameter(help="the seed of --split image", show_default=False)] = None,
) -> int:
    """Decode every photograph and mask and list what is wrong: exit code 0 if nothing is, 1 if something is.

    Missing, truncated, empty and unreadable files, masks that are not binary or mark nothing, sizes that differ,
    duplicates, near-duplicates on two sides of the split; and which publicly known faulty masks of Carvana are there.

    Example: python run.py data verify --data folder --data-dir pairs
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from experiments.config import values

    wanted = values.read(given)
    from experiments.commands import data_tools

    return data_tools.verify_data(wanted)


@data.command
def make(
    *, data_dir: DataDir = DATA_DIRS["synthetic"], cars: str = "24", seed: str = "0", size: str = "480x320"
) -> int:
    """Write synthetic cars, 16 photographs with exact masks of each, in Carvana's layout.

    Example: python run.py data make --data-dir data/synthetic --cars 24 --seed 0 --size 480x320
    """
    from experiments.commands import data_tools

    return data_tools.make_cars(data_dir, cars, seed, size)


@data.command
def download(name: str, /, *, data_dir: DataDir = DATA_DIRS["carvana"]) -> int:
    """Fetch Carvana from Kaggle through kagglehub (pip install kagglehub; the rules must have been accepted).

    Example: python run.py data download carvana
    """
    from experiments.commands import data_tools

    return data_tools.download(name, data_dir)


@data.command(name="import")
def import_zips(files: list[Path], /, *, data_dir: DataDir = DATA_DIRS["carvana"]) -> int:
    """Unpack Kaggle's train.zip and train_masks.zip, or the zip that holds both: all of it or nothing.

    Example: python run.py data import train.zip train_masks.zip --data-dir data/carvana
    """
    from experiments.commands import data_tools

    return data_tools.import_zips(files, data_dir)


runs = App(name="runs", help="List the runs, and free the cache.\n\nExample: python run.py runs")


@runs.default
def list_runs(*, output_dir: Output = Path("outputs")) -> int:
    """List the runs with their state (finished, interrupted, running, failed), test Dice and size on disk.

    Example: python run.py runs
    """
    from experiments.commands import data_tools

    return data_tools.list_runs(output_dir)


@runs.command(name="clean-cache")
def clean_cache(*, output_dir: Output = Path("outputs")) -> int:
    """Delete the decoded photographs under --output-dir and nothing else; the next run makes them again.

    Example: python run.py runs clean-cache
    """
    from experiments.commands import data_tools

    return data_tools.clean_cache(output_dir)
