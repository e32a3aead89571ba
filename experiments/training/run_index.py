"""The runs under an output folder: what they are, how they stand, what they weigh. Reads files; imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.data.cache import disk_size


@dataclass(frozen=True)
class Run:
    """One folder of `outputs/runs`. `state`: finished, running, failed, interrupted, damaged or foreign; `why` explains it."""

    folder: Path
    state: str
    why: str
    config: dict[str, Any]
    dice: float | None
    size: int

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def cache(self) -> str:
        """The name of the cache that the run reads."""
        width, height = (*self.config.get("size", ()), 0, 0)[:2]
        return f"{self.config.get('data_fingerprint', '')}-{width}x{height}"


def runs(runs_dir: Path) -> list[Run]:
    """Every folder in `runs_dir`, oldest first; a damaged or foreign one is listed as such."""
    folders = [path for path in runs_dir.iterdir() if path.is_dir()] if runs_dir.is_dir() else []
    return [_run(folder) for folder in sorted(folders, key=lambda path: (_began(path), path.name))]


def held(lock: Path) -> bool:
    """Whether a process holds the lock; a lock file that is missing is not made."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _run(folder: Path) -> Run:
    saved, result = _read(folder / "config.json"), _read(folder / "result.json")
    config = saved.get("config") if isinstance(saved, dict) else None
    state, why = _state(folder, saved, config, result)
    dice = _number(result, "test", "best", "dice") if state == "finished" else None
    return Run(folder, state, why, config if isinstance(config, dict) else {}, dice, disk_size(folder))


def _state(folder: Path, saved: Any, config: Any, result: Any) -> tuple[str, str]:
    if saved is None:
        return "foreign", "no config.json"
    if not isinstance(config, dict):
        return "damaged", "config.json cannot be read"
    if held(folder.with_name(f"{folder.name}.lock")):
        return "running", ""
    if result is not None:
        broken = _number(result, "test", "best", "dice") is None
        return ("damaged", "result.json cannot be read") if broken else ("finished", "")
    failed = _read(folder / "failed.json")
    if failed is not None:
        return "failed", str(failed.get("reason", "")) if isinstance(failed, dict) else "failed.json cannot be read"
    return "interrupted", f"after epoch {_epochs(folder)} of {config.get('epochs', '?')}"


def _read(path: Path) -> Any:
    """The content of a JSON file; None where there is none, and "" where it cannot be read."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""


def _number(content: Any, *names: str) -> float | None:
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return float(content) if isinstance(content, (int, float)) else None


def _epochs(folder: Path) -> int:
    try:
        return sum(line.endswith(b"\n") for line in (folder / "metrics.jsonl").open("rb"))
    except OSError:
        return 0


def _began(folder: Path) -> float:
    try:
        return (folder / "config.json").stat().st_mtime
    except OSError:
        return 0.0
