"""The report command: from the records of a study to its committed files, pictures and pages.

outputs/ (or only the committed files) -> Study -> Answer -> CSV, pictures, pages, LaTeX, HTML. Needs neither torch,
MLflow nor an image.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.records import committed, test_set_ledger
from analysis.records.files import read_json, relative_to_cwd
from analysis.records.output_files import OutputFiles
from analysis.records.study_paths import StudyPaths, load_study, one_study, study_names
from analysis.report import pages
from analysis.report.latex import latex_table
from analysis.report.picture_files import draw_pictures, picture_files
from analysis.text import tables
from analysis.text.markdown import Grid
from analysis.text.notes import thin_test_set
from analysis.text.sentences import answer_sentences
from analysis.text.wording import phrases
from analysis.verdicts.answer import Answer, answer_study
from registry import InputError

MISSING = 12  # unfinished runs that are listed


def report_studies(paths: StudyPaths, study: str | None, latex: bool, html: Path | None) -> dict[str, Answer]:
    """Report a study, or all of them, and render the pages; returns the answers by study."""
    pages.read_page(paths.readme)  # a missing README is reported before anything is written
    names = [one_study(paths, study, f"--html {html}")] if html is not None else study_names(paths, study)
    if not names:
        print(f"There is no study under {paths.output_dir / 'studies'} or {paths.results}.", end=" ")
        print("Begin one with: python run.py study NAME")
        if not paths.results.is_dir():  # a mistyped folder must not empty the README's findings
            return {}
    pages.check_study_pages(paths.readme, paths.results, names)
    reported = {name: answer_study(load_study(paths, name)) for name in names}
    drawn = {name: draw_pictures(found) for name, found in reported.items()}
    earlier = {name: set((read_json(paths.results / name / "pictures.json") or {}).get("sha256", ())) for name in names}
    paths.write_results(result_files(paths, reported, drawn, latex))
    for name, found in reported.items():
        folder = paths.results / name
        for picture in folder.glob("*.svg"):
            if picture.stem in earlier[name] and picture.stem not in drawn[name]:
                paths.delete_result(picture)  # of an earlier state: it would show what is no longer so
        show(found)
        written = [folder, *([folder / f"{name}.tex"] if latex else [])]
        if html is not None:
            write_html(paths, found, html)
            written.append(html)
        _print_written(written)
    # Notices about the merge are not part of a page: `check`, which reads the committed files, knows nothing of it.
    known = {name: replace(found, study=replace(found.study, notices=())) for name, found in reported.items()}
    _print_written(pages.write_pages(paths.readme, paths.results, known))
    return reported


def check_html(paths: StudyPaths, html: Path) -> None:
    """Raise InputError if the page would replace a file that is not the project's own."""
    OutputFiles.beside(html, "--html").check([html.name], pages.marked_pages(paths.readme))


def check(paths: StudyPaths) -> int:
    """Print each page, picture or file that is not what the committed results give; exit code 1 where there is any."""
    problems = pages.problems(paths.readme, paths.results)
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def result_files(
    paths: StudyPaths, reported: Mapping[str, Answer], drawn: Mapping[str, Mapping[str, str]], latex: bool
) -> dict[Path, bytes]:
    """The committed files, pictures and tables of studies, and the ledger of the test sets that they read."""
    files: dict[Path, bytes] = {}
    ledger = test_set_ledger.read_ledger(paths.results)
    for name, found in reported.items():
        folder, own = paths.results / name, committed.study_files(found.records)
        own |= {"pairs.csv": pages.pairs_csv(found)} | picture_files(found.study, own, drawn[name])
        if latex or (folder / f"{name}.tex").exists():  # the table for a paper
            own[f"{name}.tex"] = latex_table(found).encode()
        files |= {folder / file: content for file, content in own.items()}
        ledger = test_set_ledger.entered(ledger, found.records)
    if reported:
        files[paths.results / "ledger.csv"] = test_set_ledger.as_csv(ledger)
    return files


def write_html(paths: StudyPaths, found: Answer, path: Path) -> None:
    """Write one page with everything that was written. Raises InputError where it cannot be written."""
    from analysis.report.html import html_page

    folder = paths.results / found.study.name
    drawn = {file.stem: file.read_text(encoding="utf-8") for file in folder.glob("*.svg")}
    strip = folder / "strip.png"
    content = html_page(
        found, test_set_ledger.read_ledger(paths.results), drawn, strip.read_bytes() if strip.exists() else None
    )
    try:
        OutputFiles.beside(path, "--html").write(path.name, content.encode())
    except OSError as error:
        raise InputError(
            f"The page cannot be written to {path} ({error.strerror}). Name another file with --html."
        ) from None


def show(found: Answer) -> None:
    """Print the answer, the table, and what is missing."""
    console = Console(width=None if sys.stdout.isatty() else 96, highlight=False)
    console.print(Text(f"\n{found.study.name}: {' '.join(answer_sentences(found, 'en'))}\n"))
    if found.measured:
        console.print(Text(tables.caption(found, "en").replace("**", "")))
        for grid in tables.matrices(found, "en"):
            console.print(_terminal_table(grid))
        for line in (tables.legend(found, "en"), *thin_test_set(found, "en")):
            console.print(Text(line))
    for kind, count in found.study.notices:
        print(getattr(phrases("notes", "en"), kind)(count=count))
    rows = found.study.runs[found.study.runs.state != "finished"]
    for row in rows.head(MISSING).itertuples():
        print(f"{row.state}: {row.cell}, seed {row.seed}: {row.reason}")
    if len(rows) > MISSING:
        print(f"... and {len(rows) - MISSING} more, see runs.csv")


def _terminal_table(grid: Grid) -> Table:
    """The table as rich prints it; names are text, not markup."""
    table = Table(show_edge=False, title=Text(grid.title) if grid.title else None, title_justify="left")
    for number, heading in enumerate(grid.headings):
        table.add_column(Text(heading), overflow="fold", justify="left" if number < grid.left else "right")
    for row in grid.rows:
        cells = []
        for cell in row:
            text = Text(cell.head, style="bold" if cell.bold else "")
            text.append(f" {cell.tail}" if cell.tail else "", style="not bold")
            cells.append(text.append(f"\n{cell.below}" if cell.below else "", style="dim"))
        table.add_row(*cells)
    return table


def _print_written(written: list[Path]) -> None:
    for path in written:
        print(f"Written: {relative_to_cwd(path)}")
