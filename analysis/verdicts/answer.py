"""What a study answers: each cell's numbers and verdicts, every pair, and the main effects. `analysis.statistics`
decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.study_results import COST, Study, by_car
from analysis.statistics.comparisons import Comparison, Family, compare_all
from analysis.statistics.effects import Interaction, MainEffect, interaction, main_effect
from analysis.statistics.estimator import Array
from analysis.statistics.summary import cell_mean
from analysis.verdicts.eligibility import Eligibility, eligibilities, refuse_mixed
from analysis.verdicts.simple_effects import JOIN, SimpleEffect, find_simple_effects

NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """A cell as the table shows it. A number that is not known is NaN."""

    cell: str
    levels: dict[str, str]
    eligibility: Eligibility
    rate: float
    trials: int
    dice: float
    low: float  # 95 % interval of the mean; infinite with one seed
    high: float
    dice_best: float  # with the weights that were best in validation: a sensitivity
    iou: float
    boundary_iou: float
    hd95: float  # pixels, the median over images and seeds
    failures: int
    cost: dict[str, float]
    keys: tuple[str, ...]
    commits: tuple[str, ...]
    top: bool = False  # judged, and no other cell is better
    verdicts: dict[str, int] = field(default_factory=dict)  # verdict -> against how many of the judged cells

    @property
    def label(self) -> str:
        return JOIN.join(self.levels.values()) or self.cell


@dataclass(frozen=True)
class Effect:
    """The main effect of one factor; `named` says that the plan names it as confirmatory."""

    factor: str
    effect: MainEffect
    interaction: Interaction
    named: bool
    planned: int  # combinations of the other factors that the plan has
    left_out: tuple[str, ...]  # levels of the plan without a judged cell
    others: Mapping[str, frozenset[tuple[str, str]]]  # a combination of the other factors -> its (factor, level)s
    means: Mapping[tuple[str, str], float]  # (level, combination of the others) -> mean Dice of the judged cell

    @property
    def combinations(self) -> tuple[str, ...]:
        """Those of the other factors that two levels are compared in, in the order of the table."""
        return tuple(dict.fromkeys(other for others in self.effect.over.values() for other in others))

    @property
    def claim(self) -> str:
        """The comparisons of its levels are "confirmatory", "exploratory" (not in the plan) or "incomplete".

        Incomplete is what the plan names where some of its combinations are left out of an average.
        """
        complete = {len(others) for others in self.effect.over.values()} == {self.planned}
        return "exploratory" if not self.named else "confirmatory" if complete else "incomplete"


@dataclass(frozen=True)
class FaultyMaskSensitivity:
    """What becomes of an answer without the test images whose masks are publicly listed as faulty."""

    images: int  # left out
    dice: dict[str, float]  # of each cell with runs, without them
    changed: list[
        tuple[str, Comparison, Comparison]
    ]  # what is compared (cells, levels, simple effects), with and without


@dataclass(frozen=True)
class Answer:
    """A study with its verdicts. `rows`: measured cells from the highest Dice down, then the others."""

    study: Study
    rows: list[Row]
    scores: dict[str, Array]  # judged and measured cells: Dice (seeds, cars)
    family: Family[str] | None  # of the judged cells; None where there are fewer than two
    effects: list[Effect]
    simple: dict[str, list[SimpleEffect]] = field(default_factory=dict)  # by factor, of those that the plan asks for
    faultless: FaultyMaskSensitivity | None = None  # None where the plan does not know which masks are listed

    @property
    def judged(self) -> list[Row]:
        return [row for row in self.rows if row.eligibility.kind == "judged"]

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.dice == row.dice]

    @property
    def labels(self) -> dict[str, str]:
        return {row.cell: row.label for row in self.rows}

    @property
    def pairs_named(self) -> bool:
        """Whether the plan names the pairs of cells as confirmatory; with one factor, they are what its name means."""
        named = self.study.plan.get("design", {}).get("confirmatory", [])
        varied = [factor for factor, levels in self.study.factors.items() if len(levels) > 1]
        return "pairs" in named or (len(varied) == 1 and varied[0] in named)


def answer_study(study: Study) -> Answer:
    """Derive the verdicts of a study. Raises InputError where its runs may not stand in one table."""
    found = _answer(study)
    faulty = study.plan.get("known_faulty")
    scores = study.scores[~study.scores.image.isin(faulty or [])]
    if faulty is None or not len(scores):
        return found
    without = _answer(replace(study, scores=scores)) if faulty else found
    dice = {row.cell: float(without.scores[row.cell].mean()) for row in without.rows if row.cell in without.scores}
    before, after = _comparisons(found), _comparisons(without)
    changed = [
        (name, comparison, after[name])
        for name, comparison in before.items()
        if name in after and after[name].verdict != comparison.verdict
    ]
    return replace(found, faultless=FaultyMaskSensitivity(len(faulty), dice, changed))


def _comparisons(found: Answer) -> dict[str, Comparison]:
    """Every comparison of Dice once, by what is compared: cells, levels of a factor, and its simple effects."""
    labels, comparisons = found.labels, dict[str, Comparison]()
    for (a, b), comparison in found.family.comparisons.items() if found.family else ():
        if a < b:
            comparisons[f"{labels[a]} – {labels[b]}"] = comparison
    for effect in found.effects:
        for (a, b), comparison in effect.effect.family.comparisons.items():
            if a < b:
                comparisons[f"{effect.factor}, {a} – {b}"] = comparison
    for factor, parts in found.simple.items():
        for part in parts:
            if part.where is not None and part.found:
                comparisons[f"{factor}, {part.b} – {part.a}, {part.where}"] = part.found["dice"]
    return comparisons


def _answer(study: Study) -> Answer:
    refuse_mixed(study)
    eligibility_of, scores = eligibilities(study), by_car(study)
    judged = {
        cell: scores[cell]
        for cell, eligibility in eligibility_of.items()
        if eligibility.kind == "judged" and cell in scores
    }
    family = compare_all(judged, rope=study.rope) if len(judged) > 1 else None
    rows = [_row(study, cell, eligibility_of[cell["cell"]], scores.get(cell["cell"]), family) for cell in study.cells]
    rows.sort(key=lambda row: -row.dice if row.dice == row.dice else np.inf)
    measured = {row.cell: (row.levels, row.eligibility.kind) for row in rows if row.dice == row.dice}
    return Answer(study, rows, scores, family, _effects(study, judged), find_simple_effects(study, measured))


def _row(
    study: Study, cell: Mapping[str, Any], eligibility: Eligibility, dice: Array | None, family: Family[str] | None
) -> Row:
    name = cell["cell"]
    runs, scores = study.finished[study.finished.cell == name], study.scores[study.scores.cell == name]
    mean = cell_mean(dice) if dice is not None else None
    rate = runs.rate.iloc[0] if len(runs) else cell.get("rate")
    verdicts: dict[str, int] = {}
    if family and any(name in pair for pair in family.comparisons):
        outcomes = [comparison.verdict for (a, _), comparison in family.comparisons.items() if a == name]
        verdicts = {kind: outcomes.count(kind) for kind in ("better", "worse", "equivalent", "undecided")}
    return Row(
        cell=name,
        levels={factor: str(cell.get("levels", {}).get(factor, "")) for factor in study.factors},
        eligibility=eligibility,
        rate=NAN if rate is None else float(rate),
        trials=int((study.trials.cell == name).sum()),
        dice=mean.mean if mean else NAN,
        low=mean.low if mean else NAN,
        high=mean.high if mean else NAN,
        dice_best=_mean(runs.dice_best),
        iou=_mean(runs.iou),
        boundary_iou=_mean(runs.boundary_iou),
        hd95=float(scores.hd95.median()) if len(scores) else NAN,
        failures=int(scores.failed.sum()) if len(scores) else 0,
        cost={column: _mean(runs[column]) for column in COST},
        keys=tuple(runs.key),
        commits=tuple(sorted(set(runs.git_commit) - {""})),
        top=bool(verdicts) and family is not None and name in family.top,
        verdicts=verdicts,
    )


def _mean(values: pd.Series) -> float:
    return float(values.astype(float).mean())


def _effects(study: Study, judged: Mapping[str, Array]) -> list[Effect]:
    """Main effects of the factors that have two levels or more among the judged cells, over all the other factors."""
    named = study.plan.get("design", {}).get("confirmatory", [])
    varied = [factor for factor, levels in study.factors.items() if len(levels) > 1]
    complete = [cell for cell in study.cells if set(cell.get("levels", {})) == set(study.factors)]
    levels = {
        cell["cell"]: {f: str(cell["levels"][f]) for f in varied} for cell in complete
    }  # an earlier plan's differ
    effects = []
    for factor in varied if len(varied) > 1 else []:
        others = [other for other in varied if other != factor]
        combination = {cell: JOIN.join(levels[cell][other] for other in others) for cell in levels}
        keyed = {(levels[cell][factor], combination[cell]): scores for cell, scores in judged.items() if cell in levels}
        present = {level for level, _ in keyed}
        if len(present) < 2:
            continue
        left_out = tuple(level for level in study.factors[factor] if level not in present)
        places = {combination[cell]: frozenset((other, levels[cell][other]) for other in others) for cell in levels}
        try:
            effect = main_effect(keyed, 0, rope=study.rope)
        except ValueError:
            continue  # levels that share no cell cannot be compared over the others; the pairs are there all the same
        means = {place: float(scores.mean()) for place, scores in keyed.items()}
        effects.append(
            Effect(factor, effect, interaction(keyed), factor in named, len(places), left_out, places, means)
        )
    return effects
