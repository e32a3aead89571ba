"""The one door to Optuna: which trial of a cell comes next, so that workers never run one twice nor more than the budget.

Counting and asking are one act under a file lock: SQLite would hand one queued trial to two workers and let them pass the
budget. A trial whose worker died stays open in Optuna; the next worker finds that nobody holds its folder and goes on with it,
so a tuning that was killed ends with the same trials as one that was not.
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
from experiments.runtime.leases import MOMENTS, Lease, hold, wait_for_lock
from experiments.studies.definition import Tuning
from registry import InputError

ROUNDED = 1e-5  # the grid's rates have six digits, and so may lie beyond the ends of the range
TrialFolder = Callable[[float, int], Path]  # the folder of the trial with this rate and seed


@dataclass(frozen=True)
class Trial:
    """One trial, as Optuna numbers it."""

    number: int
    rate: float
    seed: int


class TrialQueue:
    """The trials of one cell in one range of rates: an Optuna study under outputs/optuna.db, or in `storage` (a URI).

    Raises InputError for a storage that cannot be opened.
    """

    def __init__(
        self, output_dir: Path, name: str, tuning: Tuning, place: TrialFolder, storage: str | None = None
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name, self.tuning, self.place = name, tuning, place
        self._lock = output_dir / "optuna.lock"
        output_dir.mkdir(parents=True, exist_ok=True)
        self._url = storage or f"sqlite:///{(output_dir / 'optuna.db').absolute()}"
        with self._at_storage():
            self._storage = _storage(self._url)
            self._study = optuna.create_study(
                storage=self._storage,
                sampler=RandomSampler(),
                study_name=name,
                direction="maximize",
                load_if_exists=True,
            )

    def trials(self) -> list[tuple[Trial, bool]]:
        """Every trial that was asked for, and whether it was told how it ended. Raises RunFailed, as all here, while Optuna's
        storage is away or full."""
        with self._naming():
            return [(self._read(one), one.state.is_finished()) for one in self._asked()]

    @contextmanager
    def next(self, skip: Callable[[Trial], bool] = lambda trial: False) -> Iterator[tuple[Trial, Lease] | None]:
        """The trial to run now, held by this process; None when none is left or others are at them.

        `tell` how it ended before the block ends; one that was not told is given again, unless `skip` says no.
        """
        with ExitStack() as held:
            with self._at_storage():
                found = self._abandoned(held, skip) or self._asked_for(held)
            yield found

    def tell(self, trial: Trial, value: float | None) -> None:
        """Note a trial's validation Dice, or None for one that diverged."""
        with self._at_storage():
            if value is None:
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            else:
                self._study.tell(trial.number, value, skip_if_finished=True)

    @contextmanager
    def _at_storage(self) -> Iterator[None]:
        """Alone at the storage: what is read is still so when it is written."""
        with wait_for_lock(self._lock, patience=MOMENTS), self._naming():
            yield

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            raise RunFailed(
                f"Optuna's storage {without_password(self._url)} failed ({_why(error)}). No trial is lost: repeat the command "
                "when there is space and the storage is back."
            ) from error

    def _abandoned(self, held: ExitStack, skip: Callable[[Trial], bool]) -> tuple[Trial, Lease] | None:
        for one in self._asked():
            if not one.state.is_finished():
                trial = self._read(one)
                lease = None if skip(trial) else self._hold(trial, held)
                if lease is not None:
                    return trial, lease
        return None

    def _asked_for(self, held: ExitStack) -> tuple[Trial, Lease] | None:
        asked = len(self._asked())
        if asked >= self.tuning.budget:
            return None
        self._study.sampler = self._sampler(asked)
        trial = self._half_asked() or self._study.ask()
        self._suggest(trial)
        self._study.sampler = RandomSampler()  # a GridSampler that is told of its last trial wants to stop a loop
        asked_for = self._read(self._study.trials[trial.number])
        lease = self._hold(asked_for, held)
        return None if lease is None else (asked_for, lease)

    def _suggest(self, trial: optuna.Trial) -> None:
        trial.suggest_float(
            "learning_rate", self.tuning.low * (1 - ROUNDED), self.tuning.high * (1 + ROUNDED), log=True
        )
        if self.tuning.sampler == "grid":
            trial.suggest_categorical("seed", list(self.tuning.seeds))

    def _half_asked(self) -> optuna.Trial | None:
        """A trial whose worker was killed before it knew its rate; under the lock nobody else can be at it."""
        known = {one.number for one in self._asked()}
        for one in self._study.get_trials(deepcopy=False):
            if one.state == TrialState.RUNNING and one.number not in known:
                if self.tuning.sampler == "tpe" or "grid_id" in one.system_attrs:
                    return optuna.Trial(self._study, one._trial_id)
                self._study.tell(one.number, state=TrialState.FAIL)  # it was not even given its point of the grid
        return None

    def _sampler(self, asked: int) -> BaseSampler:
        if self.tuning.sampler == "tpe":  # seeded alike, it would repeat its first suggestions after every start
            return TPESampler(seed=1000 + asked, n_startup_trials=max(4, self.tuning.budget // 2))
        return GridSampler({"learning_rate": learning_rate_grid(self.tuning), "seed": list(self.tuning.seeds)}, seed=0)

    def _asked(self) -> list[FrozenTrial]:
        """All trials but those that a kill left without their rate: such a one was never run, and is not counted."""
        needed = {"learning_rate", "seed"} if self.tuning.sampler == "grid" else {"learning_rate"}
        return [one for one in self._study.get_trials(deepcopy=False) if needed <= set(one.params)]

    def _read(self, one: FrozenTrial) -> Trial:
        seed = one.params.get("seed", self.tuning.seeds[one.number % len(self.tuning.seeds)])
        return Trial(one.number, float(one.params["learning_rate"]), int(seed))

    def _hold(self, trial: Trial, held: ExitStack) -> Lease | None:
        try:
            return held.enter_context(hold(self.place(trial.rate, trial.seed)))
        except Busy:
            return None


def learning_rate_grid(tuning: Tuning) -> list[float]:
    """The log-spaced rates that all cells share, to six digits."""
    return [float(f"{rate:.6g}") for rate in np.geomspace(tuning.low, tuning.high, tuning.points)]


def has_storage(output_dir: Path) -> bool:
    """Whether a tuning was ever begun here: what only looks should make no storage."""
    return (output_dir / "optuna.lock").exists()


def _storage(url: str) -> Any:
    waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces that it is made
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=waits)
        except (ImportError, ValueError, SQLAlchemyError) as error:
            raise InputError(
                f"Optuna's storage {without_password(url)} cannot be opened ({_why(error)}). --optuna-storage takes a URI such as "
                "postgresql+pg8000://user@host/optuna (see docs/scale.md)."
            ) from None


def _why(error: BaseException) -> str:
    """What the database said, without what SQLAlchemy adds."""
    return " ".join(str(error.__cause__ or error).split()).split(" (Background")[0].split(" [SQL")[0][:200]
