"""What was done of a study elsewhere, as analysis/results/NAME has it: counted as done, so that only the rest is run here.

A machine that is lent for some hours does a part and commits it (`report`); the next one goes on. Or somebody adds seeds to a
study that was published, and trains only those. A run counts where its cell, its seed and its key are the plan's, so nothing
counts that had other settings or other data; its scores stay in the committed files, where `report` finds them. A trial gets a
folder here, since the rates are chosen from all of them. (Not those of TPE: a committed rate has too few digits to find them again.)
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


def count(plan: Plan, results: Path) -> Study:
    """Fill `plan.published`; returns what is committed. Raises InputError where that is nothing, or cannot be read."""
    name = plan.study.name
    found = store.read(results, name)
    if found is None:
        raise InputError(f"Nothing of the study {name} is committed under {results}: leave out --published.")
    if plan.study.pilot is not None:
        raise InputError(f"The study {name} has a pilot, whose runs are not committed: leave out --published.")
    done = found.finished
    plan.published = {
        (cell, seed): (key, dice) for cell, seed, key, dice in zip(done.cell, done.seed, done.key, done.dice, strict=True)
    }
    trials = len([row for row in _trials(found) if _planned(plan, row)])
    progress.say(
        f"{results / name} has {len(done)} finished runs, which count where cell, seed, settings and data are this plan's, "
        f"and {trials} trials that are."
    )
    return found


def lay_out(plan: Plan, found: Study) -> None:
    """Make the folders of the committed trials that are this plan's; one that was begun here goes on instead."""
    for row in _trials(found):
        prepared = _planned(plan, row)
        if prepared is None:
            continue
        record = Record(plan.machine.trials_dir / prepared.config.key)
        with suppress(Busy), hold(record.folder) as lease:
            if not (record.folder / "config.json").exists():
                ended = {"value": row["value"], "seconds": {"training": row["seconds"]}}
                Record(record.folder, lease.confirm).adopt(prepared.config, ended if row["state"] == "finished" else None)


def _trials(found: Study) -> list[dict[str, Any]]:
    return found.trials[found.trials.state.isin(["finished", "diverged"])].to_dict("records")


def _planned(plan: Plan, row: dict[str, Any]) -> Prepared | None:
    """The trial of the plan that a row tells of; None where it tells of another one."""
    cell = next((cell for cell in plan.cells if cell.id == row["cell"]), None)
    if cell is None or plan.study.tuning is None:
        return None
    prepared = cell.prepared(int(row["seed"]), float(row["rate"]))
    return prepared if prepared.config.key == row["key"] else None
