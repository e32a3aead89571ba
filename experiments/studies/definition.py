"""Define a study: a question, the factors whose levels are crossed, the seeds, and the settings that all cells share.

It comes from `experiments/studies/NAME.toml` (see `study_file`) or from the flags of `run.py grid` (see `from_flags`).

一项研究：要回答的问题、相互交叉的因素及其水平、随机种子，以及所有组合都必须相同的设置。
写在 `experiments/studies/NAME.toml` 里。
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ROPE = 0.001
# Standard deviations of Dice that a plan assumes until a pilot has measured them: cars, seeds, residual.
GUESS = {"car": 0.0003, "seed": 0.0015, "residual": 0.0015}
SAMPLERS = ("grid", "tpe")
FITS = ("cell", "pooled")
KWARGS = ("model_kwargs", "loss_kwargs")


@dataclass(frozen=True)
class Level:
    """One level of a factor: its label and the RunConfig fields that it sets."""

    label: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Tuning:
    """How the learning rate of every cell is tuned: `points` rates from `low` to `high`, each with every seed.

    `fit` is "cell" (each cell's own curve; all cells try the same rates) or "pooled" (the cells of a network together;
    their rates are staggered).
    """

    low: float
    high: float
    points: int
    seeds: tuple[int, ...]
    sampler: str = "grid"
    fit: str = "cell"

    @property
    def budget(self) -> int:
        """Trials per cell."""
        return self.points * len(self.seeds)


@dataclass(frozen=True)
class Pilot:
    """Runs that come first, to measure the variance between seeds and between cars."""

    cells: int = 2
    seeds: int = 5


@dataclass(frozen=True)
class Cell:
    """One configuration of the factorial design; `fields` are the RunConfig fields that its levels set."""

    id: str
    levels: Mapping[str, str]
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A study as it was requested; every value is checked and typed."""

    name: str
    factors: Mapping[str, tuple[Level, ...]]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    mask_pattern: str | None = None  # of the file, where the command names none
    question: Mapping[str, str] = field(default_factory=lambda: {"en": "", "zh": ""})
    rope: float = ROPE
    confirmatory: tuple[str, ...] = ()
    simple_effects: tuple[str, ...] = ()  # factors whose effect is also shown within each combination of the others
    within: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # which others; all where it is not said
    baseline: Mapping[str, str] = field(default_factory=dict)  # the level to compare with; where not said, the first
    cell_rope: float | None = None  # for single cells; `rope` is for averages
    looks: tuple[int, ...] = ()  # numbers of seeds at which to look whether all is decided; none: a fixed list
    draw_training_cars: bool = False  # the seed also draws the training cars, and runs are matched by seed
    kinds: str | None = None  # a regular expression whose group is the kind of a test image, for its page
    labels: Mapping[str, Any] = field(default_factory=dict)  # how factors and levels are written, by language or not
    pilot: Pilot | None = None
    guess: Mapping[str, float] = field(default_factory=lambda: dict(GUESS))
    tuning: Tuning | None = None

    @property
    def baselines(self) -> dict[str, str]:
        """The baseline of each factor that has several levels."""
        varied = {name: levels for name, levels in self.factors.items() if len(levels) > 1}
        return {name: self.baseline.get(name, levels[0].label) for name, levels in varied.items()}

    def cells(self) -> list[Cell]:
        """Every combination of levels, in the order of the file."""
        cells: dict[str, Cell] = {}
        for levels in itertools.product(*self.factors.values()):
            name = unique("+".join(slug(level.label) for level in levels), cells)
            labels = {factor: level.label for factor, level in zip(self.factors, levels, strict=True)}
            cells[name] = Cell(name, labels, merged(level.fields for level in levels))
        return list(cells.values())


def grid_name(content: Mapping[str, Any]) -> str:
    """The name of a study without a file: a hash of its content."""
    return "grid_" + hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]


def merged(parts: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of several levels in one; options of the model and of the loss are merged one by one."""
    fields: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            fields[name] = {**fields.get(name, {}), **value} if name in KWARGS else value
    return fields


def slug(label: str) -> str:
    """A label as part of a cell's id."""
    return re.sub(r"[^a-z0-9_.]+", "-", label.lower()).strip("-") or "level"


def unique(name: str, taken: Mapping[str, Any]) -> str:
    """`name`, or the first of name-2, name-3, … that is not taken."""
    return next(n for i in itertools.count(1) if (n := name if i == 1 else f"{name}-{i}") not in taken)
