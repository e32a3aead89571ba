"""Count committed results (analysis/results) as done, so that only the rest of a study runs here.

A machine that is rented for some hours runs a part and commits it (`report`); the next one continues. Or somebody
adds seeds to a published study and trains only those. A run counts where its cell, seed and key are the plan's, so
none with other settings or other data does; its scores stay in the committed files, where `report` finds them. Runs
and trials may come from any committed study: a key is the same only where everything that decides the scores is. A
trial gets a folder here when it is its turn, since learning rates are chosen from all trials. (Not with TPE: a
committed learning rate has too few digits to find its trials again.)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from analysis.records import committed
from analysis.records.load_runs import read_trials
from experiments.runtime import progress
from experiments.studies.plan import Plan
from registry import InputError


def count_committed(plan: Plan, results: Path) -> None:
    """Fill `plan.committed_runs` and `plan.committed_trials`. Raises InputError where nothing can be read."""
    name = plan.study.name
    if plan.study.pilot is not None:
        raise InputError(f"The study {name} has a pilot, whose runs are not committed: leave out --published.")
    own = committed.read_study(results, name)
    plan.committed_trials = _committed_trials(plan, results)
    if own is not None:
        done = own.finished
        plan.committed_runs = {
            (cell, seed): (key, dice)
            for cell, seed, key, dice in zip(done.cell, done.seed, done.key, done.dice, strict=True)
        }
    plan.committed_runs |= _runs_of_others(plan, results)
    if own is None and not plan.committed_trials and not plan.committed_runs:
        raise InputError(f"Nothing of the study {name} is committed under {results}: leave out --published.")
    threads = max((cell.config.threads for cell in plan.cells), default=0)
    threads_too = f", threads ({threads} here)" if threads else ""
    progress.log(
        f"{results} has {len(plan.committed_runs)} finished runs, which count where cell, seed, settings"
        f"{threads_too} and data are this plan's, and has {len(plan.committed_trials)} trials of its cells, "
        "which count where it tries their learning rates."
    )


def _runs_of_others(plan: Plan, results: Path) -> dict[tuple[str, int], tuple[str, float]]:
    """Key and Dice of the plan's runs that other studies have, where the learning rates are fixed."""
    if plan.study.tuning is not None:
        return {}
    tables = [
        committed.finished_runs(results, name)
        for name in committed.committed_studies(results)
        if name != plan.study.name
    ]
    dice = {key: dice for table in tables for key, dice in zip(table.key, table.dice, strict=True)}
    runs = [(cell, seed, plan.run(cell, seed)) for cell in plan.cells for seed in plan.study.seeds] if dice else []
    keys = {(cell.id, seed): run.config.key for cell, seed, run in runs if run is not None}
    return {place: (key, dice[key]) for place, key in keys.items() if key in dice}


def _committed_trials(plan: Plan, results: Path) -> dict[str, dict[str, object]]:
    """The committed trials of the plan's cells at its tuning's seeds, by key.

    The study's own win. One on which other studies disagree does not count; their time is left out: they spent it.
    """
    tuning = plan.study.tuning
    if tuning is None or tuning.sampler != "grid":
        return {}
    tables = {
        name: _ended_trials(read_trials(results / name / "trials.csv"), tuning.seeds)
        for name in committed.committed_studies(results)
    }
    own = tables.pop(plan.study.name, pd.DataFrame())
    others = pd.concat([table for table in tables.values() if len(table)] or [pd.DataFrame()], ignore_index=True)
    if len(others):
        others = others.assign(seconds=None).drop_duplicates(["key", "state", "value"])
        others = others.drop_duplicates("key", keep=False)
    rows = {row["key"]: row for table in (others, own) for row in table.to_dict("records")}
    return {key: row for key, row in rows.items() if key in _keys(plan, float(row["rate"]), int(row["seed"]))}


def _ended_trials(table: pd.DataFrame, seeds: tuple[int, ...]) -> pd.DataFrame:
    """The trials with these seeds whose end is known."""
    ended = (table.state == "finished") & table.value.notna() | (table.state == "diverged")
    return table[ended & table.seed.isin(seeds) & table.rate.notna()]


def _keys(plan: Plan, rate: float, seed: int) -> set[str]:
    return {dataclasses.replace(cell.config, learning_rate=rate, seed=seed).key for cell in plan.cells}
