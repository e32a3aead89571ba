"""A run's folder: its files, when the run counts as finished, and the checks on resuming and reading it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import run_files
from analysis.records.files import name_file, no_check, read_json, sha256_of, write_atomically
from analysis.records.run_state import changed_file, headline
from experiments.config.schema import RunConfig, RuntimeConfig, without_password
from experiments.runtime import leases
from experiments.runtime.environment import git_commit, versions
from experiments.training import checkpoint
from registry import InputError

BEST, LAST = "best.ckpt", "last.ckpt"
SEALED = ("metrics.jsonl", "scores_best.csv", "scores_last.csv")  # what result.json holds the SHA-256 of


def headline_file(folder: Path) -> str:
    """Name the checkpoint of a run's headline weights; without a result its settings say which these will be."""
    result = read_json(folder / "result.json")
    if result is None:
        config = (read_json(folder / "config.json") or {}).get("config")
        result = {"headline": "best" if isinstance(config, dict) and config.get("early_stopping") else "last"}
    return BEST if headline(result) == "best" else LAST


@dataclass(frozen=True)
class RunFolder:
    """The folder `outputs/runs/<key>/`. Its `result.json`, written last, means that the run is finished.

    `confirm` is called before every write and raises Busy once another process has taken the run over.
    """

    folder: Path
    confirm: Callable[[], None] = no_check

    @property
    def key(self) -> str:
        return self.folder.name

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None."""
        return read_json(self.folder / "result.json")

    def saved(self) -> dict[str, Any]:
        """Return the content of config.json."""
        return read_json(self.folder / "config.json") or {}

    def begin(self, config: RunConfig, machine: RuntimeConfig, command: list[str]) -> None:
        """Create the folder and write config.json, or verify an existing one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.json"
        if path.exists():
            self.verify_config(config)
            return
        content = {
            "key": self.key,
            "config": config.to_dict(),
            "machine": _places(machine),
            "versions": versions(),
            "git_commit": git_commit(),
            "command": [without_password(word) for word in command],
        }
        self.write(path.name, json.dumps(content, indent=1))

    def verify_config(self, config: RunConfig) -> None:
        """Raise InputError where config.json was changed since the run began."""
        saved = self.saved().get("config")
        if saved != config.to_dict():
            raise InputError(
                f"{self.folder / 'config.json'} was changed since the run began "
                f"({_difference(config.to_dict(), saved)}). Change it back, or discard the run: "
                f"{run_files.discard(self.folder)}"
            )

    def verify_checksums(self) -> None:
        """Raise InputError where a file of this finished run was changed since (runs of early versions lack a seal)."""
        result = self.result() or {}
        if name := changed_file(self.folder, result):
            raise InputError(
                f"{self.folder / name} was changed since the run was finished. Put it back from a copy, or give the "
                f"run up and train it again: {run_files.discard(self.folder)}"
            )

    def epochs(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl, without a last line that a crash truncated."""
        return run_files.read_json_lines(self.folder / "metrics.jsonl")

    def timings(self) -> list[dict[str, float]]:
        """The lines of timing.jsonl."""
        return run_files.read_json_lines(self.folder / "timing.jsonl")

    def files(self) -> list[Path]:
        """Settings, metrics and scores, without weights and pictures: the files that MLflow also gets."""
        return [path for path in sorted(self.folder.iterdir()) if path.suffix in (".json", ".jsonl", ".csv")]

    def truncate_after(self, last: int) -> None:
        """Discard the lines of epochs after `last`, which will be trained again.

        Raises InputError where an epoch up to `last` is missing or repeated: a line is on disk before its checkpoint.
        """
        for name in ("metrics.jsonl", "timing.jsonl"):
            kept = (
                [row for row in run_files.read_json_lines(self.folder / name) if row.get("epoch", 0) <= last]
                if last
                else []
            )
            self._refuse_gap(name, kept, last)
            self.write(name, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl or timing.jsonl and flush it to disk.

        The lease is confirmed with the file open: a process that takes the run over replaces both files
        (`truncate_after`), so a process suspended just after its check appends to a file that no longer exists.
        """
        with name_file(self.folder / name), open(self.folder / name, "a", encoding="utf-8") as file:
            self.confirm()
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def save_best(self, content: dict[str, Any]) -> None:
        """Write best.ckpt."""
        checkpoint.save(self.folder / "best.ckpt", content, self.confirm)

    def save_last(self, content: dict[str, Any]) -> None:
        """Write last.ckpt, and retain the one before as previous.ckpt."""
        checkpoint.rotate(self.folder, self.confirm)
        checkpoint.save(self.folder / "last.ckpt", content, self.confirm)

    def finish(self, result: dict[str, Any]) -> None:
        """Write result.json: the run is finished, and its files are sealed by their SHA-256.

        Raises InputError where metrics.jsonl or timing.jsonl does not hold each epoch once.
        """
        for name in ("metrics.jsonl", "timing.jsonl"):
            self._refuse_gap(name, run_files.read_json_lines(self.folder / name), result["epochs"])
        self._finish(result)

    def import_result(self, config: RunConfig, result: dict[str, Any] | None) -> None:
        """Record a trial that ended elsewhere in a new folder; None is the result of one that diverged."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if result is None:
            self.fail("It diverged elsewhere.", diverged=True)
        else:
            self._finish({"key": config.key, "seed": config.seed, "learning_rate": config.learning_rate, **result})
        self.write(
            "config.json", json.dumps({"key": config.key, "config": config.to_dict(), "published": True}, indent=1)
        )

    def _finish(self, result: dict[str, Any]) -> None:
        sealed = {path.name: sha256_of(path) for name in SEALED if (path := self.folder / name).exists()}
        content = {**result, "sha256": sealed}
        content["seal"] = run_files.seal(json.loads(json.dumps(content)))
        self.write("result.json", json.dumps(content, indent=1))
        (self.folder / "failed.json").unlink(missing_ok=True)

    def write(self, name: str, content: str) -> None:
        """Write one of the run's files atomically."""
        write_atomically(self.folder / name, content.encode(), confirm=self.confirm)

    def _refuse_gap(self, name: str, rows: list[dict[str, Any]], last: int) -> None:
        if [row.get("epoch") for row in rows] != list(range(1, last + 1)):
            raise InputError(
                f"{self.folder / name} does not hold the epochs 1 to {last}, once each: it was changed since. Put it "
                f"back from a copy, or discard the run and train it again: {run_files.discard(self.folder)}"
            )

    def drop_weights(self) -> None:
        """Delete the checkpoints, which a finished trial no longer needs."""
        self.confirm()
        for path in self.folder.glob("*.ckpt"):
            path.unlink()

    def fail(self, reason: str, diverged: bool = False) -> None:
        """Record why the run failed; the same command retries it."""
        content = {"reason": reason, "diverged": diverged, "time": time.time()}
        with contextlib.suppress(OSError):  # the disk may be full; the reason is also printed
            self.write("failed.json", json.dumps(content))

    def failure(self) -> dict[str, Any] | None:
        """What `fail` recorded (reason, diverged, time), unless the run has been finished since; or None."""
        return None if self.result() else read_json(self.folder / "failed.json")


def refuse_changed(config: RunConfig, machine: RuntimeConfig) -> None:
    """Raise InputError where the same command left a run unfinished with other data, weights or threads than now.

    Such a run can neither be resumed, which would mix two things, nor be left behind silently.
    """
    for path in sorted(machine.runs_dir.glob("*/config.json")):
        saved = read_json(path) or {}
        old = saved.get("config", {})
        same_command = config.same_settings(old) and saved.get("machine") == _places(machine)
        if path.parent.name == config.key or not same_command or (path.parent / "result.json").exists():
            continue
        changed = _difference(old, config.to_dict())
        if old.get("threads") != config.threads and old.get("threads"):
            changed += f" (OMP_NUM_THREADS={old['threads']} before the command gives as many)"
        if (owner := leases.owner(path.parent)) is not None:
            raise InputError(
                f"The same command is under way as the run {path.parent.name} ({owner}), which differs in this: "
                f"{changed}. Put that back, or wait until it has ended."
            )
        raise InputError(
            f"The same command left the run {path.parent.name} unfinished, and something changed since: "
            f"{changed}. Put it back and repeat the command, or give that run up: {run_files.discard(path.parent)}"
        )


def _places(machine: RuntimeConfig) -> dict[str, Any]:
    """The paths of the inputs: they tell two commands apart although they do not change the result."""
    paths = {"data_dir": machine.data_dir, "split_file": machine.split_file, "weights_file": machine.weights_file}
    places = {name: str(path.absolute()) if path else None for name, path in paths.items()}
    places |= {"mask_pattern": machine.mask_pattern} if machine.mask_pattern else {}
    return places | ({"init_file": str(machine.init_file)} if machine.init_file else {})


def _difference(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str:
    old, new = old or {}, new or {}
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return (
        "; ".join(f"{name.replace('_', ' ')} {old.get(name)} -> {new.get(name)}" for name in names)
        or "the file cannot be read"
    )
