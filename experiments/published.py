"""What was done of a study elsewhere, as analysis/results has it: counted as done, so that only the rest is run here.

A machine that is lent for some hours does a part and commits it (`report`); the next one goes on. Or somebody adds seeds to a
study that was published, and trains only those. A run counts where its cell, its seed and its key are the plan's, so nothing
counts that had other settings or other data; its scores stay in the committed files, where `report` finds them. A trial gets a
folder here, since the rates are chosen from all of them; so it may be one of any committed study that tried the same. (Not those
of TPE: a committed rate has too few digits to find them again.)
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from analysis import store
from analysis.measured import Study
from experiments import progress
from experiments.claim import hold
from experiments.errors import Busy, InputError
from experiments.prepare import Prepared
from experiments.record import Record
from experiments.study_plan import Plan

Row = dict[str, Any]  # of trials.csv


def count(plan: Plan, results: Path) -> list[Row]:
    """Fill `plan.published`; returns the trials that are this plan's. Raises InputError where nothing is committed, or unreadable."""
    name = plan.study.name
    if plan.study.pilot is not None:
        raise InputError(f"The study {name} has a pilot, whose runs are not committed: leave out --published.")
    studies = [found for one in store.committed(results) if (found := store.read(results, one)) is not None]
    trials = [row for found in studies for row in _trials(found) if _planned(plan, row)]
    trials = list({row["key"]: row for row in trials}.values())
    own = next((found.finished for found in studies if found.name == name), None)
    if own is None and not trials:
        raise InputError(f"Nothing of the study {name} is committed under {results}: leave out --published.")
    if own is not None:
        plan.published = {
            (cell, seed): (key, dice) for cell, seed, key, dice in zip(own.cell, own.seed, own.key, own.dice, strict=True)
        }
    progress.say(
        f"{results / name} has {len(plan.published)} finished runs, which count where cell, seed, settings and data are this plan's, "
        f"and {results} has {len(trials)} trials of its cells, which count where it tries their rates."
    )
    return trials


def lay_out(plan: Plan, trials: list[Row]) -> None:
    """Make the folders of the committed trials that are this plan's; one that was begun here goes on instead."""
    for row in trials:
        prepared = _planned(plan, row)
        if prepared is None:
            continue
        record = Record(plan.machine.trials_dir / prepared.config.key)
        with suppress(Busy), hold(record.folder) as lease:
            if not (record.folder / "config.json").exists():
                ended = {"value": row["value"], "seconds": {"training": row["seconds"]}}
                Record(record.folder, lease.confirm).adopt(prepared.config, ended if row["state"] == "finished" else None)


def _trials(found: Study) -> list[Row]:
    return found.trials[found.trials.state.isin(["finished", "diverged"])].to_dict("records")


def _planned(plan: Plan, row: Row) -> Prepared | None:
    """The trial of the plan that a row tells of, whatever its cell is called; None where it tells of another one."""
    if plan.study.tuning is None or int(row["seed"]) not in plan.study.tuning.seeds:
        return None
    tried = (cell.prepared(int(row["seed"]), float(row["rate"])) for cell in plan.cells)
    return next((one for one in tried if one.config.key == row["key"]), None)
