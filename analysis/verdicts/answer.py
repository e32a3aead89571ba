"""What a study answers: every cell's numbers and marks, the planned contrasts, the cells that may be the best.

`analysis.statistics` decides. Every cell whose planned runs ended is judged, at the budget that it had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.study_results import COST, Study, by_car
from analysis.statistics.baseline_comparisons import against_baseline
from analysis.statistics.comparisons import Comparison, Family, compare_all
from analysis.statistics.estimator import Array
from analysis.statistics.interaction_test import InteractionTest, interaction_test
from analysis.statistics.possible_best import best_set
from analysis.statistics.rate_cost import RateCost
from analysis.statistics.sequential_looks import look_level
from analysis.verdicts.eligibility import Eligibility, eligibilities, refuse_mixed
from analysis.verdicts.learning_rates import rate_cost
from analysis.verdicts.planned_contrasts import ContrastTable, EffectsWithin, FactorEffects, Place
from registry import InputError

NAN = float("nan")
LEVEL = 0.95


@dataclass(frozen=True)
class CellResult:
    """A cell as a table shows it. A number that is not known is NaN."""

    name: str
    levels: dict[str, str]
    eligibility: Eligibility
    rate: float
    trials: int
    dice: float
    sd: float  # of the runs' Dice over seeds
    dice_best: float  # with the weights that were best in validation: a sensitivity
    iou: float
    boundary_iou: float
    hd95: float  # pixels, the median over images and seeds
    failures: int
    cost: dict[str, float]
    keys: tuple[str, ...]
    commits: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """What a comparison is about: a level of a factor against the baseline, overall or at a combination of others."""

    factor: str
    level: str
    place: Place | None = None


@dataclass(frozen=True)
class Sensitivity:
    """What becomes of the comparisons without some of the data."""

    left_out: int  # images with listed faulty masks, or stalled runs
    changed: list[tuple[Named, Comparison, Comparison]]  # comparisons whose verdict changes, with and without
    seeds: int = 0  # that are left: where runs are matched by seed, a stalled run takes its whole seed along


@dataclass(frozen=True)
class Answer:
    """A study with its verdicts; `cells` in the order of the plan."""

    study: Study  # at its last look, without the runs after it
    cells: list[CellResult]
    scores: dict[str, Array]  # of every measured cell: Dice (seeds, groups)
    level: float = LEVEL  # of the intervals: at a look, stricter than 0.95
    effects: list[FactorEffects] = field(default_factory=list)
    within: list[EffectsWithin] = field(default_factory=list)
    interaction: InteractionTest | None = None  # None where there is nothing to test
    against_baseline: Mapping[str, Comparison] = field(default_factory=dict)  # single cells minus the baselines' cell
    best: tuple[str, ...] = ()  # the judged cells that cannot be excluded as the best
    pairs: Family[str] | None = None  # every two judged cells; only for pairs.csv
    faultless: Sensitivity | None = None  # None where it is not known which masks are faulty
    unstalled: Sensitivity | None = None  # None without stalled runs
    rate_cost: RateCost | None = None  # what uncertain learning rates add to every variance; None where they were given
    whole: Study | None = None  # with the runs after the last look; None where that is `study`

    @property
    def records(self) -> Study:
        """All that is on record."""
        return self.whole or self.study

    @property
    def judged(self) -> list[CellResult]:
        """The cells with a verdict; none where no test group is common to all, as between folds."""
        return [cell for cell in self.cells if cell.eligibility.judged and cell.name in self.scores]

    @property
    def measured(self) -> list[CellResult]:
        return [cell for cell in self.cells if cell.dice == cell.dice]

    @property
    def ranked(self) -> list[CellResult]:
        """The measured cells from the highest Dice down, then the others."""
        return sorted(self.cells, key=lambda cell: -cell.dice if cell.dice == cell.dice else np.inf)

    @property
    def exploratory(self) -> bool:
        """Whether any factor's comparisons were not planned as they are made or, before there are any, will be."""
        if not self.effects:
            return not set(self.study.reading.baselines) <= self.study.reading.confirmatory
        return not (self.effects and all(effects.confirmatory and effects.complete for effects in self.effects))

    @property
    def planned(self) -> list[str]:
        """The factors whose comparisons were planned as they are made or, before there are any, will be."""
        if not self.effects:
            reading = self.study.reading
            return [factor for factor in reading.baselines if factor in reading.confirmatory]
        return [effects.factor for effects in self.effects if effects.confirmatory and effects.complete]

    @property
    def seeds(self) -> int:
        """The number of seeds of the judged cells; the smallest where they differ, 0 without any."""
        return min((len(self.scores[cell.name]) for cell in self.judged), default=0)

    def comparisons(self) -> Iterator[tuple[Named, Comparison]]:
        """Every planned contrast: averages first, then those within combinations. Intervals end at ±1, as Dice does."""
        for effects in self.effects:
            for level, comparison in effects.comparisons.items():
                yield Named(effects.factor, level), comparison
        for part in self.within:
            for (level, place), comparison in part.comparisons.items():
                yield Named(part.factor, level, place), comparison

    def winners(self) -> dict[int, str]:
        """The cell that each seed's runs alone would have called the best, of the judged cells."""
        runs = self.study.finished[self.study.finished.cell.isin([cell.name for cell in self.judged])]
        complete = runs.groupby("seed").filter(lambda part: len(part) == len(self.judged))
        best = complete.loc[complete.groupby("seed").dice.idxmax()] if len(complete) else complete
        return {int(row.seed): str(row.cell) for row in best.itertuples()}


def answer_study(study: Study, seeds: int | None = None) -> Answer:
    """Derive the verdicts of a study.

    Args:
        study: what was planned and measured.
        seeds: of a study that runs until it is decided: the look, by its number of seeds; the last one by default.

    Raises:
        InputError: where its runs may not stand in one table.
    """
    look = seeds if seeds is not None else last_look(study)
    if study.looks and not look:
        return _answer(study, judge=False)
    found = _answer(at_look(study, look))
    faulty = study.plan.get("known_faulty")
    scores = found.study.scores
    if faulty is not None and len(scores):
        kept = scores[~scores.image.isin(faulty)]
        without = _answer(replace(found.study, scores=kept)) if faulty and len(kept) else found
        found = replace(found, faultless=_sensitivity(found, without, len(faulty)))
    stalled = [(cell.name, seed) for cell in found.judged for seed in cell.eligibility.stalled]
    if stalled:
        found = replace(found, unstalled=_sensitivity(found, _without_runs(found, stalled), len(stalled)))
    return found if len(found.study.runs) == len(study.runs) else replace(found, whole=study)


def last_look(study: Study) -> int:
    """The number of seeds at the last look for which every run has ended; 0 before the first, or of a fixed list."""
    order = study.plan.get("design", {}).get("seeds", [])
    ended = study.runs[study.runs.state.isin(["finished", "failed"])].groupby("seed").size()
    whole = [count for count in study.looks if count <= len(order)]
    return max((n for n in whole if all(ended.get(seed, 0) >= len(study.cells) for seed in order[:n])), default=0)


def at_look(study: Study, seeds: int) -> Study:
    """A study with its first `seeds` seeds only; unchanged for 0."""
    kept = set(study.plan.get("design", {}).get("seeds", [])[:seeds])
    if not kept:
        return study
    tables = {name: getattr(study, name) for name in ("runs", "scores", "curves")}
    return replace(study, **{name: table[table.seed.isin(kept)] for name, table in tables.items()})


def level_of(study: Study) -> float:
    """The level of a study's intervals: 0.95, or at a look what keeps 0.95 over all looks."""
    return 1 - look_level(study.looks, LEVEL, study.paired) if study.looks else LEVEL


def open_comparisons(answer: Answer) -> list[Named]:
    """The primary comparisons that are still undecided; a failed cell's comparisons are not among them."""
    return [
        Named(effects.factor, level)
        for effects in answer.effects
        for level, comparison in effects.comparisons.items()
        if comparison.verdict == "undecided"
    ]


def _answer(study: Study, judge: bool = True) -> Answer:
    """The verdicts of a study; only its numbers with `judge` False, before its first look."""
    refuse_mixed(study)
    eligibility_of, scores, level = eligibilities(study), by_car(study), level_of(study)
    if not judge:
        eligibility_of = {
            name: replace(one, kind="incomplete" if one.judged else one.kind, still_improving=False, stalled=())
            for name, one in eligibility_of.items()
        }
    cells = [_cell(study, cell, eligibility_of[cell["cell"]], scores.get(cell["cell"])) for cell in study.cells]
    judged = {cell.name: scores[cell.name] for cell in cells if cell.eligibility.judged and cell.name in scores}
    _refuse_unpaired(study, judged)
    cost = _rate_cost(study)
    table = ContrastTable(study, judged, level, cost)
    effects = [table.factor_effects(factor) for factor in study.varied]
    within = [table.effects_within(factor, others) for factor, others in study.reading.within.items()]
    several = len(judged) > 1
    test = _interaction(study, table, cost) if several and len(study.varied) > 1 else None
    margin, paired = study.reading.cell_margin, study.paired
    pairs = compare_all(judged, margin, level=level, paired_seeds=paired, rate_cost=cost) if several else None
    return Answer(
        study,
        cells,
        scores,
        level,
        [found for found in effects if found is not None],
        [found for found in within if found is not None],
        test,
        _against_baseline(study, judged, level, cost),
        best_set(judged, level, paired_seeds=study.paired, rate_cost=cost) if judged else (),
        replace(pairs, comparisons={names: one.within(1) for names, one in pairs.comparisons.items()})
        if pairs
        else None,
        rate_cost=cost,
    )


def _refuse_unpaired(study: Study, judged: Mapping[str, Array]) -> None:
    """Raise InputError where runs are matched by seed and cells have unlike numbers of seeds."""
    seeds = {name: len(scores) for name, scores in judged.items()}
    if study.paired and len(set(seeds.values())) > 1:
        fewest = min(seeds, key=lambda name: seeds[name])
        raise InputError(
            f"The runs of {study.name} are matched by seed, and {fewest} has {seeds[fewest]} seeds where others "
            f"have {max(seeds.values())}. Finish its runs with: python run.py study {study.name}"
        )


def _rate_cost(study: Study) -> RateCost | None:
    """What uncertain learning rates cost. Raises InputError where the trials are too few to say."""
    try:
        return rate_cost(study)
    except ValueError as error:
        raise InputError(
            f"The learning rates of the study {study.name} cannot be judged: {error} "
            f"Finish its trials with: python run.py tune {study.name}"
        ) from None


def _interaction(study: Study, table: ContrastTable, cost: RateCost | None) -> InteractionTest | None:
    """The test of interaction; None where an additive model fits whatever was measured."""
    test = interaction_test(table.at, study.paired, rate_cost=_by_levels(cost, table))
    return test if test.df1 > 0 else None


def _by_levels(cost: RateCost | None, table: ContrastTable) -> RateCost | None:
    """The cost with cells named by their levels, as the interaction test names them."""
    if cost is None:
        return None
    return replace(cost, cells=tuple(table.planned.get(str(cell), cell) for cell in cost.cells))


def _against_baseline(
    study: Study, judged: Mapping[str, Array], level: float, cost: RateCost | None
) -> dict[str, Comparison]:
    """Each judged cell minus the cell that has every factor's baseline; nothing where that one is not judged."""
    wanted = study.reading.baselines
    cells = [cell["cell"] for cell in study.cells if wanted.items() <= cell.get("levels", {}).items()]
    baseline = next((cell for cell in cells if cell in judged), None)
    if baseline is None or len(judged) < 2:
        return {}
    paired, margin = study.paired, study.reading.cell_margin
    found = against_baseline(judged, baseline, margin, level=level, paired_seeds=paired, rate_cost=cost)
    return {name: comparison.within(1) for name, comparison in found.items()}


def _cell(study: Study, cell: Mapping[str, Any], eligibility: Eligibility, dice: Array | None) -> CellResult:
    name = cell["cell"]
    runs, scores = study.finished[study.finished.cell == name], study.scores[study.scores.cell == name]
    rate = runs.rate.iloc[0] if len(runs) else cell.get("rate")
    return CellResult(
        name=name,
        levels={factor: str(cell.get("levels", {}).get(factor, "")) for factor in study.factors},
        eligibility=eligibility,
        rate=NAN if rate is None else float(rate),
        trials=int((study.trials.cell == name).sum()),
        dice=float(dice.mean()) if dice is not None else NAN,
        sd=float(dice.mean(1).std(ddof=1)) if dice is not None and len(dice) > 1 else NAN,
        dice_best=_mean(runs.dice_best),
        iou=_mean(runs.iou),
        boundary_iou=_mean(runs.boundary_iou),
        hd95=float(scores.hd95.median()) if len(scores) else NAN,
        failures=int(scores.failed.sum()) if len(scores) else 0,
        cost={column: _mean(runs[column]) for column in COST},
        keys=tuple(runs.key),
        commits=tuple(sorted(set(runs.git_commit) - {""})),
    )


def _mean(values: pd.Series) -> float:
    return float(values.astype(float).mean())


def _without_runs(found: Answer, runs: list[tuple[str, int]]) -> Answer:
    """The answer without some runs; where runs are matched by seed, without their seeds."""
    study = found.study
    seeds = {seed for _, seed in runs}

    def kept(table: pd.DataFrame) -> pd.DataFrame:
        if study.paired:
            return table[~table.seed.isin(seeds)]
        return table[[(cell, seed) not in runs for cell, seed in zip(table.cell, table.seed, strict=True)]]

    return _answer(replace(study, runs=kept(study.runs), scores=kept(study.scores)))


def _sensitivity(found: Answer, without: Answer, left_out: int) -> Sensitivity:
    after = dict(without.comparisons())
    changed = [
        (name, comparison, after[name])
        for name, comparison in found.comparisons()
        if name in after and after[name].verdict != comparison.verdict
    ]
    return Sensitivity(left_out, changed, without.seeds)
