"""MLflow shows the run; where it is away, the run does not notice."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments import tracking
from tests.conftest import ROOT, run_folder, small


def store(output):
    from mlflow import MlflowClient

    client = MlflowClient(tracking.local_uri(output))
    return client, client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])


@pytest.fixture(scope="module")
def tracked(made_cars, tmp_path_factory):
    import run

    output = tmp_path_factory.mktemp("tracked")
    assert run.main(small(made_cars, output)) == 0
    return output


def test_metrics_and_tags_have_the_names_that_were_promised(tracked):
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
    assert run.data.metrics["test/dice"] == result["test"]["best"]["dice"]
    assert run.data.params["learning_rate"] == "0.003" and run.data.params["model_kwargs"] == '{"width": 4}'


def test_the_data_set_is_an_input_with_its_fingerprint(tracked):
    _, (run,) = store(tracked)
    (given,) = run.inputs.dataset_inputs
    config = json.loads((run_folder(tracked) / "config.json").read_text())["config"]
    assert (given.dataset.name, given.dataset.digest) == ("carvana", config["data_fingerprint"])


def test_record_and_pictures_are_artifacts_under_the_output_folder(tracked):
    client, (run,) = store(tracked)
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "split.csv", "scores.csv", "metrics.jsonl", "pictures"} <= names
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "pictures")}
    assert pictures == {"pictures/curves.png", "pictures/worst-test-photographs.png"}
    assert run.info.artifact_uri.startswith((tracked / "mlartifacts").as_uri())
    steps = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert len([path for path in steps if path.endswith(".png")]) == 2  # both epochs are shown, with a slider


def test_a_run_taken_up_again_goes_on_in_the_same_mlflow_run(made_cars, tmp_path, command):
    words = small(made_cars, tmp_path)
    assert command(*words)[0] == 0
    (run_folder(tmp_path) / "result.json").unlink()
    assert command(*words)[0] == 0
    client, (run,) = store(tmp_path)
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val/dice")] == [1, 2]


def test_a_run_whose_process_is_gone_is_marked_killed(tracked):
    client, (run,) = store(tracked)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = client.create_run(run.info.experiment_id, tags={"owner": f"{socket.gethostname()}:{gone.pid}"})
    alive = client.create_run(run.info.experiment_id, tags={"owner": f"{socket.gethostname()}:{os.getpid()}"})
    elsewhere = client.create_run(run.info.experiment_id, tags={"owner": "another-machine:1"})
    tracking._reconcile(client, run.info.experiment_id)
    states = [client.get_run(r.info.run_id).info.status for r in (left, alive, elsewhere)]
    for made in (left, alive, elsewhere):
        client.delete_run(made.info.run_id)
    assert states == ["KILLED", "RUNNING", "RUNNING"]


def test_four_processes_first_touch_one_fresh_store(tmp_path):
    code = f"from pathlib import Path; from experiments import tracking as t; p = Path({str(tmp_path)!r}); print(t.open_store(t.local_uri(p), p)[1])"

    def touch(_):
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(touch, range(4)))) == 1
    assert store(tmp_path)[1] == []


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def refusing():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1], server.shutdown


def silent():
    """Accepts and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    return listener.getsockname()[1], listener.close


def down():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    return port, lambda: None


@pytest.mark.parametrize("kind", [refusing, silent, down])
def test_tracking_that_is_away_never_fails_a_run(made_cars, tmp_path, command, monkeypatch, kind):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    port, close = kind()
    try:
        code, shown, _ = command(*small(made_cars, tmp_path, tracking_uri=f"http://127.0.0.1:{port}"))
    finally:
        close()
    assert code == 0 and shown.count("is away") == 1 and "test Dice" in shown
    assert (run_folder(tmp_path) / "result.json").exists()
    assert not (tmp_path / "mlflow.db").exists()  # never a second store somewhere else


def test_the_ui_shows_the_right_store_on_loopback_alone(tracked, tmp_path):
    import urllib.error
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, str(ROOT / "run.py"), "ui", "--output-dir", str(tracked), "--port", str(port)]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"

    def asked(**headers):
        return urllib.request.Request(address, b'{"max_results": 10}', {"Content-Type": "application/json", **headers})

    try:
        for _ in range(120):
            try:
                found = json.load(urllib.request.urlopen(asked(), timeout=5))
                break
            except OSError:
                time.sleep(0.5)
        assert tracking.EXPERIMENT in {experiment["name"] for experiment in found["experiments"]}
        for foreign in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked(**foreign), timeout=5)
            assert refused.value.code == 403
        listening = {
            c.laddr.ip for c in __import__("psutil").net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port
        }
        assert listening == {"127.0.0.1"}
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)
    assert list(tmp_path.iterdir()) == []
