"""Planned contrasts: each level of a factor minus the factor's baseline, averaged over the other factors.

One family per factor, Holm within it; equivalence is read off the same intervals. An average may hold for none of its
parts, so a study may also ask for a factor's effect within each combination of some other factors: one family again.
Every contrast is a weighted sum of cells (`analysis.statistics.estimator`) with a variance per cell, to which what
uncertain learning rates cost is added; where the seed also draws the training groups, runs are matched by seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.records.study_results import Study
from analysis.statistics.comparisons import Comparison, as_comparisons, planned_contrast
from analysis.statistics.estimator import Array, Estimate, stack, t_quantile
from analysis.statistics.rate_cost import RateCost, cost_of

Place = tuple[str, ...]  # levels of other factors


@dataclass(frozen=True)
class FactorEffects:
    """What the levels of a factor change against its baseline, averaged over the other factors.

    Attributes:
        comparisons: level minus baseline, by level.
        over: the combinations of the other factors that each of these averages over: those judged at both levels.
        planned: how many such combinations the plan has.
        margin: half the width of the region of equivalence.
        shrinks: by level, the share of the squared half width that more seeds would make smaller.
        confirmatory: whether the plan named the comparisons, with their baseline, before the first score.
    """

    factor: str
    baseline: str
    comparisons: Mapping[str, Comparison]
    over: Mapping[str, tuple[Place, ...]]
    planned: int
    margin: float
    confirmatory: bool
    shrinks: Mapping[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every average is over all planned combinations."""
        return all(len(places) == self.planned for places in self.over.values())


@dataclass(frozen=True)
class EffectsWithin:
    """What the levels of a factor change within each combination of the factors `within`, averaged over the rest.

    `comparisons` are level minus baseline, by level and combination. Where one level is compared, `differences` are the
    effect at each other combination minus that at the first, which is the baselines' own where it was judged.
    """

    factor: str
    baseline: str
    within: tuple[str, ...]
    comparisons: Mapping[tuple[str, Place], Comparison]
    margin: float
    differences: Mapping[Place, Comparison] = field(default_factory=dict)

    @property
    def difference(self) -> Comparison | None:
        """The effect at the first combination minus that at the other, where there are two."""
        found = list(self.differences.values())
        return found[0].mirrored() if len(found) == 1 else None

    @property
    def reference(self) -> Place:
        """The combination whose effect the others' are compared with."""
        return next(iter(self.comparisons))[1]


class ContrastTable:
    """The judged cells of a study by the levels of its factors, and contrasts of them."""

    def __init__(self, study: Study, scores: Mapping[str, Array], level: float, cost: RateCost | None = None) -> None:
        self.study, self.level, self.cost = study, level, cost
        self.factors = list(study.varied)
        complete = [cell for cell in study.cells if set(study.varied) <= set(cell.get("levels", {}))]
        self.planned = {cell["cell"]: tuple(str(cell["levels"][f]) for f in self.factors) for cell in complete}
        self.cells = {levels: cell for cell, levels in self.planned.items() if cell in scores}
        self.at = {levels: scores[cell] for levels, cell in self.cells.items()}

    def factor_effects(self, factor: str) -> FactorEffects | None:
        """The effects of a factor; None where no level can be compared with the baseline."""
        baseline = self.study.reading.baselines[factor]
        others = [other for other in self.factors if other != factor]
        over = {level: self._shared(factor, level, baseline) for level in self._levels(factor, baseline)}
        over = {level: places for level, places in over.items() if places}
        if not over:
            return None
        sums = [self._effect(factor, level, baseline, places) for level, places in over.items()]
        margin = self._margin(over.values())
        planned = {self._project(levels, others) for levels in self.planned.values()}
        found = FactorEffects(
            factor,
            baseline,
            dict(zip(over, self._judge(sums, margin), strict=True)),
            {level: tuple(self._project(place, others) for place in places) for level, places in over.items()},
            len(planned),
            margin,
            factor in self.study.reading.confirmatory,
            dict(zip(over, map(self._shrinks, sums), strict=True)),
        )
        return found

    def effects_within(self, factor: str, within: Sequence[str]) -> EffectsWithin | None:
        """The effects of a factor within each combination of other factors; None where none can be judged."""
        within = tuple(name for name in within if name in self.factors and name != factor)
        baseline, keys = self.study.reading.baselines[factor], dict[tuple[str, Place], tuple[Place, ...]]()
        for place in self._places(within):
            for level in self._levels(factor, baseline):
                shared = self._shared(factor, level, baseline)
                if here := tuple(levels for levels in shared if self._project(levels, within) == place):
                    keys[level, place] = here
        if not keys or not within:
            return None
        sums = [self._effect(factor, level, baseline, places) for (level, _), places in keys.items()]
        margin = self._margin(keys.values())
        found = dict(zip(keys, self._judge(sums, margin), strict=True))
        differences = dict[Place, Comparison]()
        if len(sums) > 1 and len({level for level, _ in keys}) == 1:
            apart = [_minus(one, sums[0]) for one in sums[1:]]
            differences = dict(zip([place for _, place in keys][1:], self._judge(apart, margin), strict=True))
        return EffectsWithin(factor, baseline, within, found, margin, differences)

    def _places(self, within: Sequence[str]) -> list[Place]:
        """The planned combinations of some factors, that of their baselines first."""
        baselines = self.study.reading.baselines
        first = tuple(baselines.get(factor, "") for factor in self.factors if factor in within)
        planned = dict.fromkeys(self._project(levels, within) for levels in self.planned.values())
        return sorted(planned, key=lambda place: place != first)

    def _levels(self, factor: str, baseline: str) -> list[str]:
        return [level for level in self.study.factors[factor] if level != baseline]

    def _shared(self, factor: str, level: str, baseline: str) -> tuple[Place, ...]:
        """The levels of the judged cells at `level` whose counterpart at the baseline is judged, too."""
        index = self.factors.index(factor)
        return tuple(
            levels
            for levels in self.at
            if levels[index] == level and (*levels[:index], baseline, *levels[index + 1 :]) in self.at
        )

    def _effect(self, factor: str, level: str, baseline: str, places: Sequence[Place]) -> dict[Place, float]:
        """The weights of the contrast level minus baseline, averaged over `places`."""
        index = self.factors.index(factor)
        counterparts = [(*place[:index], baseline, *place[index + 1 :]) for place in places]
        return dict.fromkeys(places, 1 / len(places)) | dict.fromkeys(counterparts, -1 / len(places))

    def _project(self, levels: Place, factors: Sequence[str]) -> Place:
        return tuple(level for factor, level in zip(self.factors, levels, strict=True) if factor in factors)

    def _margin(self, averaged: Iterable[Sequence[Place]]) -> float:
        reading = self.study.reading
        return reading.cell_margin if max(map(len, averaged)) == 1 else reading.margin

    def _judge(self, sums: Sequence[Mapping[Place, float]], margin: float) -> list[Comparison]:
        found = as_comparisons(stack([self._estimate(weights) for weights in sums]), margin, True, self.level)
        return [
            one.within(round(sum(w for w in weights.values() if w > 0), 6))
            for one, weights in zip(found, sums, strict=True)
        ]

    def _shrinks(self, weights: Mapping[Place, float]) -> float:
        """The share that runs have in the squared half width of a contrast; 1 where it is not known."""
        whole = self._estimate(weights)
        runs = planned_contrast([self.at[key] for key in weights], list(weights.values()), self.study.paired)
        squared = float(whole.half_width(1 - self.level)) ** 2
        part = float(t_quantile(1 - self.level, whole.seed_df)) ** 2 * float(runs.seed_variance)
        return part / squared if 0 < squared < math.inf else 1.0

    def _estimate(self, weights: Mapping[Place, float]) -> Estimate:
        added = cost_of(self.cost, {self.cells[key]: weight for key, weight in weights.items()})
        cells = [self.at[key] for key in weights]
        return planned_contrast(cells, list(weights.values()), self.study.paired, added)


def _minus(a: Mapping[Place, float], b: Mapping[Place, float]) -> dict[Place, float]:
    """The weights of the difference of two contrasts."""
    return {key: a.get(key, 0.0) - b.get(key, 0.0) for key in {**a, **b}}
