"""The tables of a study file, as pydantic models that check every value and every name.

Values of settings are checked by `experiments.config.values`, as on the command line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from experiments.config import values
from experiments.config.schema import setting_fields
from experiments.studies.definition import FITS, GUESS, KWARGS, ROPE, SAMPLERS, Level
from registry import did_you_mean


class Table(BaseModel):
    """A table of a study file: unknown keys are refused, and values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, table: Any) -> Any:
        for key in table if isinstance(table, Mapping) else ():
            if key not in cls.model_fields:
                name = f"[{key}]" if cls is StudyFile else key
                known = ", ".join(cls.model_fields)
                sentence = f"{name} is unknown{did_you_mean(key, cls.model_fields)}; known are {known}"
                raise PydanticCustomError("unknown_key", "{sentence}", {"sentence": sentence})
        return table


def _refuse_duplicates(seeds: list[int]) -> list[int]:
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ValueError(f"holds {seed} twice")
    return seeds


def _refuse_unknown_sampler(name: str) -> str:
    _refuse_unknown("", [name], SAMPLERS)
    return name


def _refuse_unknown_fit(name: str) -> str:
    _refuse_unknown("", [name], FITS)
    return name


def _setting(name: str, value: Any) -> Any:
    """The value of a RunConfig field, checked as on the command line."""
    if name == "seed":
        raise ValueError("belongs in [design] as seeds: they are the same for every cell")
    typed = values.typed(name, value)
    if name == "early_stopping" and typed:
        raise ValueError("must be 0: in a study every cell trains for the same number of steps")
    return typed


RunSettings: Any = create_model(  # type: ignore[call-overload]
    "RunSettings",
    __base__=Table,
    **{name: (Annotated[Any, AfterValidator(partial(_setting, name))], None) for name in setting_fields()},
)
Seeds = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(_refuse_duplicates)]
Names = Annotated[list[str], BeforeValidator(lambda names: names if isinstance(names, list) else [names])]
Sampler = Annotated[str, AfterValidator(_refuse_unknown_sampler)]
Fit = Annotated[str, AfterValidator(_refuse_unknown_fit)]
Preset = Annotated[Any, AfterValidator(lambda name: values.typed("preset", name))]


class SettingsTable(RunSettings):
    """The settings that are the same in every cell."""

    preset: Preset = None


class LevelTable(RunSettings):
    """One level of a factor. Without a label (a plain value in the file) the value is the label."""

    label: str | None

    @model_validator(mode="after")
    def _refuse_empty(self) -> LevelTable:
        if self.model_fields_set == {"label"}:
            raise ValueError("has a level without a setting: { label = …, KEY = … }")
        return self

    def level(self) -> Level:
        fields = {name: getattr(self, name) for name in setting_fields() if name in self.model_fields_set}
        (value, *_) = fields.values()
        plain = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        return Level(plain if self.label is None else self.label, fields)


def levels_as_tables(factors: Any) -> Any:
    """`loss = ["bce"]` as `loss = [{ loss = "bce" }]`."""
    tables: dict[str, Any] = {}
    for factor, levels in factors.items() if isinstance(factors, Mapping) else ():
        if not isinstance(levels, list):
            raise ValueError(f"{factor} should be a list of levels")
        has_plain = not all(isinstance(level, Mapping) for level in levels)
        if has_plain and factor not in LevelTable.model_fields:
            known = [name for name in LevelTable.model_fields if name != "label"]
            raise ValueError(
                f"{factor} is no setting of a run{did_you_mean(factor, known)}; give its levels as tables: "
                "{ label = …, KEY = … }"
            )
        tables[factor] = [level if isinstance(level, Mapping) else {"label": None, factor: level} for level in levels]
    return tables if isinstance(factors, Mapping) else factors


class QuestionTable(Table):
    en: str = ""
    zh: str = ""


class PilotTable(Table):
    cells: PositiveInt = 2
    seeds: int = Field(5, ge=2)


class GuessTable(Table):
    car: NonNegativeFloat = GUESS["car"]
    seed: NonNegativeFloat = GUESS["seed"]
    residual: NonNegativeFloat = GUESS["residual"]


class DesignTable(Table):
    seeds: Seeds
    rope: PositiveFloat = ROPE
    confirmatory: Names = []
    simple_effects: Names = []
    baseline: dict[str, Any] = {}
    at_budget: bool = False
    pilot: PilotTable | None = None
    guess: GuessTable = GuessTable()


class TuningTable(Table):
    low: PositiveFloat
    high: PositiveFloat
    points: int = Field(ge=3)
    seeds: Seeds
    sampler: Sampler = "grid"
    fit: Fit = "cell"

    @model_validator(mode="after")
    def _refuse_empty_range(self) -> TuningTable:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    @model_validator(mode="after")
    def _refuse_too_few_points(self) -> TuningTable:
        if self.fit == "cell" and self.points < 4:
            raise ValueError(f'points is {self.points}: each cell needs 4 rates for its own curve, or fit = "pooled"')
        return self


class StudyFile(Table):
    """A whole study file; the checks that concern several tables are here."""

    question: QuestionTable = QuestionTable()
    settings: SettingsTable = SettingsTable()
    factors: Annotated[dict[str, Annotated[list[LevelTable], Field(min_length=1)]], BeforeValidator(levels_as_tables)]
    design: DesignTable
    tuning: TuningTable | None = None

    def levels(self) -> dict[str, tuple[Level, ...]]:
        return {factor: tuple(table.level() for table in tables) for factor, tables in self.factors.items()}

    def shared(self) -> dict[str, Any]:
        """The settings of every cell, without the preset."""
        return self.settings.model_dump(exclude_unset=True, exclude={"preset"})

    @model_validator(mode="after")
    def _check_factors(self) -> StudyFile:
        if not self.factors:
            raise ValueError('[factors] needs at least one factor, such as: model = ["unet", "attention_unet"]')
        set_by = dict.fromkeys(_options(self.shared()), "[settings]")
        for factor, levels in self.levels().items():
            labels = [level.label for level in levels]
            for label in labels:
                if labels.count(label) > 1:
                    raise ValueError(f"[factors] {factor} names the level '{label}' twice")
            for name in sorted({name for level in levels for name in _options(level.fields)}):
                if name in set_by:
                    raise ValueError(f"[factors] {factor} sets {name}, which {set_by[name]} sets too: keep one of them")
                set_by[name] = f"the factor {factor}"
        if self.tuning and "learning_rate" in set_by:
            raise ValueError("[tuning] finds the learning_rate: leave learning_rate out of [settings] and [factors]")
        return self

    @model_validator(mode="after")
    def _check_design(self) -> StudyFile:
        design, levels = self.design, self.levels()
        _refuse_unknown("[design] confirmatory", design.confirmatory, [*levels, "pairs"])
        _refuse_unknown("[design] simple_effects", design.simple_effects, list(levels))
        _refuse_unknown("[design.baseline]", list(design.baseline), design.simple_effects)
        for factor, label in design.baseline.items():
            _refuse_unknown(f"[design.baseline] {factor}", [str(label)], [level.label for level in levels[factor]])
        cells = math.prod(map(len, levels.values()))
        if design.pilot and design.pilot.cells > cells:
            raise ValueError(f"[design.pilot] cells is {design.pilot.cells}, but the study has {cells}")
        if design.at_budget and not any(_varies(of_factor, ("epochs", "epoch_steps")) for of_factor in levels.values()):
            raise ValueError(
                "[design] at_budget is for studies in which the number of steps is a factor: "
                "without one, train until all have converged"
            )
        if self.tuning and (both := sorted({*design.seeds} & {*self.tuning.seeds})):
            raise ValueError(f"[tuning] seeds must not hold {both[0]}, which is among the reported seeds of [design]")
        return self


def _refuse_unknown(place: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            sentence = f"{place} names '{name}'{did_you_mean(name, known)}; it takes {', '.join(known) or 'none'}"
            raise ValueError(sentence.lstrip())


def _options(fields: Mapping[str, Any]) -> list[str]:
    """The names of fields; of options of the model and of the loss, each by itself."""
    return [
        f"{name}.{option}" if option else name
        for name, value in fields.items()
        for option in (value if name in KWARGS else [""])
    ]


def _varies(levels: tuple[Level, ...], names: tuple[str, ...]) -> bool:
    return any(len({level.fields[name] for level in levels if name in level.fields}) > 1 for name in names)
