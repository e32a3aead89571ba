"""A study goes on where a machine that is gone has left it: what is committed of it counts as done."""

import csv
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from experiments.runtime.interrupts import Interrupted
from experiments.studies import trials as tune_trial
from experiments.training import runner
from tests.conftest import ROOT
from tests.test_tune import study_file, words

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

TIMED = ("training_seconds", "images_per_second", "peak_memory_gb", "seconds", "git_commit")  # differ from run to run


def table(path):
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMED} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def done(made_cars, tmp_path_factory, one_thread):
    """A folder with the study carried out once, its outputs under first and what was reported of them under results."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "README.md").write_text("no place\n")
    where = ["--results-dir", folder / "results", "--readme", folder / "README.md"]
    for given in (
        words(study_file(folder), made_cars, folder / "first", "study"),
        ["report", "tiny", "--output-dir", folder / "first", *where],
    ):
        subprocess.run([sys.executable, "run.py", *map(str, given)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def committed(done, tmp_path, monkeypatch):
    """That study's committed files, copied to where --published looks for them in this test."""
    monkeypatch.setattr("analysis.records.study_paths.RESULTS", tmp_path / "results")
    return shutil.copytree(done / "results", tmp_path / "results") / "tiny"


@pytest.fixture
def trained(monkeypatch):
    """The keys of all that is trained, in turn."""
    kept, keys = runner.train_epochs, []

    def seen(job, *others):
        keys.append((job.pictures, job.inputs.config.seed))
        return kept(job, *others)

    monkeypatch.setattr(runner, "train_epochs", seen)
    return keys


@pytest.fixture
def reported(tmp_path, command, monkeypatch):
    """Reports the study in an output folder into one place, which is that of --published; returns the tables there."""
    monkeypatch.setattr("analysis.records.study_paths.RESULTS", tmp_path / "results")
    (tmp_path / "README.md").write_text("no place\n")

    def report(output):
        where = ["--output-dir", output, "--results-dir", tmp_path / "results", "--readme", tmp_path / "README.md"]
        code, _, complaint = command("report", "tiny", *where)
        assert code == 0, complaint
        return {name: table(tmp_path / "results/tiny" / name) for name in ("runs.csv", "trials.csv", "curves.csv")}

    return report


def test_another_machine_trains_only_what_is_not_committed_and_ends_with_the_same_study(
    made_cars, tmp_path, command, shared, trained, reported, done, committed
):
    file, trials = study_file(tmp_path, seeds="[0, 1]"), len(table(committed / "trials.csv"))
    code, shown, complaint = command(*words(file, made_cars, tmp_path / "second", "study"), "--published", *shared)
    assert (
        (code, complaint) == (0, "") and "has 1 finished runs" in shown and f"has {trials} trials of its cells" in shown
    )
    assert f", threads ({torch.get_num_threads()} here)" in shown  # else nothing counts, and one wonders why
    assert trained == [(True, 1)]
    both = reported(tmp_path / "second")
    assert [row["state"] for row in both["runs.csv"]] == ["finished"] * 2

    shutil.rmtree(tmp_path / "results")
    shutil.copytree(done / "first", tmp_path / "whole")
    assert command(*words(file, made_cars, tmp_path / "whole", "study"), "--extend", *shared)[0] == 0
    assert reported(tmp_path / "whole") == both


def test_an_unfinished_search_is_committed_and_resumed(
    made_cars, tmp_path, command, shared, trained, reported, monkeypatch
):
    file, kept, calls = study_file(tmp_path), tune_trial.run, []

    def stopped(*given, **named):
        calls.append(given)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
            raise Interrupted
        return kept(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(tune_trial, "run", stopped)
        command(*words(file, made_cars, tmp_path / "first", "study"), *shared)
    assert len(trained) == 2
    before = reported(tmp_path / "first")
    assert len(before["trials.csv"]) == 2 and before["runs.csv"][0]["state"] == "missing"

    results = tmp_path / "results/tiny/trials.csv"
    results.write_text(
        re.sub(r"finished,[\d.]+", "diverged,", results.read_text(), count=1)
    )  # it does not do so again either
    plan = ["study", *words(file, made_cars, tmp_path / "second")[1:], "--published", *shared]
    command(*plan, "--dry-run")
    assert not (tmp_path / "second" / "trials").exists()
    trained.clear()
    assert command(*plan)[2] == ""
    after, own = reported(tmp_path / "second"), trained.count((False, 100))
    assert (
        own >= 2
        and len(after["trials.csv"]) == own + 2
        and [row["state"] for row in after["trials.csv"]].count("diverged") == 1
    )


def test_a_trial_of_another_committed_study_counts_where_it_is_the_same(
    made_cars, tmp_path, command, shared, trained, reported, committed
):
    file, before = study_file(tmp_path), table(committed / "trials.csv")
    shutil.move(committed, tmp_path / "results/other")
    plan = tmp_path / "results/other/study.json"
    plan.write_text(plan.read_text().replace('"name": "tiny"', '"name": "other"'))
    given = [*words(file, made_cars, tmp_path / "second", "study"), "--published", *shared]
    assert f"0 of 4 have ended, and {len(before) - 2} more are committed" in " ".join(
        command(*given, "--dry-run")[1].replace("│", "").split()
    )
    code, shown, complaint = command(*given)
    assert (
        (code, complaint) == (0, "")
        and "has 0 finished runs" in shown
        and f"has {len(before)} trials of its cells" in shown
    )
    assert trained == [(True, 0)]
    assert reported(tmp_path / "second")["trials.csv"] == before


def test_a_trial_of_other_studies_counts_only_where_their_records_agree(
    made_cars, tmp_path, command, shared, trained, reported, committed
):
    """The study's own row comes first; of others' that differ none counts, and nobody's time is counted twice."""
    own = (committed / "trials.csv").read_text()
    rows = table(committed / "trials.csv")
    for name, (value, state) in {"alpha": ("0.5", "finished"), "zeta": ("", "diverged")}.items():
        shutil.copytree(committed, tmp_path / "results" / name)
        text = own.replace(f"{rows[0]['state']},{rows[0]['value']}", f"{state},{value}")
        (tmp_path / "results" / name / "trials.csv").write_text(text)
    given = [*words(study_file(tmp_path), made_cars, tmp_path / "second", "study"), "--published", *shared]
    assert command(*given)[0] == 0 and trained == []
    assert reported(tmp_path / "second")["trials.csv"] == rows

    shutil.rmtree(committed)
    shutil.rmtree(tmp_path / "second")
    assert command(*given)[0] == 0 and trained == [(False, 100), (True, 0)]
    assert reported(tmp_path / "second")["trials.csv"] == rows
    with open(tmp_path / "results/tiny/trials.csv", newline="") as file:
        spent = [row["seconds"] for row in csv.DictReader(file)]
    assert spent[0] and not any(spent[1:])


def test_a_trial_that_was_begun_here_goes_on_and_is_not_replaced(
    made_cars, tmp_path, command, shared, trained, done, committed
):
    file, key = study_file(tmp_path), table(committed / "trials.csv")[0]["key"]
    begun = tmp_path / "second" / "trials" / key
    begun.mkdir(parents=True)
    shutil.copy(done / "first" / "trials" / key / "config.json", begun)
    assert command(*words(file, made_cars, tmp_path / "second", "study"), "--published", *shared)[0] == 0
    assert trained == [(False, 100)]
    assert '"published"' not in (begun / "config.json").read_text()


def test_a_cell_of_another_name_does_not_count_although_its_runs_would_be_the_same(
    made_cars, tmp_path, command, shared, trained, reported
):
    file = study_file(tmp_path, tuning="")
    assert command(*words(file, made_cars, tmp_path / "first", "study"), *shared)[0] == 0
    reported(tmp_path / "first")
    trained.clear()
    file.write_text(file.read_text().replace('loss = ["bce"]', 'loss = [{ label = "cross-entropy", loss = "bce" }]'))
    assert command(*words(file, made_cars, tmp_path / "second", "study"), "--published", *shared)[0] == 0
    assert trained == [(True, 0)]


def test_a_run_of_another_committed_study_counts_and_is_reported_under_the_name_of_the_cell(
    made_cars, tmp_path, command, shared, trained, reported
):
    file = study_file(tmp_path, tuning="")
    assert command(*words(file, made_cars, tmp_path / "first", "study"), *shared)[0] == 0
    first = reported(tmp_path / "first")
    trained.clear()
    levels = '[{ label = "cross-entropy", loss = "bce" }, { label = "overlap", loss = "dice" }]'
    other = tmp_path / "other.toml"
    other.write_text(file.read_text().replace('["bce"]', levels))
    given = [*words(other, made_cars, tmp_path / "second", "study"), "--published", *shared]
    assert "2: 1 done, 1 missing" in " ".join(command(*given, "--dry-run")[1].replace("│", "").split())
    code, shown, complaint = command(*given)
    assert (code, complaint) == (0, "") and "has 1 finished runs" in shown and trained == [(True, 0)]
    results = tmp_path / "results"
    where = ["--output-dir", tmp_path / "second", "--results-dir", results, "--readme", tmp_path / "README.md"]
    assert command("report", "other", *where)[0] == 0
    after = table(results / "other/runs.csv")
    assert [(row["loss"], row["state"]) for row in after] == [("cross-entropy", "finished"), ("overlap", "finished")]
    names = {"cell", "loss"}
    before = first["runs.csv"][0].items()
    assert {name: value for name, value in before if name not in names}.items() <= after[0].items()
    assert [row["val_dice"] for row in table(results / "other/curves.csv")][: len(first["curves.csv"])] == [
        row["val_dice"] for row in first["curves.csv"]
    ]


def test_runs_and_trials_of_other_settings_do_not_count(
    made_cars, tmp_path, command, shared, trained, reported, committed
):
    file, before = study_file(tmp_path), {name: table(committed / name) for name in ("runs.csv", "trials.csv")}
    file.write_text(file.read_text().replace("epochs = 2", "epochs = 1"))
    assert command(*words(file, made_cars, tmp_path / "second", "study"), "--published", *shared)[0] == 0
    assert {(False, 100), (True, 0)} == set(trained) and len(trained) >= 5
    after = reported(tmp_path / "second")
    for name in ("runs.csv", "trials.csv"):
        assert {row["key"] for row in after[name]}.isdisjoint(row["key"] for row in before[name])


def test_where_nothing_is_committed_a_sentence_says_so(made_cars, tmp_path, command, shared, monkeypatch):
    monkeypatch.setattr("analysis.records.study_paths.RESULTS", tmp_path / "results")
    code, _, complaint = command(
        *words(study_file(tmp_path), made_cars, tmp_path / "out", "study"), "--published", *shared
    )
    assert code == 2 and "leave out --published" in complaint and not (tmp_path / "out").exists()
