"""What a study answers: each cell's numbers and verdicts, every pair, and the main effects. `analysis.statistics.comparisons` decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records.study_results import COST, Study, by_car
from analysis.statistics.comparisons import Comparison, Family, compare_all
from analysis.statistics.effects import Interaction, MainEffect, interaction, main_effect
from analysis.statistics.summary import cell_mean
from analysis.verdicts.eligibility import Eligibility, eligibilities, refuse_mixed
from analysis.verdicts.simple_effects import JOIN, Part, simple_effects

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Row:
    """A cell as the table shows it. A number that is not known is NaN."""

    cell: str
    levels: dict[str, str]
    standing: Eligibility
    rate: float
    trials: int
    dice: float
    low: float  # 95 % interval of the mean; infinite with one seed
    high: float
    dice_best: float  # with the weights that were best in validation: a sensitivity
    iou: float
    boundary_iou: float
    hd95: float  # pixels, the median over photographs and seeds
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
    others: Mapping[
        str, frozenset[tuple[str, str]]
    ]  # a combination of the other factors, as it is told -> its (factor, level)s
    means: Mapping[tuple[str, str], float]  # (level, combination of the others) -> mean Dice of the judged cell

    @property
    def combinations(self) -> tuple[str, ...]:
        """Those of the other factors that two levels are compared in, in the order of the table."""
        return tuple(dict.fromkeys(other for others in self.effect.over.values() for other in others))

    @property
    def as_planned(self) -> bool:
        """Whether every two of its judged levels are compared over all planned combinations: none was left out of an average."""
        return {len(others) for others in self.effect.over.values()} == {self.planned}


@dataclass(frozen=True)
class FaultyMaskSensitivity:
    """What becomes of an answer without the test photographs whose masks are publicly listed as faulty."""

    photographs: int  # left out
    dice: dict[str, float]  # of each cell with runs, without them
    changed: list[
        tuple[str, Comparison, Comparison]
    ]  # what is compared, with them and without: cells, levels, parts of effects


@dataclass(frozen=True)
class Answer:
    """A study with its verdicts. `rows`: judged or at least measured cells from the highest Dice down, then the others."""

    study: Study
    rows: list[Row]
    scores: dict[str, NDArray[np.float64]]  # judged and measured cells: Dice (seeds, cars)
    family: Family[str] | None  # of the judged cells; None where there are fewer than two
    effects: list[Effect]
    simple: dict[str, list[Part]] = field(default_factory=dict)  # by factor, of those that the plan asks for
    faultless: FaultyMaskSensitivity | None = None  # None where the plan does not know which masks are listed

    @property
    def judged(self) -> list[Row]:
        return [row for row in self.rows if row.standing.kind == "judged"]

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.dice == row.dice]

    @property
    def pairs_named(self) -> bool:
        """Whether the plan names the pairs of cells as confirmatory; with one factor, they are what its name means."""
        named = self.study.plan.get("design", {}).get("confirmatory", [])
        varied = [factor for factor, levels in self.study.factors.items() if len(levels) > 1]
        return "pairs" in named or (len(varied) == 1 and varied[0] in named)

    def label(self, cell: str) -> str:
        return next(row.label for row in self.rows if row.cell == cell)


def answer(study: Study) -> Answer:
    """The verdicts of a study. Raises InputError where its runs may not stand in one table."""
    found = _answer(study)
    listed = study.plan.get("known_faulty")
    scores = study.scores[~study.scores.image.isin(listed or [])]
    if listed is None or not len(scores):
        return found
    without = _answer(replace(study, scores=scores)) if listed else found
    dice = {row.cell: float(without.scores[row.cell].mean()) for row in without.rows if row.cell in without.scores}
    before, after = _comparisons(found), _comparisons(without)
    changed = [
        (name, one, after[name]) for name, one in before.items() if name in after and after[name].verdict != one.verdict
    ]
    return replace(found, faultless=FaultyMaskSensitivity(len(listed), dice, changed))


def _comparisons(found: Answer) -> dict[str, Comparison]:
    """Every comparison of Dice once, by what is compared: cells, levels of a factor, and the parts of its effect."""
    family = found.family.comparisons if found.family else {}
    labels = {row.cell: row.label for row in found.rows}
    cells = {f"{labels[a]} – {labels[b]}": c for (a, b), c in family.items() if a < b}
    levels = {
        f"{one.factor}, {a} – {b}": c
        for one in found.effects
        for (a, b), c in one.effect.family.comparisons.items()
        if a < b
    }
    parts = {
        f"{factor}, {part.b} – {part.a}, {part.where}": part.found["dice"]
        for factor, several in found.simple.items()
        for part in several
        if part.where is not None and part.found
    }
    return cells | levels | parts


def _answer(study: Study) -> Answer:
    refuse_mixed(study)
    standing, scores = eligibilities(study), by_car(study)
    judged = {cell: scores[cell] for cell, one in standing.items() if one.kind == "judged" and cell in scores}
    family = compare_all(judged, rope=study.rope) if len(judged) > 1 else None
    rows = [_row(study, cell, standing[cell["cell"]], scores.get(cell["cell"]), family) for cell in study.cells]
    rows.sort(key=lambda row: -row.dice if row.dice == row.dice else np.inf)
    measured = {row.cell: (row.levels, row.standing.kind) for row in rows if row.dice == row.dice}
    return Answer(study, rows, scores, family, _effects(study, judged), simple_effects(study, measured))


def _row(
    study: Study,
    cell: Mapping[str, Any],
    standing: Eligibility,
    scores: NDArray[np.float64] | None,
    family: Family[str] | None,
) -> Row:
    name = cell["cell"]
    runs = study.finished[study.finished.cell == name]
    mean = cell_mean(scores) if scores is not None else None
    rate = runs.rate.iloc[0] if len(runs) else cell.get("rate")
    rate = float("nan") if rate is None else float(rate)
    trials = int((study.trials.cell == name).sum())
    verdicts: dict[str, int] = {}
    if family and any(name in pair for pair in family.comparisons):
        found = [c.verdict for (a, _), c in family.comparisons.items() if a == name]
        verdicts = {kind: found.count(kind) for kind in ("better", "worse", "equivalent", "undecided")}
    levels = {factor: str(cell.get("levels", {}).get(factor, "")) for factor in study.factors}
    dice, low, high = (mean.mean, mean.low, mean.high) if mean else (float("nan"),) * 3
    best, iou, boundary_iou = (_mean(runs[column]) for column in ("dice_best", "iou", "boundary_iou"))
    hd95, failures = _distances(study, name)
    cost = {column: _mean(runs[column]) for column in COST}
    keys, commits = tuple(runs.key), tuple(sorted(set(runs.git_commit) - {""}))
    top = bool(verdicts) and family is not None and name in family.top
    return Row(
        name,
        levels,
        standing,
        rate,
        trials,
        dice,
        low,
        high,
        best,
        iou,
        boundary_iou,
        hd95,
        failures,
        cost,
        keys,
        commits,
        top,
        verdicts,
    )


def _mean(values: pd.Series) -> float:
    return float(values.astype(float).mean())


def _distances(study: Study, cell: str) -> tuple[float, int]:
    """The median of HD95 in pixels over a cell's photographs and seeds, and the failures among them."""
    scores = study.scores[study.scores.cell == cell]
    return (float(scores.hd95.median()), int(scores.failed.sum())) if len(scores) else (float("nan"), 0)


def _effects(study: Study, judged: Scores) -> list[Effect]:
    """Main effects of the factors that have two levels or more among the judged cells, over all the other factors."""
    named = study.plan.get("design", {}).get("confirmatory", [])
    varied = [factor for factor, levels in study.factors.items() if len(levels) > 1]
    here = [
        cell for cell in study.cells if set(cell.get("levels", {})) == set(study.factors)
    ]  # an earlier plan's may differ
    levels = {cell["cell"]: {f: str(cell["levels"][f]) for f in varied} for cell in here}
    found = []
    for factor in varied if len(varied) > 1 else []:
        others = [other for other in varied if other != factor]
        told = {cell: JOIN.join(levels[cell][other] for other in others) for cell in levels}
        keyed = {(levels[cell][factor], told[cell]): scores for cell, scores in judged.items() if cell in levels}
        if len({level for level, _ in keyed}) < 2:
            continue
        left_out = tuple(level for level in study.factors[factor] if level not in {level for level, _ in keyed})
        places = {told[cell]: frozenset((other, levels[cell][other]) for other in others) for cell in levels}
        try:
            effect = main_effect(keyed, 0, rope=study.rope)
        except ValueError:
            continue  # levels that share no cell cannot be compared over the others; the pairs are there all the same
        means = {place: float(scores.mean()) for place, scores in keyed.items()}
        found.append(Effect(factor, effect, interaction(keyed), factor in named, len(places), left_out, places, means))
    return found
