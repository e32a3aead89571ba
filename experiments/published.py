"""What was done of a study elsewhere, as analysis/results/NAME has it: counted as done, so that only the rest is run here.

A machine that is lent for some hours does a part and commits it (`report`); the next one goes on. Or somebody adds seeds or
a cell to a study that was published, and trains only those. A run counts by its key, so nothing counts that had other settings
or other data; its scores stay in the committed files, where `report` finds them. A trial gets a folder here, since the
rates are chosen from all of them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from analysis import store
from experiments import progress
from experiments.claim import hold
from experiments.errors import Busy, InputError
from experiments.record import Record
from experiments.study_plan import Plan


def count(plan: Plan, results: Path) -> None:
    """Fill `plan.published`, and lay out the trials. Raises InputError where nothing of the study is committed, or unreadable."""
    name = plan.study.name
    found = store.read(results, name)
    if found is None:
        raise InputError(f"Nothing of the study {name} is committed under {results}: leave out --published.")
    plan.published = dict(zip(found.finished.key, found.finished.dice, strict=True))
    ended = found.trials[found.trials.state == "finished"]
    trials = sum(_lay_out(plan, row) for row in ended.to_dict("records"))
    progress.say(
        f"{results / name} has {len(plan.published)} finished runs, which count where settings and data are this plan's, "
        f"and {trials} trials that are."
    )


def _lay_out(plan: Plan, row: dict[str, Any]) -> bool:
    """Make the folder of a trial, unless it is there; whether the trial is one of this plan's."""
    cells = {cell.id: cell for cell in plan.cells}
    if plan.study.tuning is None or row["cell"] not in cells:
        return False
    config = cells[row["cell"]].prepared(int(row["seed"]), float(row["rate"])).config
    if config.key != row["key"]:
        return False
    record = Record(plan.machine.trials_dir / config.key)
    with suppress(Busy), hold(record.folder) as lease:
        if record.result() is None:
            Record(record.folder, lease.confirm).adopt(config, {"value": row["value"], "seconds": {"training": row["seconds"]}})
    return True
