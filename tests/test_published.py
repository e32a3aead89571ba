"""A study goes on where a machine that is gone has left it: what is committed of it counts as done."""

import csv
import json
import shutil

import pytest

from experiments import runner
from tests.test_study import one_thread, shared
from tests.test_tune import study_file, words

__all__ = ["one_thread", "shared"]  # fixtures
TIMED = ("training_seconds", "images_per_second", "peak_memory_gb", "seconds", "git_commit")  # differ from run to run


def table(path):
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMED} for row in csv.DictReader(file)]


@pytest.fixture
def trained(monkeypatch):
    """The keys of all that is trained, in turn."""
    kept, keys = runner.train_epochs, []

    def seen(job, *others):
        keys.append((job.pictures, job.prepared.config.seed))
        return kept(job, *others)

    monkeypatch.setattr(runner, "train_epochs", seen)
    return keys


def test_another_machine_trains_only_what_is_not_committed_and_ends_with_the_same_study(
    made_cars, tmp_path, command, shared, trained, monkeypatch
):
    monkeypatch.setattr("analysis.readme.RESULTS", tmp_path / "results")
    (tmp_path / "README.md").write_text("no place\n")

    def report(output):
        where = ["--output-dir", output, "--results-dir", tmp_path / "results", "--readme", tmp_path / "README.md"]
        assert command("report", "tiny", *where)[0] == 0
        return {name: table(tmp_path / "results/tiny" / name) for name in ("runs.csv", "trials.csv", "curves.csv")}

    file = study_file(tmp_path)
    assert command(*words(file, made_cars, tmp_path / "first", "study"), *shared)[0] == 0
    report(tmp_path / "first")
    trials = len([one for one in trained if not one[0]])
    shutil.rmtree(tmp_path / "first")

    study_file(tmp_path, seeds="[0, 1]")
    trained.clear()
    code, shown, complaint = command(*words(file, made_cars, tmp_path / "second", "study"), "--published", *shared)
    assert (code, complaint) == (0, "") and "has 1 finished runs" in shown and f"and {trials} trials that are" in shown
    assert trained == [(True, 1)]
    both = report(tmp_path / "second")
    assert [row["state"] for row in both["runs.csv"]] == ["finished"] * 2

    shutil.rmtree(tmp_path / "results")
    assert command(*words(file, made_cars, tmp_path / "whole", "study"), *shared)[0] == 0
    assert report(tmp_path / "whole") == both


def test_runs_and_trials_of_other_settings_do_not_count(made_cars, tmp_path, command, shared, trained, monkeypatch):
    monkeypatch.setattr("analysis.readme.RESULTS", tmp_path / "results")
    (tmp_path / "README.md").write_text("no place\n")
    file = study_file(tmp_path)
    assert command(*words(file, made_cars, tmp_path / "first", "study"), *shared)[0] == 0
    where = ["--output-dir", tmp_path / "first", "--results-dir", tmp_path / "results", "--readme", tmp_path / "README.md"]
    assert command("report", "tiny", *where)[0] == 0
    before = trained.copy()
    trained.clear()
    file.write_text(file.read_text().replace("epochs = 2", "epochs = 1"))
    assert command(*words(file, made_cars, tmp_path / "second", "study"), "--published", *shared)[0] == 0
    assert {(False, 100), (True, 0)} == set(trained) and len(trained) >= 5 <= len(before)
    keys = [row["key"] for row in table(tmp_path / "results/tiny/runs.csv")]
    plan = json.loads((tmp_path / "second/studies/tiny/plan.json").read_text())
    assert list(plan["cells"][0]["runs"].values()) != keys


def test_where_nothing_is_committed_a_sentence_says_so(made_cars, tmp_path, command, shared, monkeypatch):
    monkeypatch.setattr("analysis.readme.RESULTS", tmp_path / "results")
    code, _, complaint = command(*words(study_file(tmp_path), made_cars, tmp_path / "out", "study"), "--published", *shared)
    assert code == 2 and "leave out --published" in complaint and not (tmp_path / "out").exists()
