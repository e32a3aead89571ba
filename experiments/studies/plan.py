"""From a Study to its runs: every cell resolved once, its data listed once, and the cells held to the same work."""

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
from registry import InputError

# What must be the same in every cell, unless it is what the study asks about.
EQUAL = ("epochs", "batch_size", "accumulate", "size", "progressive", "epoch_steps")


@dataclass(frozen=True)
class Rate:
    """The learning rate of a cell: tuned or as it was set. Without a `value` (too many trials diverged) the cell cannot run."""

    value: float | None
    low: float | None = None  # of its 95 % interval; none where trials do not show how sure it is
    high: float | None = None
    tuned: bool = False
    edge: bool = False  # at the end of the range that was tried, even after it was extended: no verdict
    reason: str = ""  # why there is no value

    def interval(self, between: str) -> str:
        """The ends of the tuned rate's interval in words."""
        return "not estimable" if self.low is None or self.high is None else f"{self.low:.2g}{between}{self.high:.2g}"


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """A cell with everything found out that decides its runs, but for seed and rate."""

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
        """Steps of an epoch."""
        return self.config.epoch_steps or _steps(self.base)

    def prepared(self, seed: int, rate: float | None) -> RunInputs:
        """The run of this cell with a seed and a rate (None: the rate that was set)."""
        config = dataclasses.replace(self.config, seed=seed)
        if rate is not None:
            config = dataclasses.replace(config, learning_rate=rate)
        if self.config.split != "image":
            return dataclasses.replace(self.base, config=config)
        return split_inputs(config, self.base.machine, self.base.samples)  # this split is drawn anew by each seed


@dataclass
class Plan:
    """A study with its cells ready to run; `rates` is filled by tuning, `published` and `tried` by `experiments.studies.committed_results`."""

    study: Study
    cells: list[PlannedCell]
    machine: RuntimeConfig
    notices: list[str]
    rates: dict[str, Rate] = field(default_factory=dict)
    rounds: list[Tuning] = field(default_factory=list)  # the range of rates, and what it was extended by
    published: dict[tuple[str, int], tuple[str, float]] = field(default_factory=dict)  # (cell, seed) -> key and Dice
    tried: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # a trial's key -> its row of trials.csv, of what was tried elsewhere

    @property
    def folder(self) -> Path:
        return self.machine.output_dir / "studies" / self.study.name

    @property
    def budget(self) -> int:
        """Trials that each cell gets, as far as the range has been extended."""
        return sum(part.budget for part in self.rounds)

    @property
    def tuned(self) -> bool:
        """Whether the rates are known, as far as they can be."""
        return self.study.tuning is None or len(self.rates) == len(self.cells)

    def rate(self, cell: PlannedCell) -> Rate:
        """The cell's rate."""
        if self.study.tuning is None:
            return Rate(cell.config.learning_rate)
        return self.rates.get(cell.id, Rate(None, reason="not tuned yet"))

    def run(self, cell: PlannedCell, seed: int) -> RunInputs | None:
        """One run of the study; None while its cell has no rate."""
        rate = self.rate(cell).value
        return None if rate is None else cell.prepared(seed, rate)

    def elsewhere(self, cell: PlannedCell, seed: int) -> float | None:
        """The Dice of a run that was finished elsewhere; None where it was not, or with other settings or data."""
        key, dice = self.published.get((cell.id, seed), ("", 0.0))
        run = self.run(cell, seed)
        return dice if run is not None and run.config.key == key else None

    def runs(self) -> list[tuple[PlannedCell, int]]:
        """All runs, seed by seed: an interrupted study is then a whole comparison on fewer seeds."""
        return [(cell, seed) for seed in self.study.seeds for cell in self.cells]


def build(study: Study, machine: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> Plan:
    """Resolve every cell of `study` on this machine; `machine` holds fields of Machine. Raises InputError."""
    listed: dict[tuple[Any, ...], tuple[list[Sample], str]] = {}
    cells: list[PlannedCell] = []
    notices: list[str] = []
    for cell in study.cells():
        config, found, said = _resolve(study, cell, machine)
        notices = notices or said
        place = (config.data, found.data_dir, config.group_pattern)
        if place not in listed:
            samples = list_samples(config, found, check)
            listed[place] = samples, fingerprint(samples)
        samples, digest = listed[place]
        base = split_inputs(dataclasses.replace(config, data_fingerprint=digest), found, samples)
        cells.append(PlannedCell(cell, base))
    if "data_dir" in machine and len(listed) > 1:
        raise InputError("--data-dir names one place, but the study compares several data sets: leave it out.")
    _refuse_unequal(study, cells)
    cells = _same_steps(cells)
    _refuse_twins(cells)
    return Plan(study, cells, cells[0].base.machine, notices, rounds=[study.tuning] if study.tuning else [])


def _resolve(study: Study, cell: Cell, machine: Mapping[str, Any]) -> tuple[RunConfig, RuntimeConfig, list[str]]:
    fields = merged(iter((study.settings, cell.fields)))
    try:
        config, found, notices = resolve(ParsedArgs(fields, dict(machine), study.preset))
    except InputError as error:
        raise InputError(f"The cell {cell.id} of the study {study.name} cannot run: {error}") from None
    return dataclasses.replace(config, seed=study.seeds[0], early_stopping=0), found, notices


def _refuse_unequal(study: Study, cells: list[PlannedCell]) -> None:
    alone = {next(iter(one.fields)) for levels in study.factors.values() for one in levels if len(one.fields) == 1}
    mixed = {name for levels in study.factors.values() for one in levels if len(one.fields) > 1 for name in one.fields}
    for name in EQUAL:
        values = {str(getattr(cell.config, name)) for cell in cells}
        if len(values) > 1 and name not in alone - mixed:
            raise InputError(
                f"The cells of the study {study.name} differ in {name} ({', '.join(sorted(values))}): make it the same for all, "
                f"or a factor of its own, whose levels set nothing else."
            )


def _same_steps(cells: list[PlannedCell]) -> list[PlannedCell]:
    """Cells with fewer training photographs go through them more often: all make the same number of steps in an epoch."""
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
