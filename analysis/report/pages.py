"""The rendered pages: a page for each study in both languages, and parts of other pages between markers, never typed.

python run.py report           write them
python run.py report --check   exit 1 where a page says something else

    docs/en/studies/NAME.md, docs/zh/studies/NAME.md    whole
    README*.md, docs/**.md                              between <!-- PART --> and <!-- /PART -->

The parts are `findings` (the table of the largest study, and a sentence for each), `choices` (the registry), `demo` and
`walk STEP` (what commands printed). A page is in Chinese where its path says so (docs/zh, README.zh-CN.md), else in
English.

What the demo prints is kept in docs/demo.txt; to renew it: rm -r outputs data/synthetic; make -s demo > docs/demo.txt
What the steps of the walk print is kept in docs/walk; to renew it: make walk
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from analysis.records import committed, test_set_ledger
from analysis.records.files import write_atomically
from analysis.records.output_files import OutputFiles
from analysis.records.study_paths import PLANS, README, RESULTS
from analysis.report import published_scores
from analysis.report.latex import latex_table
from analysis.report.picture_files import altered_pictures
from analysis.text import sentences
from analysis.text.markdown import escaped, render, table_of
from analysis.text.study_page import answer_blocks, blocks_table, question_of, study_page
from analysis.text.tables import pair_table
from analysis.text.wording import GAP, LANGUAGES, factor_name, phrases
from analysis.verdicts.answer import Answer, answer_study
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, InputError

FLAGSHIP = "carvana_models_x_losses"  # whose table the README shows
FIRST = (FLAGSHIP, "nuclei_models_x_losses")  # the same question on two data sets: ahead of the other findings
EARLIER = ("two_by_two", "models_x_losses")  # smaller studies of its question: the README's text names them
LONG = 300  # characters of a line of Markdown
ASIDE = ("stalls", "stalls_attention_bce", "stalls_attention_focal")  # of the recipe: pages, but none of the findings
TABLES = {"--model": MODELS, "--loss": LOSSES, "--augment": AUGMENTATIONS, "--data": DATASETS}
MARKER = re.compile(r"^<!-- (findings|choices|demo|walk [a-z_-]+) -->$", re.MULTILINE)


def read_page(path: Path) -> str:
    """Read a page. Raises InputError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"The page {path} cannot be read ({reason}). Name one with --readme, or make an empty file."
        ) from None


def language_of(page: Path, readme: Path = README) -> str:
    """The language of a page, by its path as seen from the README's folder."""
    parts = page.relative_to(readme.parent).parts if page.is_relative_to(readme.parent) else page.parts
    return "zh" if "zh" in parts[:-1] or re.search(r"\.zh(-CN)?\.md$", parts[-1]) else "en"


def marked_pages(readme: Path = README) -> list[Path]:
    """The README, its translations next to it, and every page under docs that has a marker."""
    pages = [readme, *sorted(readme.parent.glob("README.*.md")), *sorted((readme.parent / "docs").rglob("*.md"))]
    return [page for page in dict.fromkeys(pages) if page == readme or MARKER.search(read_page(page))]


def page_path(readme: Path, name: str, language: str) -> Path:
    """Where a study's page stands."""
    return readme.parent / "docs" / language / "studies" / f"{name}.md"


def rendered_page(readme: Path, results: Path, answer: Answer, language: str) -> str:
    """Render a study's page from its answer, and link the pictures that there are."""
    name, page = answer.study.name, page_path(readme, answer.study.name, language)
    drawn = {path.stem for path in (results / name).glob("*.svg")}
    notes = page.parent.parent / "designs.md"
    design = f"../designs.md#{name}" if notes.exists() and f"\n## {name}\n" in read_page(notes) else ""
    ledger = test_set_ledger.read_ledger(results)
    return study_page(answer, ledger, language, _seen_from(page, results / name), drawn, design)


def rendered(page: Path, readme: Path, results: Path, known: Mapping[str, Answer]) -> str:
    """Render the marked parts of a page.

    Args:
        page: its path; pages are linked as seen from it.
        readme: the README next to whose docs folder studies and printed output stand.
        results: the folder of the committed results.
        known: answers that were just derived.

    Raises:
        InputError: for a marker without content, or results that cannot be read.
        ValueError: where a marker has no end.
    """
    text, language = read_page(page), language_of(page, readme)
    parts = {}
    for name in dict.fromkeys(MARKER.findall(text)):
        if name == "findings":
            parts[name] = findings(page, readme, results, known)
        elif name == "choices":
            parts[name] = choices(language)
        else:
            parts[name] = _printed(readme.parent / "docs", name)
    return render(text, parts)


def findings(page: Path, readme: Path, results: Path, known: Mapping[str, Answer]) -> str:
    """The table of the flagship study, and a sentence for each study that has measured anything.

    The project's own README leaves out studies that have no file among its plans, such as a user's grids.
    """
    language = language_of(page, readme)
    answers = {
        name: known.get(name) or committed_answer(results, name)
        for name in committed.committed_studies(results)
        if name not in ASIDE and (not _is_own(readme) or (PLANS / f"{name}.toml").exists())
    }
    order = [*(name for name in FIRST if name in answers), *(name for name in answers if name not in FIRST)]
    answers = {name: answers[name] for name in order if _can_be_shown(answers[name])}
    if FLAGSHIP in answers:
        answers = {name: answer for name, answer in answers.items() if name not in EARLIER}
    shown = next(iter(answers.values()), None)
    if shown is None:
        return phrases("choices", language).no_findings()
    lines = []
    for name, answer in answers.items():
        asked = f"- [{escaped(question_of(answer, language))}]({_seen_from(page, page_path(readme, name, language))})"
        said = escaped(GAP[language].join(sentences.findings(answer, language)))
        lines.append(f"{asked} {said}" if len(asked) + len(said) < LONG else f"{asked}\n  {said}")
    planned = {
        name: [factor_name(answer.study, factor, language) for factor in answer.planned if answer.exploratory]
        for name, answer in answers.items()
        if answer.planned
    }
    status = phrases("choices", language).planned(parts=planned, others=len(answers) - len(planned))
    return "\n\n".join([blocks_table(answer_blocks(shown, language), language), "\n".join(lines), status])


def _can_be_shown(answer: Answer) -> bool:
    """Whether a study has compared anything, or has come to its end without."""
    return bool(answer.effects) or (bool(answer.measured) and all(cell.eligibility.judged for cell in answer.cells))


def choices(language: str) -> str:
    """The registry as Markdown tables in English ("en") or Chinese ("zh")."""
    words, parts = phrases("choices", language), []
    for flag, table in TABLES.items():
        summaries = {name: entry.summary if language == "en" else entry.summary_zh for name, entry in table.items()}
        sources = {name: words.own if entry.source == "this project" else entry.source for name, entry in table.items()}
        rows = [(f"`{name}`", summaries[name], sources[name]) for name in table]
        parts.append(f"{words.heading(flag=flag)}\n\n{table_of(words.headings, rows)}")
    return "\n\n".join(parts)


def _printed(docs: Path, name: str) -> str:
    """What a command printed: docs/demo.txt, or docs/walk/STEP.txt."""
    path = docs / "demo.txt" if name == "demo" else docs / "walk" / f"{name.removeprefix('walk ')}.txt"
    return f"```text\n{read_page(path).strip()}\n```"


def committed_answer(results: Path, name: str) -> Answer:
    """The answer of a committed study. Raises InputError where there is none."""
    study = committed.read_study(results, name)
    if study is None:
        raise InputError(f"{results / name} holds no study. Type: python run.py report {name}")
    return answer_study(study)


def write_pages(readme: Path, results: Path, known: Mapping[str, Answer]) -> list[Path]:
    """Write the pages of the given answers and the marked parts of all pages; returns the pages that changed."""
    due = {
        page_path(readme, name, language): rendered_page(readme, results, answer, language)
        for name, answer in known.items()
        for language in LANGUAGES
    }
    others = _published(readme, results)
    due |= others
    due |= {page: rendered(page, readme, results, known) for page in marked_pages(readme)}
    changed = [page for page, text in due.items() if not page.exists() or read_page(page) != text]
    whole = {page_path(readme, name, language) for name in known for language in LANGUAGES} | set(others)
    for page in changed:
        if page in whole and not _is_own(readme):
            OutputFiles(page.parent, "--readme").write(page.name, due[page].encode())
        else:
            page.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(page, due[page].encode())
    return changed


def check_study_pages(readme: Path, results: Path, names: Iterable[str]) -> None:
    """Raise InputError if a page that is written whole would replace a file that is not the project's own."""
    pages = [page_path(readme, name, language) for name in names for language in LANGUAGES]
    for page in [*pages, *_published(readme, results)]:
        if not _is_own(readme) and os.path.lexists(page) and not OutputFiles(page.parent, "--readme").owns(page.name):
            raise InputError(
                f"{page} was not written by this project, or was changed since, and is not replaced. Nothing was "
                "written. Move it away, or name a page in another folder with --readme."
            )


def _is_own(readme: Path) -> bool:
    return readme.resolve() == README.resolve()


def problems(readme: Path = README, results: Path = RESULTS, known: Mapping[str, Answer] | None = None) -> list[str]:
    """List what in the pages, or among the committed results, is not as the committed results say: a sentence each."""
    read_page(readme)  # a missing README is no difference, but a wrong command
    answers, found = dict(known or {}), list[str]()
    for name in committed.committed_studies(results):
        try:
            answers[name] = answers.get(name) or committed_answer(results, name)
        except InputError as error:
            found.append(str(error))
            continue
        found += [*_altered(results, answers[name]), *altered_pictures(answers[name].study, results)]
        for language in LANGUAGES:
            page = page_path(readme, name, language)
            found += _difference(page, rendered_page(readme, results, answers[name], language), f" {name}")
    for page, due in _published(readme, results).items():
        found += _difference(page, due, "")
    for page in marked_pages(readme):
        try:
            found += _difference(page, rendered(page, readme, results, answers), "")
        except InputError as error:
            if str(error) not in found:
                found.append(str(error))
    return found


def _published(readme: Path, results: Path) -> dict[Path, str]:
    """The pages on scores that others published, where these are among the results."""
    if not published_scores.scores_path(results).exists():
        return {}
    name = published_scores.NAME
    return {page_path(readme, name, one): published_scores.published_page(results, one) for one in LANGUAGES}


def _difference(page: Path, due: str, study: str) -> Iterator[str]:
    """A sentence with the first line that differs; none where the page is as it should be."""
    command = f"Type: python run.py report{study}"
    if not page.exists():
        yield f"There is no page {page}. {command}"
    elif (text := read_page(page)) != due:
        lines = itertools.zip_longest(text.splitlines(True), due.splitlines(True), fillvalue="")
        number, (line, expected) = next((n, pair) for n, pair in enumerate(lines, 1) if pair[0] != pair[1])
        yield (
            f"{page.name} ({page.parent.name}) differs from what the committed results give, from line {number} on: "
            f"'{line.rstrip()[:80]}' should be '{expected.rstrip()[:80]}'. {command}"
        )


def _altered(results: Path, found: Answer) -> list[str]:
    """The files of numbers (runs, pairs, the table for a paper) that are not what the scores give."""
    name = found.study.name
    due = {
        "runs.csv": (committed.runs_csv(found.records), ""),
        "pairs.csv": (pairs_csv(found), ""),
        f"{name}.tex": (latex_table(found).encode(), " --latex"),
    }
    return [
        f"{path} differs from what scores.csv.gz gives. Type: python run.py report {name}{flag}"
        for path, (content, flag) in ((results / name / file, how) for file, how in due.items())
        if path.exists() and path.read_bytes() != content
    ]


def pairs_csv(found: Answer) -> bytes:
    """Every two judged cells, as CSV."""
    return pair_table(found).to_csv(index=False, lineterminator="\n").encode()


def _seen_from(page: Path, path: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()


def main() -> int:
    """Write every rendered page from the committed results."""
    known = {name: committed_answer(RESULTS, name) for name in committed.committed_studies(RESULTS)}
    write_pages(README, RESULTS, known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
