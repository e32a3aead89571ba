"""Exceptions for user-input errors (exit code 2) and failed runs (exit code 1)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry import InputError

PATHLIB = ("Symlink loop", "Could not determine home")
FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, or of the user's share of it
DISK_FULL = "The disk is full"
LONGEST_SHOWN = 80  # characters of a path that is too long


class RunFailed(RuntimeError):
    """A run could not be finished (diverged, out of memory, disk full); the text says why and what helps."""


class Diverged(RunFailed):
    """A loss or gradient is not finite. It would happen again, so a study counts the run and does not repeat it."""


class Busy(InputError):
    """Another process holds this run."""


def on_one_line(sentence: str) -> str:
    """Escape line ends and other unprintable characters of a message, so that it stays on one line."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence)


def disk_error_message(error: OSError | RuntimeError, place: object = None) -> str | None:
    """One sentence for a full or read-only disk, or a path that no disk takes; None for any other error.

    `place` is named if the error itself names no file.
    """
    if isinstance(error, RuntimeError):  # pathlib's, for a link to itself and for the home of an unknown user
        text = str(error).rstrip(".")
        return f"{text}. Name another path." if text.startswith(PATHLIB) else None
    where = error.filename or place or "the output folder"
    if error.errno in FULL:
        return f"{DISK_FULL} ({where}). Free some space and repeat the command: it resumes."
    if error.errno in (errno.EACCES, errno.EPERM) and _may_not_be_read(str(where)):
        return f"{where} cannot be read ({error.strerror}). Let this user read it."
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            f"{where} cannot be written ({error.strerror}). Choose another --output-dir, or let this user write there."
        )
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        shown = str(where) if len(str(where)) <= LONGEST_SHOWN else f"{str(where)[:LONGEST_SHOWN]}…"
        return f"{shown} is no usable path ({error.strerror}). Name another."
    return None


def _may_not_be_read(path: str) -> bool:
    return os.path.exists(path) and not os.access(path, os.R_OK)


@contextmanager
def disk_errors(place: Path, instead: str) -> Iterator[None]:
    """Raise RunFailed for a full disk and InputError for any other refusal; `instead` is what to name instead."""
    try:
        yield
    except OSError as error:
        where = error.filename or place
        if error.errno in FULL:
            raise RunFailed(f"{DISK_FULL} ({where}). Free some space and repeat the command.") from None
        raise InputError(
            f"{where} cannot be written ({error.strerror}). Name {instead}, or let this user write there."
        ) from None
