"""A study on a Ray cluster of three nodes: a killed worker costs its run alone; the records equal those of one process.

The nodes are real ones of one machine, each with a raylet and workers of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import ROOT
from tests.test_study import TOML

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's clusters are for Linux and macOS"),
]

STUDY = TOML.replace("epochs = 2", "epochs = 12")
LETHAL = """
import os, signal
def loss(logits, mask):
    if logits.shape[-1] > 2:  # not where the command line tries the loss
        os.kill(os.getpid(), signal.SIGKILL)
    return (logits.float() - mask).square().mean()
"""


@pytest.fixture(scope="module")
def cluster():
    """Three nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def words(folder, cars, store, *more):
    return [
        "study",
        folder / "tiny.toml",
        "--data-dir",
        cars,
        "--output-dir",
        folder / "outputs",
        "--tracking-uri",
        store,
        *more,
    ]


def begin(folder, cars, store, text=STUDY, *more):
    """The study's command in a process of its own; one thread a run, so that each node takes one."""
    (folder / "tiny.toml").write_text(text)
    command = [sys.executable, str(ROOT / "run.py"), *map(str, words(folder, cars, store, *more))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def on(cluster):
    return "--executor", "ray", "--ray-address", cluster.address


@pytest.fixture(scope="module")
def alone(made_cars, tmp_path_factory, store):
    """The study as one process carries it out."""
    folder = tmp_path_factory.mktemp("alone")
    process = begin(folder, made_cars, store)
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    return records(folder)


def records(folder):
    names = ("metrics.jsonl", "scores_best.csv", "scores_last.csv", "split.csv")
    runs = [path for path in (folder / "outputs" / "runs").iterdir() if path.is_dir()]
    return {(run.name, name): (run / name).read_bytes() for run in runs for name in names}


def under_way(folder):
    """The process numbers of the workers whose run has finished an epoch and is not finished itself."""
    found = []
    for lease in (folder / "outputs" / "runs").glob("*.lease"):
        run = lease.with_suffix("")
        if (run / "metrics.jsonl").exists() and (run / "last.ckpt").exists() and not (run / "result.json").exists():
            found.append(json.loads(lease.read_text())["process"])
    return found


def wait_for(found, process, seconds=120):
    for _ in range(seconds * 20):
        if there := found():
            return there
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def node_of(cluster, worker):
    """The node that a worker belongs to; never the head, which is no machine that one can lose."""
    above = {parent.pid for parent in psutil.Process(worker).parents()}
    return next((n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid in above), None)


def test_a_study_on_three_nodes_one_of_which_dies_midway_leaves_the_records_of_one_process(
    cluster, alone, made_cars, tmp_path, store
):
    process = begin(tmp_path, made_cars, store, STUDY, *on(cluster))
    lost = wait_for(lambda: next((n for w in under_way(tmp_path) if (n := node_of(cluster, w))), None), process)
    cluster.remove_node(lost, allow_graceful=False)
    shown, _ = process.communicate(timeout=300)
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    assert process.returncode == 0, shown
    assert "is rescheduled (retry 1 of" in shown and "3 nodes" in shown
    assert records(tmp_path) == alone


def test_a_run_whose_worker_dies_each_time_fails_alone_and_all_track_to_one_store(cluster, made_cars, tmp_path):
    from mlflow import MlflowClient

    (tmp_path / "lethal.py").write_text(LETHAL)
    text = (
        STUDY.replace('"dice"]', '"lethal:loss"]')
        .replace("seeds = [0, 1]", "seeds = [0]")
        .replace("epochs = 12", "epochs = 1")
    )
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    process = begin(tmp_path, made_cars, store, text, *on(cluster))
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "1 done, 0 running, 1 failed" in shown, shown
    assert shown.count("is rescheduled") == 3
    client = MlflowClient(store)
    found = client.search_runs([client.get_experiment_by_name("segmentation").experiment_id])
    statuses = [(run.data.tags["loss"], run.info.status) for run in found if run.data.tags["loss"] == "bce"]
    assert statuses == [("bce", "FINISHED")]  # the other may have died before the store heard of it


def test_an_interrupted_study_stops_its_workers_where_they_can_be_resumed(cluster, alone, made_cars, tmp_path, store):
    process = begin(tmp_path, made_cars, store, STUDY, *on(cluster))
    workers = wait_for(lambda: under_way(tmp_path), process)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "Re-run the command to resume" in shown, shown
    left = [path for path in (tmp_path / "outputs" / "runs").glob("*.lease") if path.read_text()]
    assert not left, "a worker was killed before it gave its run back"
    assert workers and len(list((tmp_path / "outputs" / "runs").glob("*/result.json"))) < 4
    process = begin(tmp_path, made_cars, store, STUDY, *on(cluster), "--parallel", "2")
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and records(tmp_path) == alone, shown
