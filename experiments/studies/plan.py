"""Plan a study: resolve every cell, list its data once, and require the same amount of training of all cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config.resolve import resolve
from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.config.values import ParsedArgs
from experiments.data.run_inputs import RunInputs, list_samples, split_inputs
from experiments.data.samples import Sample, fingerprint
from experiments.studies.definition import Cell, Study, Tuning, merged
from experiments.training.initial_weights import with_initial_weights
from registry import InputError

# Must be the same in every cell, unless it is a factor.
EQUAL = ("epochs", "batch_size", "accumulate", "size", "progressive", "epoch_steps")


@dataclass(frozen=True)
class Rate:
    """The learning rate of a cell, tuned or set. Without a `value` (too many trials diverged) the cell cannot run."""

    value: float | None
    low: float | None = None  # of its 95 % interval; None where the trials cannot show it
    high: float | None = None
    tuned: bool = False
    edge: bool = False  # at the end of the range even after its extensions: no verdict
    reason: str = ""  # why there is no value

    def interval(self, between: str) -> str:
        """The ends of the interval of the tuned learning rate as text."""
        return "not estimable" if self.low is None or self.high is None else f"{self.low:.2g}{between}{self.high:.2g}"


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """A cell with all that decides its runs, except seed and learning rate."""

    cell: Cell
    base: RunInputs

    @property
    def id(self) -> str:
        return self.cell.id

    @property
    def config(self) -> RunConfig:
        return self.base.config

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.config.epoch_steps or _steps(self.base)

    def prepared(self, seed: int, rate: float | None) -> RunInputs:
        """The run of this cell with a seed and a learning rate (None: the one that was set)."""
        config = dataclasses.replace(self.config, seed=seed)
        if rate is not None:
            config = dataclasses.replace(config, learning_rate=rate)
        if self.config.split != "image" and self.config.train_draw != "seed":
            return dataclasses.replace(self.base, config=config)
        return split_inputs(config, self.base.machine, self.base.samples)  # this split depends on the seed


@dataclass
class Plan:
    """A study with its cells ready to run.

    `tuning` fills the learning rates, `reuse_results` the runs and trials that are committed.
    """

    study: Study
    cells: list[PlannedCell]
    machine: RuntimeConfig
    notices: list[str]
    rates: dict[str, Rate] = field(default_factory=dict)
    rounds: list[Tuning] = field(default_factory=list)  # the range of learning rates and its extensions
    looks_taken: list[dict[str, Any]] = field(default_factory=list)  # seeds, level and what was open, look by look
    extended_from: list[int] = field(default_factory=list)  # numbers of seeds of a fixed list before it was extended
    committed_runs: dict[tuple[str, int], tuple[str, float]] = field(default_factory=dict)  # (cell, seed): key, Dice
    committed_trials: dict[str, dict[str, Any]] = field(default_factory=dict)  # by key: the row of trials.csv

    @property
    def folder(self) -> Path:
        return self.machine.output_dir / "studies" / self.study.name

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to run: all of a fixed list; else those of the first look, and one more after each open look."""
        looks, taken = self.study.looks, self.looks_taken
        if not looks:
            return self.study.seeds
        reached = len(taken) if taken and not taken[-1]["open"] else len(taken) + 1
        return self.study.seeds[: looks[min(reached, len(looks)) - 1]]

    @property
    def budget(self) -> int:
        """Trials per cell, over the range and its extensions so far."""
        return sum(part.budget for part in self.rounds)

    def rate(self, cell: PlannedCell) -> Rate:
        """The learning rate of a cell."""
        if self.study.tuning is None:
            return Rate(cell.config.learning_rate)
        return self.rates.get(cell.id, Rate(None, reason="not tuned yet"))

    def run(self, cell: PlannedCell, seed: int) -> RunInputs | None:
        """One run of the study; None while its cell has no learning rate."""
        rate = self.rate(cell).value
        return None if rate is None else cell.prepared(seed, rate)

    def committed_dice(self, cell: PlannedCell, seed: int) -> float | None:
        """The Dice of a run that is committed with the same settings and data; otherwise None."""
        key, dice = self.committed_runs.get((cell.id, seed), ("", 0.0))
        run = self.run(cell, seed)
        return dice if run is not None and run.config.key == key else None

    def runs(self) -> list[tuple[PlannedCell, int]]:
        """All runs, seed by seed: an interrupted study is a complete comparison on fewer seeds."""
        return [(cell, seed) for seed in self.seeds for cell in self.cells]


def build(study: Study, machine: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> Plan:
    """Resolve every cell of `study` on this machine; `machine` has fields of RuntimeConfig. Raises InputError."""
    listed: dict[tuple[Any, ...], tuple[list[Sample], str]] = {}
    cells: list[PlannedCell] = []
    notices: list[str] = []
    for cell in study.cells():
        config, runtime, cell_notices = _resolve(study, cell, machine)
        notices = notices or cell_notices
        data = (config.data, runtime.data_dir, config.group_pattern)
        if data not in listed:
            samples = list_samples(config, runtime, check)
            listed[data] = samples, fingerprint(samples)
        samples, digest = listed[data]
        base = split_inputs(dataclasses.replace(config, data_fingerprint=digest), runtime, samples)
        cells.append(PlannedCell(cell, base))
    if "data_dir" in machine and len({cell.base.config.data for cell in cells}) > 1:
        raise InputError("--data-dir names one folder, but the study compares several data sets: leave it out.")
    _refuse_unequal(study, cells)
    cells = _same_steps(cells)
    _refuse_twins(cells)
    return Plan(study, cells, cells[0].base.machine, notices, rounds=[study.tuning] if study.tuning else [])


def _resolve(study: Study, cell: Cell, machine: Mapping[str, Any]) -> tuple[RunConfig, RuntimeConfig, list[str]]:
    fields = merged(iter((study.settings, cell.fields)))
    if study.draw_training_cars:
        fields["train_draw"] = "seed"
    try:
        config, runtime, notices = resolve(ParsedArgs(fields, dict(machine), study.preset))
        config, runtime = with_initial_weights(config, runtime)
    except InputError as error:
        raise InputError(f"The cell {cell.id} of the study {study.name} cannot run: {error}") from None
    return dataclasses.replace(config, seed=study.seeds[0], early_stopping=0), runtime, notices


def _refuse_unequal(study: Study, cells: list[PlannedCell]) -> None:
    every = [level.fields for levels in study.factors.values() for level in levels]
    alone = {next(iter(fields)) for fields in every if len(fields) == 1}
    mixed = {name for fields in every if len(fields) > 1 for name in fields}
    for name in EQUAL:
        values = {str(getattr(cell.config, name)) for cell in cells}
        if len(values) > 1 and name not in alone - mixed:
            raise InputError(
                f"The cells of the study {study.name} differ in {name} ({', '.join(sorted(values))}): make it the same "
                "for all, or a separate factor, whose levels set nothing else."
            )


def _same_steps(cells: list[PlannedCell]) -> list[PlannedCell]:
    """Make all cells take as many steps per epoch; those with fewer training images repeat them more often."""
    most = max(cell.steps for cell in cells)
    if all(cell.steps == most for cell in cells) or any(cell.config.epoch_steps for cell in cells):
        return cells
    bases = [dataclasses.replace(c.base, config=dataclasses.replace(c.config, epoch_steps=most)) for c in cells]
    return [dataclasses.replace(cell, base=base) for cell, base in zip(cells, bases, strict=True)]


def _steps(base: RunInputs) -> int:
    photographs = len(base.parts.train)
    return photographs // min(base.config.batch_size, photographs)


def _refuse_twins(cells: list[PlannedCell]) -> None:
    seen: dict[str, str] = {}
    for cell in cells:
        twin = seen.setdefault(cell.config.key, cell.id)
        if twin != cell.id:
            raise InputError(
                f"The cells {twin} and {cell.id} are the same in everything: change a level or leave one out."
            )
