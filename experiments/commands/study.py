"""The commands `run.py study`, `grid`, `tune` and `robustness`. The work is imported once the flags are checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments.commands.flags import (
    DataDir,
    ExecutorFlags,
    MaskPattern,
    OptunaStorage,
    OutputDir,
    Preset,
    TrackingUri,
    TuningFlags,
    flag,
    many,
    parse_flags,
    run_flags,
    setting_flags,
    switch,
)
from experiments.config import types, values
from registry import InputError

if TYPE_CHECKING:
    from experiments.studies.definition import Study

MachineFlags: Any = setting_flags("data_dir", "mask_pattern", "workers", "output_dir", "tracking_uri", "optuna_storage")
GridFlags: Any = run_flags(without=("model", "loss", "augment", "seed", "early_stopping"))
StudyName = Annotated[str, flag("name of a study in experiments/studies, or a .toml file")]
DryRun = Annotated[bool, switch("print the plan and exit")]
Extend = Annotated[bool, switch("replace the plan of an earlier command that differs; a copy of it stays")]
Rope = Annotated[types.Positive | None, flag("difference in Dice that is practically equivalent (default: 0.001)")]
Status = Annotated[bool, switch("print which runs are done, running, failed or missing, and exit")]


def study(
    name: StudyName,
    /,
    *,
    dry_run: DryRun = False,
    status: Status = False,
    extend: Extend = False,
    published: Annotated[
        bool, switch("count the results committed under analysis/results as done, and run only the rest")
    ] = False,
    executor: ExecutorFlags | None = None,
    machine: MachineFlags | None = None,
) -> int:
    """Run a study of experiments/studies (or a .toml file): plan, tune, train. Re-run the command to resume.

    Example: python run.py study two_by_two --dry-run
    """
    from experiments.studies import study_file

    parsed = study_file.read_study(study_file.find_study_file(name))
    given, pool = _with_pattern(parse_flags(machine).machine, parsed), _pool(executor)
    from analysis.records.study_paths import RESULTS
    from experiments.studies import run_study

    return run_study.run_study(parsed, given, dry_run, status, pool, RESULTS if published else None, extend)


def grid(
    *,
    models: Annotated[list[str], many("networks to compare", "Model and loss")],
    losses: Annotated[list[str], many("losses to compare", "Model and loss")],
    seeds: Annotated[
        types.SeedsOrCounts,
        flag(
            "seeds, the same for every cell: 0 1 2 or 0-4; or counts, 3..10: as many as it takes to decide", "Training"
        ),
    ],
    augments: Annotated[
        list[str] | None, many("augmentations to compare (default: the preset's alone)", "Data")
    ] = None,
    name: Annotated[str | None, flag("name of the study (default: grid_ and a hash of its content)")] = None,
    rope: Rope = None,
    tuning: TuningFlags | None = None,
    flags: GridFlags | None = None,
    preset: Preset = None,
    dry_run: DryRun = False,
    status: Status = False,
    extend: Extend = False,
    executor: ExecutorFlags | None = None,
    output_dir: OutputDir = Path("outputs"),
    tracking_uri: TrackingUri = None,
    optuna_storage: OptunaStorage = None,
) -> int:
    """Compare models and losses over seeds, without a study file.

    Example: python run.py grid --models unet attention_unet --losses bce dice --seeds 0-2 --dry-run
    """
    args = parse_flags(flags, preset=preset, output_dir=output_dir, tracking_uri=tracking_uri)
    factors = {"model": models, "loss": losses} | ({"augment": augments} if augments else {})
    for factor, names in factors.items():
        for choice in names:
            values.typed(factor, choice)
    from experiments.studies import from_flags

    given = {"seeds": seeds, "name": name, "rope": rope, **(vars(tuning) if tuning else {})}
    parsed = from_flags.grid_study(args, factors, given)
    machine = {**args.machine, **({} if optuna_storage is None else {"optuna_storage": optuna_storage})}
    pool = _pool(executor)
    from experiments.studies import run_study

    return run_study.run_study(parsed, machine, dry_run, status, pool, extend=extend)


def robustness(
    study: StudyName,
    /,
    *,
    elsewhere: Annotated[
        Path | None, flag("also score on the images/ and masks/ of this folder, from another source", "Data")
    ] = None,
    views: Annotated[types.Count, flag("images per test car that are corrupted, at most (default: 4)", "Data")] = 4,
    data_dir: DataDir = None,
    mask_pattern: MaskPattern = None,
    output_dir: OutputDir = Path("outputs"),
) -> int:
    """Score a study's networks on its test images under five corruptions, and on images from elsewhere.

    Blur, noise, JPEG, brightness and contrast, each at three strengths; the last weights; report makes the tables.

    Example: python run.py robustness augmentation --elsewhere pairs
    """
    from experiments.studies import study_file

    known = study.endswith(".toml") or (study_file.STUDIES / f"{study}.toml").exists()
    parsed = (
        study_file.read_study(study_file.find_study_file(study))
        if known
        else study_file.study_of_plan(study, output_dir)
    )
    from experiments.studies import robustness as scoring

    machine = parse_flags(None, output_dir=output_dir, data_dir=data_dir, mask_pattern=mask_pattern).machine
    return scoring.score_robustness(parsed, _with_pattern(machine, parsed), elsewhere, views)


def tune(
    study: StudyName,
    /,
    *,
    extend: Extend = False,
    executor: ExecutorFlags | None = None,
    machine: MachineFlags | None = None,
) -> int:
    """Find the learning rate of every cell of a study. Several of these commands share the work.

    Example: python run.py tune two_by_two
    """
    from experiments.studies import study_file

    parsed = study_file.read_study(study_file.find_study_file(study))
    if parsed.tuning is None:
        raise InputError(f"The study {parsed.name} has no [tuning]: its learning rate is set.")
    given, pool = _with_pattern(parse_flags(machine).machine, parsed), _pool(executor)
    from experiments.studies import run_study

    return run_study.tune(parsed, given, pool, extend)


def _with_pattern(machine: dict[str, Any], study: Study) -> dict[str, Any]:
    """`machine` with the study's mask pattern where no flag gave one."""
    return ({"mask_pattern": study.mask_pattern} if study.mask_pattern else {}) | machine


def _pool(executor: ExecutorFlags | None) -> Any:
    from experiments.studies import from_flags

    return from_flags.ray_options(**vars(executor or ExecutorFlags()))
