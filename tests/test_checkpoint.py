"""Checkpoints are whole or not used."""

import errno
import os
import pickle
import subprocess
import sys

import pytest
import torch

from analysis.records import files
from experiments.training import checkpoint
from tests.conftest import ROOT

CONTENT = {"epoch": 3, "model": {"weight": torch.arange(1000.0)}, "words": ["a", "b"], "best": 0.5}


def test_what_is_saved_comes_back_and_torch_reads_it_alone(tmp_path):
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, CONTENT)
    for content in (checkpoint.load(path), torch.load(path, weights_only=True)):
        assert torch.equal(content["model"]["weight"], CONTENT["model"]["weight"]) and content["words"] == ["a", "b"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.fault(3)
def test_one_flipped_bit_anywhere_is_noticed(tmp_path, share):
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, CONTENT)
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 4
    path.write_bytes(data)
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(path)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
@pytest.mark.fault(3)
def test_a_file_cut_short_is_noticed(tmp_path, keep):
    path = tmp_path / "last.ckpt"
    checkpoint.save(path, CONTENT)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(checkpoint.Damaged):
        checkpoint.load(path)


@pytest.mark.fault(3)
def test_the_one_before_is_used_when_the_last_is_damaged(tmp_path):
    for epoch in (1, 2):
        checkpoint.rotate(tmp_path)
        checkpoint.save(tmp_path / "last.ckpt", {"epoch": epoch})
    assert checkpoint.newest(tmp_path) == ({"epoch": 2}, [])
    (tmp_path / "last.ckpt").write_bytes(b"nothing")
    content, passed_over = checkpoint.newest(tmp_path)
    assert content == {"epoch": 1} and "last.ckpt" in passed_over[0]
    (tmp_path / "previous.ckpt").write_bytes(b"nothing")
    assert checkpoint.newest(tmp_path)[0] is None


class Malice:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.fault(23)
def test_a_pickle_is_refused_and_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("torch", lambda p: torch.save({"model": Malice()}, p)),
        ("plain", lambda p: p.write_bytes(pickle.dumps(Malice()))),
    ):
        path = tmp_path / name
        write(path)
        body = path.read_bytes()
        files.write_atomically(path, body, b"\nsha256 ", checkpoint.hashlib.sha256(body).hexdigest().encode(), b"\n")
        with pytest.raises(checkpoint.Damaged, match="more than weights"):
            checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.fault(6)
def test_where_there_are_no_links_a_full_disk_leaves_both_checkpoints_as_they_were(tmp_path, monkeypatch):
    def refused(*given):
        raise OSError(errno.EPERM, "Operation not permitted")

    def full(source, target):
        target.write_bytes(source.read_bytes()[:99])
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(os, "link", refused)
    for epoch in (1, 2):
        checkpoint.rotate(tmp_path)
        checkpoint.save(tmp_path / "last.ckpt", {"epoch": epoch})
    monkeypatch.setattr(checkpoint.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.rotate(tmp_path)
    found = {path.name: checkpoint.load(path)["epoch"] for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 2, "previous.ckpt": 1}


@pytest.mark.fault(2)
def test_a_kill_while_writing_leaves_the_old_file_whole(tmp_path):
    checkpoint.save(tmp_path / "last.ckpt", {"epoch": 1})
    code = (
        "import os, signal, sys; from pathlib import Path; from experiments.training import checkpoint\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"checkpoint.save(Path({str(tmp_path / 'last.ckpt')!r}), {{'epoch': 2}})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert checkpoint.load(tmp_path / "last.ckpt") == {"epoch": 1}


def test_of_temporary_files_only_those_of_the_project_are_removed(tmp_path):
    mine = files.temporary_name(tmp_path / "last.ckpt")
    mine.write_bytes(b"half")
    (tmp_path / "theirs.tmp").write_text("precious")
    checkpoint.remove_temporary_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.tmp"]
