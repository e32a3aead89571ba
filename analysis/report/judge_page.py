"""The page of `run.py judge --html`: sentences, table and interval picture of each data set in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.plots.differences import differences
from analysis.plots.style import style, svg
from analysis.text import judge_sentences as text
from analysis.verdicts.judge import Judgement, Question


def judge_page(title: str, judgements: Sequence[Judgement], question: Question) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("judge.html.j2").render(
        title=title,
        overall=text.overall(judgements) if len(judgements) > 1 else "",
        conditions=text.shared_conditions(judgements),
        datasets=[_dataset(one, question) for one in judgements],
    )


def _dataset(judgement: Judgement, question: Question) -> dict[str, Any]:
    places = max(text.digits(judgement), 4)
    rows = [
        (cell, f"{mean:.{places}f}", _spread(judgement.spreads[cell], places), judgement.seeds[cell],
         "yes" if cell in judgement.best_set else "")
        for cell, mean in judgement.means.items()
    ]  # fmt: skip
    with style():
        picture = svg(differences(judgement.pairs, question.rope))
    return {
        "name": judgement.name,
        "rows": rows,
        "summary": text.summary(judgement, question),
        "sentences": [text.sentence(pair, judgement, question) for pair in judgement.pairs],
        "picture": f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}",
    }


def _spread(value: float, places: int) -> str:
    return "–" if value != value else f"{value:.{places}f}"
