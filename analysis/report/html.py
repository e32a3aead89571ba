"""Self-contained HTML pages: of a study (answer, table and picture first, the rest folded), and of `run.py judge`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from analysis.plots.comparison import differences
from analysis.plots.style import style, svg
from analysis.text import judge_sentences
from analysis.text.markdown import Grid, TableCell
from analysis.text.sentences import answer_sentences
from analysis.text.study_page import Block, Picture, answer_blocks, file_of, question_of, study_sections
from analysis.text.wording import GAP, LANGUAGES, phrases
from analysis.verdicts.answer import Answer
from analysis.verdicts.judge import Judgement, Question

RUNS = (
    "cell", "seed", "state", "reason", "rate", "dice", "iou", "boundary_iou", "hd95_median", "hd95_failures",
    "dice_best", "best_epoch", "val_rise", "training_seconds", "peak_memory_gb", "device", "key", "git_commit",
)  # fmt: skip
INLINE = (
    (r"\[([^\]]+)\]\((https://[^)\s]+)\)", r'<a href="\2">\1</a>'),
    (r"\[([^\]]+)\]\([^)\s]+\)", r"\1"),  # a file next to the page has no place here
    (r"\*\*(.+?)\*\*", r"<b>\1</b>"),
    (r"`([^`]+)`", r"<code>\1</code>"),
    (r"\\([\\`*_\[\]|~#])", r"\1"),
)  # of Markdown, what paragraphs hold


def html_page(answer: Answer, ledger: pd.DataFrame, pictures: dict[str, str], strip: bytes | None = None) -> str:
    """Write the page; `pictures` are SVG by file name, `strip` a PNG. Whatever names hold is escaped."""
    images = {name: _uri(text.encode(), "image/svg+xml") for name, text in pictures.items()}
    if strip is not None:
        images["strip"] = _uri(strip, "image/png")
    plan = answer.study.plan
    return _template("page.html.j2").render(
        name=answer.study.name,
        versions=[_version(answer, ledger, language, images) for language in LANGUAGES],
        runs=_table(_run_grid(answer)),
        plan={name: json.dumps(plan[name], ensure_ascii=False) for name in sorted(plan) if name != "cells"},
    )


def judge_page(title: str, judgements: Sequence[Judgement], question: Question) -> str:
    """Write the page of `run.py judge --html`: sentences, table and interval picture of each data set."""
    return _template("judge.html.j2").render(
        title=title,
        overall=judge_sentences.overall(judgements) if len(judgements) > 1 else "",
        conditions=judge_sentences.shared_conditions(judgements),
        datasets=[_dataset(one, question) for one in judgements],
    )


def _dataset(judgement: Judgement, question: Question) -> dict[str, Any]:
    headings, rows = judge_sentences.score_table(judgement)
    with style():
        picture = svg(differences(judgement.pairs, question.rope))
    return {
        "name": judgement.name,
        "headings": headings,
        "rows": rows,
        "summary": judge_sentences.summary(judgement, question),
        "sentences": judge_sentences.sentences(judgement, question),
        "picture": _uri(picture.encode(), "image/svg+xml"),
    }


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _version(answer: Answer, ledger: pd.DataFrame, language: str, images: dict[str, str]) -> dict[str, Any]:
    """The page in one language."""
    words = phrases("study", language)
    first, *others = answer_sentences(answer, language)
    hero = Picture("hero", words.pictures["hero"])
    strip = [Picture("strip", words.strip)] if "strip" in images else []

    def html(block: Block) -> Markup:
        return _html(block, language, images)

    return {
        "language": language,
        "question": question_of(answer, language),
        "first": first,
        "others": GAP[language].join(others),
        "top": [html(block) for block in [*answer_blocks(answer, language), hero, *strip]],
        "sections": [
            {"heading": section.heading, "blocks": [html(block) for block in section.blocks], "open": number == 0}
            for number, section in enumerate(study_sections(answer, ledger, language))
        ],
        "words": words,
    }


def _html(block: Block, language: str, images: dict[str, str]) -> Markup:
    """A block of the page."""
    if isinstance(block, Grid):
        return _table(block)
    if isinstance(block, Picture):
        file = file_of(block, language, images)
        caption = escape(block.caption)
        if file is None:
            return Markup("")
        return Markup(f'<figure><img alt="{caption}" src="{images[file]}"><figcaption>{caption}</figcaption></figure>')
    if isinstance(block, list):
        return Markup("<ul>" + "".join(f"<li>{_inline(line)}</li>" for line in block) + "</ul>")
    if block.startswith("```"):
        return Markup(f"<pre>{escape(block.split(chr(10), 1)[1].removesuffix('```').strip())}</pre>")
    return Markup(f"<p>{_inline(block)}</p>")


def _table(grid: Grid) -> Markup:
    """A sortable table; each cell says what it sorts by."""
    heads = "".join(
        f'<th scope="col"><button type="button">{escape(heading)}</button></th>' for heading in grid.headings
    )
    rows = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in grid.rows)
    title = f"<h3>{escape(grid.title)}</h3>" if grid.title else ""
    return Markup(f'{title}<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>')


def _cell(cell: TableCell) -> str:
    head = f"<b>{escape(cell.head)}</b>" if cell.bold else escape(cell.head)
    tail = f" <span>{escape(cell.tail)}</span>" if cell.tail else ""
    below = f"<br><small>{escape(cell.below)}</small>" if cell.below else ""
    return f'<td data-key="{escape(_sorts_by(cell.head))}">{head}{tail}{below}</td>'


def _sorts_by(text: str) -> str:
    """The number that a text begins with (after a mark), if there is one; millions are counted out."""
    match = re.match(r"[▲▼=≈(]?\s*([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)( M\b)?", text.replace("−", "-"))
    if not match or re.match(r"[0-9a-f]{7,}", text):
        return text
    return str(float(match[1].replace(",", "")) * (1e6 if match[2] else 1))


def _run_grid(answer: Answer) -> Grid:
    """Every planned run."""
    runs = answer.study.runs[list(RUNS)]
    return Grid(list(RUNS), [[TableCell(_text(value)) for value in row] for row in runs.itertuples(index=False)])


def _text(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _inline(text: str) -> str:
    text = escape(unescape(text), quote=False)
    for pattern, replacement in INLINE:
        text = re.sub(pattern, replacement, text)
    return text


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
