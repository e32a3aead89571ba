"""MLflow is unreachable in every way seen so far: runs complete, and `sync` later uploads what is missing, once."""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import psutil
import pytest

from experiments.tracking import store as tracking_store
from tests.conftest import ROOT, run_folder, small
from tests.faults.conftest import injected
from tests.faults.test_interruption import killed_at


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


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def down():
    return free_port(), lambda: None


@pytest.mark.fault(20)
def test_a_server_that_answers_late_is_not_asked_twice_to_make_a_run(monkeypatch):
    from mlflow import MlflowClient

    asked = []

    class Late(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path.rpartition("/")[2])
            time.sleep(2)  # the run is made; who asked has stopped listening by the time that it is told

        def log_message(self, *_):
            pass

    for name, value in {**tracking_store.SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}.items():
        monkeypatch.setenv(name, value)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Late)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(Exception, match=r"timed out|[Tt]imeout"):
            MlflowClient(f"http://127.0.0.1:{server.server_address[1]}").create_run("0", tags={"key": "k"})
    finally:
        server.shutdown()
    assert asked == ["create"]


def picture_of(uri):
    """All that MLflow shows of every run, as far as it does not depend on when and by whom it was sent."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(tracking_store.EXPERIMENT).experiment_id
    shown = []
    for run in client.search_runs([experiment]):
        metrics = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
            if not name.startswith("system/")
        }
        files = sorted(
            item.path
            for place in (None, "pictures", "images")
            for item in client.list_artifacts(run.info.run_id, place)
        )
        names = [re.sub(r"timestamp\+\d+\+[0-9a-f-]{36}", "", path) for path in files]
        tags = {name: value for name, value in run.data.tags.items() if name != "owner"}
        shown.append((run.info.status, run.info.run_name, tags, run.data.params, metrics, names))
    return sorted(shown, key=lambda one: (one[1], one[2]["key"]))


def run_in(uri):
    """The only run that MLflow has."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(tracking_store.EXPERIMENT).experiment_id])
    return run


def moments_of(uri, name):
    """When the values of the only run's metric came about, in milliseconds since 1970, in MLflow's order."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(tracking_store.EXPERIMENT).experiment_id])
    return [one.timestamp for one in client.get_metric_history(run.info.run_id, name)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The URI of an empty store of MLflow's: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    tracking_store.open_store(tracking_store.local_uri(folder), folder)
    return folder / "mlflow.db"


@pytest.fixture
def fresh(store, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_bytes(store.read_bytes())
    return tracking_store.local_uri(tmp_path / "store")


def sync(command, output, uri):
    return command("sync", "--output-dir", output, "--tracking-uri", uri)


@pytest.fixture(scope="module")
def tracked(made_cars, tmp_path_factory):
    """A run whose MLflow was there all the time."""
    import run

    output = tmp_path_factory.mktemp("tracked")
    assert run.main(small(made_cars, output)) == 0
    return output


@pytest.mark.fault(20)
@pytest.mark.parametrize("kind", [refusing, silent, down])
def test_tracking_that_is_away_never_fails_a_run_and_sync_uploads_it_once(
    made_cars, tracked, tmp_path, fresh, command, monkeypatch, kind
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    port, close = kind()
    uri, output = f"http://127.0.0.1:{port}", tmp_path / "outputs"
    try:
        code, shown, _ = command(*small(made_cars, output, tracking_uri=uri))
        assert code == 0 and shown.count("is away") == 1 and "test Dice" in shown
        assert "python run.py sync" in shown and (run_folder(output) / "result.json").exists()
        assert not (output / "mlflow.db").exists()  # never a second store somewhere else
        code, _, complaint = sync(command, output, uri)
        assert code == 1 and "type the same command when it is back" in complaint
    finally:
        close()
    code, shown, _ = sync(command, output, fresh)
    assert code == 0 and "1 uploaded" in shown
    (once,), (live,) = picture_of(fresh), picture_of(tracking_store.local_uri(tracked))
    for part in (0, 1, 3, 5):  # status, name, settings, artifacts
        assert once[part] == live[part]
    assert once[2].keys() == live[2].keys() and once[2]["key"] == live[2]["key"]
    varying = {"images_per_second", "training_seconds", "peak_memory_gb"}
    assert once[4].keys() == live[4].keys()
    assert {k: v for k, v in once[4].items() if k not in varying} == {
        k: v for k, v in live[4].items() if k not in varying
    }
    code, shown, _ = sync(command, output, fresh)
    assert code == 0 and "1 there already" in shown and picture_of(fresh) == [once]


@contextlib.contextmanager
def serving(uri, folder, port):
    """MLflow's own server; killed at the end if it still is there."""
    words = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--port",
        str(port),
        "--backend-store-uri",
        uri,
        "--workers",
        "1",
    ]
    words += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            time.sleep(0.5)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@pytest.mark.fault(20)
@pytest.mark.slow
def test_a_server_that_dies_midway_costs_no_epoch_and_gets_the_rest_later(made_cars, tmp_path, command):
    uri, port, output = tracking_store.local_uri(tmp_path), free_port(), tmp_path / "outputs"
    address = f"http://127.0.0.1:{port}"
    words = small(made_cars, output, tracking_uri=address, epochs=40)
    with serving(uri, tmp_path, port) as server:
        run = subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", timeout=30)) as there:
            for _ in range(1200):
                if there.execute("select count(*) from metrics where key = 'val/dice'").fetchone()[0]:
                    break
                assert run.poll() is None
                time.sleep(0.05)
        os.killpg(server.pid, signal.SIGKILL)
        shown, _ = run.communicate(timeout=300)
    assert run.returncode == 0 and shown.count("is away") == 1
    with serving(uri, tmp_path, port):
        assert "1 completed" in sync(command, output, address)[1]
        ((status, _, _, _, metrics, files),) = picture_of(address)
        lines = [json.loads(line) for line in (run_folder(output) / "metrics.jsonl").read_text().splitlines()]
        assert status == "FINISHED" and metrics["val/dice"] == [(line["epoch"], line["val/dice"]) for line in lines]
        timings = [json.loads(line) for line in (run_folder(output) / "timing.jsonl").read_text().splitlines()]
        assert moments_of(address, "val/dice") == [int(line["ended"] * 1000) for line in timings]
        assert len([name for name in files if name.endswith(".png") and name.startswith("images")]) == 5
        assert "1 there already" in sync(command, output, address)[1]


@pytest.mark.slow
@pytest.mark.fault(21)
def test_a_locked_store_does_not_hold_a_run_up(made_cars, tmp_path, fresh, command):
    output = tmp_path / "outputs"
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        code, shown, _ = command(*small(made_cars, output, tracking_uri=fresh))
        assert code == 0 and "is away (database is locked)" in shown and (run_folder(output) / "result.json").exists()
        other.execute("ROLLBACK")
    assert "1 uploaded" in sync(command, output, fresh)[1]
    assert [one[0] for one in picture_of(fresh)] == ["FINISHED"]


LOCKED_MIDWAY = """
import sqlite3, experiments.training.epochs as place
kept, others = place._record_epoch, []
def spy(*given):
    if not others:
        others.append(sqlite3.connect({path!r}, isolation_level=None, timeout=30))
        others[0].execute("BEGIN EXCLUSIVE")
    return kept(*given)
place._record_epoch = spy
"""


@pytest.mark.slow
@pytest.mark.fault(21)
def test_a_store_that_is_locked_midway_does_not_hold_a_run_up_for_good(made_cars, tmp_path, fresh, command):
    output = tmp_path / "outputs"
    code = LOCKED_MIDWAY.format(path=str(tmp_path / "store" / "mlflow.db"))
    done = injected(small(made_cars, output, tracking_uri=fresh), code)
    assert (
        done.returncode == 0
        and (done.stdout + done.stderr).count("is away") == 1
        and "locked" in done.stdout + done.stderr
    )
    said = sync(command, output, fresh)[1]
    assert "1 completed" in said or "1 uploaded" in said
    assert [one[0] for one in picture_of(fresh)] == ["FINISHED"]


def killed_in_the_third_epoch(cars, folder):
    """The output folder of a run killed after the figure of its third epoch, with the store unreachable."""
    words = small(cars, folder / "outputs", epochs=5, tracking_uri=f"http://127.0.0.1:{free_port()}")
    done = injected(words, killed_at("from experiments.training import pictures as place", "save_validation", 3))
    assert done.returncode == -signal.SIGKILL
    return folder / "outputs"


@pytest.mark.slow
@pytest.mark.fault(22)
def test_epochs_that_a_kill_kept_from_mlflow_are_sent_on_resume(made_cars, tmp_path, fresh, command):
    output = killed_in_the_third_epoch(made_cars, tmp_path)
    config = run_folder(output) / "config.json"
    written = config.stat().st_mtime
    config.write_text(json.dumps(json.loads(config.read_text()) | {"git_commit": "0" * 40}))  # begun by other code
    os.utime(config, (written, written))
    assert command(*small(made_cars, output, epochs=5, tracking_uri=fresh))[0] == 0
    assert run_in(fresh).data.tags["mlflow.source.git.commit"] == "0" * 40
    ((status, _, _, _, metrics, files),) = picture_of(fresh)
    lines = [json.loads(line) for line in (run_folder(output) / "metrics.jsonl").read_text().splitlines()]
    assert status == "FINISHED" and metrics["val/dice"] == [(line["epoch"], line["val/dice"]) for line in lines]
    timings = [json.loads(line) for line in (run_folder(output) / "timing.jsonl").read_text().splitlines()]
    assert moments_of(fresh, "val/dice") == [int(line["ended"] * 1000) for line in timings]
    assert len([name for name in files if name.endswith(".png") and name.startswith("images")]) == 5
    assert "1 there already" in sync(command, output, fresh)[1]
    began = run_in(fresh).info.start_time
    assert began <= moments_of(fresh, "val/dice")[0] and began == int(
        (run_folder(output) / "config.json").stat().st_mtime * 1000
    )


@pytest.mark.slow
@pytest.mark.fault(22)
def test_a_figure_of_an_epoch_that_is_trained_again_is_not_sent_twice(made_cars, tmp_path, fresh, command):
    """The last checkpoint is lost: epoch 3 is trained again, and its picture from before lies in the folder."""
    output = killed_in_the_third_epoch(made_cars, tmp_path)
    (run_folder(output) / "last.ckpt").write_bytes(b"")
    assert command(*small(made_cars, output, epochs=5, tracking_uri=fresh))[0] == 0
    ((_, _, _, _, _, files),) = picture_of(fresh)
    assert len([name for name in files if name.endswith(".png") and name.startswith("images")]) == 5


@pytest.mark.slow
@pytest.mark.fault(20)
def test_what_is_damaged_is_left_out_of_an_upload_and_the_rest_is_not(made_cars, tmp_path, fresh, command):
    output = tmp_path / "outputs"
    for seed in (0, 1, 2):
        assert command(*small(made_cars, output, seed=seed, tracking_uri=f"http://127.0.0.1:{free_port()}"))[0] == 0
    first, second, _ = sorted(path for path in (output / "runs").iterdir() if path.is_dir())
    (first / "result.json").unlink()
    (first / "metrics.jsonl").write_text('{"epoch": 1\n' + (first / "metrics.jsonl").read_text())
    (second / "timing.jsonl").write_text("{}\n")
    (output / "studies" / "torn").mkdir(parents=True)
    (output / "studies" / "torn" / "plan.json").write_text('{"name": "torn", "cel')
    code, shown, complaint = sync(command, output, fresh)
    assert (
        code == 0 and "2 damaged, left out" in shown and "1 uploaded" in shown and "plan.json cannot be read" in shown
    ), complaint
    assert [one[0] for one in picture_of(fresh)] == ["FINISHED"]


@pytest.mark.slow
@pytest.mark.fault(22)
def test_a_run_left_running_by_a_kill_is_marked_killed_with_all_its_epochs_and_goes_on(
    made_cars, tmp_path, fresh, command
):
    output = tmp_path / "outputs"
    words = small(made_cars, output, tracking_uri=fresh, epochs=30)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "mlflow.db", timeout=30)) as there:
        for _ in range(2400):
            if there.execute("select count(*) from metrics where key = 'val/dice'").fetchone()[0]:
                break
            assert process.poll() is None
            time.sleep(0.05)
    process.kill()
    process.communicate()
    assert picture_of(fresh)[0][0] == "RUNNING"
    kept = len((run_folder(output) / "metrics.jsonl").read_text().splitlines())
    assert sync(command, output, fresh)[0] == 0
    ((status, _, _, _, metrics, _),) = picture_of(fresh)
    assert status == "KILLED" and [step for step, _ in metrics["val/dice"]] == list(range(1, kept + 1))
    assert command(*words)[0] == 0
    ((status, _, _, _, metrics, _),) = picture_of(fresh)
    assert status == "FINISHED" and [step for step, _ in metrics["val/dice"]] == list(range(1, 31))


@pytest.mark.slow
@pytest.mark.fault(14)
@pytest.mark.parametrize("folders", [1, 4], ids=["one output folder", "one store for four output folders"])
def test_four_processes_first_touch_one_fresh_store(tmp_path, folders):
    code = (
        "import pathlib; from experiments.tracking import store as t; "
        f"p = pathlib.Path({str(tmp_path / 'new')!r}); client, there = t.open_store(t.local_uri(p), p / 'NUMBER'); "
        "print(there, client.create_run(there).info.run_id)"
    )
    each = [code.replace("NUMBER", str(number % folders)) for number in range(4)]
    started = [
        subprocess.Popen([sys.executable, "-c", one], cwd=ROOT, stdout=subprocess.PIPE, text=True) for one in each
    ]
    said = [process.communicate(timeout=300)[0].split() for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert len({experiment for experiment, _ in said}) == 1 and len({run for _, run in said}) == 4
    from mlflow import MlflowClient

    client = MlflowClient(tracking_store.local_uri(tmp_path / "new"))
    assert {run.info.run_id for run in client.search_runs([said[0][0]])} == {run for _, run in said}


@pytest.mark.slow
@pytest.mark.fault(25)
def test_the_ui_shows_the_right_store_on_loopback_alone_and_refuses_foreign_pages(tracked, tmp_path):
    port = free_port()
    words = [sys.executable, str(ROOT / "run.py"), "ui", "--output-dir", str(tracked), "--port", str(port)]
    process = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"

    def asked(**headers):
        return urllib.request.Request(address, b'{"max_results": 10}', {"Content-Type": "application/json", **headers})

    try:
        for _ in range(240):
            try:
                found = json.load(urllib.request.urlopen(asked(), timeout=5))
                break
            except OSError:
                time.sleep(0.5)
        assert tracking_store.EXPERIMENT in {experiment["name"] for experiment in found["experiments"]}
        for foreign in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked(**foreign), timeout=5)
            assert refused.value.code == 403
        listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
        assert listening == {"127.0.0.1"}
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("given", "warns"),
    [([], False), (["--host", "::1"], False), (["--host", "0.0.0.0"], True), (["--host", "192.0.2.7"], True)],
)
def test_another_address_is_listened_on_only_when_it_is_asked_for_and_with_a_warning(
    fresh, command, monkeypatch, given, warns
):
    started = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))  # it would replace this process
    code, _, warned = command("ui", "--tracking-uri", fresh, *given)
    ((*words,),) = started
    assert code == 0 and words[words.index("--host") + 1] == (given[1] if given else "127.0.0.1")
    assert ("WARNING" in warned) == warns and "*" not in "".join(words)


def test_what_is_no_address_is_refused_in_one_sentence(command, fresh):
    code, _, complaint = command("ui", "--tracking-uri", fresh, "--host", "evil.example")
    assert code == 2 and "--host takes an address" in complaint
