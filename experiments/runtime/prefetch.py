"""Bounded prefetching: results in order, computed by a pool of threads a limited number of items ahead."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Number of threads that read, decode or score images: one per core, 16 at most."""
    return min(16, os.cpu_count() or 1)


class MemoryLimit:
    """Lets threads work while what they need together is within `size` bytes; a single one may need more."""

    def __init__(self, size: int) -> None:
        self.size, self._held, self._changed = size, 0, threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them within the `with` block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self.size)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, ahead: int = 32
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, computed by `workers` threads.

    `items` is consumed in the calling thread. At most `ahead` items are in progress or waiting: this bounds memory,
    and what an interruption has to wait for.
    """
    coming = iter(items)
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        pending: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(coming, ahead))
        try:
            while pending:
                first = pending.popleft()
                pending.extend(pool.submit(function, item) for item in islice(coming, 1))
                yield first.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
