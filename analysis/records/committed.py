"""The committed files of a study, analysis/results/NAME: written, read, and laid together with what was measured since.

    study.json      the plan, and the versions that took part
    runs.csv        a row for each planned run, whatever became of it
    scores.csv.gz   a row for each test photograph of each finished run
    trials.csv      the tuning trials;   curves.csv   a row for each epoch
    robustness.csv.gz   where `run.py robustness` was typed: a row for each run, condition and group
    configs.json    every finished run's RunConfig: what they share, and what each adds; `report --verify` repeats them

The same study gives the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.files import read_json, write_atomically
from analysis.records.gather import read_trials, with_levels
from analysis.records.study_results import CURVES, ROBUSTNESS, RUN, SCORES, Study, compact, number, typed
from registry import InputError

RANGE = ("low", "high", "points", "seeds", "sampler")  # of a tuning: what makes its trials the same


def committed(results: Path) -> list[str]:
    """The names of the studies that have files under `results`."""
    return sorted(path.parent.name for path in results.glob("*/study.json"))


def write(study: Study, results: Path) -> Path:
    """Write the files of `study` under `results`; returns their folder."""
    folder = results / study.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(study).items():
        write_atomically(folder / name, content)
    return folder


def files(study: Study) -> dict[str, bytes]:
    """Each file's name and content."""
    others = {"robustness.csv.gz": gzip.compress(_csv(study.robustness), 5, mtime=0)} if len(study.robustness) else {}
    return others | {
        "study.json": _json(study.plan),
        "runs.csv": _csv(study.runs),
        "scores.csv.gz": gzip.compress(_scores_csv(study.scores), 5, mtime=0),
        "trials.csv": _csv(study.trials),
        "curves.csv": _csv(study.curves),
        "configs.json": _json(_folded(study.configs)),
    }


def read(results: Path, name: str) -> Study | None:
    """The study `name` from its files; None where there are none. Raises InputError for files that cannot be read."""
    folder = results / name
    plan = read_json(folder / "study.json")
    if plan is None:
        return None
    try:
        runs, notices = _runs(folder / "runs.csv")
        types = {"cell": "category", "group": "category", "image": "category", "seed": int, "failed": np.int8}
        types |= {name: float for name in SCORES if name not in types}
        scores = pd.read_csv(folder / "scores.csv.gz", dtype=types, keep_default_na=False)[list(SCORES)]
        curves = pd.read_csv(folder / "curves.csv", dtype={"cell": str}, keep_default_na=False, na_values=[""])[
            list(CURVES)
        ]
        others = pd.DataFrame(columns=list(ROBUSTNESS))
        if (folder / "robustness.csv.gz").exists():
            names = dict.fromkeys(("key", "condition", "group"), str)
            others = pd.read_csv(folder / "robustness.csv.gz", dtype=names, keep_default_na=False)[list(ROBUSTNESS)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        advice = (
            f"Take it back with git checkout {folder}, or delete the folder and repeat: python run.py report {name}"
        )
        raise InputError(f"The results in {folder} cannot be read ({' '.join(str(error).split())}). {advice}") from None
    configs = _unfolded(read_json(folder / "configs.json") or {})
    runs = with_levels(number(runs, scores), plan)
    return Study(plan, runs, scores, read_trials(folder / "trials.csv"), typed(curves), configs, others, notices)


def _runs(path: Path) -> tuple[pd.DataFrame, tuple[tuple[str, str], ...]]:
    """The rows of runs.csv; a row that is there twice counts once, and two rows of one cell and seed are refused."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False).replace("", None)
    table = typed(table.reindex(columns=list(RUN)))
    once = table.drop_duplicates()
    twice = once[once.duplicated(["cell", "seed"])]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{path} holds two different runs of {row.cell} with seed {row.seed}. Delete the row that is not true."
        )
    same = len(table) - len(once)
    told = (f"{same} rows of runs.csv were there twice and count once.", f"runs.csv 中有 {same} 行重复，只计一次。")
    return once.reset_index(drop=True), (told,) if same else ()


def merge(old: Study, new: Study) -> Study:
    """What was measured now laid over what is committed: a committed run stays where no finished run takes its place.

    A run that failed now replaces one that was not the same run (another key): a failure is never hidden by an old success.
    """
    mine, theirs = (study.runs.set_index(["cell", "seed"]) for study in (new, old))
    both = mine.index.intersection(theirs.index)
    same = mine.loc[both, "key"] == theirs.loc[both, "key"]
    kept = (theirs.loc[both, "state"] == "finished") & (mine.loc[both, "state"] != "finished")
    kept &= same | (mine.loc[both, "state"] == "missing")
    kept |= (theirs.loc[both, "state"] == "failed") & (mine.loc[both, "state"] == "missing")
    stay = theirs.index.difference(mine.index).union(both[kept.to_numpy(bool)])
    plan = _laid_over(old.plan, new.plan)
    tables = {
        name: _in_order(_either(getattr(old, name), getattr(new, name), stay), plan)
        for name in ("runs", "scores", "curves")
    }
    tables["runs"] = with_levels(tables["runs"], plan)
    trials = _all_trials(old, new, plan)
    keys = set(tables["runs"].key)
    configs = {key: config for key, config in {**old.configs, **new.configs}.items() if key in keys}
    kept_others = old.robustness[old.robustness.key.isin(keys - set(new.robustness.key))]
    others = pd.concat(
        [part for part in (kept_others, new.robustness) if len(part)] or [new.robustness], ignore_index=True
    )
    others = others.sort_values(["key", "condition", "group"], ignore_index=True)
    told = _told(old, new, stay, both)
    return replace(new, plan=plan, trials=trials, configs=configs, robustness=others, notices=told, **tables)


def _either(old: pd.DataFrame, new: pd.DataFrame, stay: pd.MultiIndex) -> pd.DataFrame:
    """The rows of `old` whose run is in `stay`, and the others of `new`."""
    kept, taken = (pd.MultiIndex.from_arrays([t.cell.astype(str), t.seed.astype(int)]).isin(stay) for t in (old, new))
    parts = [part for part in (old[kept], new[~taken]) if len(part)]
    joined = pd.concat(parts, ignore_index=True) if parts else new
    return compact(joined) if "image" in joined else joined


def _all_trials(old: Study, new: Study, plan: Mapping[str, Any]) -> pd.DataFrame:
    """The trials of both, those measured now first; of a cell whose settings or range are other ones now, only these."""
    point = ["cell", "rate", "seed"]
    same = not len(new.trials) or all(
        (old.plan.get("tuning") or {}).get(name) == (new.plan.get("tuning") or {}).get(name) for name in RANGE
    )
    both = new.trials.merge(old.trials, on=point, suffixes=("", "_old"))
    other = set(both[both.key != both.key_old].cell) | (set() if same else set(new.trials.cell))
    kept = old.trials[~old.trials.cell.isin(other) & ~old.trials.key.isin(new.trials.key)]
    joined = pd.concat([part for part in (new.trials, kept) if len(part)] or [new.trials], ignore_index=True)
    place = {cell["cell"]: number for number, cell in enumerate(plan["cells"])}
    joined = joined[joined.cell.isin(place)]
    return joined.iloc[np.lexsort((joined.trial.astype(int), joined.cell.map(place).astype(int)))].reset_index(
        drop=True
    )


def _in_order(table: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """The rows in the order of the plan's cells, then of the seeds; within a run as they were."""
    place = {cell["cell"]: number for number, cell in enumerate(plan["cells"])}
    order = np.lexsort((table.seed.astype(int), table.cell.astype(str).map(place).astype(int)))
    return table.iloc[order].reset_index(drop=True)


def _laid_over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new plan, with the cells that only the old one knows and with the versions of both."""
    known = {cell["cell"] for cell in new.get("cells", [])}
    measured = {cell["cell"]: cell for cell in old.get("cells", []) if cell.get("rate") is not None}
    now = [measured.get(cell["cell"], cell) if cell.get("rate") is None else cell for cell in new.get("cells", [])]
    now = [{name: value for name, value in cell.items() if name != "kept"} for cell in now]
    cells = [*now, *({**cell, "kept": True} for cell in old.get("cells", []) if cell["cell"] not in known)]
    factors = {
        name: list(dict.fromkeys([*levels, *old.get("factors", {}).get(name, [])]))
        for name, levels in new["factors"].items()
    }
    versions: dict[str, str] = {}
    for name, value in [*old.get("environment", {}).items(), *new.get("environment", {}).items()]:
        versions[name] = ", ".join(sorted({*filter(None, versions.get(name, "").split(", ")), *value.split(", ")}))
    return {**new, "cells": cells, "factors": factors, "environment": versions}


def _told(old: Study, new: Study, stay: pd.MultiIndex, both: pd.MultiIndex) -> tuple[tuple[str, str], ...]:
    """What the reader of the result should know about the merge."""
    told = [*old.notices, *new.notices]
    if len(stay.intersection(both)):
        count = len(stay.intersection(both))
        english = f"{count} of the runs are the committed ones, which lie not under the output folder."
        told.append((english, f"其中 {count} 次运行取自已提交的结果，输出文件夹中没有它们。"))
    return tuple(told)


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _scores_csv(scores: pd.DataFrame) -> bytes:
    """As `_csv`, for a million rows in a third of the time."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(SCORES)
    table.writerows(zip(*(scores[name].tolist() for name in SCORES), strict=True))
    return buffer.getvalue().encode()


def _json(content: Any) -> bytes:
    return (json.dumps(_finite(content), indent=1, ensure_ascii=False) + "\n").encode()


def _finite(value: Any) -> Any:
    """`value` with null where a number is not finite: JSON knows no infinity."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _folded(configs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What all configs share, once, and for each key what it adds."""
    first = next(iter(configs.values()), {})
    shared = {
        name: value for name, value in first.items() if all(config.get(name) == value for config in configs.values())
    }
    own = {key: {n: v for n, v in config.items() if n not in shared} for key, config in sorted(configs.items())}
    return {"shared": shared, "runs": own}


def _unfolded(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {key: {**content.get("shared", {}), **own} for key, own in content.get("runs", {}).items()}
