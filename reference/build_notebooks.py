"""Write the notebooks from their sources, run from top to bottom: `make notebook`.

A source is a Python script in cells, as editors know them (`# %%`), so that code stands there once and prose twice:

    # %% [markdown] en      prose, for the English notebook only
    # %% [markdown] zh      prose, for the Chinese notebook only
    # %%                    code, for both
    # %% fold               code that is folded away in JupyterLab, Colab and Kaggle

A code line `# !command` becomes `!command`, for the shell. lesson.py is run once, and both languages get its outputs.
Times, counters and the interpreter's version are left out: a file only changes where an output does. gpu_study.py is
not run, since it needs a GPU for hours; tests/people/test_notebook.py tries it with a tiny setting.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
LANGUAGES = {"en": "", "zh": ".zh-CN"}  # the ending of a notebook's name
LONGEST = 3600  # seconds a cell may take, on a busy machine
CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
BREAK = re.compile(  # within a Chinese paragraph, where it would be shown as a space
    "(?<=[\u4e00-\u9fff])\n(?=[\u4e00-\u9fff])|(?<=[\u3000-\u303f\uff00-\uffef])\n(?=[^\n#*>$<|0-9-])"
)
FOLDED = {
    "jupyter": {"source_hidden": True},
    "cellView": "form",
    "_kg_hide-input": True,
}


def notebook_path(name: str, language: str) -> Path:
    """The file of a notebook in a language."""
    return HERE / f"{name}{LANGUAGES[language]}.ipynb"


def cells(source: str, language: str) -> list[nbformat.NotebookNode]:
    """The cells of a source that a language has; prose that names no language is in both."""
    _, *parts = CELL.split(source)
    made = []
    for header, body in zip(parts[::2], parts[1::2]):
        words = header.split()
        if words[:1] == ["[markdown]"]:
            if words[1:] in ([], [language]):
                prose = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
                made.append(nbformat.v4.new_markdown_cell(BREAK.sub("", prose)))
        else:
            code = re.sub(r"^# !", "!", body.strip(), flags=re.MULTILINE)
            folded = copy.deepcopy(FOLDED) if "fold" in words else {}
            made.append(nbformat.v4.new_code_cell(code, metadata=folded))
    for number, cell in enumerate(made):
        cell.id = f"cell-{number}"
    return made


def notebook(source: Path, language: str) -> nbformat.NotebookNode:
    """The notebook of a source in a language, without outputs."""
    book = nbformat.v4.new_notebook(
        cells=cells(source.read_text(encoding="utf-8"), language)
    )
    book.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    book.metadata["language_info"] = {"name": "python"}
    return book


def executed(book: nbformat.NotebookNode, folder: Path = HERE) -> nbformat.NotebookNode:
    """Run `book` in `folder` from a clean start. Raises CellExecutionError if a cell fails."""
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(
        book,
        timeout=LONGEST,
        record_timing=False,
        coalesce_streams=True,
        resources=where,
    ).execute()
    book.metadata["language_info"] = {"name": "python"}
    return book


def with_outputs(
    book: nbformat.NotebookNode, run: nbformat.NotebookNode
) -> nbformat.NotebookNode:
    """`book` with the outputs of `run`, which has the same code."""
    pairs = zip(
        *(
            [cell for cell in one.cells if cell.cell_type == "code"]
            for one in (book, run)
        )
    )
    for cell, ran in pairs:
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return book


def main() -> None:
    """Run the lesson and write all notebooks."""
    ran = executed(notebook(HERE / "lesson.py", "en"))
    for language in LANGUAGES:
        lesson = with_outputs(notebook(HERE / "lesson.py", language), ran)
        nbformat.write(lesson, notebook_path("u-net-pytorch", language))
        study = notebook(HERE / "gpu_study.py", language)
        nbformat.write(study, notebook_path("gpu-study", language))


if __name__ == "__main__":
    main()
