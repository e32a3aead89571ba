"""Seeds until decided: which seeds run when, what a look records, and what MLflow gets of a study at its end."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.statistics import look_level
from analysis.statistics.comparisons import Comparison
from experiments.studies import display, looks
from experiments.studies.plan import Plan
from experiments.studies.study_file import parse_study
from experiments.tracking.store import local_uri, summaries_name
from registry import InputError
from tests.test_study import SETTINGS, TOML

FILE = TOML.replace("epochs = 2", "epochs = 1").replace("seeds = [0, 1]", 'seeds = "2..3"\nrope = 1e-9')


def plan(seeds="3..5", **design):
    content = {"settings": SETTINGS, "factors": {"loss": ["bce", "dice"]}, "design": {"seeds": seeds, **design}}
    return Plan(parse_study("tiny", content, "The file"), [], None, [])


def test_a_seed_runs_only_after_the_look_before_it():
    growing = plan()
    assert growing.study.looks == (3, 4, 5) and growing.seeds == (0, 1, 2)
    growing.looks_taken.append({"seeds": 3, "level": 0.02, "open": ["loss: dice"]})
    assert growing.seeds == (0, 1, 2, 3) and not looks.is_over(growing)
    growing.looks_taken.append({"seeds": 4, "level": 0.02, "open": []})
    assert growing.seeds == (0, 1, 2, 3) and looks.is_decided(growing) and looks.is_over(growing)


def test_the_last_planned_look_is_the_last():
    growing = plan()
    growing.looks_taken += [{"seeds": n, "level": 0.02, "open": ["loss: dice"]} for n in (3, 4, 5)]
    assert growing.seeds == (0, 1, 2, 3, 4) and looks.is_over(growing) and not looks.is_decided(growing)
    assert looks.is_over(plan([0, 1])) and plan([0, 1]).seeds == (0, 1)


def test_counts_that_are_none_are_refused():
    for counts in ("3-10", "1..4", "5..5", "10..3", "3..1000", "many"):
        with pytest.raises(InputError, match=r'counts from 2 to 100 such as "3..10"'):
            plan(counts)


def compared(difference, half):
    return Comparison(difference, difference - half, difference + half, 0.1, "undecided", False)


@pytest.mark.parametrize(
    ("found", "margin", "more"),
    [
        (compared(0.002, 0.004), 0.001, 10),  # half shrinks to 0.002 with four times the three seeds, then excludes 0
        (compared(0.0, 0.002), 0.001, 9),  # inside the margin with four times as many
        (compared(0.001, 0.002), 0.001, 10),
        (compared(1e-5, 0.5), 1e-9, None),
        (compared(0.1, math.inf), 0.001, None),
    ],
)
def test_how_many_seeds_more_are_likely(found, margin, more):
    assert looks.likely_more(found, 3, margin) == more


def test_what_more_seeds_do_not_shrink_is_not_decided_by_them():
    assert looks.likely_more(compared(0.002, 0.004), 3, 0.001, share=0.9) > 10
    assert looks.likely_more(compared(0.002, 0.004), 3, 0.001, share=0.7) is None


@pytest.mark.parametrize(("failure", "ended"), [({"reason": "CUDA out of memory"}, False), ({"diverged": True}, True)])
def test_a_look_waits_for_runs_that_will_be_tried_again(tmp_path, failure, ended):
    (folder := tmp_path / "k").mkdir()
    (folder / "config.json").write_text(json.dumps({"config": {"epochs": 1}}))
    (folder / "failed.json").write_text(json.dumps(failure))
    run, machine = SimpleNamespace(config=SimpleNamespace(key="k")), SimpleNamespace(runs_dir=tmp_path)
    given = SimpleNamespace(
        run=lambda *_: run,
        runs=lambda: [("cell", 0)],
        committed_dice=lambda *_: None,
        machine=machine,
        looks_taken=[],
        study=SimpleNamespace(looks=(1, 2)),
    )
    assert looks.is_due(given) == ended


def test_status_says_what_the_look_recorded_where_the_runs_are_on_another_machine():
    growing = plan()
    growing.looks_taken.append({"seeds": 3, "level": 0.02, "open": ["loss: dice"]})
    assert display.look_line(growing, []) == "Look at 3 seeds (error rate 0.0200): 1 undecided: loss: dice."


def test_the_further_of_two_plans_counts(tmp_path, monkeypatch):
    growing, taken = plan(), [{"seeds": 3, "level": 0.02, "open": ["loss: dice"]}]
    monkeypatch.setattr(Plan, "folder", tmp_path / "outputs")
    for path, done in ((tmp_path / "outputs" / "plan.json", []), (tmp_path / "tiny" / "study.json", taken)):
        path.parent.mkdir()
        path.write_text(json.dumps({"design": {"seeds": [0, 1, 2], "looks": [3, 4, 5], "looks_taken": done}}))
    looks.load_looks(growing, tmp_path)
    assert growing.looks_taken == taken


@pytest.fixture(scope="module")
def finished(made_cars, tmp_path_factory, one_thread):
    import run

    folder = tmp_path_factory.mktemp("looks")
    (folder / "tiny.toml").write_text(FILE)
    words = ["study", str(folder / "tiny.toml"), "--data-dir", str(made_cars), "--output-dir", str(folder / "outputs")]
    assert run.main(words) == 0
    return folder, words


def test_a_study_runs_seed_by_seed_and_records_its_looks(finished, capsys):
    import run

    folder, words = finished
    output = folder / "outputs"
    written = json.loads((output / "studies" / "tiny" / "plan.json").read_text())
    design = written["design"]
    level = pytest.approx(look_level((2, 3)), abs=1e-6)
    assert (
        design["looks"] == [2, 3]
        and [look["seeds"] for look in design["looks_taken"]] == [2, 3][: len(design["seeds"]) - 1]
    )
    assert all(look["level"] == level for look in design["looks_taken"])
    assert design["looks_taken"][0]["open"] == ["loss: dice"] and design["seeds"] == [0, 1, 2]
    ended = {
        seed: [(output / "runs" / cell["runs"][seed] / "result.json").stat().st_mtime for cell in written["cells"]]
        for seed in ("0", "1", "2")
    }
    began = [(output / "runs" / cell["runs"]["2"] / "config.json").stat().st_mtime for cell in written["cells"]]
    assert max(ended["0"] + ended["1"]) <= min(began)
    before = (output / "studies" / "tiny" / "plan.json").read_bytes()
    assert run.main([*words, "--status"]) == 0
    said = capsys.readouterr().out
    assert "Look at 3 seeds" in said and "The last planned look is taken." in said and "6 done" in said
    assert run.main(words) == 0  # nothing is left to do
    assert (output / "studies" / "tiny" / "plan.json").read_bytes() == before


def summaries(output):
    from mlflow import MlflowClient

    client = MlflowClient(local_uri(output))
    experiment = client.get_experiment_by_name(summaries_name()).experiment_id
    return client, client.search_runs([experiment], "tags.summary = 'tiny'")


def test_a_study_leaves_one_summary_a_cell_in_mlflow(finished, capsys):
    import run

    output = finished[0] / "outputs"
    client, runs = summaries(output)
    found = {each.data.tags["cell"]: each for each in runs}
    assert len(runs) == 2 and set(found) == {"bce", "dice"}
    dice = found["dice"].data
    assert dice.metrics["seeds"] == 3 and dice.metrics["difference/low"] < dice.metrics["difference/dice"]
    assert "difference/dice" not in found["bce"].data.metrics and dice.tags["verdict"]
    assert not any(name.startswith("test/") for name in dice.metrics)  # or it would be a run among runs
    (picture,) = client.list_artifacts(found["dice"].info.run_id, "pictures")
    assert picture.path == "pictures/dice.png"
    assert run.main(["sync", "--output-dir", str(output)]) == 0
    assert {(each.info.run_id, each.info.end_time) for each in summaries(output)[1]} == {
        (each.info.run_id, each.info.end_time) for each in runs
    }


def test_seeds_until_decided_are_a_flag_of_grid_whatever_was_imported_before(command, made_cars, tmp_path):
    import pydantic

    assert pydantic.VERSION
    words = ["--models", "unet", "attention_unet", "--losses", "bce", "--seeds", "3..5", "--dry-run"]
    code, shown, complaint = command(
        "grid", *words, "--data-dir", made_cars, "--output-dir", tmp_path, "--size", "48x32"
    )
    assert code == 0 and "2 cells x 3 seeds" in " ".join(shown.split()), complaint


def test_a_number_of_looks_may_be_one_of_numpys():
    assert look_level(np.int64(2)) == look_level(2)
