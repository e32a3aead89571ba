"""MLflow shows the run; tests/faults/test_tracking_away.py is about an MLflow that is away."""

import json
import os
import socket
import subprocess
import sys

import pytest

from experiments.config.schema import RunConfig
from experiments.tracking import store as tracking_store
from experiments.tracking.tracker import Session, session
from experiments.tracking.upload import RUNNING, LoggedEpoch, RunSnapshot, RunUpload
from tests.conftest import run_folder, small


def store(output):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_store.local_uri(output))
    return client, client.search_runs([client.get_experiment_by_name(tracking_store.EXPERIMENT).experiment_id])


@pytest.fixture(scope="module")
def tracked(made_cars, tmp_path_factory):
    import run

    output = tmp_path_factory.mktemp("tracked")
    assert run.main(small(made_cars, output)) == 0
    return output


def test_metrics_and_tags_have_the_names_that_are_documented(tracked):
    client, (run,) = store(tracked)
    assert {"model", "loss", "augment", "data", "seed", "key"} <= set(run.data.tags)
    assert run.data.tags["key"] == run_folder(tracked).name and run.info.status == "FINISHED"
    epoch = {"train/loss", "val/loss", "val/dice", "val/iou", "learning_rate", "images_per_second"}
    assert epoch | {"test/dice", "test/iou", "test/boundary_iou", "test/hd95_median"} <= set(run.data.metrics)
    lines = [json.loads(line) for line in (run_folder(tracked) / "metrics.jsonl").read_text().splitlines()]
    history = client.get_metric_history(run.info.run_id, "val/dice")
    assert [(m.step, m.value) for m in history] == [(line["epoch"], line["val/dice"]) for line in lines]


def test_the_result_in_mlflow_is_the_one_on_the_disk(tracked):
    _, (run,) = store(tracked)
    result = json.loads((run_folder(tracked) / "result.json").read_text())
    assert run.data.metrics["test/dice"] == result["test"]["last"]["dice"]
    assert run.data.params["learning_rate"] == "0.003" and run.data.params["model_kwargs"] == '{"width": 4}'


def test_the_data_set_is_an_input_with_its_fingerprint(tracked):
    _, (run,) = store(tracked)
    (given,) = run.inputs.dataset_inputs
    config = json.loads((run_folder(tracked) / "config.json").read_text())["config"]
    assert (given.dataset.name, given.dataset.digest) == ("carvana", config["data_fingerprint"])


def test_record_and_figures_are_artifacts_under_the_output_folder(tracked):
    client, (run,) = store(tracked)
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "split.csv", "scores_best.csv", "scores_last.csv", "metrics.jsonl", "pictures"} <= names
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "pictures")}
    assert pictures == {"pictures/curves.png", "pictures/test-images.png"}
    assert run.info.artifact_uri.startswith((tracked / "mlartifacts").as_uri())
    steps = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert len([path for path in steps if path.endswith(".png")]) == 2  # both epochs are shown, with a slider


def test_a_resumed_run_continues_in_the_same_mlflow_run(made_cars, tmp_path, command):
    words = small(made_cars, tmp_path)
    assert command(*words)[0] == 0
    (run_folder(tmp_path) / "result.json").unlink()
    assert command(*words)[0] == 0
    client, (run,) = store(tmp_path)
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val/dice")] == [1, 2]


def test_a_run_that_was_discarded_and_begins_again_is_another_run_in_mlflow(tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "start_monitor", lambda *_: None)
    config = RunConfig()

    def send(*numbers, status=RUNNING, **options):
        """As one process does: at its beginning with the epochs but the last, then with all."""
        with session(None, tmp_path, print) as opened:
            upload = RunUpload(opened, **options)
            epochs = [LoggedEpoch(number, {"val/dice": 0.5}, 1.0 + number) for number in numbers]
            for sent in (epochs[:-1], epochs):
                upload.update(RunSnapshot(config, tmp_path, 1.0, sent, {}, [], {}, status=status, ended=9.0))
            opened.call(lambda: None)  # however long it takes
        client, runs = store(tmp_path)
        return {
            run.data.tags.get("key", f"superseded {run.data.tags.get('superseded')}"): [
                metric.step for metric in client.get_metric_history(run.info.run_id, "val/dice")
            ]
            for run in runs
        }

    old = f"superseded {config.key}"
    assert send(1, 2) == {config.key: [1, 2]}
    assert send(1, 2, 3, status="FINISHED") == {config.key: [1, 2, 3]}  # resumed
    assert send(is_mine=lambda: False) == {config.key: [1, 2, 3]}  # another process has taken it over
    assert send(live=False) == {config.key: [1, 2, 3]}  # `sync`, which may look at a run that another process begins
    assert send(1) == {old: [1, 2, 3], config.key: [1]}
    assert send(1, 2) == {old: [1, 2, 3], config.key: [1, 2]}


@pytest.mark.fault(22)
def test_a_run_whose_process_is_gone_is_marked_killed(tracked):
    client, (run,) = store(tracked)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = client.create_run(run.info.experiment_id, tags={"owner": f"{socket.gethostname()}:{gone.pid}"})
    alive = client.create_run(run.info.experiment_id, tags={"owner": f"{socket.gethostname()}:{os.getpid()}"})
    elsewhere = client.create_run(run.info.experiment_id, tags={"owner": "another-machine:1"})
    tracking_store.reconcile(client, run.info.experiment_id)
    states = [client.get_run(r.info.run_id).info.status for r in (left, alive, elsewhere)]
    for made in (left, alive, elsewhere):
        client.delete_run(made.info.run_id)
    assert states == ["KILLED", "RUNNING", "RUNNING"]
