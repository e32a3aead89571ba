"""The committed files of a study, analysis/results/NAME: written, read, and merged with new records.

    study.json      the plan, and the versions of the runs' software
    runs.csv        a row for each planned run, finished or not
    scores.csv.gz   a row for each test image of each finished run
    trials.csv      the tuning trials;   curves.csv   a row for each epoch
    ceilings.csv    a row for each test image and input size, where the page tells kinds of images apart
    robustness.csv.gz   written by `run.py robustness`: a row for each run, condition and group
    configs.json    every finished run's RunConfig: what they share, and what each adds; `report --verify` repeats them

The same study gives the same bytes. A committed run stays where no finished run takes its place.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.files import read_json
from analysis.records.load_runs import read_trials, with_levels
from analysis.records.study_results import CEILINGS, CURVES, ROBUSTNESS, RUN, SCORES, Study, compact, number, typed
from registry import InputError

TYPES = {"cell": "category", "group": "category", "image": "category", "seed": int, "failed": np.int8}  # of scores


def committed_studies(results: Path) -> list[str]:
    """List the names of the studies that have files under `results`."""
    return sorted(path.parent.name for path in results.glob("*/study.json"))


def runs_csv(study: Study) -> bytes:
    """The content of runs.csv."""
    return _csv(study.runs)


def study_files(study: Study) -> dict[str, bytes]:
    """Each file's name and content."""
    optional = {}
    if len(study.robustness):
        optional["robustness.csv.gz"] = gzip.compress(_csv(study.robustness), 5, mtime=0)
    if len(study.ceilings) and study.reading.kinds:
        optional["ceilings.csv"] = _csv(study.ceilings)
    return optional | {
        "study.json": _json(study.plan),
        "runs.csv": runs_csv(study),
        "scores.csv.gz": gzip.compress(_scores_csv(study.scores), 5, mtime=0),
        "trials.csv": _csv(study.trials),
        "curves.csv": _csv(study.curves),
        "configs.json": _json(_folded(study.configs)),
    }


def read_study(results: Path, name: str) -> Study | None:
    """Read a study from its files, None where there are none. Raises InputError for unreadable files."""
    folder = results / name
    plan = _readable_json(folder / "study.json")
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
        ceilings = pd.DataFrame(columns=list(CEILINGS))
        if (folder / "ceilings.csv").exists():
            ceilings = pd.read_csv(folder / "ceilings.csv", dtype={"image": str}, keep_default_na=False)[list(CEILINGS)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"The results in {folder} cannot be read ({' '.join(str(error).split())}). Restore them with "
            f"git checkout {shlex.quote(str(folder))}, or delete the folder and repeat: python run.py report {name}"
        ) from None
    configs = _unfolded(_readable_json(folder / "configs.json") or {})
    runs = with_levels(number(runs, scores), plan)
    if lost := int(((runs.state == "finished") & runs.dice.isna()).sum()):
        raise InputError(
            f"{folder / 'scores.csv.gz'} has no scores of {lost} finished runs of runs.csv. Restore both with "
            f"git checkout {shlex.quote(str(folder))}, or delete the folder and repeat: python run.py report {name}"
        )
    trials = read_trials(folder / "trials.csv")
    return Study(plan, runs, scores, trials, typed(curves), configs, robustness, ceilings, notices)


def with_shared_runs(study: Study, results: Path) -> Study:
    """`study` with the runs that it lacks and another committed study has: those of the same key."""
    for name in committed_studies(results):
        missing = study.runs[(study.runs.state == "missing") & study.runs.key.fillna("").ne("")]
        wanted = set(missing.key)
        if not wanted:
            break
        if name == study.name or wanted.isdisjoint(finished_runs(results, name).key):
            continue
        if (other := read_study(results, name)) is not None:
            study = merge_studies(_as_runs_of(study, other, missing), study)
    return study


def finished_runs(results: Path, name: str) -> pd.DataFrame:
    """The rows of a committed study's finished runs, without their scores."""
    runs, _ = _runs(results / name / "runs.csv")
    return runs[runs.state == "finished"]


def _as_runs_of(study: Study, other: Study, missing: pd.DataFrame) -> Study:
    """What `other` knows of the runs in `missing`, as if it were of `study`: with its cells' names."""
    names = missing.set_index("key")[["cell", "seed"]]
    own = other.finished[["cell", "seed", "key"]].astype({"cell": str}).set_index(["cell", "seed"]).key

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        rows = table.assign(cell=table.cell.astype(str)).drop(columns="key", errors="ignore")
        rows = rows.join(own, on=["cell", "seed"], how="inner").drop(columns=["cell", "seed"])
        return rows.join(names, on="key", how="inner")[list(dict.fromkeys(table.columns))]

    plan = {**study.plan, "environment": other.plan.get("environment", {})}
    tables = {name: renamed(getattr(other, name)) for name in ("scores", "curves")}
    runs = with_levels(renamed(other.finished), plan)
    nothing = {"trials": study.trials[:0], "robustness": study.robustness[:0], "notices": ()}
    return replace(other, plan=plan, runs=runs, **tables, **nothing)


def _readable_json(path: Path) -> dict[str, Any] | None:
    """The content of a file; None where there is none. Raises InputError where it cannot be read, as after a merge."""
    content = read_json(path)
    if content is None and path.exists():
        raise InputError(
            f"{path} cannot be read. Restore it with git checkout {shlex.quote(str(path))}, or correct it."
        )
    return content


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


RANGE = ("low", "high", "points", "seeds", "sampler", "fit")  # of a tuning: what makes its trials the same


def merge_studies(old: Study, new: Study) -> Study:
    """Lay the study as it was measured now (`new`) over its committed files (`old`).

    A run that failed now replaces one that was not the same run (another key): a failure is never hidden by an old
    success.
    """
    stay, both = _committed_runs(old, new)
    plan = _laid_over(old.plan, new.plan)
    tables = {
        name: _in_order(_joined(getattr(old, name), getattr(new, name), stay), plan)
        for name in ("runs", "scores", "curves")
    }
    tables["runs"] = with_levels(tables["runs"], plan)
    keys = set(tables["runs"].key)
    configs = {key: config for key, config in {**old.configs, **new.configs}.items() if key in keys}
    older, scored = old.robustness[old.robustness.key.isin(keys)], ["key", "condition"]
    known = pd.MultiIndex.from_frame(new.robustness[scored])
    older = older[~pd.MultiIndex.from_frame(older[scored]).isin(known)]
    robustness = _concatenated([older, new.robustness], new.robustness)
    robustness = robustness.sort_values(["key", "condition", "group"], ignore_index=True)
    ceilings = _concatenated([new.ceilings, old.ceilings], new.ceilings).drop_duplicates(["size", "image"])
    count = len(stay.intersection(both))
    notices = (*old.notices, *new.notices, *((("committed_runs", count),) if count else ()))
    trials = _all_trials(old, new, plan)
    extra = {"robustness": robustness, "ceilings": ceilings.reset_index(drop=True)}
    return replace(new, plan=plan, trials=trials, configs=configs, notices=notices, **extra, **tables)


def _committed_runs(old: Study, new: Study) -> tuple[pd.MultiIndex, pd.MultiIndex]:
    """The (cell, seed)s of the runs that stay as they are committed, and of those that both studies have."""
    now, before = (study.runs.set_index(["cell", "seed"]) for study in (new, old))
    both = now.index.intersection(before.index)
    same = now.loc[both, "key"] == before.loc[both, "key"]
    stays = (before.loc[both, "state"] == "finished") & (now.loc[both, "state"] != "finished")
    stays &= same | (now.loc[both, "state"] == "missing")
    stays |= (before.loc[both, "state"] == "failed") & (now.loc[both, "state"] == "missing")
    return before.index.difference(now.index).union(both[stays.to_numpy(bool)]), both


def _joined(old: pd.DataFrame, new: pd.DataFrame, stay: pd.MultiIndex) -> pd.DataFrame:
    """The rows of `old` whose run is in `stay`, and the others of `new`."""
    kept, taken = (pd.MultiIndex.from_arrays([t.cell.astype(str), t.seed.astype(int)]).isin(stay) for t in (old, new))
    joined = _concatenated([old[kept], new[~taken]], new)
    return compact(joined) if "image" in joined else joined


def _all_trials(old: Study, new: Study, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Join the trials of both, the new ones first; of a cell with other settings or another range, only these."""
    ranges = [{name: (study.plan.get("tuning") or {}).get(name) for name in RANGE} for study in (old, new)]
    same = not len(new.trials) or ranges[0] == ranges[1]
    both = new.trials.merge(old.trials, on=["cell", "rate", "seed"], suffixes=("", "_old"))
    changed = set(both[both.key != both.key_old].cell) | (set() if same else set(new.trials.cell))
    older = old.trials[~old.trials.cell.isin(changed) & ~old.trials.key.isin(new.trials.key)]
    joined = _concatenated([new.trials, older], new.trials)
    joined = joined[joined.cell.isin({cell["cell"] for cell in plan["cells"]})]
    return _in_order(joined, plan, by="trial")


def _concatenated(parts: list[pd.DataFrame], empty: pd.DataFrame) -> pd.DataFrame:
    """The rows of the parts that have any; `empty` where none has."""
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else empty


def _in_order(table: pd.DataFrame, plan: Mapping[str, Any], by: str = "seed") -> pd.DataFrame:
    """The rows in the order of the plan's cells, then of the seeds (or `by`); within a run as they were."""
    place = {cell["cell"]: number for number, cell in enumerate(plan["cells"])}
    order = np.lexsort((table[by].astype(int), table.cell.astype(str).map(place).astype(int)))
    return table.iloc[order].reset_index(drop=True)


def _laid_over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new plan, with what only the old one knows (cells, seeds and looks, that seeds were added), and the versions.

    A new plan knows less of its own study where another machine has gone on with it.
    """
    known = {cell["cell"] for cell in new.get("cells", [])}
    measured = {cell["cell"]: cell for cell in old.get("cells", []) if cell.get("rate") is not None}
    now = [measured.get(cell["cell"], cell) if cell.get("rate") is None else cell for cell in new.get("cells", [])]
    now = [{name: value for name, value in cell.items() if name != "kept"} for cell in now]
    cells = [*now, *({**cell, "kept": True} for cell in old.get("cells", []) if cell["cell"] not in known)]
    older = old.get("factors", {})
    factors = {name: list(dict.fromkeys([*levels, *older.get(name, [])])) for name, levels in new["factors"].items()}
    versions: dict[str, str] = {}
    for name, value in [*old.get("environment", {}).items(), *new.get("environment", {}).items()]:
        versions[name] = ", ".join(sorted({*filter(None, versions.get(name, "").split(", ")), *value.split(", ")}))
    design, before = dict(new.get("design", {})), old.get("design", {})
    if design.get("looks") == before.get("looks") and len(_looks_taken(old)) > len(_looks_taken(new)):
        design |= {"seeds": before["seeds"], "looks_taken": before["looks_taken"]}
        keys = {cell["cell"]: cell.get("runs", {}) for cell in old.get("cells", [])}
        cells = [{**cell, "runs": {**keys.get(cell["cell"], {}), **cell.get("runs", {})}} for cell in cells]
    elif "extended_from" in before and set(before["seeds"]) <= set(design.get("seeds", [])):
        design.setdefault("extended_from", before["extended_from"])
    return {**new, "design": design, "cells": cells, "factors": factors, "environment": versions}


def _looks_taken(plan: Mapping[str, Any]) -> list[Any]:
    return list(plan.get("design", {}).get("looks_taken", []))
