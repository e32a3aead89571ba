"""The rendered parts of the README and of docs/studies.md, between markers, never typed: choices, the demo, and every
study.

python run.py report           write them
python run.py report --check   exit 1 where a page says something else

A study stands between `<!-- study NAME en -->` and `<!-- /study NAME en -->`, and in Chinese between the same with
`zh`; its long form, in docs/studies.md next to the README, between the same with `long` in place of `study`.

What the demo prints is kept in docs/demo.txt; to renew it: rm -r outputs data/synthetic; make -s demo > docs/demo.txt
What the steps of the walk print is kept in docs/walk; to renew it: make walk
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from analysis.records import committed, test_set_ledger
from analysis.records.places import README, RESULTS
from analysis.report.latex import latex_table
from analysis.text.markdown import render, table_of
from analysis.text.study_page import study_long_form, study_section
from analysis.text.wording import LANGUAGES, phrases
from analysis.verdicts.answer import Answer, answer_study
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, InputError

FORMS = {"study": study_section, "long": study_long_form}
TABLES = {"--model": MODELS, "--loss": LOSSES, "--augment": AUGMENTATIONS, "--data": DATASETS}


def read_page(path: Path) -> str:
    """Read a page. Raises InputError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"The page {path} cannot be read ({reason}). Name one with --readme, or make an empty file."
        ) from None


def study_pages(readme: Path) -> list[Path]:
    """The pages that show studies: the README and, where there is one next to it, docs/studies.md."""
    return [path for path in (readme, readme.parent / "docs" / "studies.md") if path == readme or path.exists()]


def studies(text: str, form: str = "study") -> list[str]:
    """The names of the studies that a page has a place for, in either language."""
    return list(dict.fromkeys(re.findall(rf"^<!-- {form} ([a-z0-9_-]+) (?:en|zh) -->$", text, re.MULTILINE)))


def choices(language: str) -> str:
    """The registry as Markdown tables in English ("en") or Chinese ("zh")."""
    words, parts = phrases("choices", language), []
    for flag, table in TABLES.items():
        summaries = {name: entry.summary if language == "en" else entry.summary_zh for name, entry in table.items()}
        rows = [(f"`{name}`", summaries[name], entry.source) for name, entry in table.items()]
        parts.append(f"**{words.flags[flag]}** (`{flag}`)\n\n{table_of(words.headings, rows)}")
    return "\n\n".join(parts)


def rendered(text: str, page: Path = README, results: Path = RESULTS, known: Mapping[str, Answer] | None = None) -> str:
    """Render a page's text from the registry, docs/demo.txt, docs/walk and the committed results of its studies.

    Args:
        text: the page as it is.
        page: its path; pictures are linked as seen from it.
        results: the folder of the committed results.
        known: answers that were just written, so that they need not be read and derived again.

    Raises:
        InputError: for a study without results.
        ValueError: where a marker is missing.
    """
    parts = {f"choices {language}": choices(language) for language in LANGUAGES} | _printed(page.parent / "docs")
    parts = {name: part for name, part in parts.items() if f"<!-- {name} -->" in text or page == README}
    for form, write in FORMS.items():
        for name in studies(text, form):
            found = (known or {}).get(name) or _committed_answer(page, results, name)
            folder = Path(os.path.relpath(results / name, page.parent)).as_posix()
            ledger, drawn = test_set_ledger.read_ledger(results), {path.stem for path in (results / name).glob("*.svg")}
            for language in LANGUAGES:
                parts[f"{form} {name} {language}"] = write(found, ledger, language, folder, drawn)
    return render(text, parts)


def _printed(docs: Path) -> dict[str, str]:
    """What commands printed, by marker."""
    files = {"demo": docs / "demo.txt", **{f"walk {path.stem}": path for path in sorted((docs / "walk").glob("*.txt"))}}
    return {
        name: f"```text\n{path.read_text(encoding='utf-8').strip()}\n```"
        for name, path in files.items()
        if path.exists()
    }


def _committed_answer(page: Path, results: Path, name: str) -> Answer:
    study = committed.read_study(results, name)
    if study is None:
        raise InputError(
            f"{page.name} shows the study {name}, but {results / name} is missing. Type: python run.py report {name}"
        )
    return answer_study(study)


def problems(readme: Path = README, results: Path = RESULTS) -> list[str]:
    """List what in the pages, or among the committed results, is not as the committed results say: a sentence each."""
    known, found = {}, []
    for name in committed.committed_studies(results):
        try:
            known[name] = _committed_answer(readme, results, name)
            found += _altered(results, known[name])
        except InputError as error:
            found.append(str(error))
    for page in study_pages(readme):
        text = read_page(page)
        try:
            due = rendered(text, page, results, known)
        except InputError as error:
            if str(error) in found:  # listed already, with what else is wrong
                continue
            raise
        if due != text:
            found.append(f"{page.name} differs from what the committed results give, {_first_difference(text, due)}.")
            found[-1] += " Type: python run.py report"
    return found


def _first_difference(text: str, due: str) -> str:
    lines = zip([*text.splitlines(), ""], [*due.splitlines(), ""], strict=False)
    number, (line, expected) = next((n, pair) for n, pair in enumerate(lines, 1) if pair[0] != pair[1])
    return f"from line {number} on: '{line[:80]}' should be '{expected[:80]}'"


def _altered(results: Path, found: Answer) -> list[str]:
    """The files of numbers (runs.csv, and the table for a paper) that are not what the scores give."""
    name = found.study.name
    due = {
        "runs.csv": (committed.study_files(found.study)["runs.csv"], ""),
        f"{name}.tex": (latex_table(found).encode(), " --latex"),
    }
    return [
        f"{path} differs from what scores.csv.gz gives. Type: python run.py report {name}{flag}"
        for path, (content, flag) in ((results / name / file, how) for file, how in due.items())
        if path.exists() and path.read_bytes() != content
    ]


def main() -> int:
    """Write the rendered parts."""
    for page in study_pages(README):
        page.write_text(rendered(page.read_text(encoding="utf-8"), page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
