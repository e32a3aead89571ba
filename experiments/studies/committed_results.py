"""What was done of a study elsewhere, as analysis/results has it: counted as done, so that only the rest is run here.

A machine that is lent for some hours does a part and commits it (`report`); the next one goes on. Or somebody adds seeds to a
study that was published, and trains only those. A run counts where its cell, its seed and its key are the plan's, so nothing
counts that had other settings or other data; its scores stay in the committed files, where `report` finds them. A trial gets a
folder here when it is its turn, since the rates are chosen from all of them; so it may be one of any committed study that tried
the same. (Not with TPE: a committed rate has too few digits to find its trials again.)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from analysis.records import committed
from analysis.records.gather import read_trials
from experiments.runtime import progress
from experiments.studies.plan import Plan
from registry import InputError


def count_committed(plan: Plan, results: Path) -> None:
    """Fill `plan.published` and `plan.tried`. Raises InputError where nothing is committed, or it cannot be read."""
    name = plan.study.name
    if plan.study.pilot is not None:
        raise InputError(f"The study {name} has a pilot, whose runs are not committed: leave out --published.")
    own = committed.read_study(results, name)
    plan.tried = _tried(plan, results)
    if own is None and not plan.tried:
        raise InputError(f"Nothing of the study {name} is committed under {results}: leave out --published.")
    if own is not None:
        done = own.finished
        plan.published = {
            (cell, seed): (key, dice)
            for cell, seed, key, dice in zip(done.cell, done.seed, done.key, done.dice, strict=True)
        }
    threads = max((cell.config.threads for cell in plan.cells), default=0)
    too = f" (threads, too: {threads} here)" if threads else ""
    progress.log(
        f"{results / name} has {len(plan.published)} finished runs, which count where cell, seed, settings{too} and data are this plan's, "
        f"and {results} has {len(plan.tried)} trials of its cells, which count where it tries their rates."
    )


def _tried(plan: Plan, results: Path) -> dict[str, dict[str, object]]:
    """The committed trials of the plan's cells at its tuning's seeds, by key.

    The study's own come first. Of the others', one that two studies tell differently does not count; what it took is left out, for
    it was spent there.
    """
    tuning = plan.study.tuning
    if tuning is None or tuning.sampler != "grid":
        return {}
    tables = {
        name: _ended(read_trials(results / name / "trials.csv"), tuning.seeds)
        for name in committed.committed_studies(results)
    }
    own = tables.pop(plan.study.name, pd.DataFrame())
    others = pd.concat([table for table in tables.values() if len(table)] or [pd.DataFrame()], ignore_index=True)
    if len(others):
        others = others.assign(seconds=None).drop_duplicates(["key", "state", "value"])
        others = others.drop_duplicates("key", keep=False)
    rows = {row["key"]: row for table in (others, own) for row in table.to_dict("records")}
    return {key: row for key, row in rows.items() if key in _keys(plan, float(row["rate"]), int(row["seed"]))}


def _ended(table: pd.DataFrame, seeds: tuple[int, ...]) -> pd.DataFrame:
    """The trials with these seeds of which it is known how they ended."""
    told = (table.state == "finished") & table.value.notna() | (table.state == "diverged")
    return table[told & table.seed.isin(seeds) & table.rate.notna()]


def _keys(plan: Plan, rate: float, seed: int) -> set[str]:
    return {dataclasses.replace(cell.config, learning_rate=rate, seed=seed).key for cell in plan.cells}
