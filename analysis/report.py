"""From the records of a study to its committed files, its pictures, the README and the pages that it is read on.

outputs/ (or only the committed files) -> Study -> Answer -> CSV, pictures, README, LaTeX, HTML. Neither torch, MLflow nor a photograph is needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from analysis import charts, charts_runs, conditions, ledger, readme, store, tables
from analysis.answer import Answer, answer
from analysis.canvas import style, svg
from analysis.gather import gather, planned
from analysis.measured import Study
from experiments.errors import InputError

NAME = re.compile(r"[a-z0-9_][a-z0-9_-]*")
PICTURES = {
    "intervals": charts.intervals, "main-effects": charts.main_effects, "heatmap": charts.heatmap, "pairs": charts.pairs,
    "cost": charts.cost, "responses": charts_runs.responses, "losses": charts_runs.losses, "validation": charts_runs.validation,
    "angles": charts_runs.angles, "worst-cars": charts_runs.worst_cars,
    "simple-effects": charts.simple_effects, "robustness": conditions.figure,
}  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Where records lie, where the committed results lie, and which README shows them."""

    output_dir: Path = Path("outputs")
    results: Path = readme.RESULTS
    readme: Path = readme.README


def names(places: Places, asked: str | None) -> list[str]:
    """The study asked for, or all that are known. Raises InputError for one that is not, with the nearest."""
    known = sorted({*planned(places.output_dir), *store.committed(places.results)})
    if asked is None:
        return known
    if asked not in known or not NAME.fullmatch(asked):
        near = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
        guess = f" (did you mean '{near[0]}'?)" if near else ""
        raise InputError(
            f"There is no plan of a study '{asked}'{guess} under {places.output_dir / 'studies'} and no result under {places.results}. "
            f"Begin it with: python run.py study {asked if NAME.fullmatch(asked) else 'NAME'}"
        )
    return [asked]


def one(places: Places, asked: str | None, flag: str) -> str:
    """The study asked for, or the only one there is. Raises InputError where it is not clear which."""
    known = names(places, asked)
    if len(known) != 1:
        told = f"it is one of {', '.join(known)}" if known else "there is none yet"
        raise InputError(f"{flag} is for one study, and {told}. Type: python run.py report NAME {flag}")
    return known[0]


def load(places: Places, name: str) -> Study:
    """The study as it is known now: the records, and the committed rows where the records lack the run."""
    new, old = gather(places.output_dir, name), store.read(places.results, name)
    if new is not None and old is not None:
        return store.merge(old, new)
    found = new or old
    if found is None:
        raise InputError(f"The plan of the study {name} cannot be read. Write it again with: python run.py study {name}")
    return found


def report(places: Places, name: str) -> Answer:
    """Write a study's committed files, its readings of the test cars and its pictures. Nothing is written if it is refused."""
    found = answer(load(places, name))
    drawn = pictures(found)
    folder = store.write(found.study, places.results)
    ledger.enter(found.study, places.results)
    if (folder / f"{name}.tex").exists():
        write_latex(places, found)
    for picture in PICTURES:
        path = folder / f"{picture}.svg"
        if picture in drawn:
            store.write_whole(path, drawn[picture].encode())
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
            store.write_whole(page, made.encode())
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
    store.write_whole(path, tables.latex(found).encode())
    return path


def write_html(places: Places, found: Answer, path: Path) -> None:
    """One page with everything that `report` wrote. Raises InputError where it cannot be written."""
    from analysis import page

    folder = places.results / found.study.name
    drawn = {name: (folder / f"{name}.svg").read_text(encoding="utf-8") for name in PICTURES if (folder / f"{name}.svg").exists()}
    strip = folder / "strip.png"
    content = page.page(found, ledger.read(places.results), drawn, strip.read_bytes() if strip.exists() else None)
    try:
        store.write_whole(path, content.encode())
    except OSError as error:
        raise InputError(f"The page cannot be written to {path} ({error.strerror}). Name another file with --html.") from None
