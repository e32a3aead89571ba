"""From the records of a study to its committed files, its pictures, the README and the pages that it is read on.

outputs/ (or only the committed files) -> Study -> Answer -> CSV, pictures, README, LaTeX, HTML. Neither torch, MLflow nor a photograph is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.plots import comparison, training
from analysis.plots import robustness as robustness_plot
from analysis.plots.style import style, svg
from analysis.records import committed, test_set_ledger
from analysis.records.files import write_atomically
from analysis.records.places import Places, load_study, one_study, study_names
from analysis.report import readme
from analysis.text import tables
from analysis.text.sentences import sentences
from analysis.verdicts.answer import Answer, answer
from registry import InputError

PICTURES = {
    "intervals": comparison.intervals, "main-effects": comparison.main_effects, "heatmap": comparison.heatmap, "pairs": comparison.pairs,
    "cost": comparison.cost, "responses": training.responses, "losses": training.losses, "validation": training.validation,
    "angles": training.angles, "worst-cars": training.worst_cars,
    "simple-effects": comparison.simple_effects, "robustness": robustness_plot.figure,
}  # fmt: skip


def report(places: Places, name: str) -> Answer:
    """Write a study's committed files, its readings of the test cars and its pictures. Nothing is written if it is refused."""
    found = answer(load_study(places, name))
    drawn = pictures(found)
    folder = committed.write(found.study, places.results)
    test_set_ledger.enter(found.study, places.results)
    if (folder / f"{name}.tex").exists():
        write_latex(places, found)
    for picture in PICTURES:
        path = folder / f"{picture}.svg"
        if picture in drawn:
            write_atomically(path, drawn[picture].encode())
        else:
            path.unlink(missing_ok=True)  # of an earlier state: it would show what is no longer so
    return found


def pictures(found: Answer) -> dict[str, str]:
    """Every picture that there is something to draw for, as SVG by name."""
    with style():
        figures = {name: draw(found) for name, draw in PICTURES.items()}
    return {name: svg(figure) for name, figure in figures.items() if figure is not None}


def render_readme(places: Places, reported: Mapping[str, Answer]) -> list[str]:
    """Write the README's rendered parts; returns a sentence for each reported study that it has no place for.

    What was told of the merge is not part of them: `check`, which reads the committed files, knows nothing of it.
    """
    known = {name: replace(found, study=replace(found.study, notices=())) for name, found in reported.items()}
    for page in readme.pages(places.readme):
        text = readme.read(page)
        made = readme.rendered(text, page, places.results, known)
        if made != text:
            write_atomically(page, made.encode())
    text = readme.read(places.readme)
    return [
        f"{places.readme.name} has no place for the study {name}: where it should stand, put the lines <!-- study {name} en --> and "
        f"<!-- /study {name} en -->, and the same with zh in the Chinese part."
        for name in reported
        if name not in readme.studies(text)
    ]


def write_latex(places: Places, found: Answer) -> Path:
    """The table for a paper, beside the committed files."""
    path = places.results / found.study.name / f"{found.study.name}.tex"
    write_atomically(path, tables.latex(found).encode())
    return path


def write_html(places: Places, found: Answer, path: Path) -> None:
    """One page with everything that `report` wrote. Raises InputError where it cannot be written."""
    from analysis.report import html

    folder = places.results / found.study.name
    drawn = {
        name: (folder / f"{name}.svg").read_text(encoding="utf-8")
        for name in PICTURES
        if (folder / f"{name}.svg").exists()
    }
    strip = folder / "strip.png"
    content = html.page(
        found, test_set_ledger.read(places.results), drawn, strip.read_bytes() if strip.exists() else None
    )
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        raise InputError(
            f"The page cannot be written to {path} ({error.strerror}). Name another file with --html."
        ) from None


SHOWN = ("mark", "rate", "dice", "verdict", "seeds")


def run(places: Places, study: str | None, latex: bool, html: Path | None) -> dict[str, Answer]:
    """Report the study, or all of them, and render the README; returns what was found, by study."""
    readme.read(places.readme)  # where there is none, this is said before anything is written
    asked = [one_study(places, study, f"--html {html}")] if html is not None else study_names(places, study)
    if not asked:
        print(
            f"There is no study under {places.output_dir / 'studies'} or {places.results}. Begin one with: python run.py study NAME"
        )
    reported: dict[str, Answer] = {}
    for name in asked:
        found = reported[name] = report(places, name)
        show(found)
        print(f"Written: {_here(places.results / name)}")
        if latex:
            print(f"Written: {_here(write_latex(places, found))}")
        if html is not None:
            write_html(places, found, html)
            print(f"Written: {html}")
    for sentence in render_readme(places, reported):
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
        table.add_column(
            tables.COLUMNS[name][0] if name in tables.COLUMNS else name.removeprefix("factor "), overflow="fold"
        )
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
