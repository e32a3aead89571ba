"""What was measured now, laid over what is committed: a committed run stays where no finished run takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.gather import with_levels
from analysis.records.study_results import Study, compact

RANGE = ("low", "high", "points", "seeds", "sampler")  # of a tuning: what makes its trials the same


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
    older = old.robustness[old.robustness.key.isin(keys - set(new.robustness.key))]
    robustness = _concatenated([older, new.robustness], new.robustness)
    robustness = robustness.sort_values(["key", "condition", "group"], ignore_index=True)
    count = len(stay.intersection(both))
    notices = (*old.notices, *new.notices, *((("committed_runs", count),) if count else ()))
    trials = _all_trials(old, new, plan)
    return replace(new, plan=plan, trials=trials, configs=configs, robustness=robustness, notices=notices, **tables)


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
    """The new plan, with the cells that only the old one knows and with the versions of both."""
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
    return {**new, "cells": cells, "factors": factors, "environment": versions}
