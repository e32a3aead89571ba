"""Killed, stopped and spoilt while it runs: the same command carries on to the result that it would have had."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from experiments.training.checkpoint import load
from tests.conftest import ROOT, run_folder, small
from tests.faults.conftest import injected, typed
from tests.test_run import digests

EPOCHS = 3  # of five steps each
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def undisturbed(made_cars, tmp_path_factory, store_uri, one_thread):
    """The digests of a run of three epochs that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed")
    code, _, complaint = typed(small(made_cars, output, epochs=EPOCHS, tracking_uri=store_uri))
    assert code == 0, complaint
    return digests(run_folder(output))


def killed_at(module, function, call, moment="after"):
    """Code that kills the process before or after call number `call` of a function; `module` is what holds it."""
    shoot = f"if calls == {call}: os.kill(os.getpid(), signal.SIGKILL)"
    return f"""
import os, signal
{module}
kept, calls = place.{function}, 0
def spy(*given, **named):
    global calls
    calls += 1
    {shoot if moment == "before" else "pass"}
    done = kept(*given, **named)
    {shoot if moment == "after" else "pass"}
    return done
place.{function} = spy
"""


# A kill when half of the second last.ckpt is on the disk.
MIDDLE = """
import os, signal
from experiments.training import checkpoint
kept = checkpoint.write_atomically
def spy(path, *parts, **asked):
    if path.name == "last.ckpt" and path.with_name("previous.ckpt").exists():
        checkpoint.temporary_name(path).write_bytes(bytes(parts[0])[: len(parts[0]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return kept(path, *parts, **asked)
checkpoint.write_atomically = spy
"""


@pytest.mark.fault(1)
@pytest.mark.parametrize("step", [2, 8, 14], ids=["first epoch", "a middle one", "the last"])
def test_a_run_killed_in_the_first_a_middle_or_the_last_epoch_ends_like_an_undisturbed_one(
    undisturbed, made_cars, tmp_path, store_uri, step
):
    words = small(made_cars, tmp_path, epochs=EPOCHS, tracking_uri=store_uri)
    done = injected(words, killed_at("import experiments.training.loop as place", "take_step", step))
    assert done.returncode == -signal.SIGKILL and not (run_folder(tmp_path) / "result.json").exists()
    code, shown, complaint = typed(words)
    assert code == 0, complaint
    assert ("Resuming" in shown) == (step > 5) and digests(run_folder(tmp_path)) == undisturbed


@pytest.mark.fault(1)
def test_a_killed_run_whose_network_draws_at_random_ends_like_an_undisturbed_one(made_cars, tmp_path, store_uri):
    """Dropout draws from torch's own generator at every step: its state belongs to a checkpoint."""
    net = ["--model-kwargs", "arch=FPN", "encoder=tu-mobilenetv3_small_050", "pretrained=false"]
    words = [
        small(made_cars, tmp_path / name, size="64x32", model="smp", tracking_uri=store_uri)
        for name in ("killed", "not")
    ]
    words = [[word for word in one if word not in ("--model-kwargs", "width=4")] + net for one in words]
    assert (
        injected(words[0], killed_at("import experiments.training.loop as place", "take_step", 8)).returncode
        == -signal.SIGKILL
    )
    for given in words:
        code, _, complaint = typed(given)
        assert code == 0, complaint
    assert digests(run_folder(tmp_path / "killed")) == digests(run_folder(tmp_path / "not"))


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    "code",
    [
        MIDDLE,
        killed_at("from experiments.training import checkpoint as place", "rotate", 2),
        killed_at("from experiments.training.run_folder import RunFolder as place", "add", 4),
    ],
    ids=["half of it", "the last is the one before, and no new one", "a line without its checkpoint"],
)
def test_a_kill_while_a_checkpoint_or_a_line_is_written_costs_nothing(
    undisturbed, made_cars, tmp_path, store_uri, code
):
    words = small(made_cars, tmp_path, epochs=EPOCHS, tracking_uri=store_uri)
    assert injected(words, code).returncode == -signal.SIGKILL
    done, _, complaint = typed(words)
    assert done == 0, complaint
    assert digests(run_folder(tmp_path)) == undisturbed


AT_RANDOM = """
import os, signal, threading, experiments.training.runner
def shoot():
    threading.Event().wait({seconds})
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=shoot, daemon=True).start()
"""


@pytest.mark.fault(2)
def test_runs_killed_at_twenty_random_moments_end_like_an_undisturbed_one(undisturbed, made_cars, tmp_path, store_uri):
    """A run that ends between two kills is judged, and the kills go on with the next."""
    words, moments, kills = small(made_cars, tmp_path, epochs=EPOCHS, tracking_uri=store_uri), random.Random(2), 0
    while kills < 20:
        done = injected(words, AT_RANDOM.format(seconds=moments.uniform(0, 2.5)))
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        kills += done.returncode == -signal.SIGKILL
        if done.returncode == 0:
            assert digests(run_folder(tmp_path)) == undisturbed
            shutil.rmtree(run_folder(tmp_path))
    code, _, complaint = typed(words)
    assert code == 0, complaint
    assert digests(run_folder(tmp_path)) == undisturbed


@pytest.mark.fault(4)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_a_signal_leaves_a_checkpoint_within_ten_seconds_no_orphan_and_a_run_that_is_not_finished(
    made_cars, tmp_path, store_uri, number, code
):
    words = small(made_cars, tmp_path, epochs=500, workers=2, tracking_uri=store_uri)
    process = subprocess.Popen([sys.executable, "run.py", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert any(line.startswith("epoch   2") for line in iter(process.stdout.readline, ""))
    family, asked = psutil.Process(process.pid).children(recursive=True), time.time()
    process.send_signal(number)
    process.communicate(timeout=60)
    last = run_folder(tmp_path) / "last.ckpt"
    assert process.returncode == code and 0 <= last.stat().st_mtime - asked < 10
    assert (
        load(last)["epoch"] >= 2 and load(last)["step"] > 0
    )  # saved in the midst of an epoch: not the one of an epoch's end
    assert len(family) >= 2 and not psutil.wait_procs(family, timeout=10)[1]
    assert "interrupted" in typed(["runs", "--output-dir", tmp_path])[1]


@pytest.mark.fault(4)
def test_a_signal_to_the_whole_group_interrupts_the_run_and_does_not_fail_it(
    undisturbed, made_cars, tmp_path, store_uri
):
    """As `timeout`, a scheduler's time limit or systemd send it: those that load photographs have it, too."""
    words = small(made_cars, tmp_path, epochs=500, workers=2, tracking_uri=store_uri)
    process = subprocess.Popen(
        [sys.executable, "run.py", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert any(line.startswith("epoch   2") for line in iter(process.stdout.readline, ""))
    os.killpg(process.pid, signal.SIGTERM)
    complaint = process.communicate(timeout=60)[1]
    assert process.returncode == 143 and "Re-run the command to resume" in complaint
    assert (
        not (run_folder(tmp_path) / "failed.json").exists() and load(run_folder(tmp_path) / "last.ckpt")["epoch"] >= 2
    )


WORKER = """
import os, signal, time, psutil, experiments.training.loop as place
kept, calls = place.take_step, 0
def spy(*given, **named):
    global calls
    calls += 1
    for child in psutil.Process().children() if calls == 7 else ():
        print("killed at", time.time(), flush=True)
        os.kill(child.pid, signal.SIGKILL)
    return kept(*given, **named)
place.take_step = spy
"""


@pytest.mark.fault(5)
def test_a_loaders_worker_that_is_killed_ends_the_run_with_a_sentence_and_the_same_command_resumes(
    undisturbed, made_cars, tmp_path, store_uri
):
    words = small(made_cars, tmp_path, epochs=EPOCHS, workers=1, tracking_uri=store_uri)
    done = injected(words, WORKER)
    assert done.returncode == 1 and "A data-loading worker died" in done.stderr and "--workers 0" in done.stderr
    assert "Traceback" not in done.stderr
    noted = json.loads((run_folder(tmp_path) / "failed.json").read_text())
    killed = float(re.search(r"killed at (\S+)", done.stdout)[1])
    assert (
        "died" in noted["reason"] and noted["time"] - killed < 60
    )  # it takes one or two, more on a machine that is busy
    code, shown, complaint = typed(words)
    assert code == 0 and "Resuming" in shown, complaint
    assert digests(run_folder(tmp_path)) == undisturbed and not (run_folder(tmp_path) / "failed.json").exists()


SPOILT = """
import experiments.training.final_evaluation as place
kept = place.checkpoint.load
def spy(path):
    if path.name == "best.ckpt":
        content = path.read_bytes()
        path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    return kept(path)
place.checkpoint.load = spy
"""


@pytest.mark.fault(3)
def test_best_weights_damaged_before_they_are_scored_end_the_run_with_a_sentence(
    undisturbed, made_cars, tmp_path, store_uri
):
    words = small(made_cars, tmp_path, epochs=EPOCHS, tracking_uri=store_uri)
    done = injected(words, SPOILT)
    assert (
        done.returncode == 1
        and "best.ckpt" in done.stderr
        and "trains the run again" in done.stderr
        and "Traceback" not in done.stderr
    )
    code, shown, complaint = typed(words)
    assert code == 0 and "training begins again" in shown, complaint
    assert digests(run_folder(tmp_path)) == undisturbed
