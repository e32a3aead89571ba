"""The committed files of a study, analysis/results/NAME: written and read.

    study.json      the plan, and the versions of the runs' software
    runs.csv        a row for each planned run, finished or not
    scores.csv.gz   a row for each test image of each finished run
    trials.csv      the tuning trials;   curves.csv   a row for each epoch
    robustness.csv.gz   written by `run.py robustness`: a row for each run, condition and group
    configs.json    every finished run's RunConfig: what they share, and what each adds; `report --verify` repeats them

The same study gives the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.files import read_json, write_atomically
from analysis.records.gather import read_trials, with_levels
from analysis.records.study_results import CURVES, ROBUSTNESS, RUN, SCORES, Study, number, typed
from registry import InputError

TYPES = {"cell": "category", "group": "category", "image": "category", "seed": int, "failed": np.int8}  # of scores


def committed_studies(results: Path) -> list[str]:
    """List the names of the studies that have files under `results`."""
    return sorted(path.parent.name for path in results.glob("*/study.json"))


def write_study(study: Study, results: Path) -> Path:
    """Write the files of `study` under `results`; returns their folder."""
    folder = results / study.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in study_files(study).items():
        write_atomically(folder / name, content)
    return folder


def study_files(study: Study) -> dict[str, bytes]:
    """Each file's name and content."""
    robustness = {"robustness.csv.gz": gzip.compress(_csv(study.robustness), 5, mtime=0)}
    return (robustness if len(study.robustness) else {}) | {
        "study.json": _json(study.plan),
        "runs.csv": _csv(study.runs),
        "scores.csv.gz": gzip.compress(_scores_csv(study.scores), 5, mtime=0),
        "trials.csv": _csv(study.trials),
        "curves.csv": _csv(study.curves),
        "configs.json": _json(_folded(study.configs)),
    }


def read_study(results: Path, name: str) -> Study | None:
    """Read a study from its files, None where there are none. Raises InputError for unreadable files."""
    folder = results / name
    plan = read_json(folder / "study.json")
    if plan is None:
        return None
    try:
        runs, notices = _runs(folder / "runs.csv")
        types = {name: TYPES.get(name, float) for name in SCORES}
        scores = pd.read_csv(folder / "scores.csv.gz", dtype=types, keep_default_na=False)[list(SCORES)]
        curves = pd.read_csv(folder / "curves.csv", dtype={"cell": str}, keep_default_na=False, na_values=[""])
        curves = curves[list(CURVES)]
        robustness = pd.DataFrame(columns=list(ROBUSTNESS))
        if (folder / "robustness.csv.gz").exists():
            texts = dict.fromkeys(("key", "condition", "group"), str)
            robustness = pd.read_csv(folder / "robustness.csv.gz", dtype=texts, keep_default_na=False)[list(ROBUSTNESS)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"The results in {folder} cannot be read ({' '.join(str(error).split())}). Restore them with "
            f"git checkout {folder}, or delete the folder and repeat: python run.py report {name}"
        ) from None
    configs = _unfolded(read_json(folder / "configs.json") or {})
    runs = with_levels(number(runs, scores), plan)
    return Study(plan, runs, scores, read_trials(folder / "trials.csv"), typed(curves), configs, robustness, notices)


def _runs(path: Path) -> tuple[pd.DataFrame, tuple[tuple[str, int], ...]]:
    """The rows of runs.csv, a repeated row once, and a notice of these; two rows of one cell and seed are refused."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", None)
    table = typed(table.reindex(columns=list(RUN)))
    rows = table.drop_duplicates()
    conflicts = rows[rows.duplicated(["cell", "seed"])]
    if len(conflicts):
        row = conflicts.iloc[0]
        raise InputError(
            f"{path} holds two different runs of {row.cell} with seed {row.seed}. Delete the row that is not true."
        )
    repeated = len(table) - len(rows)
    return rows.reset_index(drop=True), (("repeated_rows", repeated),) if repeated else ()


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _scores_csv(scores: pd.DataFrame) -> bytes:
    """As `_csv`, in a third of the time: there may be a million rows."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(SCORES)
    table.writerows(zip(*(scores[name].tolist() for name in SCORES), strict=True))
    return buffer.getvalue().encode()


def _json(content: Any) -> bytes:
    return (json.dumps(_finite(content), indent=1, ensure_ascii=False) + "\n").encode()


def _finite(value: Any) -> Any:
    """`value` with null where a number is not finite: JSON has no infinity."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _folded(configs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What all configs share, once, and for each key what it adds."""
    first = next(iter(configs.values()), {})
    shared = {name: v for name, v in first.items() if all(config.get(name) == v for config in configs.values())}
    own = {key: {n: v for n, v in config.items() if n not in shared} for key, config in sorted(configs.items())}
    return {"shared": shared, "runs": own}


def _unfolded(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {key: {**content.get("shared", {}), **own} for key, own in content.get("runs", {}).items()}
