"""Keeps freed memory at hand between steps, on Linux.

glibc returns every large freed block to the system, and the system clears it again, page by page, for the next tensor of
that size: tens of thousands of page faults a step, and 10 to 18 % of the CPU's time (measured on a U-Net of width 16 and
64). A process that trains wants the same blocks again at the next step.
"""

from __future__ import annotations

import ctypes
import functools
import sys

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
