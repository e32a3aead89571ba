"""The one door to MLflow. The disk is the truth and MLflow is the window on it.

Everything is sent from a thread of its own, so a slow store costs a run nothing, and a store that is away costs it one
warning: the run's own folder holds all that would have been sent. Names of metrics and tags are part of the project's
contract: see `metrics` below and the tags in `Tracker._open`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from experiments.config import RunConfig
from experiments.record import git_commit

EXPERIMENT = "segmentation"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # its own default waits four minutes for a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}


def local_uri(output_dir: Path) -> str:
    """The store under `output_dir`, always absolute: MLflow's default would follow the working directory."""
    return f"sqlite:///{(output_dir / 'mlflow.db').absolute()}"


def run_name(config: RunConfig) -> str:
    return f"{config.model}-{config.loss}-{config.augment}-s{config.seed}"


class Tracker:
    """One run in MLflow. Calls return at once; `close` waits until what was said has been sent.

    `warn` is told, once, that tracking is away. A run that is resumed goes on in the MLflow run it had.
    """

    def __init__(self, uri: str | None, output_dir: Path, warn: Callable[[str], None]) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        self._uri, self._output_dir, self._warn = uri or local_uri(output_dir), output_dir, warn
        self._said: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._client: Any = None
        self._run_id = ""
        self._sent_steps: set[int] = set()
        self._monitor: Any = None
        self.away = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def open(self, config: RunConfig, data_dir: Path) -> None:
        """Begin (or take up) the run of `config`."""
        self._said.put(lambda: self._open(config, data_dir))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Metrics of an epoch, by their MLflow names; a step that the run already has is not sent twice."""
        self._said.put(lambda: self._metrics(dict(values), step))

    def picture(self, path: Path, key: str, step: int | None = None) -> None:
        """A picture; those with a step are shown with a slider."""
        self._said.put(lambda: self._picture(path, key, step))

    def close(self, status: str, values: Mapping[str, float], files: list[Path], patience: float = 60) -> None:
        """End the run as FINISHED, FAILED or KILLED, with its last metrics and its files."""
        self._said.put(lambda: self._close(status, dict(values), files))
        self._said.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._gone("it does not answer")

    def _work(self) -> None:
        while (act := self._said.get()) is not None:
            if self.away:
                continue
            try:
                act()
            except Exception as error:  # whatever MLflow, its store or the network does, the run goes on
                self._gone(" ".join(str(error).split())[:200] or type(error).__name__)

    def _gone(self, reason: str) -> None:
        if not self.away:
            self.away = True
            self._stop_monitor()
            self._warn(f"MLflow at {self._uri} is away ({reason}). The run goes on; its record on disk is complete.")

    def _open(self, config: RunConfig, data_dir: Path) -> None:
        self._client, experiment = _store(self._uri, self._output_dir)
        _reconcile(self._client, experiment)
        tags = {
            "model": config.model, "loss": config.loss, "augment": config.augment, "data": config.data,
            "seed": str(config.seed), "key": config.key, "owner": _owner(),
            "mlflow.source.name": "run.py", "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": git_commit(),
        }  # fmt: skip
        found = self._client.search_runs([experiment], f"tags.key = '{config.key}'", max_results=1)
        if found:
            self._run_id = found[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            self._client.set_tag(self._run_id, "owner", tags["owner"])
            self._sent_steps = {m.step for m in self._client.get_metric_history(self._run_id, "val/dice")}
        else:
            run = self._client.create_run(experiment, tags=tags, run_name=run_name(config))
            self._run_id = run.info.run_id
            self._describe(config, data_dir)
        self._start_monitor()

    def _describe(self, config: RunConfig, data_dir: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        params = [Param(name, json.dumps(v) if isinstance(v, (dict, list)) else str(v)) for name, v in config.to_dict().items()]
        self._client.log_batch(self._run_id, params=params)
        source = json.dumps({"uri": str(data_dir.absolute())})
        data = Dataset(name=config.data, digest=config.data_fingerprint, source_type="local", source=source)
        self._client.log_inputs(self._run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])

    def _metrics(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        if step in self._sent_steps:
            return
        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()])
        self._sent_steps.add(step)

    def _picture(self, path: Path, key: str, step: int | None) -> None:
        from PIL import Image

        with Image.open(path) as picture:
            if step is None:
                self._client.log_image(self._run_id, picture, artifact_file=f"pictures/{path.name}")
            else:
                self._client.log_image(self._run_id, picture, key=key, step=step)

    def _close(self, status: str, values: dict[str, float], files: list[Path]) -> None:
        self._stop_monitor()
        for path in files:
            self._client.log_artifact(self._run_id, str(path))
        if values:
            self._metrics(values, max(self._sent_steps, default=0) + 1)
        self._client.set_terminated(self._run_id, status)

    def _start_monitor(self) -> None:
        """CPU, memory, disk and GPU load, every ten seconds."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(self._run_id, resume_logging=True, tracking_uri=self._uri)
        self._monitor.start()

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            with contextlib.suppress(Exception):
                self._monitor.finish()
            self._monitor = None


def _store(uri: str, output_dir: Path) -> tuple[Any, str]:
    """A client, and the id of the experiment; both are made once, under a lock: two processes that first open one
    sqlite file at the same time ruin it."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(output_dir / "mlflow.lock", timeout=60):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return client, found.experiment_id
        place = (output_dir / "mlartifacts").absolute().as_uri() if uri.startswith("sqlite:") else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # the pages for training, not for language models
        return client, client.create_experiment(EXPERIMENT, artifact_location=place, tags=kind)


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _reconcile(client: Any, experiment: str) -> None:
    """Runs that a kill left RUNNING are marked KILLED, if their process was on this machine and is gone."""
    import psutil

    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        host, _, process = run.data.tags.get("owner", "").rpartition(":")
        if host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process)):
            client.set_terminated(run.info.run_id, "KILLED")


def serve(output_dir: Path, uri: str | None, port: int) -> None:
    """Replace this process by MLflow's own UI on loopback, on the right store."""
    import sys

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    _store(uri or local_uri(output_dir), output_dir)
    words = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [*words, "--backend-store-uri", uri or local_uri(output_dir)])
