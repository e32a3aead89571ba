"""A thread that carries out calls in order, so that a run never waits for them, until the first error."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


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
            self._fail("it does not answer")

    def on_failure(self, reason: str) -> None:
        """Called once, when the thread stops because of an error."""

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self.away:
                continue
            try:
                call()
            except Exception as error:  # whatever went wrong there, the run continues
                self._fail(" ".join(str(error).split())[:200] or type(error).__name__)

    def _fail(self, reason: str) -> None:
        if not self.away:
            self.away = True
            self.on_failure(reason)
