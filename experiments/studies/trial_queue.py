"""The one door to Optuna: hand out the trials of a cell so that no worker repeats one and the budget is exact.

Counting and asking happen together under a file lock: SQLite would hand one queued trial to two workers and let them
exceed the budget. The trial of a worker that died stays open in Optuna; the next worker finds its folder without a
lease and resumes it, so a tuning that was killed ends with the same trials as one that was not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from experiments.config.schema import without_password
from experiments.runtime.errors import Busy, RunFailed
from experiments.runtime.leases import LOCK_TIMEOUT, Lease, hold, wait_for_lock
from experiments.studies.definition import Tuning
from experiments.tracking.store import sqlite_uri
from registry import InputError

ROUNDED = 1e-5  # the grid's learning rates have six digits, and so may lie beyond the ends of the range
TrialFolder = Callable[[float, int], Path]  # the folder of the trial with this learning rate and seed


@dataclass(frozen=True)
class Trial:
    """One trial, as Optuna numbers it."""

    number: int
    rate: float
    seed: int


class TrialQueue:
    """The trials of one cell in one range: an Optuna study in outputs/optuna.db, or in `storage` (a URI).

    `place` staggers its grid, see `learning_rate_grid`.

    Raises InputError for a storage that cannot be opened, and later RunFailed while it is unavailable or full.
    """

    def __init__(
        self,
        output_dir: Path,
        name: str,
        tuning: Tuning,
        folder: TrialFolder,
        storage: str | None = None,
        place: tuple[int, int] = (0, 1),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.tuning, self._folder, self._place = tuning, folder, place
        self._lock = output_dir / "optuna.lock"
        output_dir.mkdir(parents=True, exist_ok=True)
        self._url = storage or sqlite_uri(output_dir / "optuna.db")
        with self._locked():
            self._study = optuna.create_study(
                storage=_open_storage(self._url),
                sampler=RandomSampler(),
                study_name=name,
                direction="maximize",
                load_if_exists=True,
            )

    def trials(self) -> list[tuple[Trial, bool]]:
        """Every trial that was begun, and whether it has ended."""
        with self._naming_failures():
            return [(self._trial(frozen), frozen.state.is_finished()) for frozen in self._handed_out()]

    def ended(self) -> int:
        """How many trials have ended."""
        return sum(ended for _, ended in self.trials())

    @contextmanager
    def next(self, skip: Callable[[Trial], bool] = lambda trial: False) -> Iterator[tuple[Trial, Lease] | None]:
        """The trial to run now, leased to this process; None when none is left or other workers have the rest.

        Call `tell` before the block ends; a trial without an end is given again, unless `skip` says no.
        """
        with ExitStack() as leases:
            with self._locked():
                taken = self._abandoned(leases, skip) or self._new(leases)
            yield taken

    def tell(self, trial: Trial, value: float | None) -> None:
        """Record a trial's validation Dice, or None for one that diverged."""
        with self._locked():
            if value is None:
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            else:
                self._study.tell(trial.number, value, skip_if_finished=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclusive access to the storage: what was read still holds when it is written."""
        with wait_for_lock(self._lock, patience=LOCK_TIMEOUT), self._naming_failures():
            yield

    @contextmanager
    def _naming_failures(self) -> Iterator[None]:
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            raise RunFailed(
                f"Optuna's storage {without_password(self._url)} failed ({_reason(error)}). No trial is lost: "
                "repeat the command when there is space and the storage is back."
            ) from error

    def _abandoned(self, leases: ExitStack, skip: Callable[[Trial], bool]) -> tuple[Trial, Lease] | None:
        """A trial that was begun and that no process holds."""
        for frozen in self._handed_out():
            if not frozen.state.is_finished():
                trial = self._trial(frozen)
                lease = None if skip(trial) else self._lease(trial, leases)
                if lease is not None:
                    return trial, lease
        return None

    def _new(self, leases: ExitStack) -> tuple[Trial, Lease] | None:
        count = len(self._handed_out())
        if count >= self.tuning.budget:
            return None
        self._study.sampler = self._sampler(count)
        asked = self._half_asked() or self._study.ask()
        asked.suggest_float(
            "learning_rate", self.tuning.low * (1 - ROUNDED), self.tuning.high * (1 + ROUNDED), log=True
        )
        if self.tuning.sampler == "grid":
            asked.suggest_categorical("seed", list(self.tuning.seeds))
        self._study.sampler = RandomSampler()  # told of its last trial, a GridSampler would try to stop a loop
        trial = self._trial(self._study.trials[asked.number])
        lease = self._lease(trial, leases)
        return None if lease is None else (trial, lease)

    def _half_asked(self) -> optuna.Trial | None:
        """A trial whose worker was killed before it knew its learning rate; under the lock it is nobody else's."""
        complete = {frozen.number for frozen in self._handed_out()}
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == TrialState.RUNNING and frozen.number not in complete:
                if self.tuning.sampler == "tpe" or "grid_id" in frozen.system_attrs:
                    return optuna.Trial(self._study, frozen._trial_id)
                self._study.tell(frozen.number, state=TrialState.FAIL)  # it has no point of the grid yet
        return None

    def _sampler(self, count: int) -> BaseSampler:
        if self.tuning.sampler == "tpe":  # with one seed for all it would repeat its first suggestions after a restart
            return TPESampler(seed=1000 + count, n_startup_trials=max(4, self.tuning.budget // 2))
        rates = learning_rate_grid(self.tuning, self._place)
        return GridSampler({"learning_rate": rates, "seed": list(self.tuning.seeds)}, seed=0)

    def _handed_out(self) -> list[FrozenTrial]:
        """All trials except those that a kill left without a learning rate: those were never run and do not count."""
        needed = {"learning_rate", "seed"} if self.tuning.sampler == "grid" else {"learning_rate"}
        return [frozen for frozen in self._study.get_trials(deepcopy=False) if needed <= set(frozen.params)]

    def _trial(self, frozen: FrozenTrial) -> Trial:
        seed = frozen.params.get("seed", self.tuning.seeds[frozen.number % len(self.tuning.seeds)])
        return Trial(frozen.number, float(frozen.params["learning_rate"]), int(seed))

    def _lease(self, trial: Trial, leases: ExitStack) -> Lease | None:
        try:
            return leases.enter_context(hold(self._folder(trial.rate, trial.seed)))
        except Busy:
            return None


def learning_rate_grid(tuning: Tuning, place: tuple[int, int] = (0, 1)) -> list[float]:
    """The log-spaced learning rates of one cell, to six digits.

    `place` is the cell's number among the cells of its network, and how many those are. Where they are fitted
    together, their rates interleave and cover the range together; otherwise all cells share the same rates.
    """
    number, cells = place if tuning.fit == "pooled" else (0, 1)
    every = np.geomspace(tuning.low, tuning.high, tuning.points * cells)
    return [float(f"{rate:.6g}") for rate in every[number::cells]]


def has_storage(output_dir: Path) -> bool:
    """Whether a tuning was ever begun here: a command that only reads should create no storage."""
    return (output_dir / "optuna.lock").exists()


def _open_storage(url: str) -> Any:
    waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its creation
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=waits)
        except (ImportError, ValueError, SQLAlchemyError) as error:
            raise InputError(
                f"Optuna's storage {without_password(url)} cannot be opened ({_reason(error)}). --optuna-storage takes "
                "a URI such as postgresql+pg8000://user@host/optuna (see docs/en/scale.md)."
            ) from None


def _reason(error: BaseException) -> str:
    """The database's own message, without what SQLAlchemy adds."""
    return " ".join(str(error.__cause__ or error).split()).split(" (Background")[0].split(" [SQL")[0][:200]
