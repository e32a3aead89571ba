"""The table of a study for a paper that loads booktabs, its answer as the caption."""

from __future__ import annotations

import pandas as pd

from analysis.text.sentences import answer_sentences
from analysis.text.tables import TOP, cell_table
from analysis.verdicts.answer import Answer


def latex_table(answer: Answer) -> str:
    """The table; whatever names hold is escaped by pandas."""
    plain = cell_table(answer, "en").map(lambda text: " ".join(str(text).split()).replace(TOP, "*"))
    caption, label = _escaped(" ".join(answer_sentences(answer, "en"))), f"tab:{answer.study.name}"
    return plain.to_latex(index=False, escape=True, caption=caption, label=label, position="t")


def _escaped(text: str) -> str:
    """`text` escaped as pandas escapes the cells."""
    styled = pd.DataFrame([text]).style.format(escape="latex").hide(axis=0).hide(axis=1)
    return str(styled.to_latex().split("\n")[1]).rstrip(" \\")
