"""A study's page in Markdown, whole from its records: answer, table, picture, method, limits, commands, details."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pandas as pd

from analysis.records.study_reading import STUDY_FILES
from analysis.text import notes, tables
from analysis.text.markdown import escaped, grid_table, table_of
from analysis.text.robustness import robustness_grids
from analysis.text.sentences import answer_sentences
from analysis.text.tables import Grid
from analysis.text.wording import GAP, Phrases, phrases, score
from analysis.verdicts.answer import Answer

OTHER = {"en": ("zh", "中文"), "zh": ("en", "English")}
SUFFIX = {"en": "", "zh": ".zh"}  # of a picture's name


def question_of(answer: Answer, language: str) -> str:
    """What the study asks; its name where it asks nothing."""
    return str(answer.study.plan.get("question", {}).get(language) or answer.study.name)


def answer_paragraph(answer: Answer, language: str) -> str:
    """The answer in Markdown, its first sentence in bold."""
    first, *others = (escaped(sentence) for sentence in answer_sentences(answer, language))
    return f"**{first}** {GAP[language].join(others)}".strip()  # GitHub wants the space after a bold 。


def answer_table(answer: Answer, language: str) -> str:
    """The matrix (or matrices) with caption and legend, in Markdown."""
    parts = [tables.caption(answer, language)]
    parts += _titled(tables.matrices(answer, language))
    return "\n\n".join([*parts, tables.legend(answer, language)])


def study_page(answer: Answer, ledger: pd.DataFrame, language: str, folder: str, drawn: Collection[str]) -> str:
    """Write the page; `folder` holds the files of the study, among them the pictures `drawn`, seen from the page."""
    study, words = answer.study, phrases("study", language)
    other, its_name = OTHER[language]
    page = Page(words, language, folder, drawn)
    parts = [
        f"# {escaped(question_of(answer, language))}",
        f"`{study.name}` · [{its_name}](../../{other}/studies/{study.name}.md)",
        answer_paragraph(answer, language),
        answer_table(answer, language),
        *page.picture("hero"),
        f"## {words.method}",
        _list(notes.method_lines(answer, language)),
        f"## {words.limits}",
        _list(notes.limit_lines(answer, language)),
        f"## {words.commands}",
        _commands(answer, words),
        f"## {words.details}",
        *_details(answer, ledger, language, page),
        words.files(folder=folder),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


class Page:
    """Where a page finds its pictures."""

    def __init__(self, words: Phrases, language: str, folder: str, drawn: Collection[str]) -> None:
        self.words, self.language, self.folder, self.drawn = words, language, folder, drawn

    def picture(self, name: str) -> list[str]:
        """A picture of the page's language, or else the English one; nothing where none was drawn."""
        for file in (name + SUFFIX[self.language], name):
            if file in self.drawn:
                return [f"![{self.words.pictures[name]}]({self.folder}/{file}.svg)"]
        return []


def _details(answer: Answer, ledger: pd.DataFrame, language: str, page: Page) -> Iterator[str]:
    """Everything else that is known of a study."""
    words, study = page.words, answer.study
    if answer.effects:
        effects = tables.effect_grids(answer, language)
        yield f"### {words.effects}"
        yield from [words.effects_note(), *_titled(effects)] if effects else []
        yield from [*page.picture("main-effects"), *page.picture("simple-effects")]
    if grids := robustness_grids(answer, language):
        yield f"### {words.robustness}"
        yield from [words.robustness_note(), *(grid_table(grid) for grid in grids), *page.picture("robustness")]
    yield f"### {words.scores}"
    yield grid_table(tables.score_grid(answer, language))
    if len(study.finished):
        yield words.scores_note()
        yield from page.picture("cost")
    yield f"### {words.training}"
    yield grid_table(tables.training_grid(answer, language))
    yield words.training_note()
    yield from [*page.picture("responses"), *page.picture("validation")]
    if rows := notes.power_rows(answer, language):
        yield f"### {words.power}"
        columns = ["", words.beforehand(source=(study.plan.get("variances") or {}).get("source", "")), words.observed]
        yield table_of(columns, [(name, score(before), score(seen)) for name, before, seen in rows], left=1)
    if lines := notes.sensitivity_lines(answer, ledger, language):
        yield f"### {words.sensitivity}"
        yield _list([escaped(line) for line in lines])
    if lines := study.reading.notes.get("design", {}).get(language, []):
        yield f"### {words.design}"
        yield _list(lines)


def _titled(grids: list[Grid]) -> list[str]:
    """Tables, each under its title where it has one."""
    return [f"**{escaped(grid.title)}**\n\n{grid_table(grid)}" if grid.title else grid_table(grid) for grid in grids]


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _commands(answer: Answer, words: Phrases) -> str:
    """How the study is carried out and reported."""
    study, name = answer.study, answer.study.name
    data = str(study.plan.get("settings", {}).get("data", ""))
    place = f" --data-dir data/{data}" if data == "carvana" else ""
    lines = [f"python run.py study {name}{place}"] if (STUDY_FILES / f"{name}.toml").exists() else []
    if len(study.robustness):
        corrupted = ("clean", "blur", "noise", "jpeg", "brightness", "contrast")
        others = sorted({c for c in set(study.robustness.condition) if c.split()[0] not in corrupted})
        elsewhere = f" --elsewhere data/{others[0]}" if others else ""
        lines.append(f"python run.py robustness {name}{place}{elsewhere}")
    block = "```bash\n" + "\n".join([*lines, f"python run.py report {name}"]) + "\n```"
    files = sorted({file for cell in study.cells if (file := _weights(cell.get("settings", {})))})
    return "\n\n".join([block, *([words.weights(files=files)] if files else [])])


def _weights(settings: dict[str, object]) -> str:
    """The file of weights that a cell starts from, if its settings name one."""
    options = settings.get("model_kwargs")
    value = options.get("pretrained") if isinstance(options, dict) else None
    return value if isinstance(value, str) and value.startswith("weights/") else ""
