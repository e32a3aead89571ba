"""The runs under an output folder: their state, test Dice and size on disk. Reads files; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records.run_state import RunState, run_state, test_dice
from experiments.data.cache import disk_size
from experiments.data.reading import Reading, cache_name
from experiments.runtime import leases


@dataclass(frozen=True)
class ListedRun:
    """One folder of `outputs/runs`; for the states see `RunState`."""

    folder: Path
    state: str
    reason: str
    config: dict[str, Any]
    dice: float | None  # on the test set, of a finished run
    size: int  # bytes

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def cache(self) -> str:
        """The name of the cache that the run reads."""
        size = (*self.config.get("size", ()), 0, 0)[:2]
        return cache_name(self.config.get("data_fingerprint", ""), size, Reading.of(self.config))


def list_runs(runs_dir: Path) -> list[ListedRun]:
    """Return every folder in `runs_dir`, oldest first, those that are damaged or hold no run included."""
    folders = [path for path in runs_dir.iterdir() if path.is_dir()] if runs_dir.is_dir() else []
    return [_listed(folder) for folder in sorted(folders, key=lambda path: (_began(path), path.name))]


def state_of(folder: Path) -> RunState:
    """Return the state of a run by its files and its lease, which counts on every machine that shares the folder."""
    return run_state(folder, leases.owner(folder))


def _listed(folder: Path) -> ListedRun:
    state = state_of(folder)
    dice = test_dice(state.result) if state.name == "finished" and state.result else None
    reason = "" if state.name == "running" else state.reason
    return ListedRun(folder, state.name, reason, state.config, dice, disk_size(folder))


def _began(folder: Path) -> float:
    try:
        return (folder / "config.json").stat().st_mtime
    except OSError:
        return 0.0
