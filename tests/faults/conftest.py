"""What the tests of faults share: a small disk of its own, and commands typed in a process of their own."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a tmpfs of `size` at a new folder; skipped where this user may not mount."""
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


@pytest.fixture(scope="module")
def one_thread():
    """Small pictures need no more, and the number of threads is part of a key: the same here and in processes started here."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory):
    """One MLflow store for runs whose tracking is not looked at: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def typed(words, **other):
    """Type a command in a process of its own: (exit code, what it printed, what it complained of)."""
    command = [sys.executable, str(ROOT / "run.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **{"cwd": ROOT} | other)
    return done.returncode, done.stdout, done.stderr


def injected(words, code):
    """A command in a process of its own in which `code` is executed first: what it patches there fails there."""
    text = f"{code}\nimport run, sys; sys.exit(run.main({[str(word) for word in words]!r}))"
    command = [sys.executable, "-c", text]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )  # one that hangs fails
