"""A study's section in the README: question, answer, picture, table, notes, and what holds under other conditions."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from analysis.text import robustness
from analysis.text.markdown import escaped, escaped_table
from analysis.text.notes import study_notes
from analysis.text.sentences import answer_sentences
from analysis.text.tables import cell_table, simple_effects_table
from analysis.text.wording import GAP, phrases
from analysis.verdicts.answer import Answer


def study_section(answer: Answer, ledger: pd.DataFrame, language: str, folder: str, drawn: Collection[str]) -> str:
    """Write the section in Markdown; `folder` holds the pictures that were `drawn`, seen from the README."""
    words = phrases("study", language)
    first, *others = (escaped(sentence) for sentence in answer_sentences(answer, language))
    question = answer.study.plan.get("question", {}).get(language, "")
    parts = [f"*{escaped(question)}*"] if question else []
    parts.append(f"**{first}** {GAP[language].join(others)}".strip())  # GitHub wants the space after a bold 。
    if "simple-effects" in drawn:
        parts.append(f"![{words.section_simple_effects}]({folder}/simple-effects.svg)")
    elif "intervals" in drawn:
        parts.append(f"![{words.pictures['intervals']}]({folder}/intervals.svg)")
    parts.append(escaped_table(cell_table(answer, language)))
    parts.append("\n".join(f"- {escaped(note)}" for note in study_notes(answer, ledger, language)))
    return "\n\n".join([*parts, *simple_effects(answer, language), *_robustness(answer, language, folder, drawn)])


def simple_effects(answer: Answer, language: str) -> list[str]:
    """The simple effects that the plan asks for: a sentence and a table for each factor."""
    parts = []
    for factor, effects in answer.simple.items():
        parts.append(escaped(phrases("study", language).simple_effects(factor=factor)))
        parts.append(escaped_table(simple_effects_table(effects, language)))
    return parts


def _robustness(answer: Answer, language: str, folder: str, drawn: Collection[str]) -> list[str]:
    """The scores under corruptions and elsewhere, and what they say of each factor that has a baseline."""
    parts, words = [], phrases("study", language)
    table = robustness.condition_table(answer, language)
    if table is not None:
        picture = [f"![{words.pictures['robustness']}]({folder}/robustness.svg)"] if "robustness" in drawn else []
        parts += [words.robustness(), *picture, escaped_table(table)]
    for factor, baseline in answer.study.plan.get("design", {}).get("baseline", {}).items():
        differences = robustness.difference_table(answer, factor, baseline, language)
        if differences is not None:
            parts.append(escaped(words.robustness_differences(factor=factor, baseline=baseline)))
            parts.append(escaped(robustness.difference_sentences(answer, factor, baseline, language)))
            parts.append(escaped_table(differences))
    return parts
