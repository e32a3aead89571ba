"""Observed power: what a study could detect with the spread that its own scores show, next to what its plan
expected.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.statistics.power import Spread, detectable, smallest_difference, spread_of
from analysis.verdicts.answer import Answer


@dataclass(frozen=True)
class ObservedPower:
    """The spread of a difference, pooled over the judged cells, and the smallest differences found with 80 % power.

    `pair`: of two cells among all pairs; `main`: of the levels of each factor that were compared, over the combinations
    of the others that were; `equivalent`: the chance that two equal cells are found equivalent.
    """

    spread: Spread
    pair: float | None
    main: dict[str, float]
    equivalent: float | None


def observe_power(answer: Answer) -> ObservedPower | None:
    """Compute the observed power; None where fewer than two judged cells have several seeds and cars.

    Also None until every run has ended: with fewer seeds another design would be described.
    """
    if not answer.study.runs.state.isin(["finished", "failed"]).all():
        return None
    judged = [answer.scores[row.cell] for row in answer.judged if row.cell in answer.scores]
    cells = [scores for scores in judged if min(scores.shape) > 1]
    if len(cells) < 2:
        return None
    spread, seeds, cars = spread_of(cells), min(map(len, cells)), cells[0].shape[1]
    pairs = detectable(spread, seeds, cars, {"cell": len(answer.judged)}, answer.study.rope)
    main = {}
    for effect in answer.effects:
        over = effect.effect.over
        fewest = min(map(len, over.values()))
        main[effect.factor] = smallest_difference(spread, seeds, cars, comparisons=len(over), averaged=fewest)
    return ObservedPower(spread, pairs["pair"], main, pairs["equivalent"])
