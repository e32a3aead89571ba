"""Observed power: what a study could detect with the spread that its own scores show."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.statistics.power import Spread, chances, smallest_difference, spread_of
from analysis.verdicts.answer import Answer


@dataclass(frozen=True)
class ObservedPower:
    """The spread of a difference, pooled over the judged cells, and the smallest differences found with 80 % power.

    Attributes:
        factors: of a factor's levels against its baseline, over the fewest combinations that one of them has.
        cells: of single cells against the baseline's cell.
        equivalent: by factor, the chance that a level equal to the baseline is found equivalent.
    """

    spread: Spread
    factors: dict[str, float]
    cells: float
    equivalent: dict[str, float]


def observe_power(answer: Answer) -> ObservedPower | None:
    """Compute the observed power; None where fewer than two judged cells have several seeds and groups.

    Also None until every planned run has ended: with fewer seeds another design would be described.
    """
    if not answer.study.runs.state.isin(["finished", "failed"]).all():
        return None
    cells = [scores for cell in answer.judged if min((scores := answer.scores[cell.name]).shape) > 1]
    if len(cells) < 2:
        return None
    spread, seeds, groups = spread_of(cells), min(map(len, cells)), cells[0].shape[1]
    factors, equivalent = {}, {}
    for effects in answer.effects:
        number, averaged = len(effects.comparisons), min(map(len, effects.over.values()))
        factors[effects.factor] = smallest_difference(spread, seeds, groups, 0.8, number, averaged, answer.level)
        equal = chances(spread, seeds, groups, 0.0, effects.margin, number, averaged, answer.level)
        equivalent[effects.factor] = equal.equivalent
    single = smallest_difference(spread, seeds, groups, comparisons=len(cells) - 1, level=answer.level)
    return ObservedPower(spread, factors, single, equivalent)
