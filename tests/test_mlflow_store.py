"""MLflow's store: where it is looked for, what it is called, and that it works where it lies now."""

import os
import shutil
from types import SimpleNamespace

import pytest

from experiments.studies.study_folder import record_store, with_store
from experiments.tracking import onnx_model, store, tracker
from registry import InputError
from tests.conftest import small

pytestmark = pytest.mark.usefixtures("one_thread")


def runs_in(uri, experiment="segmentation"):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id]) if found else []


def test_a_copied_store_keeps_its_files_where_it_lies_now(made_cars, tmp_path, command):
    """The copy goes on alone: nothing of it is written into the original, which may be gone."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert command(*small(made_cars, first, epochs=1))[0] == 0
    shutil.copytree(first, second)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert command(*small(made_cars, second, epochs=1, seed=1))[0] == 0
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    client, runs = runs_in(store.local_uri(second))
    assert len(runs) == 2
    for run in runs:
        assert run.info.artifact_uri.startswith((second / "mlartifacts").as_uri() + "/")
        assert {"config.json", "split.csv"} <= {item.path for item in client.list_artifacts(run.info.run_id)}


def test_a_deleted_experiment_is_named_with_the_way_to_restore_it(made_cars, tmp_path, command):
    assert command(*small(made_cars, tmp_path, epochs=1))[0] == 0
    client, runs = runs_in(store.local_uri(tmp_path))
    client.delete_experiment(runs[0].info.experiment_id)
    code, said, _ = command(*small(made_cars, tmp_path, epochs=1, seed=1))
    assert code == 0 and "The experiment segmentation was deleted there." in said
    assert "mlflow experiments restore --experiment-id" in said and "is away" not in said and "Open it in" not in said
    client.restore_experiment(runs[0].info.experiment_id)
    assert command("sync", "--output-dir", tmp_path)[0] == 0
    assert len(runs_in(store.local_uri(tmp_path))[1]) == 2


@pytest.mark.parametrize(
    ("uri", "reason", "busy"),
    [
        ("sqlite:////data/mlflow.db", tracker.NO_ANSWER, True),
        ("sqlite:////data/mlflow.db", "database is locked", True),
        ("sqlite:////data/mlflow.db", "no such table: runs", False),
        ("http://127.0.0.1:5000", tracker.NO_ANSWER, False),
    ],
)
def test_a_local_store_in_use_elsewhere_is_named_as_that_and_not_as_a_server_that_is_away(tmp_path, uri, reason, busy):
    said = []
    session = SimpleNamespace(uri=uri, output_dir=tmp_path, _warn=said.append, _monitors={})
    tracker.Session.on_failure(session, reason)
    (sentence,) = said
    assert sentence.startswith(f"MLflow at {uri} is away ({reason})") and "its record on disk is complete" in sentence
    assert sentence.endswith(f"this uploads it: python run.py sync --tracking-uri {uri} --output-dir {tmp_path}")
    assert ("another command is using this file, or the machine is busy. Nothing is lost." in sentence) == busy
    assert ("When MLflow is back" in sentence) != busy


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_no_store_any_more(uri, command, monkeypatch, tmp_path):
    code, _, complaint = command("--tracking-uri", uri)
    assert code == 2 and "MLflow 3 keeps no runs in folders" in complaint and "sqlite:///mlflow.db" in complaint
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, _, complaint = command("--data", "synthetic", "--data-dir", tmp_path)
    assert code == 2 and complaint.startswith("MLFLOW_TRACKING_URI ")


def test_every_command_refuses_a_folder_as_a_store(command, tmp_path):
    (tmp_path / "runs").mkdir()
    for words in (["ui"], ["sync"]):
        code, _, complaint = command(*words, "--tracking-uri", "mlruns", "--output-dir", tmp_path)
        assert code == 2 and "MLflow 3 keeps no runs in folders" in complaint, words


def test_the_pages_of_a_server_are_its_own(command, tmp_path):
    code, shown, _ = command("ui", "--tracking-uri", "http://me:secret@127.0.0.1:1", "--output-dir", tmp_path)
    assert code == 0 and "Open http://" in shown and "127.0.0.1:1 in a browser" in shown and "secret" not in shown


def test_a_store_that_is_none_ends_in_a_sentence(command, tmp_path):
    (tmp_path / "no.db").write_text("This is no database, whatever its name.")
    code, _, complaint = command("ui", "--tracking-uri", f"sqlite:///{tmp_path / 'no.db'}", "--output-dir", tmp_path)
    assert code == 2 and "cannot be opened" in complaint and complaint.count("\n") == 1


def test_the_address_of_a_sqlite_file_keeps_odd_names(tmp_path):
    odd = tmp_path / "a?b %41" / "optuna.db"
    assert "?" not in store.sqlite_uri(odd) and store.local_path(store.sqlite_uri(odd)) == odd


def test_mlflows_own_variables_are_used_and_said(made_cars, tmp_path, command, monkeypatch):
    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cars")
    code, said, _ = command(*small(made_cars, tmp_path / "outputs", epochs=1))
    assert code == 0 and f"MLflow: {uri}, by MLFLOW_TRACKING_URI." in said
    assert f"python run.py ui --output-dir {tmp_path / 'outputs'} --tracking-uri {uri}" in said
    assert len(runs_in(uri, "cars")[1]) == 1 and not (tmp_path / "outputs" / "mlflow.db").exists()
    given = f"sqlite:///{tmp_path}/given.db"
    code, said, _ = command(*small(made_cars, tmp_path / "outputs", epochs=1, seed=1), "--tracking-uri", given)
    assert code == 0 and "by MLFLOW_TRACKING_URI" not in said and len(runs_in(given, "cars")[1]) == 1


def test_a_study_stays_in_the_store_that_it_began_in(tmp_path, monkeypatch, capsys):
    def begin(name, **given):
        machine = with_store(name, {"output_dir": tmp_path, **given})
        record_store(SimpleNamespace(machine=SimpleNamespace(**machine), folder=tmp_path / "studies" / name))
        return machine["tracking_uri"]

    assert begin("one") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert begin("one") is None
    assert "stays in the MLflow store that it began in" in capsys.readouterr().out
    opened = tracker.Session(None, tmp_path, print)
    opened.close()
    assert opened.uri == store.local_uri(tmp_path) and not opened.away  # the variable names a server that is not there
    assert begin("two") == "http://127.0.0.1:9"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert begin("two") == "http://127.0.0.1:9"
    given = "http://me:secret@127.0.0.1:9"
    assert begin("two", tracking_uri=given) == given
    record = (tmp_path / "studies" / "two" / "tracking.json").read_text()
    assert "secret" not in record and "***" in record
    with pytest.raises(InputError, match=r"at http://me:\*\*\*@127.0.0.1:9: type --tracking-uri with its password"):
        with_store("two", {"output_dir": tmp_path})


def test_a_model_that_mlflow_is_away_for_is_exported_again_later(tmp_path, capsys):
    assert not onnx_model.attach(tmp_path, "key", tmp_path, "http://127.0.0.1:9")
    said = capsys.readouterr().out
    assert "is away" in said and "repeat the export when it is back" in said and "sync" not in said


@pytest.mark.parametrize("name", ["a b", "50%25", "what?", "c#d", "汽车"])
def test_a_store_in_a_folder_of_any_name(name, tmp_path):
    folder = tmp_path / name
    client, experiment = store.open_store(store.local_uri(folder), folder)
    client.create_run(experiment)
    assert (folder / "mlflow.db").exists() and store.local_path(store.local_uri(folder)) == folder / "mlflow.db"
    assert store.lock(store.local_uri(folder), folder) == folder / "mlflow.lock"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_hints_are_quoted_and_not_given_where_mlflow_is_away(made_cars, tmp_path, command):
    output = tmp_path / "my outputs"
    code, said, _ = command(*small(made_cars, output, epochs=1))
    assert code == 0 and f"python run.py ui --output-dir '{output}'" in said
    code, said, _ = command(*small(made_cars, output, epochs=1, seed=1), "--tracking-uri", "http://127.0.0.1:9")
    assert code == 0 and "is away" in said and "Open it in MLflow" not in said
    assert f"--output-dir '{os.fspath(output)}'" in said
