"""Machine, package versions and commit behind a result; memory of this process."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

PACKAGES = (
    "torch", "segmentation-models-pytorch", "timm", "albumentations", "opencv-python-headless",
    "numpy", "pandas", "pillow", "mlflow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can affect a result, and the platform."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        **found,
    }


@functools.lru_cache
def git_commit() -> str:
    """The current commit, with a + if files differ from it; empty outside a checkout."""
    here = Path(__file__).parent.parent.parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

LARGEST = 1 << 30  # bytes of a block that is still taken from the heap


@functools.cache
def keep_freed_memory() -> bool:
    """Make glibc keep freed memory, once per process; return whether it does (False on other systems)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, musl say
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def reset_peak_memory() -> None:
    """Return freed memory to the system and count the peak from now on, where the system can (Linux with glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Peak resident memory of this process since the reset, in bytes; 0 where the system does not report it."""
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
