"""Checkpoints that are whole or not used.

A file is what `torch.save` writes, followed by one line with its SHA-256: `torch.load(path, weights_only=True)` reads
it as it is, and one flipped bit, which torch would load silently, is noticed. A file is written under a name of its
own, flushed to the disk and renamed; `last.ckpt` becomes `previous.ckpt` first, so a crash at any moment leaves a valid
one. Nothing is ever unpickled: what is no plain tensor, number, text, list or dict is refused.

A process may be stopped at any moment and go on when its run is another's. So whether it still has the run is asked
(`confirm`) when the new file lies ready, and who takes a run over sweeps such files away before reading anything: what
was asked for too early then has nothing left to rename.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.runtime.files import move_into_place, no_check, temporary_name, write_atomically

_MARK = b"\nsha256 "

_TAIL = len(_MARK) + 64 + 1


class Damaged(Exception):
    """A checkpoint that is cut short, altered, or no checkpoint; the text says which."""


def save(path: Path, content: dict[str, Any], confirm: Callable[[], None] = no_check) -> None:
    """Write `content` (tensors, numbers, texts, lists, dicts) to `path`, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getbuffer()
    write_atomically(path, data, _MARK + hashlib.sha256(data).hexdigest().encode() + b"\n", confirm=confirm)


def rotate(folder: Path, confirm: Callable[[], None] = no_check) -> None:
    """Keep the last checkpoint as the one before, too: `last.ckpt` itself stays until the next one takes its place."""
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
    """Take away what other processes have left half-written: who takes a run over does it before reading anything.

    The list is made before the question: what it holds cannot be the next owner's, however late it is taken away.
    """
    found = list(folder.glob("*.tmp"))
    confirm()
    for path in found:
        path.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises Damaged unless its SHA-256 is right and it holds no pickle."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror})") from None
    body, tail = data[:-_TAIL], data[-_TAIL:]
    if not tail.startswith(_MARK):
        if zipfile.is_zipfile(io.BytesIO(data)):
            raise Damaged(
                f"{path} lacks the checksum that every checkpoint of this project ends with: it was saved again. "
                f"--init {path} starts from its weights, and torch.load reads it"
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
    """The last valid checkpoint of a run (None: there is none), and a sentence for each one that was skipped."""
    passed_over: list[str] = []
    for name in ("last.ckpt", "previous.ckpt"):
        if (folder / name).exists():
            try:
                content = load(folder / name)
                if not content.get("pruned"):
                    return content, passed_over
                passed_over.append(f"{folder / name} holds only weights since `runs prune`")
            except Damaged as damaged:
                passed_over.append(str(damaged))
    return None, passed_over
