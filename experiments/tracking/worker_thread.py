"""Work that a run does not wait for: done in order, in a thread of its own, and given up for good at the first error."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


class WorkerThread:
    """`say` returns at once; `close` waits. At the first error `gave_up` is called, once, and nothing more is tried."""

    def __init__(self, name: str) -> None:
        self._said: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.away = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def say(self, act: Callable[[], None]) -> None:
        """Have the thread do `act`, after what was said before."""
        self._said.put(act)

    def ask(self, act: Callable[[], Answer]) -> Answer | None:
        """What `act` returns, which the thread does after all that was said before; None where the work was given up."""
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.say(lambda: answers.put(act()))
        while not self.away:
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=0.2)
        return None

    def close(self, patience: float = 60) -> None:
        """Wait until all that was said is done, for at most `patience` seconds."""
        self._said.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._give_up("it does not answer")

    def gave_up(self, reason: str) -> None:
        """What to do when the work is given up."""

    def _work(self) -> None:
        while (act := self._said.get()) is not None:
            if self.away:
                continue
            try:
                act()
            except Exception as error:  # whatever happens there, those who do not wait go on
                self._give_up(" ".join(str(error).split())[:200] or type(error).__name__)

    def _give_up(self, reason: str) -> None:
        if not self.away:
            self.away = True
            self.gave_up(reason)
