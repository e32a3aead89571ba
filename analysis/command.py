"""`python run.py report`: what is printed, and what it exits with."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis import readme, report, tables
from analysis.answer import Answer
from analysis.report import Places
from analysis.sentences import sentences

SHOWN = ("mark", "rate", "dice", "verdict", "seeds")


def run(places: Places, study: str | None, latex: bool, html: Path | None) -> dict[str, Answer]:
    """Report the study, or all of them, and render the README; returns what was found, by study."""
    readme.read(places.readme)  # where there is none, this is said before anything is written
    names = [report.one(places, study, f"--html {html}")] if html is not None else report.names(places, study)
    if not names:
        print(
            f"There is no study under {places.output_dir / 'studies'} or {places.results}. Begin one with: python run.py study NAME"
        )
    reported: dict[str, Answer] = {}
    for name in names:
        found = reported[name] = report.report(places, name)
        show(found)
        print(f"Written: {_here(places.results / name)}")
        if latex:
            print(f"Written: {_here(report.write_latex(places, found))}")
        if html is not None:
            report.write_html(places, found, html)
            print(f"Written: {html}")
    for sentence in report.render_readme(places, reported):
        print(sentence)
    return reported


def check(places: Places) -> int:
    """Exit code 1 where the README, or a committed file, is not what the committed results give."""
    problems = readme.check(places.readme, places.results)
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def show(found: Answer) -> None:
    """The answer, the table in short, and what is missing."""
    print(f"\n{found.study.name}: {' '.join(sentences(found, 'en'))}")
    names = [*SHOWN[:1], *(f"factor {factor}" for factor in found.study.factors), *SHOWN[1:]]
    table = Table(show_edge=False)
    for name in names:
        table.add_column(tables.COLUMNS[name][0] if name in tables.COLUMNS else name.removeprefix("factor "), overflow="fold")
    for row in found.rows:
        table.add_row(*(_plain(tables.cells(row, "en")[name]) for name in names))
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    for notice in [*(english for english, _ in found.study.notices), *_missing(found)]:
        print(notice)


def _here(path: Path) -> Path:
    """The path as it is typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _plain(text: str) -> str:
    """`text` without what rich would read as its markup."""
    return text.replace("[", "\\[")


def _missing(found: Answer, most: int = 12) -> list[str]:
    """A line for each run that is not finished, with the reason."""
    rows = found.study.runs[found.study.runs.state != "finished"]
    lines = [f"{row.state}: {row.cell}, seed {row.seed}: {row.reason}" for row in rows.head(most).itertuples()]
    return [*lines, f"... and {len(rows) - most} more, see runs.csv"] if len(rows) > most else lines
