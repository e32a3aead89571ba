"""Under which conditions a study's networks hold: the table and the picture of what `run.py robustness` scored.

Every condition is compared by itself, with intervals adjusted for the pairs of that condition alone: all of it is exploratory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records.study_results import Study
from analysis.statistics.comparisons import Comparison, compare_all
from analysis.statistics.effects import main_effect
from analysis.text.tables import TOP
from analysis.text.wording import PARTS, interval
from analysis.verdicts.answer import Answer
from analysis.verdicts.simple_effects import JOIN

CLEAN, STRENGTH = "clean", re.compile(r"(.+) ([123])")

CHINESE = {
    CLEAN: "原样",
    "blur": "模糊",
    "noise": "噪声",
    "jpeg": "JPEG 压缩",
    "brightness": "亮度",
    "contrast": "对比度",
}

MOST, COLUMNS = 16, 3  # lines in a panel, panels beside each other


@dataclass(frozen=True)
class Condition:
    """The cells under one condition: mean Dice, and those that are not separated from the best (none where there is no verdict)."""

    name: str
    dice: dict[str, float]
    top: frozenset[str]


def conditions(study: Study, judged: Sequence[str]) -> list[Condition]:
    """Every condition, as photographed first, and each corruption as a whole."""
    return [_condition(name, cells, study.rope, judged) for name, cells in _scores(study).items()]


def _scores(study: Study) -> dict[str, dict[str, NDArray[np.float64]]]:
    """By condition, as photographed first, the cells' Dice (seeds, groups). A corruption's three strengths stand also as one, their
    mean, by its name: of the cells that were scored under all three alike.
    """
    scores = _by_condition(study)
    for kind in dict.fromkeys(match[1] for name in scores if (match := STRENGTH.fullmatch(name))):
        parts = [scores.get(f"{kind} {strength}", {}) for strength in (1, 2, 3)]
        means = {cell: _mean([part.get(cell) for part in parts]) for cell in parts[0]}
        if whole := {cell: mean for cell, mean in means.items() if mean is not None}:
            scores[kind] = whole
    return {name: scores[name] for name in sorted(scores, key=lambda name: (name != CLEAN, name))}


def table(answer: Answer, language: str) -> pd.DataFrame | None:
    """A row for each cell, a column for each kind of condition; None where no corruption was scored whole. All values are text."""
    found = score_conditions(answer)
    if not corruptions(found):
        return None
    kinds = [one for one in found if not STRENGTH.fullmatch(one.name)]
    names = CHINESE if language == "zh" else {}
    rows = []
    for row in answer.measured:
        texts = [
            f"{one.dice[row.cell]:.4f}{' ' + TOP if row.cell in one.top else ''}" if row.cell in one.dice else ""
            for one in kinds
        ]
        rows.append([*row.levels.values(), *texts])
    return pd.DataFrame(rows, columns=[*answer.study.factors, *(names.get(one.name, one.name) for one in kinds)])


def changes(answer: Answer, factor: str, baseline: str) -> dict[str, dict[str, Comparison]]:
    """Under each kind of condition, what each other level of a factor changes against `baseline`: its Dice less that level's, over the
    judged cells' combinations of all else that both have; intervals are adjusted for this condition's pairs of levels.
    """
    study, found, kinds = answer.study, dict[str, dict[str, Comparison]](), corruptions(score_conditions(answer))
    others = [other for other in study.factors if other != factor]
    places = {
        row.cell: (row.levels[factor], JOIN.join(row.levels[other] for other in others))
        for row in answer.judged
        if all(row.levels.values())  # a cell of an earlier plan may lack a factor
    }
    for name, cells in _scores(study).items():
        if STRENGTH.fullmatch(name) or not kinds:
            continue
        shared = {where for cell, (level, where) in places.items() if cell in cells and level == baseline}
        at = {place: cells[cell] for cell, place in places.items() if cell in cells and place[1] in shared}
        try:
            compared = main_effect(at, 0, rope=study.rope).family.comparisons
        except ValueError:  # fewer than two levels, or none that have all else in common
            continue
        mine = {a: one for (a, b), one in compared.items() if b == baseline}
        found[name] = {level: mine[level] for level in study.factors[factor] if level in mine}
    return found


def differences(answer: Answer, factor: str, baseline: str, language: str) -> pd.DataFrame | None:
    """`changes` as a table: a row for each other level, a column for each kind of condition. None where there are none."""
    found, names = changes(answer, factor, baseline), CHINESE if language == "zh" else {}
    levels = [level for level in answer.study.factors[factor] if any(level in column for column in found.values())]
    rows = [
        [f"{level} − {baseline}", *(interval(column[level]) if level in column else "" for column in found.values())]
        for level in levels
    ]
    columns = ["difference" if language == "en" else "差", *(names.get(name, name) for name in found)]
    return pd.DataFrame(rows, columns=columns) if rows else None


def verdicts(answer: Answer, factor: str, baseline: str, language: str) -> str:
    """`changes` in a sentence for each level: its verdict against `baseline`, and under which conditions that is so."""
    found, said = changes(answer, factor, baseline), []
    names, which = (CHINESE, 1) if language == "zh" else ({}, 0)
    for level in answer.study.factors[factor]:
        under = {names.get(name, name): column[level].verdict for name, column in found.items() if level in column}
        kinds = {
            words[which]: [name for name, verdict in under.items() if verdict == kind] for kind, words in PARTS.items()
        }
        if language == "en":
            told = "; ".join(f"{kind} ({', '.join(where)})" for kind, where in kinds.items() if where)
            said += [f"{level} against {baseline}: {told}."] if told else []
        else:
            told = "；".join(f"{kind}（{'、'.join(where)}）" for kind, where in kinds.items() if where)
            said += [f"{level} 相对于 {baseline}：{told}。"] if told else []
    return (" " if language == "en" else "").join(said)


def corruptions(found: Sequence[Condition]) -> list[str]:
    """The corruptions that were scored at all strengths."""
    names = {one.name for one in found}
    return [name for name in sorted(names) if {f"{name} {strength}" for strength in (1, 2, 3)} <= names]


def _mean(parts: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """The mean of arrays (seeds, groups) that are all there and of one shape."""
    there = [part for part in parts if part is not None]
    return np.mean(there, 0) if len({part.shape for part in there}) == 1 and len(there) == len(parts) else None


def score_conditions(answer: Answer) -> list[Condition]:
    return conditions(answer.study, [row.cell for row in answer.judged])


def _by_condition(study: Study) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Of each condition, the cells' Dice (seeds, groups) on the groups that all of its cells share."""
    cell_of = study.finished.set_index("key")[["cell", "seed"]]
    scores = study.robustness.join(cell_of, on="key", how="inner")
    found = {}
    for name, mine in scores.groupby("condition", sort=False):
        tables = {
            str(cell): part.pivot_table("dice", "seed", "group") for cell, part in mine.groupby("cell", observed=True)
        }
        shared = sorted(set.intersection(*(set(table.dropna(axis=1).columns) for table in tables.values())))
        found[str(name)] = {cell: table[shared].to_numpy(float) for cell, table in tables.items()} if shared else {}
    return {name: cells for name, cells in found.items() if cells}


def _condition(name: str, cells: dict[str, NDArray[np.float64]], rope: float, judged: Sequence[str]) -> Condition:
    fair = {cell: scores for cell, scores in cells.items() if cell in judged}
    top = compare_all(fair, rope=rope).top if len(fair) > 1 else ()
    return Condition(name, {cell: float(scores.mean()) for cell, scores in cells.items()}, frozenset(top))
