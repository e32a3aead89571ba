"""Observed power: what a study could detect with the spread that its own scores show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from analysis.statistics.estimator import AddedVariance, Array
from analysis.statistics.power import Spread, chances, smallest_difference, spread_of, spread_of_differences
from analysis.verdicts.answer import Answer
from analysis.verdicts.planned_contrasts import FactorEffects


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
    matched, seeds, groups = answer.study.paired, min(map(len, cells)), cells[0].shape[1]
    spread = spread_of_differences([b - a for a, b in combinations(cells, 2)]) if matched else spread_of(cells)
    factors, equivalent = {}, {}
    for effects in answer.effects:
        sums = [_weights(answer, effects, level) for level in effects.comparisons]
        # matched averages are formed from the runs of each seed, which shows how those at several places go together
        own = spread_of_differences([_weighted(answer, weights) for weights in sums]) if matched else spread
        averaged = 1 if matched else min(map(len, effects.over.values()))
        design: dict[str, Any] = {"comparisons": len(sums), "averaged": averaged, "level": answer.level}
        design |= {"matched": matched, "added": _mean_cost(answer, sums)}
        factors[effects.factor] = smallest_difference(own, seeds, groups, **design)
        equivalent[effects.factor] = chances(own, seeds, groups, 0.0, effects.margin, **design).equivalent
    baseline = next((cell.name for cell in answer.judged if cell.name not in answer.against_baseline), "")
    pairs = [{cell: 1.0, baseline: -1.0} for cell in answer.against_baseline]
    single = smallest_difference(
        spread,
        seeds,
        groups,
        comparisons=len(cells) - 1,
        level=answer.level,
        matched=matched,
        added=_mean_cost(answer, pairs),
    )
    return ObservedPower(spread, factors, single, equivalent)


def _weights(answer: Answer, effects: FactorEffects, level: str) -> dict[str, float]:
    """The cells of a level minus those of the baseline, averaged over the combinations of the others."""
    others = [factor for factor in answer.study.varied if factor != effects.factor]
    places = effects.over[level]
    sign = {level: 1 / len(places), effects.baseline: -1 / len(places)}
    return {
        cell.name: sign[cell.levels[effects.factor]]
        for cell in answer.judged
        if cell.levels[effects.factor] in sign and tuple(cell.levels[other] for other in others) in places
    }


def _weighted(answer: Answer, weights: Mapping[str, float]) -> Array:
    """The weighted sum of cells (seeds, groups)."""
    return np.asarray(sum(weight * answer.scores[cell] for cell, weight in weights.items()))


def _mean_cost(answer: Answer, sums: list[dict[str, float]]) -> AddedVariance | None:
    """What uncertain learning rates add to these sums of cells, on average; None where rates were given."""
    if answer.rate_cost is None or not sums:
        return None
    parts = [answer.rate_cost.of(weights) for weights in sums]
    return AddedVariance(np.asarray(np.mean([one.variance for one in parts])), np.asarray(min(one.df for one in parts)))
