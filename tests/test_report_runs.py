"""The report over trained runs: their numbers, their bit-for-bit reproduction, their models side by side."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.plots import panels
from analysis.plots.panels import FALSE, MISSED
from experiments.config.schema import RunConfig
from experiments.studies import reproduce
from registry import InputError
from tests.conftest import report_flags, run_folder
from tests.test_data import write_pairs


@pytest.fixture(scope="module")
def trained(finished_run, made_cars, tmp_path_factory):
    """The output folder of a study of one run that was trained for two epochs."""
    output = shutil.copytree(finished_run, tmp_path_factory.mktemp("trained") / "outputs")
    key = run_folder(output).name
    cell = {
        "cell": "unet-bce_dice",
        "levels": {"model": "unet"},
        "settings": {},
        "rate": 0.003,
        "edge": False,
        "runs": {"0": key},
    }
    plan = {
        "name": "tiny",
        "factors": {"model": ["unet"]},
        "design": {"seeds": [0]},
        "settings": {"here": str(made_cars)},
        "cells": [cell],
    }
    (output / "studies/tiny").mkdir(parents=True)
    (output / "studies/tiny/plan.json").write_text(json.dumps(plan))
    return output


@pytest.fixture
def place(trained, tmp_path):
    """The words of a report over a copy of the trained study."""
    shutil.copytree(trained, tmp_path / "outputs")
    (tmp_path / "README.md").write_text("no place\n")
    return report_flags(tmp_path)


def test_a_trained_runs_row_is_what_its_own_result_says(trained, tmp_path, command, place, made_cars):
    import pandas as pd

    assert command("report", "tiny", *place)[0] == 0
    row = pd.read_csv(tmp_path / "results/tiny/runs.csv").iloc[0]
    result = json.loads((run_folder(trained) / "result.json").read_text())
    for name in ("dice", "iou", "boundary_iou", "hd95_median", "hd95_failures"):
        assert row[name] == pytest.approx(result["test"]["last"][name], abs=1e-7)
    assert row.dice_best == pytest.approx(result["test"]["best"]["dice"], abs=1e-7)
    for name in ("parameters", "gmacs", "images_per_second", "peak_memory_gb", "best_epoch", "device", "precision"):
        assert row[name] == result[name]
    config = json.loads((run_folder(trained) / "config.json").read_text())["config"]
    committed = json.loads((tmp_path / "results/tiny/configs.json").read_text())
    assert {**committed["shared"], **committed["runs"][row.key]} == config
    written = b"".join(path.read_bytes() for path in (tmp_path / "results").rglob("*.*") if path.is_file())
    assert str(made_cars).encode() not in written and str(tmp_path).encode() not in written


def test_verify_repeats_a_run_from_the_committed_config_and_notices_one_other_byte(tmp_path, command, place, made_cars):
    command("report", "tiny", *place)
    shutil.rmtree(tmp_path / "outputs")  # from a clone: the config and the hash are committed, the record is not
    words = ["report", "tiny", "--verify", 3, "--data-dir", made_cars, *place]
    code, shown, complaint = command(*words)
    assert (code, complaint) == (0, "") and "1 of 1 repeated runs gave the same scores bit for bit" in shown
    runs = tmp_path / "results/tiny/runs.csv"
    text = runs.read_text().splitlines()
    digest = text[1].rsplit(",", 1)[1]
    runs.write_text(
        "\n".join([text[0], text[1].replace(digest, "0" + digest[1:] if digest[0] != "0" else "1" + digest[1:])]) + "\n"
    )
    code, shown, _ = command(*words)
    assert code == 1 and "OTHER SCORES" in shown and "0 of 1" in shown


def test_verify_refuses_other_images_and_an_altered_config_in_a_sentence(tmp_path, command, place, cars):
    command("report", "tiny", *place)
    next((cars / "train").glob("*.jpg")).unlink()
    next_mask = {path.name.removesuffix("_mask.gif") for path in (cars / "train_masks").iterdir()}
    for name in next_mask - {path.stem for path in (cars / "train").iterdir()}:
        (cars / "train_masks" / f"{name}_mask.gif").unlink()
    code, _, complaint = command("report", "tiny", "--verify", 1, "--data-dir", cars, *place)
    assert code == 2 and "are not those of the run" in complaint
    shutil.rmtree(tmp_path / "outputs")
    configs = tmp_path / "results/tiny/configs.json"
    configs.write_text(configs.read_text().replace('"batch_size": 16', '"batch_size": 8'))
    code, _, complaint = command("report", "tiny", "--verify", 1, "--data-dir", cars, *place)
    assert code == 2 and "was altered" in complaint


def test_verdicts_become_tags_of_the_runs_in_mlflow_where_that_is_asked_for_and_leave_those_of_an_earlier_plan(
    tmp_path, command, place
):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")
    everything = [e.experiment_id for e in client.search_experiments()]
    (found,) = client.search_runs(everything)
    former = client.create_run(
        found.info.experiment_id, tags={"study.tiny": "true", "key": "0" * 16, "verdict.tiny": "better"}
    )
    client.set_terminated(former.info.run_id)
    code, shown, complaint = command("report", "tiny", "--tag", *place)
    assert (code, complaint) == (0, "") and "verdict.tiny" in shown
    assert not [name for name in client.get_run(former.info.run_id).data.tags if name.endswith(".tiny")]
    found = client.get_run(found.info.run_id)
    assert found.data.tags["verdict.tiny"] == "no verdict: too few runs to compare" and "top.tiny" in found.data.tags
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    code, shown, _ = command("report", "tiny", "--tag", *place, "--tracking-uri", empty)
    assert code == 0 and "has no run of tiny" in shown
    (tmp_path / "outputs/mlflow.db").unlink()
    code, _, complaint = command("report", "tiny", "--tag", *place)
    assert code == 2 and "--tracking-uri" in complaint


def test_the_strip_shows_images_with_their_credit_and_none_of_kaggles(tmp_path, command, place, made_cars):
    write_pairs(tmp_path / "pairs", names=["a", "b", "c", "d"])
    code, _, complaint = command("report", "tiny", "--photographs", tmp_path / "pairs", *place)
    assert code == 2 and "--credit" in complaint
    code, _, complaint = command("report", "tiny", "--photographs", made_cars, "--credit", "somebody", *place)
    assert code == 2 and "may not be published" in complaint
    words = ["--photographs", tmp_path / "pairs", "--credit", "somebody, CC BY 4.0", "--html", tmp_path / "page.html"]
    assert command("report", "tiny", *words, *place)[0] == 0
    picture = Image.open(io.BytesIO((tmp_path / "results/tiny/strip.png").read_bytes()))
    assert picture.size[0] == 3 * (panels.WIDTH + 2)
    assert "data:image/png;base64" in (tmp_path / "page.html").read_text()
    shutil.rmtree(tmp_path / "outputs/runs")
    code, _, complaint = command("report", "tiny", *words, *place)
    assert code == 2 and "no checkpoint" in complaint


def test_the_window_of_the_strip_lies_where_models_err_most_at_the_boundary_and_errors_have_their_colours():
    truth = np.zeros((100, 160), bool)
    truth[20:60, 30:120] = True
    wrong = truth.copy()
    wrong[40:60, 100:120] = False
    wrong[60:62, 100:110] = True
    shown = panels.Shown(np.full((100, 160, 3), 90, np.uint8), truth, [wrong, truth], "car")
    far = wrong.copy()
    far[80:98, :] = True  # more errors, but nowhere near the boundary
    rows, columns = panels.window(panels.Shown(shown.photo, truth, [far, truth], "car"))
    assert (truth ^ wrong)[rows, columns].sum() == (truth ^ wrong).sum()
    rows, columns = panels.window(shown)
    assert (truth ^ wrong)[rows, columns].sum() == (truth ^ wrong).sum()
    image = panels.strip([shown], ["one", "two"], "nobody's")
    found = {tuple(colour) for colour in image.reshape(-1, 3)}
    assert {MISSED, FALSE} <= found
    assert image.shape[1] == 4 * (panels.WIDTH + 2)


def test_a_file_of_weights_is_found_again_by_its_bytes_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pth").write_bytes(b"others")
    config = RunConfig(weights=hashlib.sha256(b"these").hexdigest())
    with pytest.raises(InputError, match=f"put the file with the SHA-256 {config.weights} into the folder weights/"):
        reproduce._machine(config, "0" * 16, tmp_path / "outputs", None)
    (tmp_path / "weights" / "b.pth").write_bytes(b"these")
    assert reproduce._machine(config, "0" * 16, tmp_path / "outputs", None).weights_file == Path("weights/b.pth")


def test_verify_passes_on_what_the_record_says_of_masks_and_initial_weights(tmp_path):
    folder = tmp_path / "runs" / "0123"
    folder.mkdir(parents=True)
    record = {"machine": {"mask_pattern": "{name}_m", "init_file": str(tmp_path / "start.ckpt")}}
    (folder / "config.json").write_text(json.dumps(record))
    config = RunConfig(data="folder", init="abc")
    machine = reproduce._machine(config, "0123", tmp_path, None)
    assert (machine.mask_pattern, machine.init_file) == ("{name}_m", tmp_path / "start.ckpt")
    with pytest.raises(InputError, match="began from another run's weights"):
        reproduce._machine(config, "4567", tmp_path, None)
