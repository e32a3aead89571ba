"""Several processes at once, some killed or suspended: each run once, each trial once, no late result accepted."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from experiments.runtime import leases
from tests.conftest import ROOT, run_folder, small
from tests.faults.conftest import typed
from tests.test_run import digests
from tests.test_study import TOML
from tests.test_tracking import store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def started(words):
    """Start a command and go on at once; what it prints and complains of is to be read together."""
    return subprocess.Popen(
        [sys.executable, "run.py", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# A worker that suspends itself right after a lease check, the n-th one after its first epoch.
STOPS = """
import os, signal
from experiments.runtime.leases import Lease
kept, calls = Lease.confirm, 0
def confirm(lease):
    global calls
    kept(lease)
    calls += lease._path.with_suffix("").joinpath("last.ckpt").exists()
    if calls == {call}:
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
Lease.confirm = confirm
"""


def taken_over_and_then_continued(late, words, folder):
    """The same command finishes the run of a suspended process, whose later writes are rejected and change nothing."""
    past = time.time() - 1000
    os.utime(f"{folder}.lease", (past, past))  # instead of waiting: nobody who is stopped can beat
    code, shown, complaint = typed(words)
    assert code == 0 and "Resuming" in shown, complaint
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    late.send_signal(signal.SIGCONT)
    said = late.communicate(timeout=120)[0]
    assert late.returncode == 2 and "taken over by another process" in said
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


@pytest.mark.fault(16)
@pytest.mark.parametrize("call", [2, 4], ids=["a line", "a checkpoint"])
def test_a_worker_suspended_between_its_lease_check_and_its_write_leaves_nothing_in_the_new_owners_run(
    made_cars, tmp_path, store_uri, call
):
    words = small(made_cars, tmp_path / "out", tracking_uri=store_uri)
    text = f"{STOPS.format(call=call)}\nimport run, sys; sys.exit(run.main({[str(word) for word in words]!r}))"
    late = subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert any(line == "stopped\n" for line in iter(late.stdout.readline, ""))
        folder = run_folder(tmp_path / "out")
        taken_over_and_then_continued(late, words, folder)
    finally:
        late.kill()
    assert [line["epoch"] for line in map(json.loads, (folder / "metrics.jsonl").open())] == [1, 2]


@pytest.mark.fault(16)
def test_a_worker_suspended_past_its_lease_is_replaced_once_and_its_later_results_are_rejected(
    made_cars, tmp_path, store_uri
):
    assert typed(small(made_cars, tmp_path / "alone", tracking_uri=store_uri))[0] == 0
    words = small(made_cars, tmp_path / "out")
    late = started(words)
    try:
        assert any(line.startswith("epoch   1") for line in iter(late.stdout.readline, ""))
        late.send_signal(signal.SIGSTOP)
        folder = run_folder(tmp_path / "out")
        code, _, complaint = typed(words)
        assert code == 2 and "by another process" in complaint  # its lease still holds
        taken_over_and_then_continued(late, words, folder)
    finally:
        late.kill()
    assert digests(folder) == digests(run_folder(tmp_path / "alone"))
    assert (
        typed(["sync", "--output-dir", tmp_path / "out"])[0] == 0
    )  # the stopped one may have had the store in its hands
    (tracked,) = store(tmp_path / "out")[1]
    assert tracked.info.status == "FINISHED"


@pytest.mark.fault(15)
def test_two_studies_with_common_cells_started_at_once_run_each_run_once_and_both_are_complete(
    made_cars, tmp_path, store_uri
):
    losses, workers = {"one": '"bce", "dice"', "other": '"dice", "focal"'}, []
    for name, pair in losses.items():
        (tmp_path / f"{name}.toml").write_text(TOML.replace('"bce", "dice"', pair))
        given = ["--data-dir", made_cars, "--output-dir", tmp_path / "out", "--tracking-uri", store_uri]
        workers.append(started(["study", tmp_path / f"{name}.toml", *given]))
    shown = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], shown
    ended = re.findall(r"\] (\S+, seed \d): test Dice", "".join(shown))
    assert sorted(ended) == [f"{loss}, seed {seed}" for loss in ("bce", "dice", "focal") for seed in (0, 1)]
    keys = set()
    for name in losses:
        plan = json.loads((tmp_path / "out" / "studies" / name / "plan.json").read_text())
        found = [key for cell in plan["cells"] for key in cell["runs"].values()]
        assert len(found) == 4 and all((tmp_path / "out" / "runs" / key / "result.json").exists() for key in found)
        keys |= set(found)
    assert len(keys) == 6


def killed_in_a_trial(worker, trials):
    """Kills a worker that has begun a trial and not ended it: it is stopped first, to look where it is."""
    while worker.poll() is None:
        worker.send_signal(signal.SIGSTOP)
        while psutil.Process(worker.pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        mine = [path for path in trials.glob("*.lease") if (leases.read_json(path) or {}).get("process") == worker.pid]
        folders = [path.with_suffix("") for path in mine]
        if any((folder / "config.json").exists() and not (folder / "result.json").exists() for folder in folders):
            break
        worker.send_signal(signal.SIGCONT)
        time.sleep(0.05)
    assert worker.poll() is None, "it ended before it was killed"
    worker.kill()


@pytest.mark.fault(17)
def test_four_tuning_workers_one_of_them_killed_end_with_exactly_twenty_trials_none_twice(
    made_cars, tmp_path, store_uri
):
    tuning = "[tuning]\nlow = 1e-3\nhigh = 3e-2\npoints = 5\nseeds = [100, 101, 102, 103]\n"
    text = (
        TOML.replace('"bce", "dice"', '"bce"')
        .replace("seeds = [0, 1]", "seeds = [0]")
        .replace("epochs = 2", "epochs = 1")
    )
    (tmp_path / "tiny.toml").write_text(text + tuning)
    given = ["--data-dir", made_cars, "--output-dir", tmp_path / "out", "--tracking-uri", store_uri]
    workers = [started(["tune", tmp_path / "tiny.toml", *given]) for _ in range(4)]
    victim = workers.pop()
    try:
        assert any("trial " in line and "validation Dice" in line for line in iter(victim.stdout.readline, ""))
        killed_in_a_trial(victim, tmp_path / "out" / "trials")
        lost = victim.communicate()[0]
        shown = [worker.communicate(timeout=400)[0] for worker in workers]
    finally:
        for worker in (victim, *workers):
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0, 0], shown
    plan = json.loads((tmp_path / "out" / "studies" / "tiny" / "plan.json").read_text())
    with open(tmp_path / "out" / "studies" / "tiny" / "trials.csv") as table:
        rows = list(csv.DictReader(table))
    budget = plan["tuning"]["budget"]  # 20, and more of the same for every cell where the range had to be extended
    assert budget == 20 + 8 * plan["tuning"]["extended"] and len(rows) == budget
    assert {row["state"] for row in rows} == {"finished"} and len(
        {(row["rate"], row["seed"]) for row in rows}
    ) == budget
    said = [rate for text in (*shown, lost) for rate in re.findall(r"rate (\S+, seed \d+): validation", text)]
    assert len(said) == len(set(said)) and len(list((tmp_path / "out" / "trials").glob("*/result.json"))) == budget
