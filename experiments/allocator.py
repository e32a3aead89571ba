"""The process's memory: how much it took at most, and how freed memory is kept at hand between steps on Linux.

glibc returns every large freed block to the system, and the system clears it again, page by page, for the next tensor of
that size: tens of thousands of page faults a step, and 10 to 18 % of the CPU's time (measured on a U-Net of width 16 and
64). A process that trains wants the same blocks again at the next step.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 1 << 30  # bytes of a block that is still taken from the heap


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, once a process; whether it listened (elsewhere nothing is done)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, musl say
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def peak_memory() -> int:
    """Bytes that this process has held at most; 0 where the system does not tell."""
    try:  # not getrusage first: on Linux a child begins with its parent's peak there
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
