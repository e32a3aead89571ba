"""Checkpoints, written atomically and verified by their checksum before use.

A file is what `torch.save` writes, followed by one line with its SHA-256: `torch.load(path, weights_only=True)` reads
it as it is, and a single flipped bit, which torch would load silently, is detected. A file is written under a temporary
name, flushed to disk and renamed; `last.ckpt` becomes `previous.ckpt` first, so a crash at any moment leaves a valid
one. Nothing is unpickled: anything but plain tensors, numbers, texts, lists and dicts is refused.

A process may be suspended at any moment and continue after another process has taken its run over. So the lease is
checked (`confirm`) when the new file is complete, and the process that takes a run over removes temporary files before
it reads anything: one that was confirmed too early then has nothing left to rename.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from analysis.records.files import move_into_place, no_check, temporary_name, write_atomically

_MARK = b"\nsha256 "

_TAIL = len(_MARK) + 64 + 1
TEMPORARY = re.compile(r"\.\w+\.[0-9a-f]+\.tmp$")  # NAME.SUFFIX.HEX.tmp, as `temporary_name` makes them


class Damaged(Exception):
    """A checkpoint that is truncated, altered, or none at all; the message says which, and `advice` what helps."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


def save(path: Path, content: dict[str, Any], confirm: Callable[[], None] = no_check) -> None:
    """Write `content` (tensors, numbers, texts, lists, dicts) to `path`, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getbuffer()
    write_atomically(path, data, _MARK + hashlib.sha256(data).hexdigest().encode() + b"\n", confirm=confirm)


def rotate(folder: Path, confirm: Callable[[], None] = no_check) -> None:
    """Retain `last.ckpt` as `previous.ckpt`; `last.ckpt` itself stays until the next checkpoint replaces it."""
    last, temporary = folder / "last.ckpt", temporary_name(folder / "previous.ckpt")
    if not last.exists():
        return
    try:
        os.link(last, temporary)
    except OSError:  # a file system without links
        try:
            shutil.copyfile(last, temporary)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    move_into_place(temporary, folder / "previous.ckpt", confirm)


def remove_temporary_files(folder: Path, confirm: Callable[[], None] = no_check) -> None:
    """Remove files that other processes left half-written; to be called before reading a run that is taken over.

    The files are listed before the lease is confirmed: none can be the next owner's, however late it is removed.
    """
    abandoned = [path for path in folder.glob("*.tmp") if TEMPORARY.search(path.name)]
    confirm()
    for path in abandoned:
        path.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises Damaged unless its SHA-256 is right and it holds no pickle."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror})") from None
    body, tail = data[:-_TAIL], data[-_TAIL:]
    if not tail.startswith(_MARK):
        if zipfile.is_zipfile(io.BytesIO(data)):
            raise Damaged(
                f"{path} lacks the checksum that every checkpoint of this project ends with: it was saved again. "
                f"--init {shlex.quote(str(path))} starts from its weights",
                "Otherwise use the run's own file.",
            )
        raise Damaged(f"{path} is cut short")
    if hashlib.sha256(body).hexdigest().encode() != tail[len(_MARK) : -1]:
        raise Damaged(f"{path} is damaged (its SHA-256 is not the one it was written with)")
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # a valid hash over something that torch refuses to read as plain data
        raise Damaged(f"{path} holds more than weights and was not loaded ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path} is no checkpoint")
    return content


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Read the last valid checkpoint of a run, None without any; with a sentence for each one that was skipped."""
    skipped: list[str] = []
    for name in ("last.ckpt", "previous.ckpt"):
        if (folder / name).exists():
            try:
                content = load(folder / name)
                if not content.get("pruned"):
                    return content, skipped
                skipped.append(f"{folder / name} holds only weights since `runs prune`")
            except Damaged as damaged:
                skipped.append(str(damaged))
    return None, skipped
