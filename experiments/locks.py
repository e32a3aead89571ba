"""Waiting for a file lock that another process has: with an ear for Ctrl-C, and not for ever."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from experiments import stopping
from experiments.errors import RunFailed

MOMENTS = 120.0  # seconds after which a lock that is needed for moments must be held by a process that stands still


@contextmanager
def turn(path: Path, ask: Callable[[], object] = lambda: None, patience: float = math.inf) -> Iterator[None]:
    """Hold the lock at `path`. While another process has it, `ask`, which may raise, is called twice a second.

    Raises Interrupted where this process was asked to stop meanwhile, and RunFailed after `patience` seconds.
    """
    held, until = FileLock(path), time.monotonic() + patience
    while not held.is_locked:
        try:
            held.acquire(timeout=0.5)
        except Timeout:
            stopping.check()
            ask()
            if time.monotonic() > until:
                raise RunFailed(
                    f"Another process has held {path} for {patience:.0f} seconds and seems to stand still. "
                    "End it, and repeat the command."
                ) from None
    try:
        yield
    finally:
        held.release()
