"""Repeat finished runs of a study from their configs and check that their scores are bit-identical (CPU runs only)."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from analysis.records.files import read_json, sha256_of
from analysis.records.study_paths import StudyPaths, load_study, one_study
from analysis.records.study_results import Study
from experiments.config.schema import DATA_DIRS, RunConfig, RuntimeConfig
from experiments.data.run_inputs import load_run_inputs
from experiments.runtime.environment import git_commit, processor
from experiments.runtime.interrupts import Stop, interruptible
from experiments.runtime.progress import log
from experiments.training import runner
from registry import InputError

WEIGHTS = Path("weights")  # where the studies look for weights files


def command(paths: StudyPaths, asked: str | None, count: int, data_dir: Path | None) -> int:
    """`report --verify`: the exit code."""
    study = load_study(paths, one_study(paths, asked, f"--verify {count}"))
    return interruptible(
        lambda stop: verify(study, count, paths.output_dir, data_dir, stop), "The same command starts over."
    )


def verify(study: Study, count: int, output_dir: Path, data_dir: Path | None, stop: Stop) -> int:
    """Train `count` randomly drawn runs of `study` again, in `output_dir`/verify; exit code 1 if any byte differs.

    Raises InputError where no run can be repeated here, and Interrupted.
    """
    chosen = draw_runs(study, count)
    differing = sum(not _same(study, key, output_dir.absolute(), data_dir, stop) for key in chosen)
    log(f"{len(chosen) - differing} of {len(chosen)} repeated runs gave the same scores bit for bit.")
    if differing:
        recorded = ", ".join(sorted(set(study.finished.device)))
        log(f"Recorded on {recorded}; here is {processor()}, at commit {git_commit()[:7]}.")
    return int(differing > 0)


def draw_runs(study: Study, count: int, generator: random.Random | None = None) -> list[str]:
    """The keys of `count` finished CPU runs, or of all there are. Raises InputError where there is none."""
    finished = [key for key in study.finished.key if study.configs.get(key, {}).get("device") == "cpu"]
    if not finished:
        raise InputError(
            f"The study {study.name} has no finished CPU run whose config is known, so nothing can be verified "
            "bit for bit."
        )
    return (generator or random.Random()).sample(sorted(set(finished)), min(count, len(set(finished))))


def _same(study: Study, key: str, output_dir: Path, data_dir: Path | None, stop: Stop) -> bool:
    """Whether a run, repeated, gives the recorded scores."""
    config = load_config(study, key)
    machine = _machine(config, key, output_dir, data_dir)
    shutil.rmtree(machine.runs_dir / key, ignore_errors=True)  # left by an interrupted verification
    prepared = load_run_inputs(replace(config, data_fingerprint=""), machine, stop.check)
    if prepared.config.key != key:
        raise InputError(
            f"The images in {machine.data_dir} are not those of the run {key}, or split otherwise: its data have the "
            f"fingerprint {config.data_fingerprint}. Name their folder with --data-dir."
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)  # the number of threads decides the order of sums
    try:
        runner.run(prepared, stop)
    finally:
        torch.set_num_threads(threads)
    row = study.finished[study.finished.key == key].iloc[0]
    repeated = machine.runs_dir / key / "scores_last.csv"
    same = sha256_of(repeated) == row.scores_sha256
    log(f"{row.cell}, seed {row.seed}, run {key}: {'the same bits' if same else f'OTHER SCORES, see {repeated}'}")
    if same:
        shutil.rmtree(machine.runs_dir / key)
    return same


def load_config(study: Study, key: str) -> RunConfig:
    """The config of a run. Raises InputError where this version of the code gives it another key."""
    commit = study.finished[study.finished.key == key].git_commit.iloc[0]
    try:
        config = RunConfig.from_dict(study.configs[key])
    except TypeError as error:
        raise InputError(
            f"This version of the code cannot repeat the run {key} ({error}). Its commit can: "
            f"git checkout {commit[:12]}"
        ) from None
    if config.key != key:
        raise InputError(
            f"The config of the run {key} was altered: it belongs to {config.key}. Restore the study's files with "
            "git checkout."
        )
    return config


def _machine(config: RunConfig, key: str, output_dir: Path, data_dir: Path | None) -> RuntimeConfig:
    """Where the run's inputs are: as asked, else as its record says, else in the default folder."""
    recorded = (read_json(output_dir / "runs" / key / "config.json") or {}).get("machine") or {}
    images = data_dir or recorded.get("data_dir") or DATA_DIRS.get(config.data, Path("data"))
    names = ("split_file", "weights_file", "init_file")
    split, weights, init = (Path(recorded[name]) if recorded.get(name) else None for name in names)
    if config.init and init is None:
        raise InputError(
            f"The run {key} began from another run's weights, and no record here says which file: begin it with "
            "python run.py and --init."
        )
    if config.weights and weights is None:
        files = (path for path in sorted(WEIGHTS.glob("*")) if path.is_file())
        weights = next((path for path in files if sha256_of(path) == config.weights), None)
        if weights is None:
            raise InputError(
                f"The run {key} began from a weights file that is not here: put the file with the SHA-256 "
                f"{config.weights} into the folder {WEIGHTS}/."
            )
    return RuntimeConfig(
        data_dir=Path(images),
        output_dir=output_dir / "verify",
        workers=0,
        split_file=split,
        weights_file=weights,
        init_file=init,
        mask_pattern=recorded.get("mask_pattern"),
    )
