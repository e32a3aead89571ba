"""Under which conditions a study's networks hold: the table and the picture of what `run.py robustness` scored.

Every condition is compared by itself, with intervals adjusted for the pairs of that condition alone: all of it is exploratory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.answer import Answer
from analysis.canvas import COLOURS, LINES, TEXT, sheet, shorten
from analysis.effects import main_effect
from analysis.measured import Study
from analysis.simple_effects import JOIN
from analysis.statistics import Comparison, compare_all
from analysis.tables import TOP
from analysis.wording import PARTS, interval

CLEAN, STRENGTH = "clean", re.compile(r"(.+) ([123])")
CHINESE = {CLEAN: "原样", "blur": "模糊", "noise": "噪声", "jpeg": "JPEG 压缩", "brightness": "亮度", "contrast": "对比度"}
MOST, COLUMNS = 16, 3  # lines in a panel, panels beside each other
MARKERS = ("o", "s", "^", "D")  # as many as there are LINES
Look = dict[str, Any]


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
    found = _found(answer)
    if not _kinds(found):
        return None
    kinds = [one for one in found if not STRENGTH.fullmatch(one.name)]
    names = CHINESE if language == "zh" else {}
    rows = []
    for row in answer.measured:
        texts = [
            f"{one.dice[row.cell]:.4f}{' ' + TOP if row.cell in one.top else ''}" if row.cell in one.dice else "" for one in kinds
        ]
        rows.append([*row.levels.values(), *texts])
    return pd.DataFrame(rows, columns=[*answer.study.factors, *(names.get(one.name, one.name) for one in kinds)])


def changes(answer: Answer, factor: str, baseline: str) -> dict[str, dict[str, Comparison]]:
    """Under each kind of condition, what each other level of a factor changes against `baseline`: its Dice less that level's, over the
    judged cells' combinations of all else that both have; intervals are adjusted for this condition's pairs of levels.
    """
    study, found, kinds = answer.study, dict[str, dict[str, Comparison]](), _kinds(_found(answer))
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
        kinds = {words[which]: [name for name, verdict in under.items() if verdict == kind] for kind, words in PARTS.items()}
        if language == "en":
            told = "; ".join(f"{kind} ({', '.join(where)})" for kind, where in kinds.items() if where)
            said += [f"{level} against {baseline}: {told}."] if told else []
        else:
            told = "；".join(f"{kind}（{'、'.join(where)}）" for kind, where in kinds.items() if where)
            said += [f"{level} 相对于 {baseline}：{told}。"] if told else []
    return (" " if language == "en" else "").join(said)


def figure(answer: Answer) -> Figure | None:
    """Dice of each cell against the strength of each corruption, and on photographs from elsewhere; None where the table is None."""
    found = _found(answer)
    kinds = _kinds(found)
    if not kinds:
        return None
    values = {one.name: one.dice for one in found}
    places = [one.name for one in found if one.name not in (CLEAN, *kinds) and not STRENGTH.fullmatch(one.name)]
    planned = [cell["cell"] for cell in answer.study.cells]
    rows = sorted(answer.measured[:MOST], key=lambda row: planned.index(row.cell))
    looks = _looks([tuple(row.levels.values()) for row in rows])
    panels = len(kinds) + len(places)
    lines = -(-panels // COLUMNS)
    drawing, axes = sheet(10, 2.6 * lines + 0.9, lines, -(-panels // lines), sharey=not places)
    for axis, kind in zip(axes, kinds, strict=False):
        names = [CLEAN, *(f"{kind} {strength}" for strength in (1, 2, 3))]
        for look, row in zip(looks, rows, strict=True):
            known = [(x, values[name][row.cell]) for x, name in enumerate(names) if row.cell in values.get(name, {})]
            axis.plot(*zip(*known, strict=True), **look, markersize=3, label=shorten(row.label, 36))
        axis.set_title(kind, loc="left")
        axis.set_xticks(range(4), ["0", "1", "2", "3"])
        axis.set_xlabel("strength")
    for axis, place in zip(axes[len(kinds) :], places, strict=False):
        for number, (look, row) in enumerate(zip(looks, rows, strict=True)):
            if row.cell in values[place]:
                axis.plot(number, values[place][row.cell], **look | {"linestyle": ""}, markersize=5)
        axis.set_title(place, loc="left")
        axis.set_xticks([])
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[:: -(-panels // lines)]:
        axis.set_ylabel("Dice")
    drawn = f"the {MOST} cells with the highest Dice, of {len(answer.measured)}" if len(answer.measured) > MOST else None
    handles = {label: handle for axis in reversed(axes) for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    named = [label for label in (shorten(row.label, 36) for row in rows) if label in handles]
    drawing.legend([handles[label] for label in named], named, loc="outside lower center", ncols=3, labelcolor=TEXT, title=drawn)
    return drawing


def _kinds(found: Sequence[Condition]) -> list[str]:
    """The corruptions that were scored at all strengths."""
    names = {one.name for one in found}
    return [name for name in sorted(names) if {f"{name} {strength}" for strength in (1, 2, 3)} <= names]


def _mean(parts: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """The mean of arrays (seeds, groups) that are all there and of one shape."""
    there = [part for part in parts if part is not None]
    return np.mean(there, 0) if len({part.shape for part in there}) == 1 and len(there) == len(parts) else None


def _found(answer: Answer) -> list[Condition]:
    return conditions(answer.study, [row.cell for row in answer.judged])


def _by_condition(study: Study) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Of each condition, the cells' Dice (seeds, groups) on the groups that all of its cells share."""
    cell_of = study.finished.set_index("key")[["cell", "seed"]]
    scores = study.robustness.join(cell_of, on="key", how="inner")
    found = {}
    for name, mine in scores.groupby("condition", sort=False):
        tables = {str(cell): part.pivot_table("dice", "seed", "group") for cell, part in mine.groupby("cell", observed=True)}
        shared = sorted(set.intersection(*(set(table.dropna(axis=1).columns) for table in tables.values())))
        found[str(name)] = {cell: table[shared].to_numpy(float) for cell, table in tables.items()} if shared else {}
    return {name: cells for name, cells in found.items() if cells}


def _condition(name: str, cells: dict[str, NDArray[np.float64]], rope: float, judged: Sequence[str]) -> Condition:
    fair = {cell: scores for cell, scores in cells.items() if cell in judged}
    top = compare_all(fair, rope=rope).top if len(fair) > 1 else ()
    return Condition(name, {cell: float(scores.mean()) for cell, scores in cells.items()}, frozenset(top))


def _looks(cells: Sequence[tuple[str, ...]]) -> list[Look]:
    """How each cell is drawn: its level of the factor with the most levels is its colour, all its other levels its line and marker."""
    factors = [list(dict.fromkeys(levels)) for levels in zip(*cells, strict=True)]
    main = max(range(len(factors)), key=lambda at: len(factors[at]))
    rest = list(dict.fromkeys(cell[:main] + cell[main + 1 :] for cell in cells))
    at = [(factors[main].index(cell[main]), rest.index(cell[:main] + cell[main + 1 :])) for cell in cells]
    if len(factors[main]) > len(COLOURS) or len(rest) > len(LINES):  # too many of either: they are told apart by number
        at = [(number % len(COLOURS), number // len(COLOURS)) for number in range(len(cells))]
    return [{"color": COLOURS[colour], "linestyle": LINES[line], "marker": MARKERS[line]} for colour, line in at]
