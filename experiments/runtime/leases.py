"""A run belongs to one process at a time: a lock for this machine, a lease for every machine that shares the folder.

Beside the folder `runs/<key>` lie `<key>.lock`, which the operating system frees when its owner dies, and `<key>.lease`: who
has the run, and, as the file's modification time, the last heartbeat. A lease is free when its owner's process is gone
(same machine) or its heart has not beaten for `PATIENCE` seconds (on the same machine: while the process is stopped). An owner that finds another's token in the lease (it slept
through its own end, say) has lost the run, and nothing that it computed since is accepted. A lease that was given back is an empty file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from experiments.runtime import interrupts
from experiments.runtime.errors import Busy, RunFailed
from experiments.runtime.files import read_json, write_atomically

PATIENCE = 120.0  # seconds without a heartbeat after which a lease is free

BEAT = 15.0  # seconds between two heartbeats


class Lease:
    """One process's hold on a run."""

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._token, self._end = path, token, threading.Event()
        self._file = os.open(path, os.O_RDWR)
        self.lost = False
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    def confirm(self) -> None:
        """Raise Busy unless the run still belongs to this process: ask before anything is written that counts."""
        self.lost = self.lost or not self.is_mine()
        if self.lost:
            raise Busy(f"The run {self._path.stem} was taken over by another process while this one stood still.")

    def is_mine(self) -> bool:
        """Whether the run still belongs to this process."""
        return (read_json(self._path) or {}).get("token") == self._token

    def release(self) -> None:
        """Give the run back."""
        self._end.set()
        self._heart.join()
        with contextlib.suppress(OSError, ValueError), os.fdopen(self._file, "r+") as file:
            if json.load(file).get("token") == self._token:
                file.truncate(0)  # an empty lease is nobody's; to remove it by its name might remove the next owner's

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            there = read_json(self._path)
            if there is not None and there.get("token") != self._token:
                self.lost = True
                return
            with contextlib.suppress(OSError):  # a shared folder that is away for a moment must not stop the heart
                os.utime(self._path)


@contextmanager
def hold(folder: Path) -> Iterator[Lease]:
    """Hold the run whose folder is `folder` for the length of a `with` block. Raises Busy if another process has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = f"The run {folder.name} is being carried out by another process. Wait for it, or choose another --seed."
    if owner(folder) is not None:
        raise Busy(busy)  # seen without waiting for the lock
    _pass_over_stopped(folder)
    try:
        with FileLock(f"{folder}.lock", timeout=0.2):  # `run.py runs` tries it for a moment
            lease = _take(Path(f"{folder}.lease"))
            if lease is None:
                raise Busy(busy)
            try:
                yield lease
            finally:
                lease.release()
    except Timeout:
        raise Busy(busy) from None


def _pass_over_stopped(folder: Path) -> None:
    """Leave a stopped owner its lock and make a new one: the lease, which `owner` found free, is what counts for it."""
    lock, content = Path(f"{folder}.lock"), read_json(Path(f"{folder}.lease"))
    if content is not None and content.get("machine") == _here()["machine"] and _is_stopped(content):
        lock.unlink(missing_ok=True)


def owner(folder: Path) -> str | None:
    """Who holds the run, as `host:process`; None when nobody alive does."""
    content = read_json(Path(f"{folder}.lease"))
    if content is None or _is_free(Path(f"{folder}.lease"), content):
        return None
    return f"{content['host']}:{content['process']}"


def _take(path: Path) -> Lease | None:
    """The lease at `path`, unless somebody alive holds it. Two that take over at once: the later token stays, its owner has it."""
    content = read_json(path)
    if content is not None and not _is_free(path, content):
        return None
    token = uuid.uuid4().hex
    write_atomically(path, json.dumps({**_here(), "token": token}).encode())
    return Lease(path, token)


def _is_free(path: Path, content: dict[str, Any]) -> bool:
    here = _here()
    quiet = (
        abs(_now(path.parent) - _last_heartbeat(path)) > PATIENCE
    )  # either way: a clock that was put back must not keep it for ever
    if content.get("machine") == here["machine"]:
        return not _is_alive(content) or (quiet and _is_stopped(content))
    return quiet


def _is_alive(content: dict[str, Any]) -> bool:
    """Whether the process that wrote the lease runs on: its number may have been given to another since."""
    try:
        process = psutil.Process(content["process"])
        ended = process.status() == psutil.STATUS_ZOMBIE  # dead, and its parent has not asked yet how it died
        if content.get("ticks") is not None:
            return not ended and _ticks(process.pid) == content["ticks"]
        return not ended and abs(process.create_time() - content["began"]) < 2
    except (psutil.Error, KeyError):
        return False


def _is_stopped(content: dict[str, Any]) -> bool:
    """Whether the process was stopped by a signal and not continued: it keeps its lock, but does nothing."""
    try:
        return psutil.Process(content["process"]).status() == psutil.STATUS_STOPPED
    except (psutil.Error, KeyError):
        return False


def _here() -> dict[str, Any]:
    """This process. Two containers may share a host's name and have the same process numbers: `machine` tells them apart."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(), "machine": _machine(), "process": process.pid, "began": process.create_time(),
        "ticks": _ticks(process.pid),
    }  # fmt: skip


def _ticks(process: int) -> int | None:
    """When the process began, in the kernel's ticks since the machine's start: a clock that is set does not change it.

    None where there is no /proc.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # field 22; the second, the program's name, may hold anything


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return f"{socket.gethostname()}-{psutil.boot_time():.0f}"


def _now(folder: Path) -> float:
    """The time by the clock of the file system that the lease lies on: those of two machines may differ."""
    probe = folder / f".{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _last_heartbeat(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


MOMENTS = 120.0  # seconds after which a lock that is needed for moments must be held by a process that stands still


@contextmanager
def wait_for_lock(path: Path, ask: Callable[[], object] = lambda: None, patience: float = math.inf) -> Iterator[None]:
    """Hold the lock at `path`. While another process has it, `ask`, which may raise, is called twice a second.

    Raises Interrupted where this process was asked to stop meanwhile, and RunFailed after `patience` seconds.
    """
    held, until = FileLock(path), time.monotonic() + patience
    while not held.is_locked:
        try:
            held.acquire(timeout=0.5)
        except Timeout:
            interrupts.raise_if_interrupted()
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
