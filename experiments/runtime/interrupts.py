"""Graceful interruption by SIGINT (Ctrl-C), SIGTERM or SIGUSR1 (a scheduler's warning)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NOTHING_CHANGED = "Nothing was changed; the same command starts over."


def interruptible(work: Callable[[Stop], int], then: str = "Re-run the command to resume.") -> int:
    """Run `work` until done or stopped by a signal at its next step, then print `then`; return the exit code."""
    with handle_signals() as stop:
        try:
            return work(stop)
        except Interrupted:
            name = signal.Signals(stop.signal).name
            print(f"Interrupted by {name}. {then}", file=sys.stderr)
            return 130 if stop.signal == signal.SIGINT else 143


class Interrupted(Exception):
    """The work was stopped by a signal, at a point from which it can be resumed."""


class Stop:
    """Callable flag: whether a signal has requested a stop, and which one."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    def check(self) -> None:
        """Raise Interrupted if a stop was requested."""
        if self():
            raise Interrupted

    def also(self, reason: Callable[[], bool]) -> Stop:
        """A Stop that is also set when `reason()` is true."""
        return _StopAlso(self, reason)


class _StopAlso(Stop):
    def __init__(self, first: Stop, reason: Callable[[], bool]) -> None:
        super().__init__()
        self._first, self._reason = first, reason

    def __call__(self) -> bool:
        return self._first() or self._reason()


_active: list[Stop] = []  # signals reach the whole process


def raise_if_interrupted() -> None:
    """Raise Interrupted if a stop was requested within `handle_signals`: for code that has no Stop."""
    for stop in _active:
        stop.check()


@contextmanager
def handle_signals() -> Iterator[Stop]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a request to stop at the next step; a second signal stops at once."""
    stop = Stop()

    def ask(number: int, _: Any) -> None:
        if stop.signal:
            raise KeyboardInterrupt
        stop.signal = number

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {number: signal.signal(number, ask) for number in numbers}
    _active.append(stop)
    try:
        yield stop
    finally:
        _active.remove(stop)
        for number, handler in before.items():
            signal.signal(number, handler)
