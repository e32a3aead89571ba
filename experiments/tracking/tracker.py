"""The connection to one MLflow store. The disk is the truth and MLflow is the window on it.

All requests are sent from a dedicated thread: a slow store costs a run nothing, and one that is away costs it a single
warning, since the run's folder holds everything that would have been sent. What is sent of a run is `upload`'s matter.
"""

from __future__ import annotations

import contextlib
import queue
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, TypeVar

from experiments.config.schema import without_password
from experiments.runtime.interrupts import Interrupted
from experiments.tracking import store

Result = TypeVar("Result")
NO_ANSWER = "it does not answer"
BUSY = (NO_ANSWER, "database is locked", "could not be acquired")  # reasons why a file in use elsewhere is away


class WorkerThread:
    """`submit` returns at once; `close` waits. At the first error `on_failure` is called, and no further call made."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.away = False  # whether it has stopped for good
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        """Have the thread make `call` after those submitted before."""
        self._calls.put(call)

    def call(self, call: Callable[[], Result]) -> Result | None:
        """Return the result of `call`, made after all calls submitted before; None once the thread has stopped."""
        results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self.submit(lambda: results.put(call()))
        while not self.away:
            with contextlib.suppress(queue.Empty):
                return results.get(timeout=0.2)
        return None

    def close(self, timeout: float = 60) -> None:
        """Wait at most `timeout` seconds until all submitted calls have been made."""
        self._calls.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._fail(NO_ANSWER)

    def on_failure(self, reason: str, usable: bool = True) -> None:
        """Called once, when the thread stops because of an error; `usable`: whether waiting may help."""

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self.away:
                continue
            try:
                call()
            except store.Unusable as error:
                self._fail(str(error), usable=False)
            except Exception as error:  # whatever went wrong there, the run continues
                self._fail(" ".join(str(error).split())[:200] or type(error).__name__)

    def _fail(self, reason: str, usable: bool = True) -> None:
        if not self.away:
            self.away = True
            self.on_failure(reason, usable)


class Session(WorkerThread):
    """A connection with its thread, shared by all runs of a study. Methods return at once, `close` waits.

    `warn` is called once, when the store turns out to be away; from then on nothing is sent.
    """

    def __init__(self, uri: str | None, output_dir: Path, warn: Callable[[str], None]) -> None:
        store.set_up()
        self.uri, self.output_dir, self._warn = uri or store.local_uri(output_dir), output_dir, warn
        self.lock = store.lock(self.uri, output_dir)  # held while something is created that must exist once
        self.client: Any = None
        self.experiment = ""
        self.usable = True  # False where the store will not answer however long one waits
        self.trouble = ""  # what is wrong with it, in a sentence
        self._monitors: dict[str, Any] = {}  # by the run's id
        super().__init__("tracking")
        self.submit(self._open)

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Set tags of the run with this key, if MLflow has it: its study, or a verdict."""
        self.submit(lambda: self._tag(key, dict(tags)))

    def leave_out(self, study: str, keys: Set[str]) -> None:
        """Remove the study's tags from all runs but those with these keys."""
        self.submit(lambda: store.leave_out(self.client, self.experiment, study, keys))

    def conclude(self, key: str, values: Mapping[str, float], files: list[Path]) -> None:
        """Give the parent run of a cell's trials its metrics and files."""
        self.submit(lambda: self._conclude(key, dict(values), files))

    def find(self, key: str) -> str | None:
        """Return the id of the run with this key. Call it on the thread."""
        return store.find(self.client, self.experiment, key)

    def find_run(self, key: str) -> store.TrackedRun | None:
        """Return what MLflow has of the run with this key. Call it on the thread."""
        return store.find_run(self.client, self.experiment, key)

    def start_monitor(self, run_id: str) -> None:
        """Log CPU, memory, disk and GPU load to a run, every ten seconds. Call it on the thread."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitors[run_id] = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self.uri)
        self._monitors[run_id].start()

    def stop_monitor(self, run_id: str) -> None:
        """End it; a run without monitor is left alone."""
        monitor = self._monitors.pop(run_id, None)
        if monitor is not None:
            with contextlib.suppress(Exception):
                monitor.finish()

    def on_failure(self, reason: str, usable: bool = True) -> None:
        self.usable = usable
        for run_id in list(self._monitors):
            self.stop_monitor(run_id)
        place = without_password(self.uri)
        flags = f"--tracking-uri {shlex.quote(place)} --output-dir {shlex.quote(str(self.output_dir))}"
        what = f"is away ({without_password(reason)})." if usable else f"cannot be used: {reason}"
        then = "When MLflow is back" if usable else "Then"
        if usable and store.local_path(self.uri) is not None and any(word in reason for word in BUSY):
            what = f"{what[:-1]}: another command is using this file, or the machine is busy. Nothing is lost."
            then = "When that command has ended"
        self.trouble = f"MLflow at {place} {what}"
        self._warn(
            f"{self.trouble} The run goes on; its record on disk is complete. "
            f"{then}, this uploads it: python run.py sync {flags}"
        )

    def _open(self) -> None:
        self.client, self.experiment = store.open_store(self.uri, self.output_dir)
        store.reconcile(self.client, self.experiment)

    def _tag(self, key: str, tags: dict[str, str]) -> None:
        run_id = self.find(key)
        for name, value in tags.items() if run_id else ():
            self.client.set_tag(run_id, name, value)

    def _conclude(self, key: str, values: dict[str, float], files: list[Path]) -> None:
        run_id = self.find(key)
        known = self.client.get_run(run_id).data.metrics if run_id else {}
        for name, value in values.items() if run_id else ():
            if known.get(name) != value:
                self.client.log_metric(run_id, name, value)
        for path in files if run_id else ():
            self.client.log_artifact(run_id, str(path))


@contextlib.contextmanager
def session(uri: str | None, output_dir: Path, warn: Callable[[str], None]) -> Iterator[Session]:
    """Connect for the length of a `with` block; a process that was interrupted does not wait long for MLflow."""
    opened = Session(uri, output_dir, warn)
    timeout = 60.0
    try:
        yield opened
    except (Interrupted, KeyboardInterrupt):
        timeout = 5.0  # on a busy machine the whole stop must fit into ten seconds
        raise
    finally:
        opened.close(timeout)
