"""Load a study from its plan and its runs' folders under outputs/; missing and broken runs are rows that say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.files import read_json, sha256_of
from analysis.records.robustness_files import load_robustness
from analysis.records.run_files import read_all_scores
from analysis.records.run_state import RunState, run_state
from analysis.records.study_results import (
    CEILINGS,
    CURVES,
    DIGITS,
    RUN,
    SCORES,
    SHARED,
    TRIALS,
    Study,
    empty,
    number,
    rise,
    typed,
)
from registry import InputError

LINE = {name: name.replace("/", "_") for name in ("epoch", "train/loss", "val/loss", "val/dice", "val/iou")}


@dataclass
class RecordedRun:
    """One run's folder: its row, and what lies behind it if the run is finished."""

    row: dict[str, Any]
    folder: Path | None = None  # of a finished run
    curve: pd.DataFrame | None = None
    config: dict[str, Any] | None = None  # config.json


def planned_studies(output_dir: Path) -> list[str]:
    """List the names of the studies that left a plan under `output_dir`."""
    return sorted(path.parent.name for path in (output_dir / "studies").glob("*/plan.json"))


def load_recorded_study(output_dir: Path, name: str) -> Study | None:
    """Load the study `name` from the records under `output_dir`; None where it has no plan there."""
    folder = output_dir / "studies" / name
    plan = read_json(folder / "plan.json")
    if plan is None:
        return None
    runs = [_run(output_dir / "runs", cell, seed) for cell in plan.get("cells", []) for seed in seeds_of(plan, cell)]
    scores = _scored(runs)
    done = [run for run in runs if run.row["state"] == "finished"]
    curves = [run.curve.assign(cell=run.row["cell"], seed=run.row["seed"]) for run in done if run.curve is not None]
    rows = pd.DataFrame([run.row for run in runs], columns=list(RUN))
    configs = {run.row["key"]: run.config["config"] for run in done if run.config and "config" in run.config}
    plan = _placeless({**plan, "environment": _environment(runs)})
    runs_table = with_levels(number(rows, scores), plan)
    others = load_robustness(folder, {run.row["key"] for run in done})
    trials = read_trials(folder / "trials.csv")
    return Study(plan, runs_table, scores, trials, typed(_joined(curves, CURVES)), configs, others, _ceilings(done))


def _ceilings(runs: list[RecordedRun]) -> pd.DataFrame:
    """The ceiling of every test image at each input size, from the first runs that have measured it."""
    found: dict[str, pd.DataFrame] = {}
    for run in runs:
        size = run.row["size"]
        if size not in found and run.folder is not None and (path := run.folder / "ceilings.csv").exists():
            found[size] = pd.read_csv(path, dtype={"image": str}, keep_default_na=False).assign(size=size)
    return pd.concat(found.values(), ignore_index=True)[list(CEILINGS)] if found else empty(CEILINGS)


def _scored(runs: list[RecordedRun]) -> pd.DataFrame:
    """The scores of the finished runs; a run whose scores cannot be read is no longer finished."""
    finished = [run for run in runs if run.folder is not None]
    scores, broken = read_all_scores([run.folder for run in finished if run.folder is not None])
    for place, reason in broken.items():
        finished[place].row |= {"state": "missing", "reason": reason}
    names = pd.Categorical([str(run.row["cell"]) for run in finished])
    seeds = np.array([run.row["seed"] for run in finished], int)
    which = scores.pop("run").to_numpy(int)
    return scores.assign(cell=names[which] if len(which) else pd.Categorical([]), seed=seeds[which])[list(SCORES)]


def seeds_of(plan: dict[str, Any], cell: dict[str, Any]) -> list[int]:
    """The seeds that were planned for a cell, those of its runs included."""
    return sorted({*map(int, plan.get("design", {}).get("seeds", [])), *map(int, cell.get("runs", {}))})


def with_levels(runs: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """`runs` with a column for each factor, after the cell; a factor whose name is a column already gets none."""
    levels = {cell["cell"]: cell.get("levels", {}) for cell in plan.get("cells", [])}
    runs = runs[[name for name in runs if name in RUN]].copy()
    for factor in reversed([f for f in plan.get("factors", {}) if f not in RUN]):
        runs.insert(1, factor, runs.cell.map({cell: of.get(factor, "") for cell, of in levels.items()}).astype(str))
    return runs


def read_trials(path: Path) -> pd.DataFrame:
    """Read a study's tuning trials, none where there is no file. Raises InputError for an unreadable file."""
    if not path.exists():
        return empty(TRIALS)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", None)
        return typed(table.reindex(columns=list(TRIALS)))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"The tuning trials in {path} cannot be read ({' '.join(str(error).split())}). Fix the file, or remove it."
        ) from None


def _run(runs_dir: Path, cell: dict[str, Any], seed: int) -> RecordedRun:
    """Read what is known of a cell's run with a seed."""
    key = str(cell.get("runs", {}).get(str(seed)) or "")
    row = {"cell": cell["cell"], "seed": seed, "key": key, "state": "missing", "reason": "not begun"}
    row["rate"] = cell.get("rate")
    if not key:
        reason = "its learning rate is not known yet" if cell.get("rate") is None else "not planned"
        return RecordedRun(row | {"reason": reason})
    folder = runs_dir / Path(key).name
    state = run_state(folder)
    row |= _settings(state.config) | {"git_commit": state.saved.get("git_commit", "")}
    if state.name != "finished" or state.result is None:
        return RecordedRun(row | _unfinished(state), config=state.saved)
    curve = _curve(state.epochs)
    row |= _result(state.result) | {"state": "finished", "reason": "", "val_rise": rise(curve.val_dice.to_numpy(float))}
    row |= {
        "val_dice_last": curve.val_dice.iloc[-1] if len(curve) else None,
        "scores_sha256": sha256_of(scores) if (scores := folder / "scores_last.csv").exists() else "",
    }
    return RecordedRun(row, folder, curve, state.saved)


def _unfinished(state: RunState) -> dict[str, str]:
    """State and reason, in runs.csv, of a run that is not finished."""
    if state.name == "failed":
        return {"state": "failed", "reason": state.reason}
    if state.name == "foreign":
        return {"reason": "not begun"}
    if state.name == "interrupted":
        return {"reason": f"unfinished, epoch {len(state.epochs)} of {state.config.get('epochs', '?')}"}
    return {"reason": state.reason}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a RunConfig that runs.csv shows, as text where they are no number."""
    shown = {name: config[name] for name in (*SHARED, "threads") if config.get(name) is not None}
    shown = {name: "x".join(map(str, v)) if name == "size" else v for name, v in shown.items()}
    shown = {name: "/".join(map(str, v)) if name == "fold" else v for name, v in shown.items()}
    return shown | ({"rate": config["learning_rate"]} if "learning_rate" in config else {})


def _result(result: dict[str, Any]) -> dict[str, Any]:
    row = {
        name: result.get(name)
        for name in ("best_epoch", "parameters", "gmacs", "images_per_second", "peak_memory_gb", "device")
    }
    ceiling = result.get("ceiling")
    return row | {
        "training_seconds": result.get("seconds", {}).get("training"),
        "ceiling": round(ceiling, DIGITS) if ceiling is not None else None,
    }


def _curve(epochs: list[dict[str, Any]]) -> pd.DataFrame:
    curve = pd.DataFrame([{LINE[k]: v for k, v in line.items() if k in LINE} for line in epochs])
    return curve.reindex(columns=list(LINE.values()))


def _joined(parts: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)[list(columns)] if parts else empty(columns)


def _environment(runs: list[RecordedRun]) -> dict[str, str]:
    """The versions and processors that took part, by name; several, where runs differ, with commas."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, version in ((run.config or {}).get("versions") or {}).items():
            found.setdefault(name, set()).add(str(version))
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def _placeless(value: Any) -> Any:
    """`value` without the paths of this machine: of an absolute path, the last part stays."""
    if isinstance(value, dict):
        return {name: _placeless(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_placeless(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
