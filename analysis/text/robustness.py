"""Under which conditions a study's networks hold: what `run.py robustness` scored, as differences from the baselines.

Every condition is compared separately, with intervals adjusted for the comparisons of that condition alone: all of it
is exploratory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from analysis.records.study_results import Study
from analysis.statistics.comparisons import Comparison
from analysis.statistics.estimator import Array
from analysis.text.markdown import Grid, TableCell
from analysis.text.tables import MARKS, NARROW, UNKNOWN, chunks
from analysis.text.wording import factor_name, level_name, phrases, points
from analysis.verdicts.answer import Answer
from analysis.verdicts.planned_contrasts import ContrastTable

CLEAN, STRENGTHS, STRENGTH = "clean", (1, 2, 3), re.compile(r"(.+) ([123])")


def corruptions(conditions: Collection[str]) -> list[str]:
    """The corruptions that were scored at all strengths."""
    kinds = sorted({match[1] for name in conditions if (match := STRENGTH.fullmatch(name))})
    return [kind for kind in kinds if all(f"{kind} {strength}" in conditions for strength in STRENGTHS)]


def differences(answer: Answer, factor: str) -> dict[str, dict[str, Comparison]]:
    """By condition, each other level of a factor minus its baseline: averaged over the other factors, Holm within."""
    study, scores, found = answer.study, _scores(answer.study), dict[str, dict[str, Comparison]]()
    if not any(kind in scores for kind in corruptions(scores)):
        return found
    judged = {cell.name for cell in answer.judged}
    for name, cells in scores.items():
        if STRENGTH.fullmatch(name):
            continue
        shown = {cell: dice for cell, dice in cells.items() if cell in judged}
        effects = ContrastTable(study, shown, answer.level, answer.rate_cost)
        if factor_effects := effects.factor_effects(factor):
            found[name] = dict(factor_effects.comparisons)
    return found


def robustness_grids(answer: Answer, language: str) -> list[Grid]:
    """For each factor a row for each level, a column for each condition: the difference from the baseline, in points.

    Empty where no corruption was scored at all strengths.
    """
    study, words, grids = answer.study, phrases("tables", language), []
    for factor, baseline in study.reading.baselines.items():
        found = differences(answer, factor)
        levels = [level for level in study.factors[factor] if any(level in column for column in found.values())]
        for shown in chunks(list(found), NARROW + 1):
            rows = [
                [TableCell(level_name(study, level, language)), *(_cell(found[name].get(level)) for name in shown)]
                for level in levels
            ]
            names = [words.conditions.get(name, name) for name in shown]
            against = words.against(baseline=level_name(study, baseline, language))
            grids.append(Grid([against, *names], rows, factor_name(study, factor, language)))
    return [grid for grid in grids if grid.rows]


def turned_round(answer: Answer, taken: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Where clean images mislead: of each factor the level to take, another, and the corruptions that favour the other.

    Args:
        taken: by factor, the level to take.

    Yields:
        The level taken; the level that beats it under most corruptions; by corruption, its difference to the baseline
        minus that of the level taken. Only verdicts against the baseline count (the level taken is the baseline, and
        the other better; or the level taken is worse, and the other is the baseline) that stand when p, adjusted
        within a corruption, is adjusted over all corruptions too (Bonferroni).
    """
    for factor, baseline in answer.study.reading.baselines.items():
        if factor not in taken:
            continue
        found, level = differences(answer, factor), taken[factor]
        kinds = [kind for kind in corruptions(answer.study.scores_by_condition) if kind in found]
        won: dict[str, dict[str, float]] = {}
        for other in answer.study.factors[factor]:
            column, sign, verdict = (other, 1, "better") if level == baseline else (level, -1, "worse")
            if other != level and baseline in (level, other):
                against = {kind: found[kind][column] for kind in kinds if column in found[kind]}
                clear = {kind: c.p for kind, c in against.items() if c.verdict == verdict}
                stands = {kind for kind, p in clear.items() if p * len(kinds) <= 1 - answer.level}
                won[other] = {kind: sign * c.difference for kind, c in against.items() if kind in stands}
        best = max(won, key=lambda other: (len(won[other]), sum(won[other].values())), default="")
        if best and won[best]:
            yield level, best, won[best]


def _cell(comparison: Comparison | None) -> TableCell:
    """A difference without its interval: to a tenth of a point, or to whole points from ten on."""
    if comparison is None:
        return TableCell(UNKNOWN)
    digits = 0 if abs(comparison.difference) >= 0.1 else 1
    return TableCell(f"{MARKS[comparison.verdict]} {points(comparison.difference, digits)}")


def _scores(study: Study) -> dict[str, dict[str, Array]]:
    """By condition, the clean images first, the cells' Dice (seeds, groups).

    A corruption's three strengths stand also as one, their mean, by its name: of the cells that were scored under all
    three alike.
    """
    scores = dict(study.scores_by_condition)
    for kind in dict.fromkeys(match[1] for name in scores if (match := STRENGTH.fullmatch(name))):
        parts = [scores.get(f"{kind} {strength}", {}) for strength in STRENGTHS]
        means = {cell: _mean([part.get(cell) for part in parts]) for cell in parts[0]}
        if averaged := {cell: mean for cell, mean in means.items() if mean is not None}:
            scores[kind] = averaged
    return {name: scores[name] for name in sorted(scores, key=lambda name: (name != CLEAN, name))}


def _mean(parts: Sequence[Array | None]) -> Array | None:
    """The mean of arrays (seeds, groups); None unless all are there and of one shape."""
    known = [part for part in parts if part is not None]
    return np.mean(known, 0) if len(known) == len(parts) and len({part.shape for part in known}) == 1 else None
