"""Uploads to MLflow what it lacks of the runs on the disk. The disk is the truth, so this can be done at any time, and again.

A run in MLflow is found by its tag `key`, and left alone where it has all that its folder has.

把磁盘上有、而 MLflow 里缺的内容补传上去；磁盘上的记录为准，所以任何时候都可以补传，重复执行也不会产生重复的运行。
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.text.sentences import verdict
from analysis.verdicts.answer import Answer
from experiments.config.schema import RunConfig
from experiments.runtime import leases, progress
from experiments.runtime.errors import RunFailed
from experiments.runtime.files import read_json
from experiments.runtime.progress import log
from experiments.studies import study_folder
from experiments.tracking import store, tracker
from experiments.tracking import tracker as tracking
from experiments.training.epochs import logged_epochs as epochs_of
from experiments.training.epochs import picture_files
from experiments.training.run_folder import RunFolder
from experiments.training.runner import RUN, TRIAL, RunType
from registry import InputError

Tags = dict[str, dict[str, str]]  # by the run's key


@dataclass
class Studies:
    """What the studies on the disk say of runs and trials; `parents` are what trials are nested in."""

    runs: Tags = field(default_factory=lambda: defaultdict(dict))
    trials: Tags = field(default_factory=lambda: defaultdict(dict))
    parents: dict[str, str] = field(default_factory=dict)
    groups: dict[str, tuple[dict[str, float], Path]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Past:
    """One folder as MLflow should have it."""

    record: RunFolder
    config: RunConfig
    saved: Mapping[str, Any]  # config.json
    tags: dict[str, str]
    parent: str
    status: str
    numbers: dict[str, float]

    @property
    def ended(self) -> float:
        return max(path.stat().st_mtime for path in self.record.files())

    def is_in(self, known: store.TrackedRun | None) -> bool:
        """Whether MLflow has all of it."""
        return known is not None and (
            known.status == self.status
            and known.described
            and self.tags.items() <= known.tags.items()
            and {row["epoch"] for row in self.record.epochs()} <= known.steps
            and self.numbers.keys() <= known.metrics.keys()
            and {path.name for path in self.record.files()} <= known.files
            and picture_files(self.record).keys() <= known.pictures
        )


def upload(output_dir: Path, uri: str | None) -> int:
    """Upload what is missing; exit code 0. Raises InputError where there are no runs, and RunFailed while MLflow is away."""
    if not (output_dir / "runs").is_dir() and not (output_dir / "trials").is_dir():
        raise InputError(f"There are no runs under {output_dir}: name the folder with --output-dir.")
    studies, ended, complaints = read_studies(output_dir / "studies"), Counter[str](), list[str]()
    with tracking.session(uri, output_dir, complaints.append) as session:
        for kind, folder in ((RUN, output_dir / "runs"), (TRIAL, output_dir / "trials")):
            places = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
            with progress.progress_counter(f"comparing {folder.name}") as show:
                for number, place in enumerate(places, 1):
                    ended[_one(RunFolder(place), kind, studies, session)] += 1
                    show(number, len(places))
                    if session.away:
                        break
        for name, (numbers, trials) in studies.groups.items():
            session.conclude(name, numbers, [trials] if trials.exists() else [])
    if session.away:
        raise RunFailed(
            f"{complaints[0].partition(' The run goes on')[0]} Nothing is lost: type the same command when it is back."
        )
    said = "; ".join(f"{count} {how}" for how, count in sorted(ended.items()))
    print(f"MLflow at {tracking.shown(session.uri)}: {said or 'nothing to upload'}.")
    return 0


def _one(record: RunFolder, kind: RunType, studies: Studies, session: tracking.Session) -> str:
    """Upload one folder if MLflow lacks any of it; what was done, in a word or two."""
    if leases.owner(record.folder) is not None:
        return "under way, left to who carries them out"
    past = _past(record, kind, studies)
    if isinstance(past, str):
        return past
    key = tracking.key_of(record.key, past.parent)
    known = session.ask(lambda: session.look(key))
    if (
        past.is_in(known)
        or session.away
        or (past.saved.get("published") and known is not None and known.status == past.status)
    ):
        return "there already"  # of what was finished elsewhere there is no more than MLflow has
    _send(past, tracking.Tracker(session, past.tags, past.parent, live=False))
    session.ask(lambda: None)  # so that no more than one run waits in memory
    return "uploaded" if known is None else "completed"


def _past(record: RunFolder, kind: RunType, studies: Studies) -> _Past | str:
    """What there is to say of a folder, or why there is nothing."""
    try:
        saved = read_json(record.folder / "config.json") or {}
        config = RunConfig.from_dict(saved["config"])
    except (ValueError, KeyError, TypeError):
        return "without readable settings, left out"
    tags, parent = dict(studies.runs.get(record.key, {})), ""
    if kind is TRIAL:
        if record.key not in studies.parents:
            return "trials under way, left to the study's command"
        tags, parent = dict(studies.trials[record.key]), studies.parents[record.key]
    if saved.get("git_commit"):
        tags["mlflow.source.git.commit"] = saved["git_commit"]
    try:
        record.verify_checksums()
    except InputError:
        return "changed since they were finished, left out"
    try:
        epochs_of(record)
    except (InputError, KeyError, TypeError, ValueError):
        return "damaged, left out"
    result, failure = record.result(), record.failure()
    if failure:
        tags["diverged"] = str(bool(failure.get("diverged"))).lower()
    status = "FINISHED" if result else "FAILED" if failure else "KILLED"
    return _Past(record, config, saved, tags, parent, status, kind.numbers(result) if result else {})


def _send(past: _Past, tracker: tracking.Tracker) -> None:
    """All that a run would have sent, with the moments at which it did."""
    began, epochs = epochs_of(past.record)
    tracker.open(past.config, Path((past.saved.get("machine") or {}).get("data_dir") or ""), began)
    for values, number, moment in epochs:
        tracker.metrics(values, number, moment)
    for name, path in picture_files(past.record).items():
        tracker.picture(path, *(name if isinstance(name, tuple) else (path.stem,)))
    tracker.close(past.status, past.numbers, past.record.files(), when=past.ended)


def read_studies(folder: Path) -> Studies:
    """What plan.json and trials.csv of every study say."""
    found = Studies()
    for path in sorted([*folder.glob("*/plan.json"), *folder.glob("*/trials.csv")]):
        try:
            (_read_plan if path.suffix == ".json" else _read_trials)(path, found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            progress.log(
                f"{path} cannot be read: its runs are uploaded without what it says of them. The study's command writes it anew."
            )
    return found


def _read_plan(plan: Path, found: Studies) -> None:
    content = json.loads(plan.read_text(encoding="utf-8"))
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


def write(found: Answer, output_dir: Path, uri: str | None) -> None:
    """Tag the study's runs in the store at `uri` (or under `output_dir`); runs of an earlier plan lose its tags. Raises InputError where there is no store."""
    if uri is None and not (output_dir / "mlflow.db").exists():
        raise InputError(
            f"There is no MLflow store under {output_dir}: name one with --tracking-uri, or leave out --tag."
        )
    name = found.study.name
    with tracker.session(uri, output_dir, log) as session:
        for row in found.rows:
            for key in row.keys:
                session.tag(key, {f"verdict.{name}": verdict(row, "en"), f"top.{name}": str(row.top).lower()})
        session.leave_out(name, {key for row in found.rows for key in row.keys})
    if not session.away:
        print(f"The verdicts are in MLflow, as the tags verdict.{name} and top.{name}.")
