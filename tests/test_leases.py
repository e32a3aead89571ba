"""A run belongs to one process at a time, on this machine and on every machine that shares the folder."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack

import psutil
import pytest

from experiments.runtime import leases
from experiments.runtime.errors import Busy, RunFailed
from experiments.runtime.interrupts import Interrupted
from tests.conftest import ROOT


def lease_of(folder, **other):
    """Write the lease that another machine's process would have written."""
    path = folder.with_name(folder.name + ".lease")
    path.write_text(
        json.dumps({"host": "elsewhere", "machine": "elsewhere", "process": 1, "began": 0.0, "token": "x"} | other)
    )
    return path


def test_what_one_process_holds_another_cannot_take(tmp_path):
    code = (
        "from pathlib import Path; from experiments.runtime.leases import hold\n"
        f"with hold(Path({str(tmp_path / 'run')!r})): print('taken')"
    )
    with leases.hold(tmp_path / "run"):
        assert leases.owner(tmp_path / "run").endswith(f":{os.getpid()}")
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "taken" not in done.stdout and "another process" in done.stderr
    assert leases.owner(tmp_path / "run") is None
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "taken" in done.stdout


@pytest.mark.fault(16)
def test_a_lease_of_a_process_that_is_gone_is_free_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lease_of(tmp_path / "run", machine=leases._machine(), process=gone.pid, began=time.time())
    assert leases.owner(tmp_path / "run") is None
    with leases.hold(tmp_path / "run") as lease:
        lease.confirm()  # raises where it is not this process's


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_a_zombie_process_holds_no_lease(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lease_of(
        tmp_path / "run", machine=leases._machine(), process=gone.pid, began=psutil.Process(gone.pid).create_time()
    )
    assert leases.owner(tmp_path / "run") is not None
    gone.kill()
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)  # until it is dead, without burying it
    assert psutil.Process(gone.pid).status() == psutil.STATUS_ZOMBIE
    assert leases.owner(tmp_path / "run") is None
    gone.communicate()


def test_a_released_lease_has_no_owner(tmp_path):
    with leases.hold(tmp_path / "run"):
        assert leases.read_json(tmp_path / "run.lease")
    assert (tmp_path / "run.lease").read_text() == "" and leases.owner(tmp_path / "run") is None
    with leases.hold(tmp_path / "run") as lease:
        leases.write_atomically(tmp_path / "run.lease", b'{"token": "another"}')
        assert not lease.is_mine()
    assert leases.read_json(tmp_path / "run.lease") == {"token": "another"}


def test_a_reused_process_id_does_not_keep_a_lease_alive(tmp_path):
    lease_of(tmp_path / "run", machine=leases._machine(), process=os.getpid(), began=0.0)
    assert leases.owner(tmp_path / "run") is None


@pytest.mark.fault(16)
def test_a_lease_from_another_machine_is_free_when_its_heartbeat_is_long_overdue(tmp_path):
    path = lease_of(tmp_path / "run")
    with pytest.raises(Busy, match="another process"), leases.hold(tmp_path / "run"):
        pass
    assert leases.owner(tmp_path / "run") == "elsewhere:1"
    old = time.time() - leases.LEASE_TIMEOUT - 5
    os.utime(path, (old, old))
    with leases.hold(tmp_path / "run") as lease:
        lease.confirm()


def test_the_heartbeat_renews_a_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_INTERVAL", 0.02)
    with leases.hold(tmp_path / "run"):
        path = tmp_path / "run.lease"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.stat().st_mtime > 0


@pytest.mark.fault(16)
def test_a_process_that_lost_its_lease_notices_and_leaves_the_new_owners_lease_alone(tmp_path):
    with ExitStack() as stack:
        lease = stack.enter_context(leases.hold(tmp_path / "run"))
        path = lease_of(tmp_path / "run")
        with pytest.raises(Busy, match="taken over"):
            lease.confirm()
    assert json.loads(path.read_text())["token"] == "x"


@pytest.mark.fault(16)
@pytest.mark.parametrize("how", ["finishes", "fails", "is interrupted"])
def test_a_result_computed_after_the_lease_was_lost_is_not_accepted(made_cars, tmp_path, command, monkeypatch, how):
    from experiments.training import runner
    from tests.conftest import run_folder, small

    kept = runner.evaluate_on_test

    def taken_over(inputs, *others):
        lease_of(others[2].folder)
        if how == "fails":
            raise RunFailed("something else")
        if how == "is interrupted":
            raise Interrupted
        return kept(inputs, *others)

    statuses, update = [], runner.RunUpload.update
    monkeypatch.setattr(runner.RunUpload, "update", lambda self, run: (statuses.append(run.status), update(self, run)))
    monkeypatch.setattr(runner, "RUN", runner.RunType(runner.RUN.folder, taken_over, runner.RUN.metrics, False, True))
    monkeypatch.setitem(runner.run.__kwdefaults__, "run_type", runner.RUN)
    code, _, complaint = command(*small(made_cars, tmp_path, epochs=1))
    assert code == 2 and "taken over" in complaint
    assert not (run_folder(tmp_path) / "result.json").exists() and not (run_folder(tmp_path) / "failed.json").exists()
    assert set(statuses) == {"RUNNING"}  # how it ends in MLflow is the new owner's matter
