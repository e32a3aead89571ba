"""Upload to MLflow what it lacks of the runs on disk, at any time and repeatably: the disk is the truth.

A run in MLflow is found by its tag `key`, and left alone where it has everything that its folder has.
把磁盘上有、而 MLflow 里缺的内容补传上去；磁盘上的记录为准，所以任何时候都可以补传，重复执行也不会产生重复的运行。
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from analysis.text.sentences import cell_verdict
from analysis.verdicts.answer import Answer
from experiments.config.schema import RunConfig, without_password
from experiments.runtime import progress
from experiments.runtime.errors import RunFailed
from experiments.runtime.progress import log
from experiments.studies import study_folder
from experiments.studies.summary_runs import summarise_study
from experiments.tracking.store import local_uri, store_uri
from experiments.tracking.tracker import Session
from experiments.tracking.tracker import session as connect
from experiments.tracking.upload import RunSnapshot, RunUpload
from experiments.training.run_folder import RunFolder
from experiments.training.run_index import state_of
from experiments.training.run_snapshot import snapshot
from experiments.training.runner import RUN, TRIAL, RunType
from registry import InputError

Tags = dict[str, dict[str, str]]  # by the run's key


@dataclass
class Studies:
    """What the studies on the disk say of runs and trials; `parents` are what trials are nested in."""

    runs: Tags = field(default_factory=lambda: defaultdict(dict))
    trials: Tags = field(default_factory=lambda: defaultdict(dict))
    parents: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    groups: dict[str, tuple[dict[str, float], Path]] = field(default_factory=dict)


def upload(output_dir: Path, uri: str | None) -> int:
    """Upload what is missing; exit code 0. Raises InputError without runs, and RunFailed while MLflow is away."""
    if not (output_dir / "runs").is_dir() and not (output_dir / "trials").is_dir():
        raise InputError(f"There are no runs under {output_dir}: name the folder with --output-dir.")
    studies, outcomes, warnings = read_studies(output_dir / "studies"), Counter[str](), list[str]()
    with connect(store_uri(uri, output_dir), output_dir, warnings.append) as session:
        for run_type, folder in ((RUN, output_dir / "runs"), (TRIAL, output_dir / "trials")):
            places = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
            with progress.progress_counter(f"comparing {folder.name}") as show:
                for number, place in enumerate(places, 1):
                    outcomes[_upload_run(RunFolder(place), run_type, studies, session)] += 1
                    show(number, len(places))
                    if session.away:
                        break
        for name, (numbers, trials) in studies.groups.items():
            session.conclude(name, numbers, [trials] if trials.exists() else [])
        for name in sorted(studies.names):
            if not session.away:
                summarise_study(name, output_dir, session)
    if session.away:
        again = "type the same command when it is back" if session.usable else "do so, then type the same command again"
        raise RunFailed(f"{warnings[0].partition(' The run goes on')[0]} Nothing is lost: {again}.")
    summary = "; ".join(f"{count} {how}" for how, count in sorted(outcomes.items()))
    print(f"MLflow at {without_password(session.uri)}: {summary or 'nothing to upload'}.")
    return 0


def _upload_run(run_folder: RunFolder, run_type: RunType, studies: Studies, session: Session) -> str:
    """Upload one folder if MLflow lacks any of it; return the outcome in a few words."""
    run = _snapshot(run_folder, run_type, studies)
    if isinstance(run, str):
        return run
    known = session.call(lambda: session.find_run(run.key))
    # MLflow has more of a trial that was finished elsewhere than its folder
    imported = known is not None and known.status == run.status and run_folder.saved().get("published")
    if run.is_in(known) or session.away or imported:
        return "there already"
    RunUpload(session, live=False).update(run)
    session.call(lambda: None)  # so that no more than one run waits in memory
    return "uploaded" if known is None else "completed"


def _snapshot(run_folder: RunFolder, run_type: RunType, studies: Studies) -> RunSnapshot | str:
    """What MLflow should have of a folder, or why it is left out."""
    state = state_of(run_folder.folder)
    if state.name == "running":
        return "under way, left to who carries them out"
    try:
        config = RunConfig.from_dict(state.config)
    except (ValueError, KeyError, TypeError):
        return "without readable settings, left out"
    key = run_folder.key
    tags, parent = studies.runs.get(key, {}), ""
    if run_type is TRIAL:
        if key not in studies.parents:
            return "trials under way, left to the study's command"
        tags, parent = studies.trials[key], studies.parents[key]
    if state.name == "damaged":
        return "changed since they were finished, left out" if state.result else "damaged, left out"
    diverged = {"diverged": str(bool(state.failure.get("diverged"))).lower()} if state.failure else {}
    status = {"finished": "FINISHED", "failed": "FAILED"}.get(state.name, "KILLED")
    metrics = run_type.metrics(state.result) if state.result else {}
    data_dir = Path((state.saved.get("machine") or {}).get("data_dir") or "")
    try:
        return snapshot(run_folder, config, data_dir, {**tags, **diverged}, parent, status, metrics)
    except (InputError, KeyError, TypeError, ValueError):
        return "damaged, left out"


def read_studies(folder: Path) -> Studies:
    """What plan.json and trials.csv of every study say."""
    found = Studies()
    for path in sorted([*folder.glob("*/plan.json"), *folder.glob("*/trials.csv")]):
        try:
            (_read_plan if path.suffix == ".json" else _read_trials)(path, found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            progress.log(
                f"{path} cannot be read: its runs are uploaded without what it says of them. "
                "The study's command writes it anew."
            )
    return found


def _read_plan(plan: Path, found: Studies) -> None:
    content = json.loads(plan.read_text(encoding="utf-8"))
    found.names.add(plan.parent.name)
    for cell in content["cells"]:
        for key in cell["runs"].values():
            found.runs[key] |= study_folder.run_tags(content["name"], cell["cell"])
        if content["tuning"] and cell["rate"] is not None:
            numbers = study_folder.tuning_metrics(cell, content["tuning"]["budget"])
            found.groups[study_folder.parent_run_name(content["name"], cell["cell"])] = (
                numbers,
                plan.with_name("trials.csv"),
            )


def _read_trials(trials: Path, found: Studies) -> None:
    study = trials.parent.name
    with open(trials, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.parents.setdefault(row["key"], study_folder.parent_run_name(study, row["cell"]))
            found.trials[row["key"]] |= study_folder.trial_tags(study, row["cell"], int(row["trial"]))


def tag_verdicts(found: Answer, output_dir: Path, uri: str | None) -> None:
    """Tag the study's runs in the store that it began in, or the one given; runs of an earlier plan lose its tags.

    Raises InputError where there is no store.
    """
    machine = study_folder.with_store(found.study.name, {"output_dir": output_dir, "tracking_uri": uri})
    place = store_uri(machine["tracking_uri"], output_dir)
    if place == local_uri(output_dir) and not (output_dir / "mlflow.db").exists():
        raise InputError(
            f"There is no MLflow store under {output_dir}: name one with --tracking-uri, or leave out --tag."
        )
    name = found.study.name
    with connect(place, output_dir, log) as session:
        for cell in found.cells:
            top = str(cell.name in found.best).lower()
            for key in cell.keys:
                session.tag(key, {f"verdict.{name}": cell_verdict(found, cell.name, "en"), f"top.{name}": top})
        session.leave_out(name, set(found.records.runs.key))
        keys = [key for cell in found.cells for key in cell.keys]
        known = session.call(lambda: sum(session.find(key) is not None for key in keys))
    if not session.away and not known:
        print(
            f"MLflow at {without_password(place)} has no run of {name}, so no verdict is there. Name the store that "
            "has them with --tracking-uri, or upload them: python run.py sync"
        )
    elif not session.away:
        print(f"The verdicts are in MLflow, as the tags verdict.{name} and top.{name}.")
