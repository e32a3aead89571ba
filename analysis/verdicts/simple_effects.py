"""Simple effects: what a factor changes within each combination of the other factors, next to what it changes over all
of them.

A main effect is an average, which may hold for none of its parts. A study that asks for the parts names the factor
under `simple_effects` in its [design], and under `baseline` the level with which alone the others are compared there,
so that no part pays for comparisons that nobody asked for (the average over the parts is the main effect's, adjusted
for all pairs of levels). Intervals are Holm-adjusted over the combinations, each score separately; the verdict is that
of Dice. Where one of the two cells has no verdict, the difference is shown without an interval: left out, it would seem
unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

from analysis.records.study_results import Study, by_car
from analysis.statistics.comparisons import Comparison, family, unpaired
from analysis.statistics.effects import main_effect
from analysis.statistics.estimator import Array, summarise_cell

SCORES = ("dice", "iou", "boundary_iou")
JOIN = " + "
Scores = Mapping[str, Array]
Place = tuple[str, str]  # the other factors' levels, the factor's level
Measured = Mapping[str, tuple[Mapping[str, str], str]]  # cell -> its levels, and "judged" or why it is not


@dataclass(frozen=True)
class SimpleEffect:
    """One difference b - a of two levels by score, the others held at `where` (None: averaged over them)."""

    where: str | None
    a: str
    b: str
    found: Mapping[str, Comparison]  # empty where a cell has no verdict
    values: Mapping[str, float]
    doubts: tuple[str, ...] = ()  # why there is no verdict
    of: tuple[int, int] = field(default=(0, 0))  # how many combinations it is an average over, and how many there are

    @property
    def difference(self) -> str:
        return f"{self.b} − {self.a}"


def find_simple_effects(study: Study, measured: Measured) -> dict[str, list[SimpleEffect]]:
    """Compute the simple effects of each factor that the study asks for, where at least one of them can be judged."""
    several = sum(kind == "judged" for _, kind in measured.values()) > 1
    asked = study.plan.get("design", {}).get("simple_effects", []) if several else []
    scores = {name: by_car(study, name) for name in SCORES} if asked else {}
    parts = {factor: _of_factor(study, factor, measured, scores) for factor in asked}
    return {factor: effects for factor, effects in parts.items() if effects}


def _of_factor(study: Study, factor: str, measured: Measured, scores: Mapping[str, Scores]) -> list[SimpleEffect]:
    """The differences between a factor's levels, in plan order: over all the others first, then within each."""
    others = [name for name, levels in study.factors.items() if name != factor and len(levels) > 1]
    order = [cell["cell"] for cell in study.cells if cell["cell"] in measured]
    at = {(JOIN.join(measured[cell][0][name] for name in others), measured[cell][0][factor]): cell for cell in order}
    judged = {place: cell for place, cell in at.items() if measured[cell][1] == "judged"}
    levels = _pairs_of_levels(study, factor)
    shown = [(where, a, b) for where in dict.fromkeys(where for where, _ in at) for a, b in levels]
    shown = [(where, a, b) for where, a, b in shown if (where, a) in at and (where, b) in at]
    pairs = [(where, a, b) for where, a, b in shown if (where, a) in judged and (where, b) in judged]
    if not pairs:
        return []
    ropes = {name: study.rope if name == "dice" else 0.0 for name in SCORES}  # the rope is one of Dice
    within = {name: _within(pairs, judged, scores[name], rope) for name, rope in ropes.items()}
    over = {name: _over(judged, scores[name], rope) for name, rope in ropes.items()}
    planned = len({tuple(cell.get("levels", {}).get(name, "") for name in others) for cell in study.cells})
    effects = []
    for a, b in levels:
        count = sum(pair[1:] == (a, b) for pair in pairs)
        if count > 1 and (b, a) in over["dice"]:
            effects.append(_judged(None, a, b, {name: over[name][b, a] for name in SCORES}, (count, planned)))
    for where, a, b in shown:
        if (where, a, b) in pairs:
            effects.append(_judged(where, a, b, {name: within[name][where, a, b] for name in SCORES}))
        else:
            ends = at[where, b], at[where, a]
            values = {name: float(scores[name][ends[0]].mean() - scores[name][ends[1]].mean()) for name in SCORES}
            doubts = dict.fromkeys(measured[cell][1] for cell in ends if measured[cell][1] != "judged")
            effects.append(SimpleEffect(where, a, b, {}, values, tuple(doubts)))
    return effects


def _pairs_of_levels(study: Study, factor: str) -> list[tuple[str, str]]:
    """Every two levels (a, b) of which b − a is asked for; with a baseline, that is a."""
    baseline = study.plan["design"].get("baseline", {}).get(factor)
    pairs = [(a, b) for a, b in combinations(study.factors[factor], 2) if baseline in (None, a, b)]
    return [(b, a) if b == baseline else (a, b) for a, b in pairs]


def _judged(
    where: str | None, a: str, b: str, found: Mapping[str, Comparison], of: tuple[int, int] = (0, 0)
) -> SimpleEffect:
    return SimpleEffect(where, a, b, found, {name: comparison.difference for name, comparison in found.items()}, of=of)


def _within(
    pairs: list[tuple[str, str, str]], cell_at: Mapping[Place, str], scores: Scores, rope: float
) -> dict[tuple[str, str, str], Comparison]:
    made = {cell: summarise_cell(scores[cell]) for cell in cell_at.values()}
    ends = [(cell_at[where, b], cell_at[where, a]) for where, a, b in pairs]
    estimates = [unpaired(scores[b], scores[a], made[b], made[a]) for b, a in ends]
    found = family(ends, estimates, rope).comparisons
    return {pair: found[end] for pair, end in zip(pairs, ends, strict=True)}


def _over(cell_at: Mapping[Place, str], scores: Scores, rope: float) -> dict[tuple[str, str], Comparison]:
    try:
        found = main_effect({(level, where): scores[cell] for (where, level), cell in cell_at.items()}, 0, rope=rope)
    except ValueError:  # two levels without a combination of the others in common
        return {}
    return found.family.comparisons
