"""Which weights count: the last ones, the best by validation after early stopping, and the last of runs of old."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analysis.records import run_files
from analysis.records.files import sha256_of
from experiments.inference import load, trained_model
from experiments.studies import sync_runs
from experiments.training import loop, single_run
from experiments.training.prune_runs import prunable, prune
from experiments.training.runner import RUN
from tests.conftest import run_folder, small
from tests.test_tracking import store

EPOCHS = 3
KINDS = {"last": "last", "early stopping": "best", "old": "last", "old, early stopping": "last"}  # and what counts


def train_falling(words):
    """Train with a validation Dice that halves from epoch to epoch, so that the best weights are the first epoch's."""
    import run

    kept, calls = loop.validate, []

    def falling(*given, **named):
        calls.append(1)
        value, dice, iou = kept(*given, **named)
        return value, (dice + 1) / 2 ** len(calls), iou

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "validate", falling)
        assert run.main(words) == 0


def rewrite(folder, change):
    """Change a finished run's result and seal it anew."""
    result = json.loads((folder / "result.json").read_text())
    change(result)
    result["sha256"] = {name: sha256_of(folder / name) for name in result["sha256"] if (folder / name).exists()}
    result["seal"] = run_files.seal(result)
    (folder / "result.json").write_text(json.dumps(result))
    return result


def as_old(folder):
    """Turn a finished run into what early versions wrote: the best weights' scores in scores.csv, and no headline."""
    (folder / "scores_best.csv").rename(folder / "scores.csv")

    def change(result):
        del result["headline"], result["sha256"]["scores_best.csv"]
        result["sha256"]["scores.csv"] = ""

    rewrite(folder, change)


@pytest.fixture(scope="module")
def outputs(made_cars, tmp_path_factory, store_uri):
    """An output folder with one run of each kind, by its name."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind, patience in (("last", 0), ("early stopping", EPOCHS)):
        more = {"epochs": EPOCHS, "learning_rate": 0.02, "schedule": "constant", "augment": "none"}
        train_falling(small(made_cars, folder / kind, early_stopping=patience, tracking_uri=store_uri, **more))
    for old, new in (("old", "last"), ("old, early stopping", "early stopping")):
        shutil.copytree(folder / new, folder / old)
        as_old(run_folder(folder / old))
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, outputs):
    """The run's folder; read-only."""
    return run_folder(outputs[kind])


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def weights_of(model):
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def test_new_runs_name_their_headline_and_old_ones_keep_their_files(folder, kind):
    result = json.loads((folder / "result.json").read_text())
    if kind.startswith("old"):
        assert "headline" not in result and not (folder / "scores_best.csv").exists()
    else:
        assert result["headline"] == KINDS[kind] and not (folder / "scores.csv").exists()
        assert result["sha256"].keys() == {"metrics.jsonl", "scores_best.csv", "scores_last.csv"}
    assert (result["best_epoch"], result["epochs"]) == (1, EPOCHS)
    for which in ("best", "last"):
        mean = run_files.summarise_scores(run_files.read_score_table(run_files.score_file(folder, which)))
        assert mean == result["test"][which]
    assert result["test"]["best"]["dice"] != result["test"]["last"]["dice"]


def test_a_folder_gives_the_headline_weights_and_a_file_its_own(folder, kind):
    found = {name: weights_of(load(folder / f"{name}.ckpt")) for name in ("best", "last")}
    assert not torch.equal(found["best"], found["last"])
    assert torch.equal(weights_of(load(folder)), found[KINDS[kind]])


@pytest.mark.slow
def test_predict_and_evaluate_and_export_take_the_weights_of_the_headline(folder, kind, command, made_cars, tmp_path):
    from PIL import Image

    from experiments.data.samples import read_mask
    from experiments.evaluation.metrics import score

    words = ("--run", folder.name, "--output-dir", folder.parent.parent)
    headline = rows(run_files.score_file(folder, KINDS[kind]))
    where = ("--data", "carvana", "--data-dir", made_cars, "--output", tmp_path / "scored")
    assert command("evaluate", *words, *where)[0] == 0
    scored = {row["image"]: row for row in rows(tmp_path / "scored" / "scores.csv")}
    assert [scored[row["image"]] for row in headline] == headline
    image = made_cars / "train" / headline[0]["image"]
    code, shown, _ = command("predict", image, *words, "--output", tmp_path / "masks")
    assert code == 0 and f"{KINDS[kind]} weights" in shown
    mask = torch.tensor(list(Image.open(tmp_path / "masks" / f"{image.stem}.png").tobytes())).reshape(64, 96) > 0
    truth = read_mask(made_cars / "train_masks" / f"{image.stem}_mask.gif")
    assert score(mask.numpy(), truth).tp == int(headline[0]["tp"])
    code, shown, _ = command("export", *words, "--output", tmp_path / "x.onnx")
    assert code == 0 and f"{KINDS[kind]} weights" in shown  # compared with PyTorch's network there


def test_the_table_and_the_end_of_the_run_show_the_headline(folder, kind, command, capsys):
    result = json.loads((folder / "result.json").read_text())
    dice = {name: f"{result['test'][name]['dice']:.4f}" for name in ("best", "last")}
    line = next(
        line for line in command("runs", "--output-dir", folder.parent.parent)[1].splitlines() if "unet" in line
    )
    other = "best" if KINDS[kind] == "last" else "last"
    assert dice[KINDS[kind]] in line and dice[other] not in line
    machine = replace(single_run.RuntimeConfig(data_dir=Path()), output_dir=folder.parent.parent)
    for gap, printed in ((0.0011, True), (0.0009, False)):
        near = {**result["test"][other], "dice": result["test"][KINDS[kind]]["dice"] - gap}
        single_run.show_result({**result, "test": {**result["test"], other: near}}, machine, 1.0)
        shown = capsys.readouterr().out
        table, _, below = shown.partition("└")
        assert dice[KINDS[kind]] in table and f"{near['dice']:.4f}" not in table
        assert (f"test Dice {near['dice']:.4f}." in below) is printed
        assert ("weights" in below.split("\n")[2]) is printed


def test_best_is_by_the_validation_dice_of_the_headline_weights(outputs, tmp_path, capsys):
    """The best epoch's Dice is the same in all four runs; the last epoch's is a fraction of it."""
    for number, kind in enumerate(("last", "old", "old, early stopping", "early stopping")):
        shutil.copytree(run_folder(outputs[kind]), tmp_path / "runs" / str(number))
        dice = [
            line["val/dice"] for line in run_files.read_json_lines(tmp_path / "runs" / str(number) / "metrics.jsonl")
        ]
        assert trained_model.best_run(tmp_path).path.name == f"{KINDS[kind]}.ckpt"
        assert f"{dice[0] if KINDS[kind] == 'best' else dice[-1]:.4f}, of {number + 1}" in capsys.readouterr().out
    assert trained_model.best_run(tmp_path).key == "3"


def test_an_unfinished_run_stands_for_what_its_settings_say(outputs, tmp_path):
    for kind in ("last", "early stopping"):
        folder = shutil.copytree(run_folder(outputs[kind]), tmp_path / "runs" / kind)
        (folder / "result.json").unlink()
        assert trained_model.find_run(kind, tmp_path).path == folder / f"{KINDS[kind]}.ckpt"
        (folder / "best.ckpt").unlink()  # stopped within its first epoch
        with pytest.raises(trained_model.InputError, match="has not finished an epoch"):
            trained_model.find_run(kind, tmp_path)


def test_a_finished_run_without_its_headline_weights_is_not_replaced_by_the_others(outputs, tmp_path):
    folder = shutil.copytree(run_folder(outputs["last"]), tmp_path / "runs" / "run")
    (folder / "last.ckpt").unlink()
    with pytest.raises(trained_model.InputError, match=r"has lost its last\.ckpt"):
        trained_model.find_run("run", tmp_path)
    with pytest.raises(trained_model.InputError, match="No finished run with weights"):
        trained_model.best_run(tmp_path)


def test_pruning_keeps_the_headline_weights(outputs, kind, tmp_path):
    folder = shutil.copytree(run_folder(outputs[kind]), tmp_path / "runs" / "run")
    before = weights_of(load(folder))
    assert prune(prunable(tmp_path / "runs")) > 0
    assert torch.equal(weights_of(load(folder)), before) and not (folder / "previous.ckpt").exists()


def test_scores_of_new_and_old_runs_are_read_together(outputs):
    folders = [run_folder(outputs[kind]) for kind in KINDS]
    table, broken = run_files.read_all_scores(folders)
    assert not broken
    for place, folder in enumerate(folders):
        part = table[table.run == place]
        for column, which in (("dice", "last"), ("dice_best", "best")):
            assert list(part[column]) == [float(row["dice"]) for row in rows(run_files.score_file(folder, which))]


def test_mlflow_shows_the_headlines_scores_beside_both(outputs, kind, tmp_path, command):
    output = shutil.copytree(outputs[kind], tmp_path / "outputs")
    assert command("sync", "--output-dir", output)[0] == 0
    _, (run,) = store(output)
    test = json.loads((run_folder(output) / "result.json").read_text())["test"]
    assert run.data.tags["headline"] == KINDS[kind]
    for group, which in (("test", KINDS[kind]), ("test_last", "last"), ("test_best", "best")):
        for name in ("dice", "iou", "boundary_iou", "hd95_median"):
            assert run.data.metrics[f"{group}/{name}"] == test[which][name]


@pytest.mark.parametrize("gap", [-0.1, 0.1], ids=["last higher", "last lower"])
def test_sync_sets_the_scores_of_an_old_run_once_more_and_renames_nothing(outputs, gap, tmp_path, command, monkeypatch):
    output = shutil.copytree(outputs["old"], tmp_path / "outputs")
    folder = run_folder(output)

    def change(result):
        result["test"]["last"]["dice"] = result["test"]["best"]["dice"] - gap

    test = rewrite(folder, change)["test"]
    upload_as_before(output, monkeypatch, command)
    client, (run,) = store(output)
    assert run.data.metrics["test/dice"] == test["best"]["dice"] and "headline" not in run.data.tags
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "1 completed" in command("sync", "--output-dir", output)[1]
    _, (run,) = store(output)
    assert run.data.metrics["test/dice"] == test["last"]["dice"] and run.data.tags["headline"] == "last"
    assert run.data.metrics["test/iou"] == test["last"]["iou"] and run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "test/dice")
    assert [metric.value for metric in history] == [test["best"]["dice"], test["last"]["dice"]]
    assert "1 there already" in command("sync", "--output-dir", output)[1]
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def upload_as_before(output, monkeypatch, command):
    """Upload the run as early versions did: `test/*` of the best weights, and no tag that says so."""

    def metrics(result):
        found = RUN.metrics({**result, "headline": "best"})
        return {name: value for name, value in found.items() if not name.startswith("test_best/")}

    with monkeypatch.context() as patch:
        patch.setattr(sync_runs, "RUN", replace(RUN, metrics=metrics))
        assert "1 uploaded" in command("sync", "--output-dir", output)[1]
    client, (run,) = store(output)
    client.delete_tag(run.info.run_id, "headline")


def test_a_run_that_an_early_version_left_unfinished_ends_in_the_new_layout(outputs, made_cars, tmp_path, command):
    output = shutil.copytree(outputs["old"], tmp_path / "outputs")
    folder = run_folder(output)
    (folder / "result.json").unlink()
    more = {"epochs": EPOCHS, "learning_rate": 0.02, "schedule": "constant", "augment": "none", "early_stopping": 0}
    assert command(*small(made_cars, output, **more))[0] == 0
    new = run_folder(outputs["last"])
    assert json.loads((folder / "result.json").read_text())["headline"] == "last" and folder.name == new.name
    assert not (folder / "scores.csv").exists()
    for name in ("scores_best.csv", "scores_last.csv"):
        assert (folder / name).read_bytes() == (new / name).read_bytes()
