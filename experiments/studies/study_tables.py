"""The tables of a study file, as pydantic models that check every value and every name.

Values of settings are checked by `experiments.config.values`, as on the command line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

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
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from experiments.config import values
from experiments.config.schema import setting_fields
from experiments.studies.definition import FITS, GUESS, KWARGS, ROPE, SAMPLERS, Level
from registry import did_you_mean

MOST_SEEDS = 100  # of a study that is looked at after each


class TomlTable(BaseModel):
    """A table of a study file: unknown keys are refused, and values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, table: Any) -> Any:
        known = [key for key, field in cls.model_fields.items() if not field.exclude]
        for key in table if isinstance(table, Mapping) else ():
            if key not in known:
                name = f"[{key}]" if cls is StudyFile else key
                sentence = f"{name} is unknown{values.suggest(key, known)}; known are {', '.join(known)}"
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
    __base__=TomlTable,
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
    mask_pattern: str | None = None  # where masks lie, like --mask-pattern: no setting of a run


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
                f"{factor} is no setting of a run{values.suggest(factor, known)}; give its levels as tables: "
                "{ label = …, KEY = … }"
            )
        tables[factor] = [level if isinstance(level, Mapping) else {"label": None, factor: level} for level in levels]
    return tables if isinstance(factors, Mapping) else factors


class QuestionTable(TomlTable):
    en: str = ""
    zh: str = ""


class PilotTable(TomlTable):
    cells: PositiveInt = 2
    seeds: int = Field(5, ge=2)


class GuessTable(TomlTable):
    car: NonNegativeFloat = GUESS["car"]
    seed: NonNegativeFloat = GUESS["seed"]
    residual: NonNegativeFloat = GUESS["residual"]


@dataclass(frozen=True)
class SeedCounts:
    """`seeds = "3..10"`: seeds 0, 1, 2, a look, seed 3, a look, and so on until all is decided, at most to 10."""

    first: int
    last: int


def _read_counts(seeds: Any, read_list: Callable[[Any], list[int]]) -> list[int] | SeedCounts:
    if not isinstance(seeds, str):
        return read_list(seeds)
    found = re.fullmatch(r"(\d+)\.\.(\d+)", seeds)
    if not found or not 2 <= int(found[1]) < int(found[2]) <= MOST_SEEDS:
        raise ValueError(f'should be a list, or counts from 2 to {MOST_SEEDS} such as "3..10", not {seeds!r}')
    return SeedCounts(int(found[1]), int(found[2]))


def _refuse_other_labels(label: Any) -> Any:
    texts = list(label.values()) if isinstance(label, Mapping) and {"en", "zh"} == set(label) else [label]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError('should be text, or a table such as { en = "network", zh = "网络" }')
    return label


def _refuse_bad_pattern(pattern: str | None) -> str | None:
    """A pattern of kinds needs a group, which is the kind."""
    try:
        groups = re.compile(pattern or "()").groups
    except re.error as error:
        raise ValueError(f"should be a regular expression ({error})") from None
    if not groups:
        raise ValueError('should have a group in parentheses, which is the kind, such as "^([a-z]+)_"')
    return pattern


Label = Annotated[Any, AfterValidator(_refuse_other_labels)]


class DesignTable(TomlTable):
    seeds: Annotated[Seeds, WrapValidator(_read_counts)]
    rope: PositiveFloat = ROPE
    cell_rope: PositiveFloat | None = None
    confirmatory: Names = []
    simple_effects: Names = []
    within: dict[str, Names] = {}
    baseline: dict[str, Any] = {}
    draw_training_cars: bool = False
    kinds: Annotated[str | None, AfterValidator(_refuse_bad_pattern)] = None
    pilot: PilotTable | None = None
    guess: GuessTable = GuessTable()

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, up to the last count."""
        return tuple(range(self.seeds.last) if isinstance(self.seeds, SeedCounts) else self.seeds)

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds at which the study is looked at; none for a list of seeds."""
        return tuple(range(self.seeds.first, self.seeds.last + 1)) if isinstance(self.seeds, SeedCounts) else ()


class TuningTable(TomlTable):
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


class DataNote(TomlTable):
    """Where a study's own pairs come from: their name, a folder for the commands, and how to get them."""

    name: dict[Literal["en", "zh"], str] = {}
    dir: str = ""
    source: dict[Literal["en", "zh"], str] = {}


class NotesTable(TomlTable):
    """What no record knows; shown on the study's page."""

    limits: dict[Literal["en", "zh"], list[str]] = {}
    data: DataNote = DataNote()


class StudyFile(TomlTable):
    """A whole study file; the checks that concern several tables are here."""

    question: QuestionTable = QuestionTable()
    settings: SettingsTable = SettingsTable()
    factors: Annotated[dict[str, Annotated[list[LevelTable], Field(min_length=1)]], BeforeValidator(levels_as_tables)]
    design: DesignTable
    tuning: TuningTable | None = None
    labels: dict[str, Label] = {}
    kinds: dict[str, Label] = {}  # labels of kinds of images, whose names only the images know
    notes: NotesTable = NotesTable()

    def levels(self) -> dict[str, tuple[Level, ...]]:
        return {factor: tuple(table.level() for table in tables) for factor, tables in self.factors.items()}

    def shared(self) -> dict[str, Any]:
        """The settings of every cell, without the preset and what is none of a run."""
        return self.settings.model_dump(exclude_unset=True, exclude={"preset", "mask_pattern"})

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
        _refuse_unknown("[design] confirmatory", design.confirmatory, list(levels))
        _refuse_unknown("[design] simple_effects", design.simple_effects, list(levels))
        _refuse_unknown("[design.within]", list(design.within), design.simple_effects)
        for factor, others in design.within.items():
            _refuse_unknown(f"[design.within] {factor}", others, [name for name in levels if name != factor])
        _refuse_unknown("[design.baseline]", list(design.baseline), list(levels))
        for factor, label in design.baseline.items():
            _refuse_unknown(f"[design.baseline] {factor}", [str(label)], [level.label for level in levels[factor]])
        _refuse_unknown("[labels]", list(self.labels), [*levels, *(one.label for of in levels.values() for one in of)])
        if self.kinds and not design.kinds:
            raise ValueError("[kinds] needs kinds in [design]: the pattern that tells the kinds of images apart")
        cells = math.prod(map(len, levels.values()))
        if design.pilot and design.pilot.cells > cells:
            raise ValueError(f"[design.pilot] cells is {design.pilot.cells}, but the study has {cells}")
        if design.draw_training_cars and "train_cars" not in {*self.shared(), *_set_by_levels(levels)}:
            raise ValueError("[design] draw_training_cars needs train_cars: how many of the training cars to draw")
        if self.tuning and (both := sorted({*design.seed_list} & {*self.tuning.seeds})):
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


def _set_by_levels(levels: Mapping[str, tuple[Level, ...]]) -> set[str]:
    return {name for of_factor in levels.values() for level in of_factor for name in level.fields}
