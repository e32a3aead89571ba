"""Scores by kind of image: how every level does on each kind that the study file tells apart."""

from __future__ import annotations

import re

import pandas as pd

from analysis.text.markdown import Grid, TableCell
from analysis.text.tables import UNKNOWN
from analysis.text.wording import factor_name, level_name, phrases
from analysis.verdicts.answer import Answer


def kind_grids(answer: Answer, language: str) -> list[Grid]:
    """A row for each level of each factor, averaged over the others, and a column for each kind of test image.

    The first row says what a perfect mask would score at the network's input size. Nothing where the study file tells
    no kinds apart, or nothing was measured.
    """
    study, words = answer.study, phrases("study", language)
    if not study.reading.kinds or not answer.measured:
        return []
    images = pd.Series(study.scores.image.astype(str).unique())
    kind_of = {image: kind for image in images if (kind := _kind(study.reading.kinds, image))}
    kinds = sorted(set(kind_of.values()))
    if not kinds:
        return []
    count = {kind: sum(of == kind for of in kind_of.values()) for kind in kinds}
    headings = ["", *(words.kind(name=level_name(study, kind, language), images=count[kind]) for kind in kinds)]
    ceilings = study.ceilings.assign(kind=study.ceilings.image.map(kind_of)).groupby("kind").ceiling.mean()
    rows = [[TableCell(words.perfect_mask()), *(TableCell(_percent(ceilings.get(kind))) for kind in kinds)]]
    means = _means(answer, kind_of)
    for factor in study.varied:
        for level in study.factors[factor]:
            cells = [cell.name for cell in answer.judged if cell.levels[factor] == level]
            scores = means.reindex(index=cells, columns=kinds).mean()
            colon = "：" if language == "zh" else ": "
            name = f"{factor_name(study, factor, language)}{colon}{level_name(study, level, language)}"
            rows.append([TableCell(name), *(TableCell(_percent(scores[kind])) for kind in kinds)])
    return [Grid(headings, rows)]


def _percent(dice: float | None) -> str:
    return UNKNOWN if dice is None or dice != dice else f"{100 * dice:.2f}"


def _kind(pattern: str, image: str) -> str | None:
    found = re.search(pattern, image)
    return found[1] if found else None


def _means(answer: Answer, kind_of: dict[str, str]) -> pd.DataFrame:
    """Mean Dice of each cell (rows) on each kind (columns): over seeds, then over images."""
    scores = answer.study.scores
    table = scores.assign(cell=scores.cell.astype(str), kind=scores.image.astype(str).map(kind_of))
    return table.groupby(["cell", "kind"], observed=True).dice.mean().unstack()
