"""A run on its way to MLflow. The disk is the truth and MLflow is the window on it.

Everything is sent from a thread of its own, so a slow store costs a run nothing, and a store that is away costs it one
warning: the run's own folder holds all that would have been sent. Names of metrics and tags are part of the project's
contract: see `metrics` below and the tags in `Tracker._open`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from filelock import FileLock

from experiments.config.schema import RunConfig, without_password
from experiments.runtime.environment import git_commit
from experiments.runtime.interrupts import Interrupted
from experiments.tracking import store
from experiments.tracking.worker_thread import WorkerThread


def shown(text: str) -> str:
    """An address, or a sentence with one, as it may be printed."""
    return without_password(text)


def run_name(config: RunConfig) -> str:
    return f"{config.model}-{config.loss}-{config.augment}-s{config.seed}"


class Session(WorkerThread):
    """The way to one store, with a thread of its own; a study's runs share it. Calls return at once, `close` waits.

    `warn` is told, once, that tracking is away; from then on nothing is tried.
    """

    def __init__(self, uri: str | None, output_dir: Path, warn: Callable[[str], None]) -> None:
        store.set_up()
        self.uri, self._output_dir, self._warn = uri or store.local_uri(output_dir), output_dir, warn
        self.lock = store.lock(self.uri, output_dir)  # held while something is made that must be made once
        self.client: Any = None
        self.experiment = ""
        self.trackers: list[Tracker] = []  # of the runs that are open
        super().__init__("tracking")
        self.say(self._open)

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Set tags of the run with this key, if MLflow has it: that it belongs to a study, or a verdict."""
        self.say(lambda: self._tag(key, dict(tags)))

    def leave_out(self, study: str, keys: Set[str]) -> None:
        """Take the study's tags from all runs but those with these keys."""
        self.say(lambda: store.leave_out(self.client, self.experiment, study, keys))

    def conclude(self, key: str, values: Mapping[str, float], files: list[Path]) -> None:
        """Give the run that holds a cell's trials its numbers and files."""
        self.say(lambda: self._conclude(key, dict(values), files))

    def find(self, key: str) -> str | None:
        """The id of the run with this key. For use on the thread."""
        return store.find(self.client, self.experiment, key)

    def look(self, key: str) -> store.TrackedRun | None:
        """What MLflow has of the run with this key. For use on the thread."""
        return store.find_run(self.client, self.experiment, key)

    def gave_up(self, reason: str) -> None:
        for tracker in self.trackers:
            tracker.stop_monitor()
        place = shown(self.uri)
        self._warn(
            f"MLflow at {place} is away ({shown(reason)}). The run goes on; its record on disk is complete. "
            f"When MLflow is back, this uploads it: python run.py sync --tracking-uri {place} --output-dir {self._output_dir}"
        )

    def _open(self) -> None:
        self.client, self.experiment = store.open_store(self.uri, self._output_dir)
        store.reconcile(self.client, self.experiment)

    def _tag(self, key: str, tags: dict[str, str]) -> None:
        run_id = self.find(key)
        for name, value in tags.items() if run_id else ():
            self.client.set_tag(run_id, name, value)

    def _conclude(self, key: str, values: dict[str, float], files: list[Path]) -> None:
        run_id = self.find(key)
        there = self.client.get_run(run_id).data.metrics if run_id else {}
        for name, value in values.items() if run_id else ():
            if there.get(name) != value:
                self.client.log_metric(run_id, name, value)
        for path in files if run_id else ():
            self.client.log_artifact(run_id, str(path))


@contextlib.contextmanager
def session(uri: str | None, output_dir: Path, warn: Callable[[str], None]) -> Iterator[Session]:
    """A session for the length of a `with` block; who was interrupted does not wait long for MLflow."""
    opened = Session(uri, output_dir, warn)
    patience = 60.0
    try:
        yield opened
    except (Interrupted, KeyboardInterrupt):
        patience = 5.0  # with a busy machine the whole stop must fit into ten seconds
        raise
    finally:
        opened.close(patience)


class Tracker:
    """One run in MLflow. Calls return at once. A run that is resumed goes on in the MLflow run it had.

    `tags` are set besides the usual ones; a run with a `parent` (that run's key) is shown nested in it. `live` is False
    for a run of the past, whose load nobody can measure. Moments (`when`) are seconds since 1970; None is now.
    """

    def __init__(
        self, session: Session, tags: Mapping[str, str] | None = None, parent: str = "", live: bool = True
    ) -> None:
        self._session, self._tags, self._parent, self._live = session, dict(tags or {}), parent, live
        self._run_id = ""
        self._sent_steps: set[int] = set()
        self._sent_numbers: Mapping[str, float] = {}
        self._sent_pictures: set[str | tuple[str, int]] = set()
        self._monitor: Any = None

    def open(self, config: RunConfig, data_dir: Path, when: float | None = None) -> None:
        """Begin (or take up) the run of `config`."""
        self._session.trackers.append(self)
        self._session.say(lambda: self._open(config, data_dir, _milliseconds(when)))

    def metrics(self, values: Mapping[str, float], step: int, when: float | None = None) -> None:
        """Metrics of an epoch, by their MLflow names; a step that the run already has is not sent twice."""
        moment = _milliseconds(when)
        self._session.say(lambda: self._metrics(dict(values), step, moment))

    def picture(self, path: Path, key: str, step: int | None = None) -> None:
        """A picture; those with a step are shown with a slider, and not sent twice."""
        self._session.say(lambda: self._picture(path, key, step))

    def close(
        self,
        status: str,
        values: Mapping[str, float],
        files: list[Path],
        tags: Mapping[str, str] | None = None,
        when: float | None = None,
    ) -> None:
        """End the run as FINISHED, FAILED or KILLED, with its last metrics, its files and further tags."""
        moment = _milliseconds(when)
        self._session.say(lambda: self._close(status, dict(values), files, dict(tags or {}), moment))

    def leave(self) -> None:
        """Say nothing more of the run: it is another process's now."""
        self._session.say(self._leave)

    @property
    def _client(self) -> Any:
        return self._session.client

    def _open(self, config: RunConfig, data_dir: Path, moment: int) -> None:
        tags = {
            "model": config.model, "loss": config.loss, "augment": config.augment, "data": config.data,
            "seed": str(config.seed), "key": key_of(config.key, self._parent), "owner": store.owner(),
            "mlflow.source.name": "run.py", "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": git_commit(),
            **self._tags,
        }  # fmt: skip
        if self._parent:
            tags["mlflow.parentRunId"] = self._group(self._parent)
        found = self._session.look(tags["key"]) or self._create(tags, config, data_dir, moment)
        if found:
            self._run_id = found.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            for name in ("owner", *self._tags):
                self._client.set_tag(self._run_id, name, tags[name])
            self._sent_steps, self._sent_numbers = set(found.steps), found.metrics
            self._sent_pictures = set(found.pictures)
            if not found.described:  # its making was answered too late, or a kill came in between
                self._describe(config, data_dir)
        if self._live and not self._parent:
            self._start_monitor()

    def _create(self, tags: dict[str, str], config: RunConfig, data_dir: Path, moment: int) -> store.TrackedRun | None:
        """Make the run, unless another process has made it since it was looked for: then what MLflow has of it."""
        with FileLock(self._session.lock, timeout=60):
            found = self._session.look(tags["key"])
            if found is None:
                run = self._client.create_run(self._session.experiment, moment, tags=tags, run_name=run_name(config))
                self._run_id = run.info.run_id
        if found is None:
            self._describe(config, data_dir)
        return found

    def _group(self, key: str) -> str:
        """The run that nested ones lie in; several workers ask for it at once."""
        with FileLock(self._session.lock, timeout=60):
            found = self._session.find(key)
            if found:
                return found
            tags = {"key": key, **{k: v for k, v in self._tags.items() if k.startswith("tuning.")}}
            run = self._client.create_run(self._session.experiment, tags=tags, run_name=key)
            self._client.set_terminated(run.info.run_id, "FINISHED")  # a frame for its trials: nobody works in it
            return run.info.run_id

    def _describe(self, config: RunConfig, data_dir: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        params = [
            Param(name, json.dumps(v) if isinstance(v, (dict, list)) else str(v))
            for name, v in config.to_dict().items()
        ]
        self._client.log_batch(self._run_id, params=params)
        source = json.dumps({"uri": str(data_dir.absolute())})
        data = Dataset(name=config.data, digest=config.data_fingerprint, source_type="local", source=source)
        self._client.log_inputs(self._run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])

    def _metrics(self, values: dict[str, float], step: int, moment: int) -> None:
        from mlflow.entities import Metric

        if step in self._sent_steps:
            return
        self._client.log_batch(
            self._run_id, metrics=[Metric(name, value, moment, step) for name, value in values.items()]
        )
        self._sent_steps.add(step)

    def _picture(self, path: Path, key: str, step: int | None) -> None:
        from PIL import Image

        if step is not None and (key, step) in self._sent_pictures:
            return
        try:
            picture = Image.open(path)
        except (OSError, ValueError):  # torn by a kill in the days when it was written in its place
            return
        with picture:
            if step is None:
                self._client.log_image(self._run_id, picture, artifact_file=f"pictures/{path.name}")
            else:
                self._client.log_image(self._run_id, picture, key=key, step=step)
                self._sent_pictures.add((key, step))

    def _close(
        self, status: str, values: dict[str, float], files: list[Path], tags: dict[str, str], moment: int
    ) -> None:
        self._leave()
        for name, value in tags.items():
            self._client.set_tag(self._run_id, name, value)
        for path in files:
            self._client.log_artifact(self._run_id, str(path))
        if new := {name: value for name, value in values.items() if self._sent_numbers.get(name) != value}:
            self._metrics(new, max(self._sent_steps, default=0) + 1, moment)
        self._client.set_terminated(self._run_id, status, moment)

    def _leave(self) -> None:
        self.stop_monitor()
        self._session.trackers.remove(self)

    def _start_monitor(self) -> None:
        """CPU, memory, disk and GPU load, every ten seconds."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(self._run_id, resume_logging=True, tracking_uri=self._session.uri)
        self._monitor.start()

    def stop_monitor(self) -> None:
        """End the measuring of the machine's load."""
        if self._monitor is not None:
            with contextlib.suppress(Exception):
                self._monitor.finish()
            self._monitor = None


def key_of(key: str, parent: str = "") -> str:
    """The tag `key` of a run or trial: a trial's settings may be those of a run that is reported, and the two must not be
    taken for each other."""
    return f"trial-{key}" if parent else key


def _milliseconds(when: float | None) -> int:
    return int((time.time() if when is None else when) * 1000)
