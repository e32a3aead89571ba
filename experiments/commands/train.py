"""`run.py` without a command: train one configuration. The work is imported once the flags are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from experiments.commands.flags import ConfigFile, Preset, RunFlags, TrackingUri, TuningFlags, parse_flags, setting
from registry import InputError


def train(
    *,
    flags: RunFlags | None = None,
    tuning: TuningFlags | None = None,
    preset: Preset = None,
    config: ConfigFile = None,
    output_dir: Annotated[Path | None, setting("output_dir")] = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Train one model with one loss and score it on test images.

    Example: python run.py --model attention_unet --loss bce_dice --model-kwargs width=32

    On your own images/ and masks/ in pairs: python run.py --data folder --data-dir pairs --size 256x256
    """
    args = parse_flags(flags, config, preset=preset, output_dir=output_dir, tracking_uri=tracking_uri)
    if tuning and tuning.tune:
        from experiments.studies import from_flags, run_study

        return run_study.tune_and_train(from_flags.tuning_study(args, vars(tuning)), args)
    if tuning and any(value is not None for name, value in vars(tuning).items() if name != "tune"):
        raise InputError("--tune-range, --tune-points, --tune-seeds and --tune-sampler need --tune: add --tune.")
    from experiments.training import single_run

    return single_run.train_one(args)
