"""Who carries out the jobs of a study: this process, one after another, or a cluster (see `cluster`).

A job is a small tuple that says which run or trial; `act` is the function that does it. Both ways call the same functions
with the same plan, so that nothing but the place differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from experiments.stopping import Stop
from experiments.study_plan import Plan
from experiments.tracking import Session

Job = tuple[Any, ...]
Act = Callable[[Plan, Any, Stop, Session], Any]


@dataclass(frozen=True)
class Lost:
    """The answer to a job whose worker died each time that it was tried."""

    reason: str


class Executor(Protocol):
    """A way to carry out jobs."""

    def at_once(self) -> int:
        """How many jobs are worth handing over at once."""

    def each(self, act: Act, plan: Plan, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Do `jobs` and yield each with what `act` returned (or Lost), as they end. Raises Interrupted (resumable)."""


@dataclass(frozen=True)
class Here:
    """One job after another, in this process."""

    stop: Stop
    session: Session

    def at_once(self) -> int:
        return 1

    def each(self, act: Act, plan: Plan, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        for job in jobs:
            self.stop.check()
            yield job, act(plan, job, self.stop, self.session)
