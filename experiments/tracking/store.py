"""MLflow's store: its address, its creation, and what it has of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import socket
import sqlite3
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock

from experiments.config.schema import without_password
from experiments.config.values import check_tracking_uri

EXPERIMENT = "segmentation"
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"  # MLflow's own
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # None: the default waits four minutes for a server that is down, and one would make a run twice whose answer came
    # late
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))
LOCKED = 5.0  # seconds to wait for a sqlite file that somebody else has locked


def set_up() -> None:
    """Set MLflow's environment variables, unless the user has."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


class Unusable(Exception):
    """A store that does not become usable by waiting; the message says what to do."""


def store_uri(given: str | None, output_dir: Path) -> str:
    """The store that is used: the one that was given, else that of MLFLOW_TRACKING_URI, else under `output_dir`.

    Raises InputError for a folder.
    """
    variable = os.environ.get(URI_VARIABLE)
    if given is None and variable:
        return check_tracking_uri(variable, URI_VARIABLE)
    return check_tracking_uri(given) if given else local_uri(output_dir)


def local_uri(output_dir: Path) -> str:
    """The store under `output_dir`, always absolute: MLflow's default would follow the working directory."""
    return sqlite_uri(output_dir / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """The address of a sqlite file, absolute. SQLAlchemy decodes it, and cuts at a question mark."""
    escaped = re.sub("%(?=[0-9A-Fa-f]{2})", "%25", str(path.absolute())).replace("?", "%3F")
    return f"sqlite:///{escaped}"


def local_path(uri: str) -> Path | None:
    """The file of a sqlite store; None for other stores."""
    path = unquote(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else ""
    return Path(path) if path else None


def experiment_name() -> str:
    """The experiment that runs go to: that of MLFLOW_EXPERIMENT_NAME, where it is set."""
    return os.environ.get(EXPERIMENT_VARIABLE) or EXPERIMENT


def summaries_name() -> str:
    """The experiment of the summaries of combinations, apart from the runs."""
    return f"{experiment_name()}-summaries"


@dataclass(frozen=True)
class TrackedRun:
    """What MLflow has of a run. `pictures`: names of files, and (key, step) of those with a slider."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    steps: frozenset[int]
    files: frozenset[str]
    pictures: frozenset[str | tuple[str, int]]
    described: bool = True  # whether its settings and its data set are there


def find(client: Any, experiment: str, key: str) -> str | None:
    """Return the id of the run with this key."""
    found = client.search_runs([experiment], f"tags.key = '{key}'", max_results=1)
    return found[0].info.run_id if found else None


def summary_run(client: Any, uri: str, output_dir: Path, tags: Mapping[str, str], name: str) -> str:
    """The id of the summary with the key in `tags`, created where there is none yet, with all tags but `state`.

    It is under a lock, since several processes may end a study at once.
    """
    with FileLock(lock(uri, output_dir), timeout=60):
        experiment = _experiment(client, summaries_name(), uri, output_dir)
        known = find(client, experiment, tags["key"])
        if known is not None:
            return known
        first = {name: text for name, text in tags.items() if name != "state"}
        return str(client.create_run(experiment, tags=first, run_name=name).info.run_id)


def leave_out(client: Any, experiment: str, study: str, keys: Set[str]) -> None:
    """Remove the study's tags from runs of an earlier plan, those that are not among `keys`.

    A comparison of the study's runs would mix two plans otherwise.
    """
    here, page = [], ""
    while page is not None:  # all of them first: a page would lose its place when tags are deleted
        found = client.search_runs([experiment], f"tags.`study.{study}` = 'true'", page_token=page or None)
        here += found
        page = found.token
    for run in here:
        if run.info.status != "RUNNING" and run.data.tags.get("key") not in keys:
            for name in {f"study.{study}", f"verdict.{study}", f"top.{study}"} & set(run.data.tags):
                client.delete_tag(run.info.run_id, name)


def find_run(client: Any, experiment: str, key: str) -> TrackedRun | None:
    """What MLflow has of the run with this key."""
    run_id = find(client, experiment, key)
    if run_id is None:
        return None
    run = client.get_run(run_id)
    steps = frozenset(metric.step for metric in client.get_metric_history(run_id, "val/dice"))
    files = frozenset(item.path for item in client.list_artifacts(run_id) if not item.is_dir)
    shown = [Path(item.path).name for place in ("pictures", "images") for item in client.list_artifacts(run_id, place)]
    pictures = frozenset(_pictured(name) for name in shown)
    described = bool(run.data.params) and bool(run.inputs and run.inputs.dataset_inputs)
    return TrackedRun(run_id, run.info.status, run.data.tags, run.data.metrics, steps, files, pictures, described)


def _pictured(name: str) -> str | tuple[str, int]:
    """What a picture among the artifacts shows: MLflow names those with a slider KEY+step+STEP+…."""
    found = re.match(r"(.+?)[+%]step[+%](\d+)[+%]", name)
    return (found[1], int(found[2])) if found else name


def open_store(uri: str, output_dir: Path) -> tuple[Any, str]:
    """Open a store: a client, and the id of the experiment, both made under a lock.

    Two processes that first open one sqlite file at the same time ruin it.
    """
    set_up()
    output_dir.mkdir(parents=True, exist_ok=True)
    once = lock(uri, output_dir)
    once.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(once, timeout=60):
        _refuse_locked(uri)
        from mlflow import MlflowClient

        # the setting counts at MLflow's import, which somebody else may have done before
        logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])

        client = MlflowClient(tracking_uri=uri)
        if "%" in uri:  # MLflow makes the folder of the address as it is written, undecoded
            with contextlib.suppress(OSError):
                Path(uri.removeprefix("sqlite:///")).parent.rmdir()
        return client, _experiment(client, experiment_name(), uri, output_dir)


def _experiment(client: Any, name: str, uri: str, output_dir: Path) -> str:
    """The id of the experiment `name`, made where there is none. To be called under the lock."""
    found, place = client.get_experiment_by_name(name), (output_dir / "mlartifacts").absolute().as_uri()
    if found is None:
        kind = {"mlflow.experimentKind": "custom_model_development"}  # pages for training, not for language models
        location = place if uri.startswith("sqlite:") else None
        return str(client.create_experiment(name, artifact_location=location, tags=kind))
    if found.lifecycle_stage == "deleted":
        raise Unusable(
            f"The experiment {name} was deleted there. Restore it with: {URI_VARIABLE}="
            f"{shlex.quote(without_password(uri))} mlflow experiments restore --experiment-id {found.experiment_id}, "
            f"or name another in {EXPERIMENT_VARIABLE}."
        )
    if uri == local_uri(output_dir) and found.artifact_location.endswith("/mlartifacts"):
        _follow(Path(output_dir) / "mlflow.db", found.artifact_location, place)
    return str(found.experiment_id)


def _follow(database: Path, before: str, now: str) -> None:
    """Make a store that was moved or copied keep its files where it lies now, in place of where it was made.

    MLflow writes absolute addresses into the store and has no call to change them.
    """
    if before == now:
        return
    with contextlib.closing(sqlite3.connect(database, timeout=LOCKED)) as store, store:
        for table, column in ADDRESSES:
            inside = f"{column} = ? OR substr({column}, 1, ?) = ?"
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {inside}",
                (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )


def lock(uri: str, output_dir: Path) -> Path:
    """The lock for what must be created once in a store: beside a sqlite file, else in the output folder."""
    place = local_path(uri)
    return place.with_suffix(".lock") if place is not None and place.name else output_dir / "mlflow.lock"


def _refuse_locked(uri: str) -> None:
    """MLflow itself would try to open a file that somebody else has locked for a minute and a half."""
    place = local_path(uri)
    if place is None or not place.exists():
        return
    with contextlib.closing(sqlite3.connect(place, timeout=LOCKED)) as there:
        there.execute("BEGIN IMMEDIATE")
        there.rollback()


def owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def reconcile(client: Any, experiment: str) -> None:
    """Runs that a kill left RUNNING are marked KILLED, if their process was on this machine and is gone."""
    import psutil

    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        host, _, process = run.data.tags.get("owner", "").rpartition(":")
        if host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process)):
            client.set_terminated(run.info.run_id, "KILLED")
