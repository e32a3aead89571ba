"""The runs of a study, seed by seed: finished ones are skipped, those of other workers waited for, failed ones recorded.

Several processes may carry out one study: each takes the next run that nobody holds (see `claim`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from experiments import progress, study_record, tracking
from experiments.claim import hold
from experiments.errors import Busy, RunFailed
from experiments.record import Record
from experiments.runner import run
from experiments.stopping import Stop
from experiments.study_plan import Plan, PlannedCell

PAUSE = 1.0  # seconds between two looks at what other workers are doing
Run = tuple[PlannedCell, int]


def carry_out(plan: Plan, runs: Sequence[Run], stop: Stop, session: tracking.Session) -> list[Run]:
    """Carry out `runs` in their order; returns those that failed. Raises Interrupted (resumable) and InputError.

    A run that diverged is not repeated; one that failed otherwise before this command began is tried again.
    """
    began, waiting, failed, ended = time.time(), list(runs), list[Run](), 0
    while waiting:
        waited_for = []
        for one in waiting:
            stop.check()
            how = _one(plan, one, began, stop, session)
            if how == "busy":
                waited_for.append(one)
                continue
            ended += 1
            if how not in ("skipped", "no rate"):
                progress.say(f"[{ended}/{len(runs)}] {one[0].id}, seed {one[1]}: {how}")
            if how.startswith("failed"):
                failed.append(one)
        if len(waited_for) == len(waiting):
            time.sleep(PAUSE)
        waiting = waited_for
    return failed


def _one(plan: Plan, one: Run, began: float, stop: Stop, session: tracking.Session) -> str:
    """Carry out one run, if it is to be; how it ended, in words."""
    cell, seed = one
    prepared = plan.run(cell, seed)
    if prepared is None:
        return "no rate"
    record = Record(plan.machine.runs_dir / prepared.config.key)
    tags = {f"study.{plan.study.name}": "true", "cell": cell.id}
    if record.result() is not None:
        record.refuse_altered(prepared.config)
        session.tag(prepared.config.key, tags)
        return "skipped"
    failure = record.failure()
    if failure and (failure.get("diverged") or failure.get("time", 0) >= began):
        return f"failed: {failure['reason']}"
    since = time.perf_counter()
    try:
        with hold(record.folder) as lease, progress.quietly():
            if record.result() is not None:  # another worker finished it a moment ago
                return "skipped"
            result = run(prepared, stop, session=session, tags=tags, lease=lease)
    except Busy:
        return "busy"
    except (RunFailed, RuntimeError, OSError) as error:
        return f"failed: {error}"
    dice, spent = result["test"]["last"]["dice"], time.perf_counter() - since
    over = spent - result["seconds"]["training"] - result["seconds"]["scoring"]
    return f"test Dice {dice:.4f}, {spent:.0f} s ({max(over, 0):.1f} s of it neither training nor scoring)"


def matrix(plan: Plan) -> dict[Run, tuple[str, str]]:
    """The state of every run, and a word on it."""
    return {(cell, seed): study_record.state(plan, cell, seed) for cell, seed in plan.runs()}
