"""The report command: from the records of a study to its committed files, pictures and pages.

outputs/ (or only the committed files) -> Study -> Answer -> CSV, pictures, README, LaTeX, HTML. Needs neither torch,
MLflow nor an image.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from analysis.plots import comparison, training
from analysis.plots.robustness import robustness_curves
from analysis.plots.style import style, svg
from analysis.records import committed, test_set_ledger
from analysis.records.files import write_atomically
from analysis.records.output_files import OutputFiles
from analysis.records.places import Places, load_study, one_study, study_names
from analysis.report import pages
from analysis.report.latex import latex_table
from analysis.text.sentences import answer_sentences
from analysis.text.tables import row_texts
from analysis.text.wording import phrases
from analysis.verdicts.answer import Answer, answer_study
from registry import InputError

PICTURES: dict[str, Callable[[Answer], Figure | None]] = {
    "intervals": comparison.intervals,
    "main-effects": comparison.main_effects,
    "heatmap": comparison.heatmap,
    "pairs": comparison.pairs,
    "cost": comparison.cost,
    "responses": training.responses,
    "losses": training.losses,
    "validation": training.validation,
    "angles": training.angles,
    "worst-cars": training.worst_cars,
    "simple-effects": comparison.simple_effects,
    "robustness": robustness_curves,
}
SHOWN = ("mark", "rate", "dice", "verdict", "seeds")  # columns of the table on the terminal, besides the factors
MISSING = 12  # unfinished runs that are listed


def report_studies(places: Places, study: str | None, latex: bool, html: Path | None) -> dict[str, Answer]:
    """Report a study, or all of them, and render the README; returns the answers by study."""
    pages.read_page(places.readme)  # a missing README is reported before anything is written
    names = [one_study(places, study, f"--html {html}")] if html is not None else study_names(places, study)
    if not names:
        print(f"There is no study under {places.output_dir / 'studies'} or {places.results}.", end=" ")
        print("Begin one with: python run.py study NAME")
    reported = {name: answer_study(load_study(places, name)) for name in names}
    drawn = {name: draw_pictures(found) for name, found in reported.items()}
    places.write_results(result_files(places, reported, drawn, latex))
    for name, found in reported.items():
        folder = places.results / name
        for picture in set(PICTURES) - set(drawn[name]):
            places.delete_result(folder / f"{picture}.svg")  # of an earlier state: it would show what is no longer so
        show(found)
        written = [folder, *([folder / f"{name}.tex"] if latex else [])]
        if html is not None:
            write_html(places, found, html)
            written.append(html)
        for path in written:
            print(f"Written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    for sentence in write_pages(places, reported):
        print(sentence)
    return reported


def check_html(places: Places, html: Path) -> None:
    """Raise InputError if the page would replace a file that is not the project's own."""
    OutputFiles.beside(html, "--html").check([html.name], pages.study_pages(places.readme))


def check(places: Places) -> int:
    """Print what is not as the committed results give it (a page, a committed file); returns the exit code, 1 where
    anything is.
    """
    problems = pages.problems(places.readme, places.results)
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def result_files(
    places: Places, reported: Mapping[str, Answer], drawn: Mapping[str, Mapping[str, str]], latex: bool
) -> dict[Path, bytes]:
    """The committed files, pictures and tables of studies, and the ledger of the test sets that they read."""
    files: dict[Path, bytes] = {}
    ledger = test_set_ledger.read_ledger(places.results)
    for name, found in reported.items():
        folder = places.results / name
        files |= {folder / file: content for file, content in committed.study_files(found.study).items()}
        ledger = test_set_ledger.entered(ledger, found.study)
        if latex or (folder / f"{name}.tex").exists():  # the table for a paper
            files[folder / f"{name}.tex"] = latex_table(found).encode()
        files |= {folder / f"{picture}.svg": text.encode() for picture, text in drawn[name].items()}
    if reported:
        files[places.results / "ledger.csv"] = test_set_ledger.as_csv(ledger)
    return files


def draw_pictures(found: Answer) -> dict[str, str]:
    """Draw every picture that the study has numbers for, as SVG by name."""
    with style():
        figures = {name: draw(found) for name, draw in PICTURES.items()}
    return {name: svg(figure) for name, figure in figures.items() if figure is not None}


def write_pages(places: Places, reported: Mapping[str, Answer]) -> list[str]:
    """Write the README's rendered parts; returns a sentence for each reported study that it has no place for.

    Notices about the merge are not part of them: `check`, which reads the committed files, knows nothing of it.
    """
    known = {name: replace(found, study=replace(found.study, notices=())) for name, found in reported.items()}
    for page in pages.study_pages(places.readme):
        text = pages.read_page(page)
        due = pages.rendered(text, page, places.results, known)
        if due != text:
            write_atomically(page, due.encode())
    text = pages.read_page(places.readme)
    return [
        f"{places.readme.name} has no place for the study {name}: where it should stand, put the lines "
        f"<!-- study {name} en --> and <!-- /study {name} en -->, and the same with zh in the Chinese part."
        for name in reported
        if name not in pages.studies(text)
    ]


def write_html(places: Places, found: Answer, path: Path) -> None:
    """Write one page with everything that was written. Raises InputError where it cannot be written."""
    from analysis.report.html import html_page

    folder = places.results / found.study.name
    files = {name: folder / f"{name}.svg" for name in PICTURES}
    drawn = {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.exists()}
    strip = folder / "strip.png"
    content = html_page(
        found, test_set_ledger.read_ledger(places.results), drawn, strip.read_bytes() if strip.exists() else None
    )
    try:
        OutputFiles.beside(path, "--html").write(path.name, content.encode())
    except OSError as error:
        raise InputError(
            f"The page cannot be written to {path} ({error.strerror}). Name another file with --html."
        ) from None


def show(found: Answer) -> None:
    """Print the answer, the table in short, and what is missing."""
    print(f"\n{found.study.name}: {' '.join(answer_sentences(found, 'en'))}")
    columns = phrases("tables", "en").columns
    names = {SHOWN[0]: "", **{f"factor {factor}": factor for factor in found.study.factors}}
    names |= {name: columns[name] for name in SHOWN[1:]}
    table = Table(show_edge=False)
    for heading in names.values():
        table.add_column(heading, overflow="fold")
    for row in found.rows:
        texts = row_texts(row, "en")
        table.add_row(*(texts[name].replace("[", "\\[") for name in names))  # rich would read [ as its markup
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    for kind, count in found.study.notices:
        print(getattr(phrases("notes", "en"), kind)(count=count))
    rows = found.study.runs[found.study.runs.state != "finished"]
    for row in rows.head(MISSING).itertuples():
        print(f"{row.state}: {row.cell}, seed {row.seed}: {row.reason}")
    if len(rows) > MISSING:
        print(f"... and {len(rows) - MISSING} more, see runs.csv")
