"""Shared fixtures of the fault tests: a small disk, and commands run in a separate process."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture
def small_disk(tmp_path):
    """Mount a tmpfs of `size` at a new folder; skips the test if this user may not mount."""
    mounted = []

    def mount(size):
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if os.name != "posix" or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("a tmpfs cannot be mounted by this user")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def typed(words, **other):
    """Run a command in a separate process and return (exit code, stdout, stderr)."""
    command = [sys.executable, str(ROOT / "run.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **{"cwd": ROOT} | other)
    return done.returncode, done.stdout, done.stderr


def injected(words, code):
    """Run a command in a separate process that first executes `code`, which patches what should fail there."""
    text = f"{code}\nimport run, sys; sys.exit(run.main({[str(word) for word in words]!r}))"
    command = [sys.executable, "-c", text]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )  # one that hangs fails
