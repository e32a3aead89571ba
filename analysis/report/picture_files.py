"""The pictures of a study on disk, and whether they are those that its numbers gave.

Pictures differ with the version of matplotlib and the fonts of a machine, so they are not drawn again to be checked.
`pictures.json` next to them holds the SHA-256 of each, and of what they were drawn from.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from analysis.plots import comparison, effects, hero, learning_curves, robustness
from analysis.plots.style import style, svg
from analysis.records.files import read_json
from analysis.records.study_results import Study
from analysis.text.study_page import SUFFIX
from analysis.verdicts.answer import Answer

SOURCES = ("runs.csv", "scores.csv.gz", "trials.csv", "curves.csv", "robustness.csv.gz")


PICTURES: dict[str, Callable[[Answer, str], Figure | None]] = {  # by the names of their files
    "hero": hero.hero,
    "main-effects": effects.main_effects,
    "simple-effects": effects.simple_effects,
    "heatmap": comparison.heatmap,
    "cost": comparison.cost,
    "responses": learning_curves.responses,
    "validation": learning_curves.validation,
    "robustness": robustness.robustness,
}


def draw_pictures(found: Answer) -> dict[str, str]:
    """Draw every picture that the study has numbers for, in both languages: SVG by the name of its file."""
    drawn = {}
    with style():
        for name, draw in PICTURES.items():
            for language, suffix in SUFFIX.items():
                if (figure := draw(found, language)) is not None:
                    drawn[name + suffix] = svg(figure)
    return drawn


def picture_files(study: Study, files: Mapping[str, bytes], drawn: Mapping[str, str]) -> dict[str, bytes]:
    """The pictures by file name, and pictures.json, which notes what they were drawn from: the study's `files`."""
    content = {
        "drawn_from": source_digest(study, files),
        "sha256": {name: _sha256(text.encode()) for name, text in sorted(drawn.items())},
    }
    made = {f"{name}.svg": text.encode() for name, text in drawn.items()}
    return made | {"pictures.json": (json.dumps(content, indent=1) + "\n").encode()}


def altered_pictures(study: Study, results: Path) -> list[str]:
    """A sentence for each picture that was altered, and one where the numbers are no longer those that were drawn."""
    folder, advice = results / study.name, f"Type: python run.py report {study.name}"
    known = read_json(folder / "pictures.json") or {}
    due, files = known.get("sha256", {}), {path.stem: path for path in folder.glob("*.svg")}
    changed = [name for name, path in files.items() if due.get(name) != _sha256(path.read_bytes())]
    sentences = [f"{files[name]} is not the picture that was drawn. {advice}" for name in sorted(changed)]
    sentences += [f"The picture {folder / name}.svg is missing. {advice}" for name in sorted(set(due) - set(files))]
    if due and not sentences and known.get("drawn_from") != source_digest(study, _files(folder)):
        sentences.append(f"The pictures in {folder} were drawn from other numbers or labels. {advice}")
    return sentences


def source_digest(study: Study, files: Mapping[str, bytes]) -> str:
    """What the pictures of a study are drawn from: its files, and how its study file reads them."""
    digest = hashlib.sha256()
    for name in SOURCES:
        content = files.get(name, b"")
        digest.update(gzip.decompress(content) if name.endswith(".gz") and content else content)
    reading = dataclasses.asdict(study.reading) | {"notes": None, "confirmatory": sorted(study.reading.confirmatory)}
    del reading["named"]  # in no picture
    digest.update(json.dumps([reading, study.plan], sort_keys=True, default=list).encode())
    return digest.hexdigest()


def _files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SOURCES if (folder / name).exists()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
