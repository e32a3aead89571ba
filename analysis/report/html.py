"""One self-contained page of a study: answer, tables that sort, every pair, every run, pictures, protocol, environment."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.statistics.comparisons import Family
from analysis.text import robustness, tables
from analysis.text.notes import notes
from analysis.text.sentences import sentences
from analysis.text.wording import LANGUAGES
from analysis.verdicts.answer import Answer

CAPTIONS = {
    "intervals": "Every cell's Dice on the test cars with its 95 % interval", "main-effects": "Main effects", "simple-effects": "What a factor changes within each combination of the others",
    "heatmap": "Dice of each combination", "pairs": "Differences between cells and the band of practical equivalence",
    "cost": "Dice against cost", "responses": "Validation Dice against the learning rate: trials, curve and chosen rate",
    "losses": "Training and validation loss", "validation": "Validation Dice; in the grey last fifth it must no longer rise",
    "angles": "Dice by viewing angle", "worst-cars": "The worst cars",
    "robustness": "Dice against the strength of each corruption, and on photographs from elsewhere",
    "strip": "Photographs, ground truth, each model, and the errors at the boundary",
}  # fmt: skip
RUNS = ("cell", "seed", "key", "state", "reason", "rate", "dice", "iou", "boundary_iou", "hd95_median", "hd95_failures", "dice_best",
        "best_epoch", "val_rise", "training_seconds", "images_per_second", "peak_memory_gb", "device", "git_commit")  # fmt: skip


def page(answer: Answer, ledger: pd.DataFrame, pictures: dict[str, str], strip: bytes | None = None) -> str:
    """The page as HTML; `pictures` are SVG by name, `strip` a PNG. Whatever names hold is escaped."""
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.j2")
    shown = [(name, CAPTIONS[name], _uri(text.encode(), "image/svg+xml")) for name, text in pictures.items()]
    if strip is not None:
        shown.append(("strip", CAPTIONS["strip"], _uri(strip, "image/png")))
    plan = answer.study.plan
    return template.render(
        name=answer.study.name, question=plan.get("question", {}),
        answers={language: sentences(answer, language) for language in LANGUAGES},
        notes={language: notes(answer, ledger, language) for language in LANGUAGES},
        tables=list(_tables(answer)), pictures=shown, protocol=_protocol(plan), environment=plan.get("environment", {}),
    )  # fmt: skip


def _tables(answer: Answer) -> list[dict[str, Any]]:
    """Each table: its title, headings and rows of (text, what it sorts by)."""
    found = [_table("Cells", tables.table(answer, "en"))]
    for effect in answer.effects:
        kind = ("confirmatory" if effect.as_planned else "planned as confirmatory") if effect.named else "exploratory"
        title = f"Main effect of {effect.factor} ({kind})"
        found.append(_table(title, _differences(effect.effect.family, {}), effect.interaction.sentence))
    for factor, parts in answer.simple.items():
        title = f"{factor} within each combination of the other factors"
        found.append(_table(title, tables.simple_effects(parts, "en")))
    if answer.family is not None:
        labels = {row.cell: row.label for row in answer.rows}
        kind = "confirmatory" if answer.pairs_named else "exploratory"
        found.append(_table(f"Every pair of cells ({kind})", _differences(answer.family, labels)))
    others = robustness.table(answer, "en")
    if others is not None:
        found.append(_table("Corrupted photographs and other places (exploratory)", others))
    runs = answer.study.runs[list(RUNS)]
    return [*found, _table("Runs", runs.map(_text))]


def _differences(family: Family[str], labels: dict[str, str]) -> pd.DataFrame:
    """Each pair once, the better mean first."""
    once = [
        (pair, c)
        for pair, c in family.comparisons.items()
        if c.difference > 0 or (c.difference == 0 and pair[0] < pair[1])
    ]
    rows = [
        (labels.get(a, a), labels.get(b, b), f"{c.difference:+.5f}", f"{c.low:+.5f}", f"{c.high:+.5f}", f"{c.p:.4f}", c.verdict,
         "yes" if c.exceeds_rope else "no")
        for (a, b), c in sorted(once, key=lambda one: -one[1].difference)
    ]  # fmt: skip
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
