"""Out of memory, not finite, in strange folders and under a wrong clock."""

import itertools
import json
import os
import sqlite3
import time
from contextlib import closing

import pytest
import torch
from filelock import FileLock

from experiments.config.schema import RunConfig
from experiments.runtime import leases
from experiments.training.checkpoint import load
from experiments.training.runner import explain_failure
from tests.conftest import run_folder, small
from tests.faults.conftest import injected, typed
from tests.test_study import TOML

pytestmark = pytest.mark.usefixtures("one_thread")

# A request for more memory than any machine has, in a training step of the loss `bce` alone.
GREEDY = """
import torch, experiments.training.losses as place
kept = place.bce_loss
def greedy(logits, mask):
    if logits.numel() > 10: torch.empty(2**50, device=logits.device)
    return kept(logits, mask)
place.bce_loss = greedy
"""
POISON = """
import torch, experiments.training.losses as place
kept, calls = place.bce_dice_loss, 0
def poisoned(logits, mask):
    global calls
    calls += logits.requires_grad and logits.numel() > 10
    return kept(logits, mask) * (float("{value}") if calls >= 8 else 1.0)
place.bce_dice_loss = poisoned
"""


# What PyTorch raises where a GPU's memory is full, for machines that have none.
AS_ON_CUDA = GREEDY.replace("torch.empty(2**50, device=logits.device)", 'raise torch.OutOfMemoryError("CUDA error")')


@pytest.mark.slow
@pytest.mark.fault(7)
@pytest.mark.parametrize("greedy", [GREEDY, AS_ON_CUDA], ids=["here", "as on CUDA"])
def test_a_run_that_is_out_of_memory_fails_alone_with_advice_and_the_study_goes_on(
    made_cars, tmp_path, store_uri, greedy
):
    (tmp_path / "tiny.toml").write_text(TOML.replace("seeds = [0, 1]", "seeds = [0]"))
    given = ["--data-dir", made_cars, "--output-dir", tmp_path / "out", "--tracking-uri", store_uri]
    done = injected(["study", tmp_path / "tiny.toml", *given], greedy)
    assert done.returncode == 1 and "1 done, 0 running, 1 failed" in done.stdout, done.stderr
    assert "smaller --batch-size than 16" in done.stdout and "Traceback" not in done.stderr
    assert typed(["study", tmp_path / "tiny.toml", *given])[0] == 0  # with memory, the one that failed is made up for


@pytest.mark.slow
@pytest.mark.fault(7)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_out_of_memory_on_cuda_ends_with_the_same_advice(made_cars, tmp_path, store_uri):
    done = injected(small(made_cars, tmp_path, loss="bce", tracking_uri=store_uri), GREEDY)
    assert done.returncode == 1 and "smaller --batch-size" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.fault(7)
@pytest.mark.parametrize("words", [
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "9 bytes.",
    "std::bad_alloc",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA out of memory. Tried to allocate 2.00 GiB.",
    "MPS backend out of memory (MPS allocated: 9.00 GB)",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
    "[Errno 12] Cannot allocate memory",
])  # fmt: skip
def test_every_librarys_out_of_memory_message_gives_the_same_advice(words):
    assert "smaller --batch-size than 4" in explain_failure(RuntimeError(words), RunConfig(batch_size=4))
    other = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`")
    assert explain_failure(other, RunConfig()) is None  # what nobody foresaw keeps its traceback


@pytest.mark.slow
@pytest.mark.fault(8)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_ends_the_run_keeps_the_last_good_weights_and_ranks_nothing(
    made_cars, tmp_path, store_uri, value
):
    done = injected(small(made_cars, tmp_path, tracking_uri=store_uri), POISON.format(value=value))
    folder = run_folder(tmp_path)
    assert done.returncode == 1 and "stopped being finite in epoch 2" in done.stderr
    for name in ("last.ckpt", "best.ckpt"):
        content = load(folder / name)
        assert content["epoch"] == 1 and all(t.isfinite().all() for t in content["model"].values())
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1]
    assert not (folder / "result.json").exists() and not list(folder.glob("scores*"))
    shown = typed(["runs", "--output-dir", tmp_path])[1]
    assert "failed" in shown and "finished" not in shown


POISONED_VALIDATION = """
import experiments.training.losses as place
kept, calls = place.bce_dice_loss, 0
def poisoned(logits, mask):
    global calls
    calls += logits.requires_grad and logits.numel() > 10
    return kept(logits, mask) * (float("nan") if calls > 5 and not logits.requires_grad else 1.0)
place.bce_dice_loss = poisoned
"""


@pytest.mark.slow
@pytest.mark.fault(8)
def test_a_loss_that_is_not_finite_on_the_validation_images_alone_ends_the_run_as_well(made_cars, tmp_path, store_uri):
    done = injected(small(made_cars, tmp_path, tracking_uri=store_uri), POISONED_VALIDATION)
    assert done.returncode == 1 and "not finite after epoch 2" in done.stderr and "Traceback" not in done.stderr
    folder = run_folder(tmp_path)
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1]
    assert not (folder / "result.json").exists() and load(folder / "last.ckpt")["epoch"] == 1
    assert json.loads((folder / "failed.json").read_text())["diverged"]


@pytest.mark.slow
@pytest.mark.fault(28)
@pytest.mark.parametrize("name", ["mit Leerzeichen", "输出 文件夹", "50% #1 & ü"])
def test_strange_folders_and_another_working_directory_work_and_make_no_second_store(made_cars, tmp_path, name):
    (tmp_path / name).mkdir()
    words = small(made_cars, "out put", epochs=1)
    for _ in range(2):
        code, _, complaint = typed(words, cwd=tmp_path / name)
        assert code == 0, complaint
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert {path.name for path in (tmp_path / name).iterdir()} == {"out put"}
    assert [path.relative_to(tmp_path / name).parts[0] for path in tmp_path.rglob("*.db")] == ["out put"]
    (folder,) = [path for path in (tmp_path / name / "out put" / "runs").iterdir() if path.is_dir()]
    code, shown, complaint = typed(small(made_cars, tmp_path / name / "out put", epochs=1), cwd=os.sep)
    assert code == 0 and f"The run {folder.name} is finished" in shown, complaint
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, _, complaint = typed(small(made_cars, tmp_path / name / "out put", epochs=1, seed=1), cwd=elsewhere)
    assert code == 0 and not list(elsewhere.iterdir()), complaint
    with closing(sqlite3.connect(tmp_path / name / "out put" / "mlflow.db")) as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (
            2,
        )  # that of the other folder is in the one store


@pytest.mark.fault(28)
@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_neither_frees_the_run_of_a_live_process_nor_keeps_that_of_a_dead_one(
    tmp_path, jump, monkeypatch
):
    """The jump is seen where it would be: in the times of files that were written before it."""
    with leases.hold(tmp_path / "run"):
        moment = time.time() + jump
        os.utime(tmp_path / "run.lease", (moment, moment))
        assert leases.owner(tmp_path / "run") is not None
        with pytest.raises(leases.Busy), leases.hold(tmp_path / "run"):
            pass
        content = json.loads(
            (tmp_path / "run.lease").read_text()
        )  # the machine's start, as the clock tells it, jumps with the clock
        (tmp_path / "run.lease").write_text(json.dumps(content | {"began": content["began"] + jump}))
        os.utime(tmp_path / "run.lease", (moment, moment))
        assert leases.owner(tmp_path / "run") is not None
    lease = tmp_path / "dead.lease"
    lease.write_text(
        json.dumps({"host": "elsewhere", "machine": "elsewhere", "process": 1, "began": 0.0, "token": "x"})
    )
    with (
        monkeypatch.context() as patch
    ):  # this machine's clock jumped alone: what counts is that of the folder's machine
        patch.setattr(time, "time", lambda: moment)
        with pytest.raises(leases.Busy), leases.hold(tmp_path / "dead"):
            pass
    os.utime(lease, (moment, moment))
    with leases.hold(tmp_path / "dead") as taken:
        taken.confirm()


@pytest.mark.fault(28)
def test_a_clock_that_jumps_does_not_end_the_wait_for_a_lock(tmp_path, monkeypatch):
    held, clock = FileLock(tmp_path / "lock"), itertools.count(time.time(), 1e6)
    held.acquire()
    monkeypatch.setattr(time, "time", lambda: next(clock))
    with leases.wait_for_lock(tmp_path / "lock", ask=held.release, patience=60):  # given back at the first look
        assert not held.is_locked


@pytest.mark.slow
@pytest.mark.fault(28)
def test_a_failure_noted_under_a_clock_that_was_ahead_is_tried_again(made_cars, tmp_path, store_uri):
    (tmp_path / "tiny.toml").write_text(TOML.replace('"bce", "dice"', '"bce"').replace("seeds = [0, 1]", "seeds = [0]"))
    given = [
        "study",
        tmp_path / "tiny.toml",
        "--data-dir",
        made_cars,
        "--output-dir",
        tmp_path / "out",
        "--tracking-uri",
        store_uri,
    ]
    assert injected(given, GREEDY).returncode == 1
    (failed,) = (tmp_path / "out" / "runs").glob("*/failed.json")
    failed.write_text(json.dumps(json.loads(failed.read_text()) | {"time": time.time() + 1e6}))
    code, shown, complaint = typed(given)
    assert code == 0 and "1 done" in shown, complaint
