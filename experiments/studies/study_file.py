"""Read a study file (TOML) before anything heavy is imported; report a mistake in one sentence with its place."""

from __future__ import annotations

import re
import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from analysis.records.files import read_json
from experiments.config import values
from experiments.studies.definition import Level, Pilot, Study, Tuning
from experiments.studies.study_tables import StudyFile
from registry import InputError, did_you_mean

STUDIES = Path(__file__).parent
PLAIN = {
    "model_type": "should be a table",
    "dict_type": "should be a table",
    "missing": "is missing",
    "too_short": "should hold at least one value",
}


def find_study_file(name: str) -> Path:
    """The file of a study, by its name or its path. Raises InputError with the nearest name."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"There is no study file {path}.")
        return path
    known = sorted(path.stem for path in STUDIES.glob("*.toml"))
    if name not in known:
        raise InputError(
            f"Unknown study '{name}'{did_you_mean(name, known)}. Studies: {', '.join(known) or 'none'}; "
            "or give a path that ends in .toml."
        )
    return STUDIES / f"{name}.toml"


def read_study(path: Path) -> Study:
    """The study in a file. Raises InputError with the key that is wrong."""
    if not re.fullmatch(r"[a-z0-9_]+", path.stem):
        raise InputError(f"The study file {path} should be named with a-z, 0-9 and _ only: its name is the study's.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The study file {path} cannot be read: {' '.join(str(error).split())}.") from None
    return parse_study(path.stem, content, f"The study file {path}")


def parse_study(name: str, content: Mapping[str, Any], source: str) -> Study:
    """The study in the tables of a file. Raises InputError, whose sentence begins with `source`."""
    try:
        file = StudyFile.model_validate(content)
    except ValidationError as error:
        sentence = explain(error)
        raise InputError(f"{source}: {sentence}{'' if sentence.endswith('?') else '.'}") from None
    design, tuning, pilot = file.design, file.tuning, file.design.pilot
    return Study(
        name,
        file.levels(),
        design.seed_list,
        file.shared(),
        file.settings.preset,
        file.settings.mask_pattern,
        question=file.question.model_dump(),
        rope=design.rope,
        confirmatory=tuple(dict.fromkeys(design.confirmatory)),
        simple_effects=tuple(dict.fromkeys(design.simple_effects)),
        baseline={factor: str(label) for factor, label in design.baseline.items()},
        within={factor: tuple(others) for factor, others in design.within.items()},
        cell_rope=design.cell_rope,
        looks=design.looks,
        draw_training_cars=design.draw_training_cars,
        kinds=design.kinds,
        labels={**file.labels, **file.kinds},
        pilot=Pilot(pilot.cells, pilot.seeds) if pilot else None,
        guess=design.guess.model_dump(),
        tuning=Tuning(**tuning.model_dump() | {"seeds": tuple(tuning.seeds)}) if tuning else None,
    )


def study_of_plan(name: str, output_dir: Path) -> Study:
    """A study without a file, such as one of `grid`, from the plan that it left: its cells as levels of one factor.

    Raises InputError where there is no such plan, with the nearest name, or where it lacks a file that its runs had.
    """
    places = {path.parent.name: path for path in (output_dir / "studies").glob("*/plan.json")}
    plan = read_json(places[name]) if name in places else None
    if plan is None:
        known = sorted({*places, *(path.stem for path in STUDIES.glob("*.toml"))})
        raise InputError(f"There is no study '{name}'{did_you_mean(name, known)}. Studies: {', '.join(known)}.")

    given = [plan["settings"], *(cell["settings"] for cell in plan["cells"])]
    if any(
        str(s.get("split") or "").startswith("file:")
        or s.get("init")
        or (s.get("model_kwargs") or {}).get("pretrained") == "file"
        for s in given
    ):
        raise InputError(
            f"The study {name} has no study file, and its plan does not name the files of --split-file, --init or "
            "pretrained weights that its runs had: only a study with a file can be scored again."
        )

    def typed(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: values.typed(key, value) for key, value in settings.items() if value is not None}

    levels = tuple(
        Level(cell["cell"], typed(cell["settings"] | {"learning_rate": cell["rate"]}))
        for cell in plan["cells"]
        if cell.get("rate") is not None
    )
    shared = typed({key: value for key, value in plan["settings"].items() if key not in ("learning_rate", "seed")})
    return Study(name, {"cell": levels}, tuple(plan["design"]["seeds"]), shared)


def explain(error: ValidationError) -> str:
    """The first mistake of a study file: its place, and what is wrong."""
    first = error.errors(include_url=False)[0]
    kind, reason = first["type"], first.get("ctx", {}).get("error")
    names = [part for part in first["loc"] if isinstance(part, str)]
    if len(names) > 1 and names[-1] == names[-2]:  # a plain value, which `levels_as_tables` made a table of
        names.pop()
    if kind == "unknown_key":
        return f"[{'.'.join(names)}] {first['msg']}" if names else first["msg"]
    place = f"[{'.'.join(names[:-1])}] {names[-1]}" if len(names) > 1 else "".join(f"[{name}]" for name in names)
    if isinstance(reason, InputError):
        return f"{place}: {str(reason).removesuffix('.')}"
    if reason is not None:
        return f"{place} {reason}".strip()
    sentence = PLAIN.get(kind) or first["msg"].replace("Input should", "should").replace("List should", "should")
    return f"{place} {sentence}" + ("" if kind in PLAIN else f", not {reprlib.repr(first['input'])}")
