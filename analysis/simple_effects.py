"""Simple effects: what a factor changes within each combination of the other factors, beside what it changes over all of them.

A main effect is an average, which may hold for none of its parts. A study that asks for the parts names the factor under
`simple_effects` in its [design]. Intervals are Holm-adjusted over the combinations, each score by itself; the verdict is that of Dice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import summarise
from analysis.effects import main_effect
from analysis.measured import Study, by_car
from analysis.statistics import Comparison, family, unpaired

SCORES = {"dice": "Dice", "iou": "IoU", "boundary_iou": "boundary IoU"}
JOIN = " + "
Scores = Mapping[str, NDArray[np.float64]]
At = Mapping[tuple[str, str], str]  # (the others' levels, the factor's level) -> cell


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


def simple_effects(study: Study, judged: Mapping[str, Mapping[str, str]]) -> dict[str, list[Part]]:
    """The parts of each factor that the study asks for; `judged` are the cells that may be judged, with their levels."""
    asked = study.plan.get("design", {}).get("simple_effects", []) if len(judged) > 1 else []
    scores = {name: by_car(study, name) for name in SCORES} if asked else {}
    found = {factor: _parts(study, factor, judged, scores) for factor in asked}
    return {factor: parts for factor, parts in found.items() if parts}


def _parts(study: Study, factor: str, judged: Mapping[str, Mapping[str, str]], scores: Mapping[str, Scores]) -> list[Part]:
    """The differences between a factor's levels, in the order of the plan: over all the others first, then within each."""
    others = [name for name, levels in study.factors.items() if name != factor and len(levels) > 1]
    order = [cell["cell"] for cell in study.cells if cell["cell"] in judged]
    at = {(JOIN.join(judged[cell][name] for name in others), judged[cell][factor]): cell for cell in order}
    levels = list(combinations(study.factors[factor], 2))
    wheres = dict.fromkeys(where for where, _ in at)
    pairs = [(where, a, b) for where in wheres for a, b in levels if (where, a) in at and (where, b) in at]
    if not pairs:
        return []
    ropes = {name: study.rope if name == "dice" else 0.0 for name in SCORES}  # the rope is one of Dice
    within = {name: _within(pairs, at, scores[name], rope) for name, rope in ropes.items()}
    over = {name: _over(at, scores[name], rope) for name, rope in ropes.items()}
    several = [(a, b) for a, b in levels if sum(pair[1:] == (a, b) for pair in pairs) > 1 and (b, a) in over["dice"]]
    return [
        *(Part(None, a, b, {name: over[name][b, a] for name in SCORES}) for a, b in several),
        *(Part(where, a, b, {name: within[name][where, a, b] for name in SCORES}) for where, a, b in pairs),
    ]


def _within(pairs: list[tuple[str, str, str]], at: At, scores: Scores, rope: float) -> dict[tuple[str, str, str], Comparison]:
    made = {cell: summarise(scores[cell]) for cell in at.values()}
    ends = [(at[where, b], at[where, a]) for where, a, b in pairs]
    estimates = [unpaired(scores[b], scores[a], made[b], made[a]) for b, a in ends]
    found = family(ends, estimates, rope, True, 0.95).comparisons
    return {pair: found[end] for pair, end in zip(pairs, ends, strict=True)}


def _over(at: At, scores: Scores, rope: float) -> dict[tuple[str, str], Comparison]:
    try:
        found = main_effect({(level, where): scores[cell] for (where, level), cell in at.items()}, 0, rope=rope)
    except ValueError:  # two levels without a combination of the others in common
        return {}
    return found.family.comparisons
