"""Seeds until decided: after each whole seed, look whether every primary comparison is decided.

`seeds = "3..10"` in a study file runs seeds 0, 1 and 2 of every cell, looks, runs seed 3, looks, and so on. Each look
is taken at the level of `analysis.statistics.look_level`, so that all looks together keep the error rate. A look is
derived from the records alone: every process that carries out the study comes to the same one, and none begins the next
seed before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records.files import read_json
from analysis.records.study_paths import RESULTS, StudyPaths, load_study
from analysis.statistics.comparisons import Comparison
from analysis.verdicts.answer import Answer, answer_study, open_comparisons
from experiments.studies.plan import Plan, PlannedCell
from experiments.studies.study_folder import run_state
from experiments.training.run_folder import RunFolder

MOST_SEEDS = 1000  # beyond which a comparison counts as one that seeds will not decide


@dataclass(frozen=True)
class OpenComparison:
    """A primary comparison that is undecided at the last look.

    `more` is how many seeds more will probably decide it at the spread seen so far; None where no number will.
    """

    factor: str
    level: str
    baseline: str
    more: int | None

    @property
    def name(self) -> str:
        """As a look records it."""
        return f"{self.factor}: {self.level}"


def is_due(plan: Plan) -> bool:
    """Whether all runs of the seeds so far have ended for good and a look at them is planned."""
    return not is_over(plan) and all(_has_ended(plan, cell, seed) for cell, seed in plan.runs())


def _has_ended(plan: Plan, cell: PlannedCell, seed: int) -> bool:
    """Whether a run is finished or has diverged; one that failed otherwise will be tried again."""
    state, _ = run_state(plan, cell, seed)
    if state == "failed" and (prepared := plan.run(cell, seed)) is not None:
        return bool((RunFolder(plan.machine.runs_dir / prepared.config.key).failure() or {}).get("diverged"))
    return state == "done"


def is_decided(plan: Plan) -> bool:
    """Whether the last look left nothing open."""
    return bool(plan.looks_taken) and not plan.looks_taken[-1]["open"]


def is_over(plan: Plan) -> bool:
    """Whether no look is left: all is decided, the last one is taken, or the study has a fixed list of seeds."""
    return is_decided(plan) or len(plan.looks_taken) >= len(plan.study.looks)


def load_looks(plan: Plan, results: Path | None = None) -> None:
    """Fill `plan.looks_taken` and `plan.extended_from` with what the plan on disk, or the committed one, records.

    Of the two the one with more looks counts: another machine may have gone on.
    """
    committed = results / plan.study.name / "study.json" if results is not None else None
    plans = [read_json(path) or {} for path in filter(None, (plan.folder / "plan.json", committed))]
    designs = [design for content in plans if (design := content.get("design"))]
    if plan.study.looks:
        plan.looks_taken = max((list(one.get("looks_taken", [])) for one in designs), key=len, default=[])
    elif designs:
        plan.extended_from = _extended(designs[0], plan)


def _extended(design: Mapping[str, Any], plan: Plan) -> list[int]:
    """The numbers of seeds that a fixed list had before it was extended: each was a look that was not planned."""
    before, now = set(design.get("seeds", [])), set(plan.study.seeds)
    earlier = list(design.get("extended_from", []))
    return [*earlier, len(before)] if before < now and len(before) > 1 else earlier


def take_look(plan: Plan) -> list[OpenComparison]:
    """Look at the records of the seeds so far, and add the look to the plan; what is open.

    The plan on disk (plan.json) must hold these seeds already.
    """
    found = _answer(plan, len(plan.seeds))
    left = _open(found)
    level = round(1 - found.level, 6)
    # where all runs of a factor's levels diverged, nothing was compared, and so nothing decided
    names = [part.name for part in left] if found.effects else _planned(plan)
    plan.looks_taken.append({"seeds": len(plan.seeds), "level": level, "open": names})
    return left


def _planned(plan: Plan) -> list[str]:
    """Every planned comparison."""
    factors = {name: [level.label for level in levels] for name, levels in plan.study.factors.items()}
    return [
        f"{name}: {level}"
        for name, levels in factors.items()
        for level in levels
        if level != plan.study.baselines.get(name, levels[0])
    ]


def open_comparisons_of(plan: Plan) -> list[OpenComparison]:
    """What was open at the last look, with the seeds that will probably be needed."""
    return _open(_answer(plan, plan.looks_taken[-1]["seeds"])) if plan.looks_taken else []


def _answer(plan: Plan, seeds: int) -> Answer:
    results = RESULTS if plan.committed_runs else plan.folder / "committed"  # which is nowhere: records alone count
    return answer_study(load_study(StudyPaths(plan.machine.output_dir, results), plan.study.name), seeds)


def _open(found: Answer) -> list[OpenComparison]:
    effects = {part.factor: part for part in found.effects}
    left = []
    for name in open_comparisons(found):
        of_factor = effects[name.factor]
        share = of_factor.shrinks[name.level]
        more = likely_more(of_factor.comparisons[name.level], found.seeds, of_factor.margin, share)
        left.append(OpenComparison(name.factor, name.level, of_factor.baseline, more))
    return left


def likely_more(found: Comparison, seeds: int, margin: float, share: float = 1.0) -> int | None:
    """How many seeds more would decide a comparison if its difference and the spread stayed as they are.

    `share` of the squared half width shrinks as seeds are added; what test groups and uncertain learning rates
    contribute does not. The gain in degrees of freedom is left out, so the number is on the safe side.
    """
    half, size = (found.high - found.low) / 2, abs(found.difference)

    def decides(total: int) -> bool:
        reach = half * math.sqrt(share * seeds / total + 1 - share)
        return size > reach or size + reach <= margin

    if not math.isfinite(half) or max(-found.low, found.high) >= 1 or not decides(MOST_SEEDS):  # unknown, or cut
        return None
    return next(total for total in range(seeds, MOST_SEEDS + 1) if decides(total)) - seeds
