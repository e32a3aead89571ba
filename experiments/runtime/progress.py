"""Progress reporting: progress bars on a TTY, plain log lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.runtime.errors import on_one_line

_quiet = ContextVar("quiet", default=False)


def log(text: str) -> None:
    """Print a line and flush it, since a file may be followed; nothing within `quiet`."""
    if not _quiet.get():
        print(text, flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence `log` and the progress bars: a study prints one line per run instead."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def log_to_stderr(text: str) -> None:
    """Print a status line to stderr; stdout may be machine-readable."""
    print(on_one_line(text), file=sys.stderr, flush=True)


def note(text: str) -> None:
    """A line beside the output, such as what was left out of a folder. Nothing while `quiet`."""
    if not _quiet.get():
        log_to_stderr(text)


@contextmanager
def progress_counter(what: str, stop: Callable[[], None] = lambda: None) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that shows the progress of `what` and calls `stop`, which may raise."""
    began, last = time.perf_counter(), [0, 0]
    with _bar() as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            last[:] = done, total
            bar.update(task, completed=done, total=total)
            stop()

        yield show
    if last[0]:
        log(f"{what}: {last[0]} of {last[1]} in {time.perf_counter() - began:.1f} s")


def step_bar(what: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A wrapper around an epoch's steps that shows a progress bar on a TTY and nothing otherwise."""

    def watch(steps: Iterable[Any]) -> Iterable[Any]:
        total = len(steps) if isinstance(steps, Sized) else None
        with _bar() as bar:
            task = bar.add_task(what, total=total)
            for step in steps:
                yield step
                bar.advance(task)

    return watch


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, disable=_quiet.get() or not sys.stdout.isatty())
