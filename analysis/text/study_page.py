"""A study's texts on the pages: its section in the README, and the long form of docs/studies.md."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from analysis.text import robustness
from analysis.text.markdown import escaped, escaped_table
from analysis.text.notes import study_notes
from analysis.text.sentences import answer_sentences
from analysis.text.tables import cell_table, main_effects_table, simple_effects_table
from analysis.text.wording import GAP, phrases, score
from analysis.verdicts.answer import Answer
from analysis.verdicts.observed_power import observe_power


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


PICTURES = ("main-effects", "simple-effects", "pairs", "responses", "validation", "angles", "worst-cars", "cost")


def study_long_form(answer: Answer, ledger: pd.DataFrame, language: str, folder: str, drawn: Collection[str]) -> str:
    """Write the study in Markdown; `folder` holds the pictures that were `drawn`, seen from the document."""
    words = phrases("study", language)
    parts = [
        escaped(GAP[language].join(answer_sentences(answer, language))),
        f"**{words.design_and_power}**",
        escaped_table(_power(answer, language)),
        f"**{words.convergence}**",
        escaped_table(_convergence(answer, language)),
    ]
    tuned = [cell for cell in answer.study.cells if cell.get("tuned") and cell.get("rate_low") is None]
    if tuned and answer.measured:
        parts.append(words.rates_without_interval())
    if answer.effects:
        parts += [words.main_effects(), escaped_table(main_effects_table(answer.effects, language))]
    parts += simple_effects(answer, language)
    parts.append("\n".join(f"- {escaped(note)}" for note in study_notes(answer, ledger, language)))
    parts += [f"![{words.pictures[name]}]({folder}/{name}.svg)" for name in PICTURES if name in drawn]
    return "\n\n".join(parts)


def _power(answer: Answer, language: str) -> pd.DataFrame:
    """What was expected beforehand next to what the study's own scores give."""
    words, plan, found = phrases("study", language), answer.study.plan, observe_power(answer)
    guessed, planned = plan.get("variances") or {}, plan.get("detectable") or {}
    main = planned.get("main") or {}
    rows: list[tuple[str, float | None, float | None]] = [
        (text, guessed.get(name), getattr(found.spread, name) if found else None) for name, text in words.spread.items()
    ]
    rows.append((words.detectable_pair, planned.get("pair"), found.pair if found else None))
    for name in answer.study.factors:
        rows.append((words.detectable_main(factor=name), main.get(name), found.main.get(name) if found else None))
    rows.append((words.chance_of_equivalence, planned.get("equivalent"), found.equivalent if found else None))
    columns = ["", words.beforehand(source=guessed.get("source", "")), words.observed]
    return pd.DataFrame([(name, score(before), score(seen)) for name, before, seen in rows], columns=columns)


def _convergence(answer: Answer, language: str) -> pd.DataFrame:
    """Each measured cell's rate, how far it had converged, and what other ways to score it would give."""
    words, done, curves = phrases("study", language), answer.study.finished, answer.study.curves.sort_values("epoch")
    plans = {cell["cell"]: cell for cell in answer.study.cells}
    rises, validation = done.groupby("cell").val_rise.mean(), done.groupby("cell").val_dice_last.mean()
    known = done[done.val_rise.notna()]
    risen = known.val_rise.gt(answer.study.rope).groupby(known.cell).agg(["sum", "size"])
    last_steps = curves.groupby(["cell", "seed"]).val_dice.agg(lambda dice: dice.diff().iloc[-1])
    last = last_steps.groupby("cell").agg(["mean", "count"])
    of_all_seeds = last["count"].eq(done.groupby("cell").size().reindex(last.index))
    steps = last["mean"].where(of_all_seeds)
    rows = []
    for row in answer.measured:
        low, high = (plans[row.cell].get(name) for name in ("rate_low", "rate_high"))
        ends = words.not_estimable() if low is None or high is None else f"{low:.2g}, {high:.2g}"
        rate = f"{row.rate:.3g}" + (f" [{ends}]" if plans[row.cell].get("tuned") else "")
        seeds = f" ({' / '.join(map(str, risen.loc[row.cell]))})" if row.cell in risen.index else ""
        scores = answer.scores[row.cell]
        deviation = scores.mean(1).std(ddof=1) if len(scores) > 1 else None
        without = answer.faultless and answer.faultless.dice.get(row.cell)
        numbers = (steps.get(row.cell), validation.get(row.cell), deviation, row.dice, row.dice_best, without)
        rows.append((row.label, rate, score(rises.get(row.cell)) + seeds, *map(score, numbers)))
    columns = words.convergence_columns
    return pd.DataFrame(rows, columns=[*columns[:2], words.rise(rope=answer.study.rope), *columns[2:]])
