"""A study's page, whole from its records: answer, table, picture, method, limits, commands, details.

`study_sections` says what stands on it; `study_page` writes it in Markdown, `analysis.report.html` in HTML.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.records.study_reading import STUDY_FILES
from analysis.records.study_results import Study
from analysis.text import notes, tables
from analysis.text.advice import advice
from analysis.text.image_kinds import kind_grids
from analysis.text.markdown import Grid, TableCell, escaped, grid_table
from analysis.text.robustness import CLEAN, STRENGTH, robustness_grids
from analysis.text.sentences import answer_sentences
from analysis.text.wording import GAP, phrases, score
from analysis.verdicts.answer import Answer

OTHER = {"en": ("zh", "中文"), "zh": ("en", "English")}
SUFFIX = {"en": "", "zh": ".zh"}  # of a picture's name
REDUCED = "384x256"  # the copy of Carvana that `data reduce` makes


@dataclass(frozen=True)
class Picture:
    """A picture by the name of its file, and its caption."""

    name: str
    caption: str


Block = Grid | Picture | str | list[str]  # a table, a picture, a paragraph in Markdown, a list in Markdown


@dataclass(frozen=True)
class Section:
    """A part of the page; `detail` stands under the details."""

    heading: str
    blocks: list[Block]
    detail: bool = True


def question_of(answer: Answer, language: str) -> str:
    """What the study asks; its name where it asks nothing."""
    return str(answer.study.reading.question.get(language) or answer.study.name)


def answer_paragraph(answer: Answer, language: str) -> str:
    """The answer in Markdown; its first sentence and what to take are in bold."""
    first, *others = answer_sentences(answer, language)
    bold = (first, *advice(answer, language))
    before = "" if language == "zh" else " "
    marked = [f"{before}**{escaped(text)}** " if text in bold else escaped(text) for text in (first, *others)]
    return GAP[language].join(marked).replace("  ", " ").strip()  # GitHub wants a space beside a bold 。


def answer_blocks(answer: Answer, language: str) -> list[Block]:
    """The matrix with caption and legend; of three factors a matrix each and the effects, which no margin shows.

    Nothing where nothing was measured.
    """
    if not answer.measured:
        return []
    effects = tables.effect_grids(answer, language) if len(answer.study.varied) > 2 else []
    note = [phrases("study", language).effects_note()] if effects else []
    matrices = [tables.caption(answer, language), *tables.matrices(answer, language)]
    return [*matrices, *note, *effects, tables.legend(answer, language)]


def study_sections(answer: Answer, ledger: pd.DataFrame, language: str) -> list[Section]:
    """Everything below the answer, its table and its picture; `ledger` says how often test sets have been used."""
    words = phrases("study", language)
    sections = [
        Section(words.method, [notes.method_lines(answer, language)], detail=False),
        Section(words.limits, [notes.limit_lines(answer, language)], detail=False),
        Section(words.commands, list(_commands(answer, language)), detail=False),
        *_details(answer, ledger, language),
    ]
    return [section for section in sections if any(section.blocks)]


def study_page(
    answer: Answer, ledger: pd.DataFrame, language: str, folder: str, drawn: Collection[str], design: str = ""
) -> str:
    """Write the page in Markdown.

    Args:
        answer: the study with its verdicts.
        ledger: how often test sets have been used.
        language: "en" or "zh".
        folder: the files of the study, seen from the page.
        drawn: the pictures among them, without their endings.
        design: where notes on the design stand, seen from the page.
    """
    words, (other, its_name) = phrases("study", language), OTHER[language]
    parts = [
        f"# {escaped(question_of(answer, language))}",
        f"`{answer.study.name}` · [{its_name}](../../{other}/studies/{answer.study.name}.md)",
        answer_paragraph(answer, language),
    ]
    blocks: list[Block] = [*answer_blocks(answer, language), Picture("hero", words.pictures["hero"])]
    sections = study_sections(answer, ledger, language)
    for number, section in enumerate(sections):
        if section.detail and not sections[number - 1].detail:
            blocks.append(f"## {words.details}")
        blocks += [f"{'###' if section.detail else '##'} {section.heading}", *section.blocks]
    parts += [text for block in blocks if (text := _markdown(block, language, folder, drawn))]
    return "\n\n".join([*parts, words.files(folder=folder, design=design)]) + "\n"


def file_of(picture: Picture, language: str, drawn: Collection[str]) -> str | None:
    """The file of a picture in a language, or else the English one; None where there is none."""
    return next((file for file in (picture.name + SUFFIX[language], picture.name) if file in drawn), None)


def blocks_table(blocks: list[Block], language: str) -> str:
    """Tables and paragraphs in Markdown."""
    return "\n\n".join(_markdown(block, language, "", ()) for block in blocks)


def _markdown(block: Block, language: str, folder: str, drawn: Collection[str]) -> str:
    if isinstance(block, Grid):
        return f"**{escaped(block.title)}**\n\n{grid_table(block)}" if block.title else grid_table(block)
    if isinstance(block, Picture):
        file = file_of(block, language, drawn)
        return f"![{block.caption}]({folder}/{file}.svg)" if file else ""
    return block if isinstance(block, str) else "\n".join(f"- {line}" for line in block)


def _details(answer: Answer, ledger: pd.DataFrame, language: str) -> Iterator[Section]:
    """Everything else that is known of a study."""
    words, study = phrases("study", language), answer.study
    pictures = {name: Picture(name, caption) for name, caption in words.pictures.items()}
    if answer.effects:
        effects = tables.effect_grids(answer, language) if len(study.varied) == 2 else []
        note = [words.effects_note()] if effects else []
        yield Section(words.effects, [*note, *effects, pictures["main-effects"], pictures["simple-effects"]])
    if grids := kind_grids(answer, language):
        yield Section(words.kinds, [*grids, words.kinds_note()])
    if grids := robustness_grids(answer, language):
        yield Section(words.robustness, [words.robustness_note(), *grids, pictures["robustness"]])
    if answer.measured:
        against = words.against_note(margin=answer.study.reading.cell_margin) if answer.against_baseline else ""
        gap = " " if language == "en" else ""
        explained = f"{words.scores_note(unit=answer.study.unit)}{gap}{against}".strip()
        yield Section(words.scores, [tables.score_grid(answer, language), explained, pictures["cost"]])
        training = [
            tables.training_grid(answer, language),
            words.training_note(rise=tables.any_rise(answer), speed=not study.half_size_share),
        ]
        yield Section(words.training, [*training, pictures["responses"], pictures["validation"]])
    if rows := notes.power_rows(answer, language):
        columns = ["", words.beforehand(source=(study.plan.get("variances") or {}).get("source", "")), words.observed]
        cells = [[TableCell(name), TableCell(score(before)), TableCell(score(seen))] for name, before, seen in rows]
        yield Section(words.power, [Grid(columns, cells)])
    yield Section(words.sensitivity, [[escaped(line) for line in notes.sensitivity_lines(answer, ledger, language)]])


def _commands(answer: Answer, language: str) -> Iterator[str]:
    """How the study is carried out and reported."""
    study, name, words = answer.study, answer.study.name, phrases("study", language)
    data = str(study.plan.get("settings", {}).get("data", ""))
    sizes = (study.plan.get("photographs") or {}).get("sizes", [])
    reduced = data == "carvana" and sizes == [REDUCED]
    own = study.reading.notes.get("data", {})
    folder = f"data/{data}{f'_{REDUCED}' if reduced else ''}" if data == "carvana" else own.get("dir", "")
    place = f" --data-dir {folder}" if folder else ""
    file = STUDY_FILES / f"{name}.toml"
    lines = [f"python run.py study {name}{place}"] if file.exists() else []
    lines += [f"python run.py robustness {name}{place}{flag}" for flag in _elsewhere(study)]
    yield "```bash\n" + "\n".join([*lines, f"python run.py report {name}"]) + "\n```"
    weights = re.findall(r'"(weights/[^"]+)"', file.read_text(encoding="utf-8")) if file.exists() else []
    if reduced:
        yield words.reduced(folder=folder)
    if source := own.get("source", {}).get(language):
        yield str(source)
    if weights:
        yield words.weights(files=sorted(set(weights)))


def _elsewhere(study: Study) -> list[str]:
    """The flags of each command that scored the study's networks under corruptions and on images from elsewhere."""
    kinds = {match[1] for name in study.robustness.condition.unique() if (match := STRENGTH.fullmatch(name))}
    others = sorted(set(study.robustness.condition) - {CLEAN} - {f"{kind} {n}" for kind in kinds for n in (1, 2, 3)})
    return [f" --elsewhere data/{other}" for other in others] or [""] * bool(len(study.robustness))
