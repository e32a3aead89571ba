"""What to take if one must choose, and under which corruptions something else would be better."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.text.robustness import turned_round
from analysis.text.wording import level_name, phrases, place_name
from analysis.verdicts.answer import Answer, CellResult

MEASURED = ("split", "data", "data_dir", "fold")  # settings that say how is measured: none of them is to be taken
NO_CHOICE = (*MEASURED, "train_cars")  # settings that nobody is free to choose for a task


def advice(answer: Answer, language: str) -> list[str]:
    """What to take: the highest mean of the cells that cannot be excluded as the best; a sentence, or none.

    What nobody can choose (how many training images there are) is named, and the choice is among its equals. Nothing
    where the study compares ways to measure (a split, a data set).
    """
    choice = Choice(answer)
    if (top := choice.top) is None:
        return []
    given = [factor for factor in answer.study.varied if factor not in choice.free]
    number, others = (
        sum(all(cell.levels[factor] == top.levels[factor] for factor in given) for cell in cells)
        for cells in (answer.judged, choice.open)
    )
    if number < 2:
        return []
    name, at = (
        place_name(answer.study, [top.levels[factor] for factor in factors], language) if factors else ""
        for factors in (choice.free, given)
    )
    words = phrases("sentences", language)
    return [words.choice(name=name, at=at, dice=top.dice, open=others - 1, number=number)]


def caveats(answer: Answer, language: str) -> list[str]:
    """Under which corruptions another level is better than the one to take; a sentence for each factor."""
    choice = Choice(answer)
    if (top := choice.top) is None:
        return []
    conditions, lines = phrases("tables", language).conditions, []
    for level, other, gains in turned_round(answer, {factor: top.levels[factor] for factor in choice.free}):
        names = [level_name(answer.study, name, language) for name in (other, level)]
        kinds = [conditions.get(kind, kind) for kind in gains]
        ends = {"smallest": min(gains.values()), "largest": max(gains.values())}
        words = phrases("sentences", language)
        lines.append(words.corrupted(better=names[0], than=names[1], conditions=kinds, **ends))
    return lines


@dataclass
class Choice:
    """Which cells of an answer can be taken."""

    answer: Answer

    @cached_property
    def top(self) -> CellResult | None:
        """The cell to take; None where none is to be taken."""
        measured = any(names & set(MEASURED) for names in self._fields.values())
        if len(self.answer.judged) < 2 or measured or not self.free:
            return None
        return max(self.open, key=lambda cell: cell.dice, default=None)

    @cached_property
    def free(self) -> list[str]:
        """The factors whose levels a reader can choose."""
        return [factor for factor, names in self._fields.items() if not names or not names <= set(NO_CHOICE)]

    @property
    def open(self) -> list[CellResult]:
        """The cells that cannot be excluded as the best."""
        return [cell for cell in self.answer.judged if cell.name in self.answer.best] or self.answer.judged

    @cached_property
    def _fields(self) -> dict[str, set[str]]:
        return {factor: fields_of(self.answer, factor) for factor in self.answer.study.varied}


def fields_of(answer: Answer, factor: str) -> set[str]:
    """The settings that a factor's levels set, read off two cells that differ in nothing else."""
    cells = [cell for cell in answer.study.cells if cell.get("levels")]
    for a, b in itertools.combinations(cells, 2):
        apart = {name for name, level in a["levels"].items() if b["levels"].get(name) != level}
        if apart == {factor}:
            settings: Sequence[Mapping[str, Any]] = (a.get("settings", {}), b.get("settings", {}))
            return {name for name in {*settings[0], *settings[1]} if settings[0].get(name) != settings[1].get(name)}
    return set()
