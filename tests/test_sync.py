"""What `run.py sync` restores beside runs: the studies they belong to, and the trials in their groups."""

import contextlib
import json
import shutil
from types import SimpleNamespace

import pytest

from experiments.runtime.errors import RunFailed
from experiments.studies import sync_runs
from experiments.tracking import store
from experiments.tracking.upload import RunUpload
from tests.conftest import run_folder, small
from tests.made_study import write_study

TRIALS = "cell,trial,rate,seed,state,value,key,seconds\nunet+bce,3,0.01,100,finished,0.5,{key},1.0\n"


def test_a_studys_tags_and_the_groups_of_its_trials_are_read_from_its_files(tmp_path):
    plan = write_study(tmp_path, seeds=(0, 1))
    found = sync_runs.read_studies(tmp_path / "studies")
    for cell in plan["cells"]:
        assert [found.runs[key] for key in cell["runs"].values()] == [{"study.made": "true", "cell": cell["cell"]}] * 2
        numbers, trials = found.groups[f"tune/made/{cell['cell']}"]
        assert numbers == {"rate": 0.004, "rate_low": 0.002, "rate_high": 0.007, "trials": 14.0} and trials.exists()
    first = plan["cells"][0]["cell"]
    assert found.parents["t0"] == f"tune/made/{first}" and found.trials["t0"]["tuning.made"] == "true"


@pytest.fixture(scope="module")
def trained(made_cars, tmp_path_factory):
    import run

    output = tmp_path_factory.mktemp("trained")
    assert run.main(small(made_cars, output, tracking_uri="http://127.0.0.1:9")) == 0
    return output


def test_a_trial_is_nested_in_its_cells_group_and_a_run_with_its_settings_is_another(trained, command):
    from mlflow import MlflowClient

    key = run_folder(trained).name
    trial = trained / "trials" / key
    shutil.copytree(run_folder(trained), trial)
    (trial / "result.json").write_text(json.dumps({"key": key, "value": 0.5}))
    (trained / "studies" / "s").mkdir(parents=True)
    (trained / "studies" / "s" / "trials.csv").write_text(TRIALS.format(key=key))
    for said in ("2 uploaded", "2 there already"):
        code, shown, _ = command("sync", "--output-dir", trained)
        assert code == 0 and said in shown
    client = MlflowClient(store.local_uri(trained))
    runs = client.search_runs([client.get_experiment_by_name(store.EXPERIMENT).experiment_id])
    found = {run.data.tags["key"]: run for run in runs}
    assert found.keys() == {key, f"trial-{key}", "tune/s/unet+bce"} and len(runs) == 3
    nested = found[f"trial-{key}"]
    assert nested.data.tags["mlflow.parentRunId"] == found["tune/s/unet+bce"].info.run_id
    assert nested.data.metrics["value"] == 0.5 and nested.data.tags["trial"] == "3"
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.fault(11)
def test_a_run_whose_result_was_changed_is_not_uploaded(trained, tmp_path, command):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    path = run_folder(tmp_path) / "result.json"
    path.write_text(path.read_text().replace('"parameters": ', '"parameters": 1'))
    code, shown, _ = command("sync", "--output-dir", tmp_path)
    assert code == 0 and "1 changed since they were finished, left out" in shown and "uploaded" not in shown


@pytest.mark.parametrize("content", [b"", b"\x89PNG torn"])
def test_a_torn_figure_is_left_out_and_stops_nothing(tmp_path, content):
    (tmp_path / "torn.png").write_bytes(content)
    upload = RunUpload(SimpleNamespace(client=None))
    upload._log_picture(("validation", 1), tmp_path / "torn.png")
    assert not upload._pictures


@pytest.mark.parametrize(("usable", "end"), [(True, "when it is back."), (False, "then type the same command again.")])
def test_what_to_do_where_a_store_is_away_or_unusable_is_said(tmp_path, monkeypatch, usable, end):
    (tmp_path / "runs").mkdir()

    def connect(uri, output_dir, warn):
        warn("MLflow at x cannot be used: restore it. The run goes on; its record on disk is complete.")
        return contextlib.nullcontext(SimpleNamespace(away=True, usable=usable, uri="x"))

    monkeypatch.setattr(sync_runs, "connect", connect)
    with pytest.raises(RunFailed) as failed:
        sync_runs.upload(tmp_path, None)
    assert str(failed.value).endswith(end)


def test_where_there_are_no_runs_a_sentence_says_so(command, tmp_path):
    code, _, complaint = command("sync", "--output-dir", tmp_path / "nothing")
    assert code == 2 and "--output-dir" in complaint and not (tmp_path / "nothing").exists()
