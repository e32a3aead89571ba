"""The files of a study (plan.json, trials.csv), its names and tags in MLflow, and the state of its runs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.records.files import read_json, write_atomically
from analysis.records.study_results import TRIALS
from experiments.config.schema import PROTOCOL, without_password
from experiments.config.values import check_tracking_uri
from experiments.data.carvana import is_known_faulty
from experiments.data.images import open_image
from experiments.data.masks import mask_files
from experiments.runtime import progress
from experiments.runtime.leases import LOCK_TIMEOUT, wait_for_lock
from experiments.studies.estimates import PlannedPower
from experiments.studies.plan import Plan, PlannedCell
from experiments.tracking import store
from experiments.training.run_index import state_of
from registry import InputError

STORE = "tracking.json"  # in a study's folder: the MLflow store that it began in
StudyRunState = tuple[str, str]  # done, running, failed or missing, and a detail


def write_plan(plan: Plan, power: PlannedPower) -> None:
    """Write plan.json, the study as it stands now, unless it says so already or another worker has looked since."""
    text = json.dumps(_content(plan) | dataclasses.asdict(power), indent=1, ensure_ascii=False).encode()
    path = plan.folder / "plan.json"
    with _locked(plan.folder):
        before = (read_json(path) or {}).get("design", {})
        same = before.get("looks", []) == list(plan.study.looks)
        ahead = same and len(before.get("looks_taken", [])) > len(plan.looks_taken)
        if not ahead and (not path.exists() or path.read_bytes() != text):
            write_atomically(path, text)


def with_store(name: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """`machine` (fields of RuntimeConfig) with the MLflow store of a study: it stays in the one that it began in.

    The one that was given wins, then the one on record, then that of MLFLOW_TRACKING_URI; None is the one in the output
    folder. A password is not recorded.

    Args:
        name: of the study.
        machine: the fields that were given.

    Raises:
        InputError: where the recorded store needs a password that nothing gives.
    """
    folder = Path(machine.get("output_dir", "outputs")) / "studies" / name
    given, known = machine.get("tracking_uri"), read_json(folder / STORE)
    variable = os.environ.get(store.URI_VARIABLE)
    if given is not None:
        uri = given
    elif known is None:
        uri = check_tracking_uri(variable, store.URI_VARIABLE) if variable else None
    else:
        candidates = [None, variable, known.get("uri")]
        match = [uri for uri in candidates if _store_digest(uri) == known.get("sha256")]
        if not match:
            place = known.get("uri")
            raise InputError(
                f"The study {name} keeps its runs in MLflow at {place}: type --tracking-uri with its password."
            )
        uri = match[0]
    if variable and uri != variable and given is None:
        progress.log(f"The study {name} stays in the MLflow store that it began in; --tracking-uri names another.")
    elif uri is not None and given is None:
        source = f"by {store.URI_VARIABLE}" if uri == variable else "where the study began"
        progress.log(f"MLflow: {without_password(uri)}, {source}.")
    return {**machine, "tracking_uri": uri}


def record_store(plan: Plan) -> None:
    """Note the store of a study for later commands, without its password."""
    uri, path = plan.machine.tracking_uri, plan.folder / STORE
    content = json.dumps({"uri": uri and without_password(uri), "sha256": _store_digest(uri)}).encode()
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _store_digest(uri: str | None) -> str:
    return hashlib.sha256((uri or "").encode()).hexdigest()


def _content(plan: Plan) -> dict[str, Any]:
    """What plan.json says, besides what the study can detect."""
    study = plan.study
    tuning = study.tuning
    return {
        "name": study.name,
        "question": dict(study.question),
        "factors": {name: [level.label for level in levels] for name, levels in study.factors.items()},
        "settings": _shared(plan),
        "design": _design(plan),
        "tuning": tuning
        and {
            "low": tuning.low,
            "high": tuning.high,
            "points": tuning.points,
            "seeds": list(tuning.seeds),
            "sampler": tuning.sampler,
            "budget": plan.budget,
            "extended": len(plan.rounds) - 1,
            **({} if tuning.fit == "cell" else {"fit": tuning.fit}),
        },
        "protocol": PROTOCOL,
        "data_fingerprint": "+".join(dict.fromkeys(cell.config.data_fingerprint for cell in plan.cells)),
        "cells": [_cell(plan, cell) for cell in plan.cells],
        "known_faulty": _known_faulty(plan),
        "photographs": _data_size(plan),
        **({"labels": dict(study.labels)} if study.labels else {}),
    }


PLANNED = ("factors", "settings", "data_fingerprint")  # of plan.json: what a study is, besides its design and tuning
DESIGN = ("seeds", "rope", "confirmatory", "baseline", "cell_rope", "within", "draw_training_cars", "looks")
RANGE = ("low", "high", "points", "seeds", "sampler")


def refuse_replaced(plan: Plan, extend: bool) -> None:
    """Refuse to replace a plan on disk that differs, unless `extend` is set; then a copy of it stays beside it.

    Raises InputError with what differs.
    """
    path = plan.folder / "plan.json"
    before = read_json(path)
    if before is None:
        return
    changed = _differences(before, json.loads(json.dumps(_content(plan))))
    if not changed:
        return
    if not extend:
        raise InputError(
            f"The study {plan.study.name} has a plan in {path} that differs in {'; '.join(changed)}. Add --extend to "
            "replace it (a copy stays), or choose another name."
        )
    number = next(n for n in itertools.count(1) if not path.with_name(f"plan.{n}.json").exists())
    write_atomically(path.with_name(f"plan.{number}.json"), path.read_bytes())


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two plans; what only a later version writes does not."""
    parts = [(name, before.get(name), now[name]) for name in PLANNED]
    for table, names in (("design", DESIGN), ("tuning", RANGE)):
        old, new = before.get(table) or {}, now[table] or {}
        parts += [(f"{table} {name}", old[name], new.get(name)) for name in names if name in old]
    cells = {cell["cell"]: {**now["settings"], **cell["settings"]} for cell in now["cells"]}
    for cell in before.get("cells", []):
        there = cells.get(cell["cell"], {})
        parts += [
            (f"{name} of {cell['cell']}", old, there.get(name, old)) for name, old in cell.get("settings", {}).items()
        ]
    if now["design"].get("looks"):  # its seeds grow from look to look
        parts = [part for part in parts if part[0] != "design seeds"]
    return [f"{name} ({_short(old)} before, {_short(new)} now)" for name, old, new in _apart(parts)]


def _apart(parts: Iterable[tuple[str, Any, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """The parts that differ; of the settings only those that do."""
    for name, old, new in parts:
        if name == "settings":
            for setting in {**old, **new}:
                if old.get(setting) != new.get(setting):
                    yield setting, old.get(setting), new.get(setting)
        elif old != new:
            yield name, old, new


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def write_trials(plan: Plan, rows: Callable[[], Iterable[Mapping[str, Any]] | None]) -> None:
    """Write trials.csv, one row for each trial that has ended.

    `rows` is called under the lock, so that no worker writes an earlier state over a later one. If it returns None,
    nothing is written.
    """
    with _locked(plan.folder):
        made = rows()
        if made is None:
            return
        text = io.StringIO()
        table = csv.DictWriter(text, TRIALS, lineterminator="\n")
        table.writeheader()
        table.writerows({name: "" if row[name] is None else row[name] for name in TRIALS} for row in made)
        write_atomically(plan.folder / "trials.csv", text.getvalue().encode())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Exclusive access to a study's files, which all of its workers write."""
    folder.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(folder / "study.lock", patience=LOCK_TIMEOUT):
        yield


def run_tags(study: str, cell: str) -> dict[str, str]:
    """The MLflow tags of a run of a study."""
    return {f"study.{study}": "true", "cell": cell}


def trial_tags(study: str, cell: str, number: int) -> dict[str, str]:
    """The MLflow tags of a trial of a study."""
    return {f"tuning.{study}": "true", "trial": str(number), "cell": cell}


def parent_run_name(study: str, cell: str) -> str:
    """The name of the MLflow run in which the trials of a cell are nested."""
    return f"tune/{study}/{cell}"


def tuning_metrics(rate: Mapping[str, Any], budget: int) -> dict[str, float]:
    """The MLflow metrics of a cell's tuning: learning rate, its interval where it is known, number of trials."""
    known = {name: float(rate[name]) for name in ("rate", "rate_low", "rate_high") if rate[name] is not None}
    return {**known, "trials": float(budget)}


def run_states(
    plan: Plan, runs: list[tuple[PlannedCell, int]] | None = None
) -> dict[tuple[PlannedCell, int], StudyRunState]:
    """The states of `runs`, by default of all runs of the study."""
    return {(cell, seed): run_state(plan, cell, seed) for cell, seed in (plan.runs() if runs is None else runs)}


def run_state(plan: Plan, cell: PlannedCell, seed: int) -> StudyRunState:
    """The state of one run by its files, with a detail: done (its Dice), running (where), failed (why) or missing."""
    prepared = plan.run(cell, seed)
    if prepared is None:
        return "missing", plan.rate(cell).reason
    state = state_of(plan.machine.runs_dir / prepared.config.key)
    if state.name in ("finished", "running") and state.result:  # it is held for a moment after its end
        return "done", f"{state.result['test']['last']['dice']:.4f}"
    if (dice := plan.committed_dice(cell, seed)) is not None:
        return "done", f"{dice:.4f}"
    if state.name in ("running", "failed"):
        return state.name, state.reason
    if state.name == "damaged":
        return "failed", state.reason
    return "missing", "interrupted" if state.name == "interrupted" else ""


def _design(plan: Plan) -> dict[str, Any]:
    """What was planned before the first score: what is compared with what, over which seeds, with which margins."""
    study = plan.study
    given: dict[str, Any] = {
        "seeds": list(plan.seeds),
        "rope": study.rope,
        "confirmatory": list(study.confirmatory),
        "simple_effects": list(study.simple_effects),
        "baseline": study.baselines,
    }
    optional = {
        "cell_rope": study.cell_rope,
        "within": {factor: list(others) for factor, others in study.within.items()},
        "draw_training_cars": study.draw_training_cars,
        "kinds": study.kinds,
        "looks": list(study.looks),
        "looks_taken": plan.looks_taken,
        "extended_from": plan.extended_from,
    }
    return given | {name: value for name, value in optional.items() if value}


def _shared(plan: Plan) -> dict[str, Any]:
    """The settings that every cell has."""
    every = [cell.config.settings() for cell in plan.cells]
    left_out = ("seed", "learning_rate") if plan.study.tuning else ("seed",)
    return {k: v for k, v in every[0].items() if k not in left_out and all(settings[k] == v for settings in every)}


def _known_faulty(plan: Plan) -> list[str] | None:
    """The test images whose masks are publicly listed as faulty: a report gives its verdicts with and without them.

    None where no cell is on Carvana, whose images the list is of.
    """
    parts = [cell.base.parts.test for cell in plan.cells if cell.config.data == "carvana"]
    return sorted({s.name for part in parts for s in part if is_known_faulty(s.name)}) if parts else None


def _data_size(plan: Plan) -> dict[str, Any]:
    """How many images of how many groups there are, and the sizes of the test masks, at which all is scored."""
    samples = {sample.image: sample for cell in plan.cells for sample in cell.base.samples}.values()
    sizes = {_size(sample.mask) for cell in plan.cells for sample in cell.base.parts.test}
    return {"photographs": len(samples), "groups": len({sample.group for sample in samples}), "sizes": sorted(sizes)}


@functools.cache
def _size(mask: Path) -> str:
    with open_image(mask_files(mask)[0], "mask") as picture:
        return f"{picture.width}x{picture.height}"


def _cell(plan: Plan, cell: PlannedCell) -> dict[str, Any]:
    rate, shared = plan.rate(cell), _shared(plan)
    runs = {str(seed): prepared.config.key for seed in plan.seeds if (prepared := plan.run(cell, seed)) is not None}
    own = {k: v for k, v in cell.config.settings().items() if k not in shared and k not in ("seed", "learning_rate")}
    return {
        "cell": cell.id,
        "levels": dict(cell.cell.levels),
        "settings": own,
        "rate": rate.value,
        "rate_low": rate.low,
        "rate_high": rate.high,
        "tuned": rate.tuned,
        "edge": rate.edge,
        "runs": runs,
    }
