"""One self-contained HTML page of a study: answer, sortable tables, every pair, every run, pictures, protocol,
environment.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.statistics.comparisons import Family
from analysis.text import robustness, tables
from analysis.text.factor_sentences import interaction_sentence
from analysis.text.notes import study_notes
from analysis.text.sentences import answer_sentences
from analysis.text.wording import LANGUAGES
from analysis.verdicts.answer import Answer

CLAIMS = {"confirmatory": "confirmatory", "incomplete": "planned as confirmatory", "exploratory": "exploratory"}
RUNS = (
    "cell", "seed", "key", "state", "reason", "rate", "dice", "iou", "boundary_iou", "hd95_median", "hd95_failures",
    "dice_best", "best_epoch", "val_rise", "training_seconds", "images_per_second", "peak_memory_gb", "device",
    "git_commit",
)  # fmt: skip


def html_page(answer: Answer, ledger: pd.DataFrame, pictures: dict[str, str], strip: bytes | None = None) -> str:
    """Write the page as HTML; `pictures` are SVG by name, `strip` a PNG. Whatever names hold is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [(name, _uri(text.encode(), "image/svg+xml")) for name, text in pictures.items()]
    if strip is not None:
        shown.append(("strip", _uri(strip, "image/png")))
    plan = answer.study.plan
    return environment.get_template("page.html.j2").render(
        name=answer.study.name,
        question=plan.get("question", {}),
        answers={language: answer_sentences(answer, language) for language in LANGUAGES},
        notes={language: study_notes(answer, ledger, language) for language in LANGUAGES},
        tables=list(_tables(answer)),
        pictures=shown,
        protocol=_protocol(plan),
        environment=plan.get("environment", {}),
    )


def _tables(answer: Answer) -> Iterator[dict[str, Any]]:
    """Each table: its title, headings and rows of (text, what it sorts by)."""
    yield _table("Cells", tables.cell_table(answer, "en"))
    for effect in answer.effects:
        title = f"Main effect of {effect.factor} ({CLAIMS[effect.claim]})"
        yield _table(title, _differences(effect.effect.family, {}), interaction_sentence(effect.interaction, "en"))
    for factor, parts in answer.simple.items():
        yield _table(f"{factor} within each combination of the other factors", tables.simple_effects_table(parts, "en"))
    if answer.family is not None:
        kind = "confirmatory" if answer.pairs_named else "exploratory"
        yield _table(f"Every pair of cells ({kind})", _differences(answer.family, answer.labels))
    conditions = robustness.condition_table(answer, "en")
    if conditions is not None:
        yield _table("Corrupted photographs and other places (exploratory)", conditions)
    yield _table("Runs", answer.study.runs[list(RUNS)].map(_text))


def _differences(family: Family[str], labels: dict[str, str]) -> pd.DataFrame:
    """Each pair once, the better mean first."""
    rows = []
    for (a, b), comparison in family.ranked():
        ends = (f"{value:+.5f}" for value in (comparison.difference, comparison.low, comparison.high))
        beyond = "yes" if comparison.exceeds_rope else "no"
        rows.append((labels.get(a, a), labels.get(b, b), *ends, f"{comparison.p:.4f}", comparison.verdict, beyond))
    return pd.DataFrame(rows, columns=["a", "b", "a − b", "low", "high", "p", "a is … b", "beyond the rope"])


def _table(title: str, frame: pd.DataFrame, note: str = "") -> dict[str, Any]:
    rows = [[(text, _sorts_by(text)) for text in row] for row in frame.itertuples(index=False)]
    return {"title": title, "headings": list(frame.columns), "rows": rows, "note": note}


def _sorts_by(text: str) -> str:
    """The number that a text begins with, if there is one; millions are counted out."""
    match = re.match(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)( M\b)?", text)
    if not match or re.match(r"[0-9a-f]{7,}", text):
        return text
    return str(float(match[1]) * (1e6 if match[2] else 1))


def _text(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _protocol(plan: dict[str, Any]) -> dict[str, str]:
    """What was planned, as text: settings, design, tuning, variances and what could be detected."""
    names = ("settings", "factors", "design", "tuning", "variances", "detectable", "protocol", "data_fingerprint")
    return {name: json.dumps(plan[name], ensure_ascii=False) for name in names if plan.get(name) is not None}


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
