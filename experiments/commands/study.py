"""The commands `run.py study`, `grid` and `tune`: their words and help. The work is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from experiments.commands.flags import (
    TABLES,
    DataDir,
    ExecutorFlags,
    OptunaStorage,
    Output,
    Preset,
    Tracking,
    TuningFlags,
    Workers,
    run_flags,
)
from experiments.commands.flags import parse_flags as typed
from registry import InputError

GridFlags: Any = run_flags(without=("model", "loss", "augment", "seed", "early_stopping"))
Choices = Annotated[list[str], Parameter(consume_multiple=True, negative_iterable=())]
DryRun = Annotated[bool, Parameter(help="print the plan and stop there", negative=())]
Status = Annotated[
    bool, Parameter(help="show which runs are done, running, failed or missing, and stop there", negative=())
]
Published = Annotated[
    bool,
    Parameter(help="count what is committed under analysis/results as done, and run only the rest", negative=()),
]


def study(
    name: str,
    /,
    *,
    dry_run: DryRun = False,
    status: Status = False,
    published: Published = False,
    where: ExecutorFlags | None = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
    optuna_storage: OptunaStorage = None,
) -> int:
    """Carry out a study of experiments/studies (or a .toml file): plan, tuning, runs. The same command goes on with it.

    Example: python run.py study two_by_two --dry-run
    """
    from experiments.studies import study_file

    found = study_file.read_study(study_file.find_study_file(name))
    machine = _machine(
        output_dir, data_dir=data_dir, workers=workers, tracking_uri=tracking_uri, optuna_storage=optuna_storage
    )
    pool = _pool(where)
    from analysis.records.places import RESULTS
    from experiments.studies import run_study

    return run_study.run_study(found, machine, dry_run, status, pool, RESULTS if published else None)


def grid(
    *,
    models: Choices,
    losses: Choices,
    seeds: Choices,
    augments: Choices | None = None,
    name: str | None = None,
    rope: str | None = None,
    tuning: TuningFlags | None = None,
    run_flags: GridFlags | None = None,
    preset: Preset = None,
    dry_run: DryRun = False,
    status: Status = False,
    where: ExecutorFlags | None = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
    optuna_storage: OptunaStorage = None,
) -> int:
    """Compare models and losses over seeds, without a study file.

    Example: python run.py grid --models unet attention_unet --losses bce dice --seeds 0-2 --dry-run

    Parameters
    ----------
    models
        the networks to compare
    losses
        the losses to compare
    seeds
        the seeds, the same for every cell: 0 1 2 or 0-4
    augments
        augmentations to compare (default: the preset's)
    name
        what the study is called (default: grid_ and a hash of what it consists of)
    rope
        the difference in Dice that does not matter (default: 0.001)
    """
    wanted = typed(run_flags, preset, None, output_dir, tracking_uri)
    factors = {"model": models, "loss": losses} | ({"augment": augments} if augments else {})
    for label, chosen in factors.items():
        for choice in chosen:
            _ = TABLES[label][choice]
    from experiments.studies import from_flags

    given = {"seeds": seeds, "name": name, "rope": rope, **(vars(tuning) if tuning else {})}
    found = from_flags.grid(wanted, factors, given)
    machine = {**wanted.machine, **({} if optuna_storage is None else {"optuna_storage": optuna_storage})}
    pool = _pool(where)
    from experiments.studies import run_study

    return run_study.run_study(found, machine, dry_run, status, pool)


def robustness(
    study: str,
    /,
    *,
    elsewhere: Annotated[
        Path | None,
        Parameter(
            help="a folder of images/ and masks/ from elsewhere, on which the networks are scored, too",
            show_default=False,
        ),
    ] = None,
    views: Annotated[str, Parameter(help="corrupt at most so many photographs of each test car")] = "4",
    data_dir: DataDir = None,
    output_dir: Output = Path("outputs"),
) -> int:
    """Score a study's networks on its test photographs under five corruptions, and on photographs from elsewhere.

    Blur, noise, JPEG, brightness and contrast, each at three strengths; the last weights; report makes the tables.

    Example: python run.py robustness augmentation --elsewhere pairs
    """
    from experiments.config import values
    from experiments.studies import study_file

    found = study_file.read_study(study_file.find_study_file(study))
    count = values.whole("--views", views)
    from experiments.studies import robustness as scoring

    return scoring.score_robustness(found, _machine(output_dir, data_dir=data_dir), elsewhere, count)


def tune(
    study: str,
    /,
    *,
    where: ExecutorFlags | None = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
    optuna_storage: OptunaStorage = None,
) -> int:
    """Find the learning rate of every cell of a study. Several of these commands share the work.

    Example: python run.py tune two_by_two
    """
    from experiments.studies import study_file

    found = study_file.read_study(study_file.find_study_file(study))
    if found.tuning is None:
        raise InputError(f"The study {found.name} has no [tuning]: its cells train with the rate that is set.")
    machine = _machine(
        output_dir, data_dir=data_dir, workers=workers, tracking_uri=tracking_uri, optuna_storage=optuna_storage
    )
    pool = _pool(where)
    from experiments.studies import run_study

    return run_study.tune(found, machine, pool)


def _machine(output_dir: Path, **run_flags: Any) -> dict[str, Any]:
    """Where a study is carried out: fields of Machine."""
    from experiments.config import values

    given = {name: value for name, value in run_flags.items() if value is not None}
    return {**values.read(given).machine, "output_dir": output_dir}


def _pool(where: ExecutorFlags | None) -> Any:
    from experiments.studies import ray_options

    return ray_options.parse_options(**vars(where or ExecutorFlags()))
