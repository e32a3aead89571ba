"""What MLflow gets of a run, read from the run's folder: the same during the run and when `sync` uploads it later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from analysis.records.run_state import headline
from experiments.config.schema import RunConfig
from experiments.tracking.upload import RUNNING, LoggedEpoch, RunSnapshot
from experiments.training.run_folder import RunFolder

VALIDATION = "validation-epoch-"  # the pictures with this name and a number are shown with a slider


def snapshot(
    run_folder: RunFolder,
    config: RunConfig,
    data_dir: Path,
    tags: Mapping[str, str],
    parent: str = "",
    status: str = RUNNING,
    metrics: Mapping[str, float] | None = None,
) -> RunSnapshot:
    """Return what MLflow should have of a run. Damaged folders raise InputError, KeyError, TypeError or ValueError."""
    began, epochs = logged_epochs(run_folder)
    pictures = picture_files(run_folder, {epoch.step for epoch in epochs})
    files = run_folder.files()
    result = run_folder.result() or {}
    if "test" in result:  # no trial has test scores
        tags = {**tags, "headline": headline(result)}
    if commit := run_folder.saved().get("git_commit"):  # of the code that began the run, not of that which resumed it
        tags = {**tags, "mlflow.source.git.commit": commit}
    ended = max((path.stat().st_mtime for path in files), default=began)
    return RunSnapshot(config, data_dir, began, epochs, pictures, files, tags, parent, status, metrics or {}, ended)


def logged_epochs(run_folder: RunFolder) -> tuple[float, list[LoggedEpoch]]:
    """Return when a run began, and its epochs. Their moments never go back, since MLflow sorts by them."""
    timings = {row["epoch"]: row for row in run_folder.timings()}
    starts = [row["ended"] - row.get("seconds", 0.0) for row in timings.values() if "ended" in row]
    # a folder that was copied is younger than its epochs
    began = moment = min([(run_folder.folder / "config.json").stat().st_mtime, *starts])
    epochs, last = [], 0.0
    for line in run_folder.epochs():
        timing = timings.get(line["epoch"], {})
        moment = last = max(last, timing.get("ended", moment + timing.get("seconds", 0.0)))
        metrics = {name: value for name, value in line.items() if name != "epoch"}
        speed = {name: timing[name] for name in ("images_per_second",) if name in timing}
        epochs.append(LoggedEpoch(int(line["epoch"]), {**metrics, **speed}, moment))
    return began, epochs


def picture_files(run_folder: RunFolder, steps: set[int]) -> dict[str | tuple[str, int], Path]:
    """Return a run's pictures by their names in MLflow; those of an epoch that will be trained again are left out."""
    pictures: dict[str | tuple[str, int], Path] = {}
    for path in sorted((run_folder.folder / "pictures").glob("*.png")):
        number = path.stem.removeprefix(VALIDATION)
        if not number.isdigit():
            pictures[path.name] = path
        elif int(number) in steps:
            pictures["validation", int(number)] = path
    return pictures
