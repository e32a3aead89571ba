"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from experiments.runtime.errors import name_file


def no_check() -> None:
    """For files that can be nobody else's."""


def write_atomically(path: Path, *parts: bytes | memoryview, confirm: Callable[[], None] = no_check) -> None:
    """Write a file so that, after a crash at any moment, `path` is the old one or the new one, whole.

    Raises what `confirm` raises, with the old one in its place.
    """
    temporary = temporary_name(path)
    try:
        with name_file(path), open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it would keep the space that the next try needs
        raise
    move_into_place(temporary, path, confirm)
    sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process uses."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


def move_into_place(temporary: Path, path: Path, confirm: Callable[[], None]) -> None:
    try:
        confirm()
        os.replace(temporary, path)
    except FileNotFoundError:
        confirm()  # swept away by who took the run over
        raise
    finally:
        temporary.unlink(missing_ok=True)  # refused; or, with both names for one file, left as it was


def sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows cannot open a folder; its rename is durable enough
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
