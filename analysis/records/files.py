"""Atomic writes, SHA-256 of files, JSON objects from files: one implementation for the whole project."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None where the file is missing, unreadable or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def no_check() -> None:
    """The `confirm` of files that no other process can own."""


def write_atomically(path: Path, *parts: bytes | memoryview, confirm: Callable[[], None] = no_check) -> None:
    """Write a file such that a crash at any moment leaves either the complete old file or the complete new one.

    Args:
        path: the file to write or replace.
        parts: its content, written one after the other.
        confirm: called once the new content is on disk, before it replaces the old file. Whatever it raises is raised
            here, and the old file stays.
    """
    with open_atomically(path, confirm) as file:
        for part in parts:
            file.write(part)


@contextmanager
def open_atomically(path: Path, confirm: Callable[[], None] = no_check) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the `with` block ends without an error."""
    temporary = temporary_name(path)
    try:
        with name_file(path), open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would keep the space that the next try needs
        raise
    move_into_place(temporary, path, confirm)
    sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """Return a name next to `path` that no other process uses."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


def move_into_place(temporary: Path, path: Path, confirm: Callable[[], None]) -> None:
    """Rename `temporary` to `path` if `confirm` returns; `temporary` is gone afterwards in any case."""
    try:
        confirm()
        os.replace(temporary, path)
    except FileNotFoundError:
        confirm()  # removed by the process that took the run over
        raise
    finally:
        temporary.unlink(missing_ok=True)  # not confirmed, or both names are links to one file, which rename leaves


def relative_to_cwd(path: Path) -> Path:
    """`path` as it is typed from the working directory, where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power failure."""
    if os.name != "posix":
        return  # Windows cannot open a folder; its rename is durable enough
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Add `path` to an OSError that names no file: `write` reports a full disk by its error number alone."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
