"""The state of a run, from the files in its folder: the same for every command that lists, uploads or reports runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.records import run_files
from analysis.records.files import read_json, sha256_of
from registry import InputError

Json = dict[str, Any] | None


@dataclass(frozen=True)
class RunState:
    """A run's state and the records that it was derived from.

    `name` is one of
        finished     result.json is there, and nothing was changed since it was written
        running      a process holds the run's lease, and `reason` names it
        failed       the last attempt ended with the error in `reason`
        interrupted  neither finished nor failed, and no process holds it; `reason` says after which epoch
        damaged      a file was changed or cannot be read; `reason` names it
        foreign      the folder is missing or holds no config.json
    """

    name: str
    reason: str = ""
    saved: dict[str, Any] = field(default_factory=dict)  # config.json
    result: dict[str, Any] | None = None  # result.json
    failure: dict[str, Any] | None = None  # failed.json of a run without result
    epochs: list[dict[str, Any]] = field(default_factory=list)  # metrics.jsonl, where it can be read

    @property
    def config(self) -> dict[str, Any]:
        """The fields of the run's RunConfig."""
        config = self.saved.get("config")
        return config if isinstance(config, dict) else {}


def run_state(folder: Path, holder: str | None = None) -> RunState:
    """Return the state of the run in `folder`. `holder` is the live process that holds its lease, if there is one."""
    saved, result, failure = (read_json(folder / name) for name in ("config.json", "result.json", "failed.json"))
    try:
        epochs, damage = run_files.read_json_lines(folder / "metrics.jsonl"), ""
    except InputError as error:
        epochs, damage = [], str(error)
    name, reason = _by_files(folder, saved, result, failure, damage or len(epochs))
    if holder is not None:
        name, reason = "running", holder
    return RunState(name, reason, saved or {}, result, None if result else failure, epochs)


def _by_files(folder: Path, saved: Json, result: Json, failure: Json, epochs: int | str) -> tuple[str, str]:
    """Return the name of the state and its reason. `epochs`: how many there are, or why they cannot be read."""
    if not (folder / "config.json").exists():
        return "foreign", "no config.json"
    if saved is None or not isinstance(saved.get("config"), dict):
        return "damaged", "config.json cannot be read"
    if (folder / "result.json").exists():
        if result is None or ("test" in result and test_dice(result) is None):
            return "damaged", "result.json cannot be read"
        if name := changed_file(folder, result):
            return "damaged", f"{name} was changed since the run was finished"
        return ("damaged", epochs) if isinstance(epochs, str) else ("finished", "")
    if (folder / "failed.json").exists():
        reason = "failed.json cannot be read" if failure is None else str(failure.get("reason", "no reason was noted"))
        return "failed", " ".join(reason.split())
    if isinstance(epochs, str):
        return "damaged", epochs
    return "interrupted", f"after epoch {epochs} of {saved['config'].get('epochs', '?')}"


def changed_file(folder: Path, result: dict[str, Any]) -> str:
    """Return the name of a file that was changed since the run was finished; empty where none was.

    Runs of early versions have no checksums, and count as unchanged.
    """
    for name, checksum in (result.get("sha256") or {}).items():
        if not (folder / name).is_file() or sha256_of(folder / name) != checksum:
            return name
    return "result.json" if result.get("seal", "") not in ("", run_files.seal(result)) else ""


def headline(result: dict[str, Any]) -> str:
    """Return which weights a finished run stands for: "last", or "best" by validation after early stopping.

    Results of early versions do not name them; those runs stand for their last weights.
    """
    return "best" if result.get("headline") == "best" else "last"


def test_dice(result: dict[str, Any]) -> float | None:
    """Return the headline weights' test Dice in a result.json; None where it holds none."""
    value: Any = result
    for name in ("test", headline(result), "dice"):
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) else None
