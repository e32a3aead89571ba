"""Leases: a run belongs to one process at a time, by a lock on this machine and a lease on all that share the folder.

Next to the folder `runs/<key>` lie `<key>.lock`, which the operating system frees when its owner dies, and
`<key>.lease`: who has the run and, as the file's modification time, the last heartbeat. A lease is free when its
owner's process is gone (same machine), or when there was no heartbeat for `LEASE_TIMEOUT` seconds (on the same machine:
and the process is stopped). An owner that finds another token in the lease (it was suspended past its expiry, say) has
lost the run, and nothing that it computed since is accepted. A released lease is an empty file.
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

from analysis.records.files import read_json, write_atomically
from experiments.runtime import interrupts
from experiments.runtime.errors import Busy, RunFailed

LEASE_TIMEOUT = 120.0  # seconds without a heartbeat after which a lease is free

HEARTBEAT_INTERVAL = 15.0  # seconds between two heartbeats


class Lease:
    """One process's hold on a run."""

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._token, self._end = path, token, threading.Event()
        self._file = os.open(path, os.O_RDWR)
        self.lost = False
        self._thread = threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Raise Busy unless the run still belongs to this process: call it before writing anything that counts."""
        self.lost = self.lost or not self.is_mine()
        if self.lost:
            raise Busy(
                f"Lost the lease on run {self._path.stem}: it was taken over by another process while this one was "
                "suspended."
            )

    def is_mine(self) -> bool:
        """Whether the run still belongs to this process."""
        return (read_json(self._path) or {}).get("token") == self._token

    def release(self) -> None:
        """Release the lease."""
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError, ValueError), os.fdopen(self._file, "r+") as file:
            if json.load(file).get("token") == self._token:
                file.truncate(0)  # an empty lease is nobody's; to remove it by its name might remove the next owner's

    def _send_heartbeats(self) -> None:
        while not self._end.wait(HEARTBEAT_INTERVAL):
            content = read_json(self._path)
            if content is not None and content.get("token") != self._token:
                self.lost = True
                return
            with contextlib.suppress(OSError):  # a shared folder may be away for a moment
                os.utime(self._path)


@contextmanager
def hold(folder: Path) -> Iterator[Lease]:
    """Hold the run whose folder is `folder` for the length of a `with` block. Raises Busy if another process has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = f"The run {folder.name} is being carried out by another process. Wait for it, or choose another --seed."
    if owner(folder) is not None:
        raise Busy(busy)  # seen without waiting for the lock
    _drop_lock_of_stopped_owner(folder)
    try:
        with FileLock(f"{folder}.lock", timeout=0.2):  # `run.py runs` tries it for a moment
            lease = _acquire(Path(f"{folder}.lease"))
            if lease is None:
                raise Busy(busy)
            try:
                yield lease
            finally:
                lease.release()
    except Timeout:
        raise Busy(busy) from None


def _drop_lock_of_stopped_owner(folder: Path) -> None:
    """Remove the lock file of a suspended owner, so that a new one is made: only the lease, which is free, counts."""
    lock, content = Path(f"{folder}.lock"), read_json(Path(f"{folder}.lease"))
    if content is not None and content.get("machine") == _this_process()["machine"] and _is_stopped(content):
        lock.unlink(missing_ok=True)


def owner(folder: Path) -> str | None:
    """Return the process that holds the run, as `host:process`; None when no live one does."""
    content = read_json(Path(f"{folder}.lease"))
    if content is None or _is_expired(Path(f"{folder}.lease"), content):
        return None
    return f"{content['host']}:{content['process']}"


def _acquire(path: Path) -> Lease | None:
    """Acquire the lease at `path`; None if a live process holds it. Of two at once, the later token stays and wins."""
    content = read_json(path)
    if content is not None and not _is_expired(path, content):
        return None
    token = uuid.uuid4().hex
    write_atomically(path, json.dumps({**_this_process(), "token": token}).encode())
    return Lease(path, token)


def _is_expired(path: Path, content: dict[str, Any]) -> bool:
    here = _this_process()
    # either way: a clock that was set back must not keep the lease for ever
    quiet = abs(_now(path.parent) - _last_heartbeat(path)) > LEASE_TIMEOUT
    if content.get("machine") == here["machine"]:
        return not _is_alive(content) or (quiet and _is_stopped(content))
    return quiet


def _is_alive(content: dict[str, Any]) -> bool:
    """Whether the process that wrote the lease is alive: its process number may have been reused since."""
    try:
        process = psutil.Process(content["process"])
        ended = process.status() == psutil.STATUS_ZOMBIE  # dead, but not reaped by its parent yet
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


def _this_process() -> dict[str, Any]:
    """Describe this process. Containers may share host name and process numbers: `machine` tells them apart."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": process.pid,
        "began": process.create_time(),
        "ticks": _ticks(process.pid),
    }


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
    try:
        probe.touch()
    except OSError:  # a folder that may only be read
        return time.time()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _last_heartbeat(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


LOCK_TIMEOUT = 120.0  # seconds after which the owner of a lock that is needed for moments must be suspended


@contextmanager
def wait_for_lock(path: Path, ask: Callable[[], object] = lambda: None, patience: float = math.inf) -> Iterator[None]:
    """Hold the lock at `path`. While another process has it, `ask`, which may raise, is called twice a second.

    Raises Interrupted if a stop is requested meanwhile, and RunFailed after `patience` seconds.
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
                    f"Another process has held {path} for {patience:.0f} seconds and seems to be suspended. "
                    "End it, and repeat the command."
                ) from None
    try:
        yield
    finally:
        held.release()
