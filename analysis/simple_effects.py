"""Simple effects: what a factor changes within each combination of the other factors, beside what it changes over all of them.

A main effect is an average, which may hold for none of its parts. A study that asks for the parts names the factor under
`simple_effects` in its [design]. Intervals are Holm-adjusted over the combinations, each score by itself; the verdict is that of Dice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.answer import JOIN, Answer
from analysis.canvas import sheet
from analysis.charts import differences
from analysis.contrast import summarise
from analysis.effects import main_effect
from analysis.measured import by_car
from analysis.sentences import VERDICTS, interval
from analysis.statistics import Comparison, family, unpaired

SCORES = {"dice": "Dice", "iou": "IoU", "boundary_iou": "boundary IoU"}
CHINESE = {"boundary IoU": "边界 IoU"}
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Part:
    """One difference b - a of two levels, with the others held at `where` (None: over all the others), by score."""

    where: str | None
    a: str
    b: str
    found: Mapping[str, Comparison]

    @property
    def difference(self) -> str:
        return f"{self.b} − {self.a}"


def named(answer: Answer) -> list[str]:
    """The factors whose simple effects the study asks for and has the judged cells for."""
    asked = answer.study.plan.get("design", {}).get("simple_effects", [])
    return [factor for factor in asked if parts(answer, factor)]


def parts(answer: Answer, factor: str) -> list[Part]:
    """The differences between the levels of a factor, in the order of the plan: over all the others first, then within each."""
    judged = {row.cell: row for row in answer.judged}
    order = answer.study.factors.get(factor, [])
    wheres = {cell: JOIN.join(level for f, level in row.levels.items() if f != factor and len(answer.study.factors[f]) > 1)
              for cell, row in judged.items()}  # fmt: skip
    at = {(wheres[cell], row.levels[factor]): cell for cell, row in judged.items() if factor in row.levels}
    pairs = [
        (where, a, b)
        for where in dict.fromkeys(wheres[cell["cell"]] for cell in answer.study.cells if cell["cell"] in judged)
        for a, b in combinations(order, 2)
        if (where, a) in at and (where, b) in at
    ]
    if not pairs:
        return []
    scores = {name: by_car(answer.study, name) for name in SCORES}
    within = {name: _within(pairs, at, scores[name], answer.study.rope if name == "dice" else 0) for name in SCORES}
    over = {name: _over(at, scores[name], answer.study.rope if name == "dice" else 0) for name in SCORES}
    whole = [pair for pair in combinations(order, 2) if len({w for w, a, b in pairs if (a, b) == pair}) > 1]
    return [
        *(Part(None, a, b, {name: over[name][b, a] for name in SCORES}) for a, b in whole if (b, a) in over["dice"]),
        *(Part(where, a, b, {name: within[name][where, a, b] for name in SCORES}) for where, a, b in pairs),
    ]


def table(answer: Answer, factor: str, language: str) -> pd.DataFrame:
    """A row for each part; all values are text."""
    chinese = language == "zh"
    everywhere = "对其余因素取平均" if chinese else "over all the others"
    rows = [
        (part.difference, part.where or everywhere, interval(part.found["dice"]),
         VERDICTS[language][part.found["dice"].verdict], *(interval(part.found[name]) for name in ("iou", "boundary_iou")))
        for part in parts(answer, factor)
    ]  # fmt: skip
    names = [CHINESE.get(name, name) if chinese else name for name in SCORES.values()]
    first = (
        ("差", "其余因素", f"{names[0]} [95 %]", "判定")
        if chinese
        else ("difference", "with", f"{names[0]} [95 %]", "the first is … the second")
    )
    return pd.DataFrame(rows, columns=[*first, *(f"{name} [95 %]" for name in names[1:])])


def figure(answer: Answer) -> Figure | None:
    """The parts' differences in Dice with the band of practical equivalence, a panel for each factor."""
    found = {factor: parts(answer, factor) for factor in named(answer)}
    if not found:
        return None
    counts = [len(one) for one in found.values()]
    sheet_, axes = sheet(8, sum(0.9 + 0.27 * n for n in counts), len(counts), sharex=True, height_ratios=[n + 2 for n in counts])
    for axis, (factor, one) in zip(axes, found.items(), strict=True):
        several = len({part.difference for part in one}) > 1
        names = [(f"{part.difference}, " if several else "") + (part.where or "over all the others") for part in one]
        differences(axis, list(zip(names, (part.found["dice"] for part in one), strict=True)), answer.study.rope)
        told = one[0].difference if not several else factor
        axis.set_title(f"{told}; blue: better, orange: worse, green: equivalent, grey: undecided", loc="left")
    axes[-1].set_xlabel("difference in Dice, Holm-adjusted 95 % interval")
    return sheet_


def _within(pairs: list[tuple[str, str, str]], at: Mapping[tuple[str, str], str], scores: Scores, rope: float) -> dict:
    made = {cell: summarise(scores[cell]) for cell in at.values()}
    ends = [(at[where, b], at[where, a]) for where, a, b in pairs]
    estimates = [unpaired(scores[b], scores[a], made[b], made[a]) for b, a in ends]
    found = family(ends, estimates, rope, True, 0.95).comparisons
    return {pair: found[end] for pair, end in zip(pairs, ends, strict=True)}


def _over(at: Mapping[tuple[str, str], str], scores: Scores, rope: float) -> dict[tuple[str, str], Comparison]:
    try:
        found = main_effect({(level, where): scores[cell] for (where, level), cell in at.items()}, 0, rope=rope)
    except ValueError:  # two levels without a combination of the others in common
        return {}
    return found.family.comparisons
