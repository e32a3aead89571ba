"""From a study file to a Study: everything that can be wrong with it is found here, before anything heavy is imported."""

from __future__ import annotations

import math
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config import values
from experiments.config.schema import setting_fields
from experiments.studies.definition import GUESS, KWARGS, ROPE, SAMPLERS, Level, Pilot, Study, Tuning
from registry import InputError, did_you_mean

STUDIES = Path(__file__).parent


def find_study_file(name: str) -> Path:
    """The file of a study, by its name or its path. Raises InputError with the nearest name."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"There is no study file {path}.")
        return path
    known = sorted(path.stem for path in STUDIES.glob("*.toml"))
    if name not in known:
        raise InputError(
            f"Unknown study '{name}'{did_you_mean(name, known)}. Studies: {', '.join(known) or 'none'}; or give a path that ends in .toml."
        )
    return STUDIES / f"{name}.toml"


def read_study(path: Path) -> Study:
    """The study in a file. Raises InputError with the key that is wrong."""
    if not re.fullmatch(r"[a-z0-9_]+", path.stem):
        raise InputError(f"The study file {path} should be named with a-z, 0-9 and _ only: its name is the study's.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The study file {path} cannot be read: {' '.join(str(error).split())}.") from None
    return parse_study(path.stem, content, f"The study file {path}")


def parse_study(name: str, content: Mapping[str, Any], where: str) -> Study:
    """A study from the tables of its file; `where` begins the sentence of every error."""
    whole = Table(content, where, "")
    whole.refuse_unknown(("question", "settings", "factors", "design", "tuning"))
    question, design = whole.table("question"), whole.table("design")
    question.refuse_unknown(("en", "zh"))
    design.refuse_unknown(
        ("seeds", "rope", "confirmatory", "simple_effects", "baseline", "at_budget", "pilot", "guess")
    )
    preset, shared = _settings(whole.table("settings"))
    factors = _factors(whole.table("factors"), shared)
    seeds = whole_numbers(design, "seeds")
    study = Study(
        name, factors, seeds, shared, preset,
        question={language: question.text(language, "") for language in ("en", "zh")},
        rope=design.number("rope", ROPE, above=0.0),
        confirmatory=_names(design, "confirmatory", (*factors, "pairs")),
        simple_effects=_names(design, "simple_effects", tuple(factors)),
        baseline=_baseline(design.table("baseline"), factors, _names(design, "simple_effects", tuple(factors))),
        at_budget=design.yes("at_budget"),
        pilot=_pilot(design, factors) if "pilot" in design.content else None,
        guess=_guess(design.table("guess")),
        tuning=_tuning(whole.table("tuning"), seeds) if "tuning" in content else None,
    )  # fmt: skip
    if study.tuning:
        _refuse_two_rates(study, whole)
    if study.at_budget and not any(
        _varies(levels, name) for levels in factors.values() for name in ("epochs", "epoch_steps")
    ):
        raise design.wrong(
            "at_budget", "is for studies in which the steps are a factor: without one, train until all have converged"
        )
    return study


def _varies(levels: Sequence[Level], name: str) -> bool:
    return len({level.fields[name] for level in levels if name in level.fields}) > 1


def _settings(table: Table) -> tuple[str | None, dict[str, Any]]:
    known = [name for name in setting_fields() if name != "seed"]
    if "seed" in table.content:
        raise table.wrong("seed", "belongs into [design] as seeds: they are the same for every cell")
    table.refuse_unknown([*known, "preset"])
    given = dict(table.content)
    preset = given.pop("preset", None)
    if preset is not None:
        with table.naming("preset"):
            values.typed("preset", preset)
    shared = {name: _typed(table, name, value) for name, value in given.items()}
    if shared.get("early_stopping"):
        raise table.wrong("early_stopping", "must be 0: in a study every cell makes the same number of steps")
    return preset, shared


def _typed(table: Table, name: str, value: Any) -> Any:
    with table.naming(name):
        return values.typed(name, value)


def _factors(table: Table, shared: Mapping[str, Any]) -> dict[str, tuple[Level, ...]]:
    if not table.content:
        raise table.wrong("", 'needs at least one factor, such as: model = ["unet", "attention_unet"]')
    found = {}
    setter: dict[str, str] = {
        f"{name}.{o}" if o else name: "[settings]" for name in shared for o in _options(name, shared[name])
    }
    for factor, levels in table.content.items():
        found[factor] = _levels(table, factor, levels)
        sets = {
            f"{n}.{o}" if o else n for level in found[factor] for n, v in level.fields.items() for o in _options(n, v)
        }
        for name in sorted(sets):
            if name in setter:
                raise table.wrong(factor, f"sets {name}, which {setter[name]} sets too: leave it to one of them")
            setter[name] = f"the factor {factor}"
    return found


def _options(name: str, value: Any) -> list[str]:
    return list(value) if name in KWARGS else [""]


def _levels(table: Table, factor: str, levels: Any) -> tuple[Level, ...]:
    if not isinstance(levels, list) or not levels:
        raise table.wrong(factor, "should be a list of levels")
    found = tuple(_level(table, factor, level) for level in levels)
    labels = [level.label for level in found]
    if len(set(labels)) < len(labels):
        raise table.wrong(factor, f"names the level '{next(x for x in labels if labels.count(x) > 1)}' twice")
    return found


def _level(table: Table, factor: str, level: Any) -> Level:
    known = [name for name in setting_fields() if name not in ("seed", "early_stopping")]
    if isinstance(level, Mapping):
        inner = Table(level, table.where, f"{table.name}.{factor}" if table.name else factor)
        inner.refuse_unknown(["label", *known])
        if not isinstance(level.get("label"), str) or len(level) < 2:
            raise table.wrong(factor, "has a level without a label or without a setting: { label = …, KEY = … }")
        return Level(level["label"], {name: _typed(inner, name, v) for name, v in level.items() if name != "label"})
    if factor not in known:
        raise table.wrong(
            factor,
            f"is no setting of a run{did_you_mean(factor, known)}; give its levels as tables: {{ label = …, KEY = … }}",
        )
    value = _typed(table, factor, level)
    return Level("x".join(map(str, value)) if isinstance(value, tuple) else str(value), {factor: value})


def _names(design: Table, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = design.content.get(key, [])
    names = names if isinstance(names, list) else [names]
    for name in names:
        if name not in known:
            raise design.wrong(
                key, f"names '{name}'{did_you_mean(str(name), list(known))}; it takes {', '.join(known)}"
            )
    return tuple(dict.fromkeys(names))


def _baseline(table: Table, factors: Mapping[str, tuple[Level, ...]], asked: Sequence[str]) -> dict[str, str]:
    table.refuse_unknown(asked)
    for factor, level in table.content.items():
        labels = [one.label for one in factors[factor]]
        if str(level) not in labels:
            raise table.wrong(
                factor, f"is '{level}'{did_you_mean(str(level), labels)}; its levels are {', '.join(labels)}"
            )
    return {factor: str(level) for factor, level in table.content.items()}


def _pilot(design: Table, factors: Mapping[str, tuple[Level, ...]]) -> Pilot:
    table = design.table("pilot")
    table.refuse_unknown(("cells", "seeds"))
    number = 1
    for levels in factors.values():
        number *= len(levels)
    cells, seeds = table.whole("cells", 2, least=1), table.whole("seeds", 5, least=2)
    if cells > number:
        raise table.wrong("cells", f"is {cells}, but the study has {number}")
    return Pilot(cells, seeds)


def _guess(table: Table) -> dict[str, float]:
    table.refuse_unknown(tuple(GUESS))
    return {name: table.number(name, value, least=0.0) for name, value in GUESS.items()}


def _tuning(table: Table, seeds: tuple[int, ...]) -> Tuning:
    table.refuse_unknown(("low", "high", "points", "seeds", "sampler"))
    low, high = table.number("low", None, above=0.0), table.number("high", None, above=0.0)
    if not low < high:
        raise table.wrong("low", f"({low:g}) must be below high ({high:g})")
    tuning = whole_numbers(table, "seeds")
    if shared := sorted({*seeds} & {*tuning}):
        raise table.wrong("seeds", f"must not hold {shared[0]}, which is among the reported seeds of [design]")
    sampler = table.text("sampler", "grid")
    if sampler not in SAMPLERS:
        raise table.wrong(
            "sampler", f"is '{sampler}'{did_you_mean(sampler, SAMPLERS)}; it takes {' or '.join(SAMPLERS)}"
        )
    return Tuning(low, high, table.whole("points", None, least=4), tuning, sampler)


def _refuse_two_rates(study: Study, whole: Table) -> None:
    levels = [level.fields for levels in study.factors.values() for level in levels]
    if any("learning_rate" in fields for fields in (study.settings, *levels)):
        raise whole.wrong("tuning", "finds the learning_rate: leave learning_rate out of [settings] and [factors]")


@dataclass(frozen=True)
class Table:
    """One table of the file; `where` begins every sentence, `name` is the table's (empty: the file itself)."""

    content: Mapping[str, Any]
    where: str
    name: str

    def table(self, key: str) -> Table:
        """The table under `key`; an empty one where there is none."""
        value = self.content.get(key, {})
        if not isinstance(value, Mapping):
            raise self.wrong(key, "should be a table")
        return Table(value, self.where, f"{self.name}.{key}" if self.name else key)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raise InputError for a key that is not among `known`."""
        known = list(known)
        for key in self.content:
            if key not in known:
                raise self.wrong(key, f"is unknown{did_you_mean(key, known)}; known are {', '.join(known)}")

    def wrong(self, key: str, what: str) -> InputError:
        """The error that says what is wrong with `key`."""
        place = f"[{self.name}] {key}".strip() if self.name else f"[{key}]"
        return InputError(f"{self.where}: {place} {what}.")

    @contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """What is refused within is refused with this key's name before it."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.where}: [{self.name}] {key}: {error}") from None

    def text(self, key: str, default: str) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, f"should be a text, not {value}")
        return value

    def yes(self, key: str) -> bool:
        """true or false; false where it is not given."""
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, f"should be true or false, not {value}")
        return value

    def whole(self, key: str, default: int | None, least: int) -> int:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"should be a whole number from {least} up, not {value}")
        return value

    def number(self, key: str, default: float | None, least: float = -math.inf, above: float = -math.inf) -> float:
        value = self.content.get(key, default)
        largest = sys.float_info.max  # a whole number beyond it is no number to compute with
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest
        if not fits or value < least or value <= above:  # type: ignore[operator]
            bound = f" above {above:g}" if above > -math.inf else f" from {least:g} up" if least > -math.inf else ""
            raise self.wrong(key, f"should be a number{bound}, not {value}")
        return float(value)  # type: ignore[arg-type]


def whole_numbers(table: Table, key: str) -> tuple[int, ...]:
    """A list of seeds: whole numbers from 0 up, at least one, none twice."""
    values = table.content.get(key)
    if not isinstance(values, list) or not values:
        raise table.wrong(key, "should be a list of at least one whole number, such as [0, 1, 2]")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise table.wrong(key, f"should hold whole numbers from 0 up, not {value}")
        if values.count(value) > 1:
            raise table.wrong(key, f"holds {value} twice")
    return tuple(values)
