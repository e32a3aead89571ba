"""The tables of a study as text in English or Chinese; Markdown, LaTeX and HTML show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from analysis.text.sentences import verdict
from analysis.text.wording import interval, phrases, score
from analysis.verdicts.answer import Answer, Effect, Row
from analysis.verdicts.simple_effects import SCORES, SimpleEffect

TOP = "★"
FORMATS: dict[str, Callable[[float], str]] = {
    "parameters": lambda n: f"{n / 1e6:.2f} M" if n >= 1e5 else f"{n:.0f}",
    "gmacs": lambda n: f"{n:.3g}",
    "training_seconds": lambda n: f"{n:.0f}" if n >= 10 else f"{n:.1f}",
    "images_per_second": lambda n: f"{n:.0f}" if n >= 10 else f"{n:.1f}",
    "peak_memory_gb": lambda n: f"{n:.2f}",
}


def cell_table(answer: Answer, language: str) -> pd.DataFrame:
    """A row for each cell, the highest Dice first and what has not been measured last; all values are text.

    Where nothing has been measured at all, only the columns that say so are left.
    """
    columns = phrases("tables", language).columns
    shown = list(columns)[1:] if len(answer.study.finished) else ["verdict", "seeds"]
    names = [*(["mark"] if len(answer.study.finished) else []), *answer.study.factors, *shown]
    rows = [row_texts(row, language) for row in answer.rows]
    frame = pd.DataFrame([[row.get(f"factor {n}", row.get(n, "")) for n in names] for row in rows], columns=names)
    frame.columns = pd.Index([columns.get(name, name) for name in names])
    return frame


def row_texts(row: Row, language: str) -> dict[str, str]:
    """One cell's texts by column; a factor's column is called `factor NAME`."""
    words = phrases("tables", language)
    missing = words.missing()
    texts = {"mark": TOP if row.top else "", **{f"factor {name}": level for name, level in row.levels.items()}}
    texts["rate"] = f"{row.rate:.3g} ({row.trials})" if _known(row.rate) else missing
    texts["dice"] = _dice(row, language) if _known(row.dice) else missing
    for name in ("iou", "boundary_iou", "dice_best"):
        texts[name] = score(getattr(row, name)) if _known(row.dice) else missing
    texts["hd95"] = f"{row.hd95:.1f} ({row.failures})" if _known(row.hd95) else missing
    texts["verdict"] = verdict(row, language)
    texts |= {name: FORMATS[name](value) if _known(value) else missing for name, value in row.cost.items()}
    seeds, planned = row.eligibility.seeds, row.eligibility.planned
    texts["seeds"] = str(seeds) if seeds == planned else words.seeds(finished=seeds, planned=planned)
    first, more = row.keys[:1], len(row.keys) - 1
    texts["key"] = "".join(key[:8] for key in first) + (f" +{more}" if more > 0 else "") or missing
    texts["commit"] = ", ".join(commit[:7] + ("+" if commit.endswith("+") else "") for commit in row.commits) or missing
    return texts


def simple_effects_table(parts: Sequence[SimpleEffect], language: str) -> pd.DataFrame:
    """A row for each simple effect of a factor; all values are text."""
    rows = [(part.difference, combination(part, language), *_outcome(part, language)) for part in parts]
    return pd.DataFrame(rows, columns=phrases("tables", language).simple_effects)


def main_effects_table(effects: Sequence[Effect], language: str) -> pd.DataFrame:
    """List every two levels of every factor over the combinations in which both are judged."""
    words = phrases("tables", language)
    rows = []
    for effect in effects:
        for (a, b), others in effect.effect.over.items():
            found = effect.effect.family.comparisons[b, a]
            counts = f"{len(others)} / {effect.planned}"
            rows.append((effect.factor, f"{b} − {a}", counts, words.outcomes[found.verdict], interval(found)))
    return pd.DataFrame(rows, columns=words.main_effects)


def combination(part: SimpleEffect, language: str) -> str:
    """At which levels a simple effect holds the other factors, in words."""
    judged, planned = part.of
    return phrases("tables", language).average(judged=judged, planned=planned) if part.where is None else part.where


def _outcome(part: SimpleEffect, language: str) -> tuple[str, ...]:
    """A simple effect's verdict and its differences by score."""
    words = phrases("tables", language)
    if part.found:
        return words.outcomes[part.found["dice"].verdict], *(interval(part.found[name]) for name in SCORES)
    return words.doubtful(doubts=part.doubts), *(f"{part.values[name]:+.4f}" for name in SCORES)


def _dice(row: Row, language: str) -> str:
    if row.high == float("inf"):
        return phrases("tables", language).no_interval(dice=row.dice)
    return f"{row.dice:.4f} [{row.low:.4f}, {row.high:.4f}]"


def _known(value: float) -> bool:
    return value == value
