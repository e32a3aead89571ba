"""Under which conditions a study's networks hold: the tables of what `run.py robustness` scored.

Every condition is compared separately, with intervals adjusted for the pairs of that condition alone: all of it is
exploratory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.records.study_results import Study
from analysis.statistics.comparisons import Comparison, compare_all
from analysis.statistics.effects import main_effect
from analysis.statistics.estimator import Array
from analysis.text.factor_sentences import OUTCOMES
from analysis.text.tables import TOP
from analysis.text.wording import GAP, interval, phrases
from analysis.verdicts.answer import Answer
from analysis.verdicts.simple_effects import JOIN

CLEAN, STRENGTHS, STRENGTH = "clean", (1, 2, 3), re.compile(r"(.+) ([123])")


@dataclass(frozen=True)
class Condition:
    """The cells under one condition: mean Dice, and those not separated from the best (none without a verdict)."""

    name: str
    dice: dict[str, float]
    top: frozenset[str]


def conditions(answer: Answer) -> list[Condition]:
    """Every condition, the clean images first, and each corruption averaged over its strengths."""
    judged = {row.cell for row in answer.judged}
    found = []
    for name, cells in _scores(answer.study).items():
        fair = {cell: scores for cell, scores in cells.items() if cell in judged}
        top = compare_all(fair, rope=answer.study.rope).top if len(fair) > 1 else ()
        means = {cell: float(scores.mean()) for cell, scores in cells.items()}
        found.append(Condition(name, means, frozenset(top)))
    return found


def corruptions(found: Sequence[Condition]) -> list[str]:
    """The corruptions that were scored at all strengths."""
    names = {condition.name for condition in found}
    return [name for name in sorted(names) if {f"{name} {strength}" for strength in STRENGTHS} <= names]


def condition_table(answer: Answer, language: str) -> pd.DataFrame | None:
    """Tabulate cells by conditions, as text; None where no corruption was scored at all strengths."""
    found = conditions(answer)
    if not corruptions(found):
        return None
    kinds, rows = [condition for condition in found if not STRENGTH.fullmatch(condition.name)], []
    for row in answer.measured:
        texts = [
            f"{kind.dice[row.cell]:.4f}{' ' + TOP if row.cell in kind.top else ''}" if row.cell in kind.dice else ""
            for kind in kinds
        ]
        rows.append([*row.levels.values(), *texts])
    return pd.DataFrame(rows, columns=[*answer.study.factors, *(_named(kind.name, language) for kind in kinds)])


def differences(answer: Answer, factor: str, baseline: str) -> dict[str, dict[str, Comparison]]:
    """Compare each other level of a factor with `baseline` under each kind of condition: its Dice less that level's.

    Averaged over the judged cells' combinations of all else that both have; intervals are adjusted for this condition's
    pairs of levels.
    """
    study, found = answer.study, dict[str, dict[str, Comparison]]()
    if not corruptions(conditions(answer)):
        return found
    others = [other for other in study.factors if other != factor]
    places = {
        row.cell: (row.levels[factor], JOIN.join(row.levels[other] for other in others))
        for row in answer.judged
        if all(row.levels.values())  # a cell of an earlier plan may lack a factor
    }
    for name, cells in _scores(study).items():
        if STRENGTH.fullmatch(name):
            continue
        shared = {where for cell, (level, where) in places.items() if cell in cells and level == baseline}
        at = {place: cells[cell] for cell, place in places.items() if cell in cells and place[1] in shared}
        try:
            compared = main_effect(at, 0, rope=study.rope).family.comparisons
        except ValueError:  # fewer than two levels, or none that have all else in common
            continue
        against = {a: comparison for (a, b), comparison in compared.items() if b == baseline}
        found[name] = {level: against[level] for level in study.factors[factor] if level in against}
    return found


def difference_table(answer: Answer, factor: str, baseline: str, language: str) -> pd.DataFrame | None:
    """Tabulate `differences`: a row for each other level, a column for each condition; None where there are none."""
    found = differences(answer, factor, baseline)
    rows = [
        [f"{level} − {baseline}", *(interval(column[level]) if level in column else "" for column in found.values())]
        for level in answer.study.factors[factor]
        if any(level in column for column in found.values())
    ]
    columns = [phrases("tables", language).difference, *(_named(name, language) for name in found)]
    return pd.DataFrame(rows, columns=columns) if rows else None


def difference_sentences(answer: Answer, factor: str, baseline: str, language: str) -> str:
    """State `differences` in a sentence for each level: its verdicts against `baseline`, and where they hold."""
    found, words, sentences = differences(answer, factor, baseline), phrases("study", language), []
    for level in answer.study.factors[factor]:
        under = {_named(name, language): column[level].verdict for name, column in found.items() if level in column}
        places = {outcome: [name for name, verdict in under.items() if verdict == outcome] for outcome in OUTCOMES}
        if under:
            places = {outcome: names for outcome, names in places.items() if names}
            sentences.append(words.robustness_verdict(level=level, baseline=baseline, places=places))
    return GAP[language].join(sentences)


def _named(condition: str, language: str) -> str:
    return phrases("tables", language).conditions.get(condition, condition)


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
