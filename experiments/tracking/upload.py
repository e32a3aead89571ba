"""Upload to MLflow what it lacks of a run's folder: during the run after each epoch and at its end, later by `sync`.

The upload is idempotent: a run in MLflow is found by its tag `key`, and what it has is not sent again. The names of
metrics and tags are part of the project's contract.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from experiments.config.schema import RunConfig
from experiments.data.images import open_image
from experiments.tracking import store
from experiments.tracking.tracker import Session
from registry import InputError

RUNNING = "RUNNING"


@dataclass(frozen=True)
class LoggedEpoch:
    """The metrics of one epoch, by their names in MLflow, and when it ended (seconds since 1970)."""

    step: int
    metrics: Mapping[str, float]
    ended: float


@dataclass(frozen=True)
class RunSnapshot:
    """What MLflow should have of a run, as its folder is now. Moments are seconds since 1970."""

    config: RunConfig
    data_dir: Path
    began: float
    epochs: list[LoggedEpoch]
    pictures: Mapping[str | tuple[str, int], Path]  # by file name; those shown with a slider by (key, step)
    files: list[Path]
    tags: Mapping[str, str]  # besides those that every run has
    parent: str = ""  # the key of the run that this one is nested in
    status: str = RUNNING  # or FINISHED, FAILED, KILLED
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the result
    ended: float = 0.0

    @property
    def key(self) -> str:
        """The tag `key`. A trial may have the settings of a run, and the two must not be confused."""
        return f"trial-{self.config.key}" if self.parent else self.config.key

    def is_in(self, known: store.TrackedRun | None) -> bool:
        """Whether MLflow has all of it."""
        return known is not None and (
            known.status == self.status
            and known.described
            and self.tags.items() <= known.tags.items()
            and {epoch.step for epoch in self.epochs} <= known.steps
            and self.metrics.keys() <= known.metrics.keys()
            and {path.name for path in self.files} <= known.files
            and self.pictures.keys() <= known.pictures
        )


class RunUpload:
    """The upload of one run. Methods return at once. A run that is resumed continues in the MLflow run that it has.

    `live` is False for a run of the past, for which no system metrics can be measured; `is_mine` says whether this
    process still has the run.
    """

    def __init__(self, session: Session, live: bool = True, is_mine: Callable[[], bool] = lambda: True) -> None:
        self._session, self._live, self._is_mine = session, live, is_mine
        self._run_id = ""
        self._tags: dict[str, str] = {}
        self._metrics: dict[str, float] = {}
        self._steps: set[int] = set()
        self._pictures: set[str | tuple[str, int]] = set()

    def update(self, run: RunSnapshot) -> None:
        """Send what MLflow lacks; where the run has ended, with its files, metrics and status."""
        self._session.submit(lambda: self._update(run))

    def leave(self) -> None:
        """Send nothing more: the run is another process's now."""
        self._session.submit(lambda: self._session.stop_monitor(self._run_id))

    def _update(self, run: RunSnapshot) -> None:
        if not self._run_id:
            self._open(run)
        client = self._session.client
        for name, value in run.tags.items():
            if self._tags.get(name) != value:
                client.set_tag(self._run_id, name, value)
        self._tags |= run.tags
        for epoch in run.epochs:
            if epoch.step not in self._steps:
                self._log(epoch.metrics, epoch.step, epoch.ended)
        for picture, path in run.pictures.items():
            if picture not in self._pictures:
                self._log_picture(picture, path)
        if run.status != RUNNING:
            self._end(run)

    def _end(self, run: RunSnapshot) -> None:
        self._session.stop_monitor(self._run_id)
        for path in run.files:
            self._session.client.log_artifact(self._run_id, str(path))
        if metrics := {name: value for name, value in run.metrics.items() if self._metrics.get(name) != value}:
            self._log(metrics, self._step_after(metrics), run.ended)
        self._session.client.set_terminated(self._run_id, run.status, _milliseconds(run.ended))

    def _step_after(self, names: Iterable[str]) -> int:
        """Return a step after all epochs and after any value that these metrics have: MLflow shows that of the highest.

        At equal steps and moments it would show the larger value.
        """
        history = self._session.client.get_metric_history
        known = [metric.step for name in names if name in self._metrics for metric in history(self._run_id, name)]
        return max([*self._steps, *known], default=0) + 1

    def _open(self, run: RunSnapshot) -> None:
        """Find the run in MLflow, or create it."""
        config, client = run.config, self._session.client
        tags = {
            "model": config.model,
            "loss": config.loss,
            "augment": config.augment,
            "data": config.data,
            "seed": str(config.seed),
            "key": run.key,
            "owner": store.owner(),
            "mlflow.source.name": "run.py",
            "mlflow.source.type": "LOCAL",
            **run.tags,
        }
        if run.parent:
            tags["mlflow.parentRunId"] = self._parent_id(run)
        known = self._session.find_run(run.key)
        if known and known.steps and not run.epochs and self._live and self._is_mine():
            self._supersede(known.run_id, run.key)  # it was discarded, and training starts from the beginning
            known = None
        known = known or self._create(tags, run)
        if known:
            self._run_id = known.run_id
            client.update_run(self._run_id, status=RUNNING)
            client.set_tag(self._run_id, "owner", tags["owner"])
            self._tags, self._metrics = dict(known.tags), dict(known.metrics)
            self._steps, self._pictures = set(known.steps), set(known.pictures)
        if known is None or not known.described:  # the answer to its creation came too late, or a kill came in between
            self._describe(run)
        if self._live and not run.parent:
            self._session.start_monitor(self._run_id)

    def _create(self, tags: dict[str, str], run: RunSnapshot) -> store.TrackedRun | None:
        """Create the run, unless another process has done so since it was looked for: then return what MLflow has."""
        with FileLock(self._session.lock, timeout=60):
            known = self._session.find_run(run.key)
            if known is None:
                config = run.config
                name = f"{config.model}-{config.loss}-{config.augment}-s{config.seed}"
                began, experiment = _milliseconds(run.began), self._session.experiment
                self._run_id = self._session.client.create_run(experiment, began, tags, name).info.run_id
                self._tags = tags
        return known

    def _supersede(self, run_id: str, key: str) -> None:
        """Keep a run in MLflow under the tag `superseded`, so that another can have its key."""
        with FileLock(self._session.lock, timeout=60):
            self._session.client.set_tag(run_id, "superseded", key)
            self._session.client.delete_tag(run_id, "key")

    def _parent_id(self, run: RunSnapshot) -> str:
        """The id of the run that trials are nested in; several workers look for it at once."""
        with FileLock(self._session.lock, timeout=60):
            found = self._session.find(run.parent)
            if found:
                return found
            tags = {"key": run.parent, **{k: v for k, v in run.tags.items() if k.startswith("tuning.")}}
            client = self._session.client
            run_id = client.create_run(self._session.experiment, tags=tags, run_name=run.parent).info.run_id
            client.set_terminated(run_id, "FINISHED")  # it only groups its trials: no process works in it
            return run_id

    def _describe(self, run: RunSnapshot) -> None:
        """Send the settings and the data set."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        settings = run.config.to_dict().items()
        params = [Param(name, json.dumps(v) if isinstance(v, (dict, list)) else str(v)) for name, v in settings]
        self._session.client.log_batch(self._run_id, params=params)
        source = json.dumps({"uri": str(run.data_dir.absolute())})
        data = Dataset(run.config.data, run.config.data_fingerprint, source_type="local", source=source)
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        self._session.client.log_inputs(self._run_id, inputs)

    def _log(self, metrics: Mapping[str, float], step: int, moment: float) -> None:
        from mlflow.entities import Metric

        batch = [Metric(name, value, _milliseconds(moment), step) for name, value in metrics.items()]
        self._session.client.log_batch(self._run_id, metrics=batch)
        self._steps.add(step)

    def _log_picture(self, name: str | tuple[str, int], path: Path) -> None:
        try:
            with open_image(path, "picture") as opened:
                picture = opened.copy()
        except InputError:  # torn by a kill, in versions that did not write it atomically
            return
        if isinstance(name, tuple):
            self._session.client.log_image(self._run_id, picture, key=name[0], step=name[1])
        else:
            self._session.client.log_image(self._run_id, picture, artifact_file=f"pictures/{name}")
        self._pictures.add(name)


def _milliseconds(moment: float) -> int:
    return int(moment * 1000)
