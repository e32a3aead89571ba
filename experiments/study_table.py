"""The tables of a study file, read key by key; every mistake ends in one sentence that names the file and the key."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from experiments.errors import InputError
from experiments.settings import nearest
from registry import OptionError, UnknownName


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
                raise self.wrong(key, f"is unknown{nearest(key, known)}; known are {', '.join(known)}")

    def wrong(self, key: str, what: str) -> InputError:
        """The error that says what is wrong with `key`."""
        place = f"[{self.name}] {key}".strip() if self.name else f"[{key}]"
        return InputError(f"{self.where}: {place} {what}.")

    @contextmanager
    def naming(self, key: str) -> Iterator[None]:
        """What is refused within is refused with this key's name before it."""
        try:
            yield
        except (InputError, UnknownName, OptionError) as error:
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
