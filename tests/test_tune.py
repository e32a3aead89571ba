"""Tuning: every cell the same trials, never one twice, never more; a rate from a curve; test cars out of sight."""

import csv
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from experiments.runtime import leases
from experiments.runtime.errors import RunFailed
from experiments.runtime.interrupts import Interrupted
from experiments.studies import study_folder
from experiments.studies import trials as tune_trial
from experiments.studies import tuning as tune_cells
from experiments.studies.definition import Tuning
from experiments.studies.plan import Rate
from experiments.studies.trial_queue import TrialQueue, learning_rate_grid
from experiments.studies.trials import TrialOutcome
from experiments.studies.tuning import choose_pooled_rates, choose_rate, extend_range
from tests.conftest import ROOT, small
from tests.test_study import TOML

pytestmark = pytest.mark.usefixtures("one_thread")


TUNING = Tuning(1e-3, 3e-2, 4, (100, 101))
TABLE = "[tuning]\nlow = 1e-3\nhigh = 3e-2\npoints = 4\nseeds = [100]\n"
# Rates so low that the curve rises to the end of the range: it is extended, for every cell.
RISING = "[tuning]\nlow = 4e-3\nhigh = 1e-2\npoints = 4\nseeds = [100]\n"


def study_file(tmp_path, tuning=TABLE, losses='"bce"', seeds="[0]"):
    path = tmp_path / "tiny.toml"
    path.write_text(TOML.replace('"bce", "dice"', losses).replace("seeds = [0, 1]", f"seeds = {seeds}") + tuning)
    return path


def words(file, cars, output, command="tune"):
    return [command, str(file), "--data-dir", str(cars), "--output-dir", str(output)]


def trials(output):
    """The rows of trials.csv, without the seconds that they took."""
    with open(output / "studies" / "tiny" / "trials.csv") as table:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(table)]


@pytest.fixture(scope="module")
def tuned(made_cars, tmp_path_factory, one_thread):
    """A tuning of one cell that two processes shared: its output folder, its file and what both printed."""
    folder = tmp_path_factory.mktemp("tuned")
    file = study_file(folder)
    command = [sys.executable, "run.py", *words(file, made_cars, folder / "outputs")]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    shown = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    return folder / "outputs", file, shown


@pytest.mark.slow
@pytest.mark.fault(17)
def test_two_workers_on_one_cell_give_exactly_the_budget(tuned):
    output, _, shown = tuned
    rows = trials(output)
    budget = int(json.loads((output / "studies" / "tiny" / "plan.json").read_text())["tuning"]["budget"])
    assert (
        len(rows) == budget == len({row["key"] for row in rows}) == len(list((output / "trials").glob("*/result.json")))
    )
    assert sum(text.count("validation Dice") for text in shown) == budget  # none was run twice
    assert {row["state"] for row in rows} == {"finished"} and {row["seed"] for row in rows} == {"100"}
    assert all(f"{budget} trials" in text for text in shown)


@pytest.mark.slow
@pytest.mark.fault(17)
def test_a_table_written_by_a_lagging_worker_is_completed(tuned, made_cars, tmp_path, command):
    """It may write the table when another has carried out the last range, of which it does not know yet."""
    output = shutil.copytree(tuned[0], tmp_path / "outputs")
    table = output / "studies" / "tiny" / "trials.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:5]))
    assert command(*words(tuned[1], made_cars, output))[0] == 0
    assert trials(output) == trials(tuned[0]) and len(trials(output)) == 6


def test_what_was_tried_before_an_interruption_is_in_the_table(made_cars, tmp_path, command, shared, monkeypatch):
    """Also where the cells' turn was not at its end: it is what `report` commits, and another machine goes on with."""
    kept, calls = tune_trial.run, []

    def stopped(*given, **named):
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
            raise Interrupted
        return kept(*given, **named)

    monkeypatch.setattr(tune_trial, "run", stopped)
    monkeypatch.setattr(tune_cells, "WRITE_INTERVAL", 3600)
    file = study_file(tmp_path, losses='"bce", "dice", "focal"')
    command(*words(file, made_cars, tmp_path / "out"), *shared)
    assert [(row["cell"], row["state"]) for row in trials(tmp_path / "out")] == [("bce", "finished")]


def test_the_large_study_tries_the_rates_that_the_small_one_has_tried():
    """So that --published need not try them again; a rate is part of a trial's key to its last digit."""
    from experiments.studies.study_file import STUDIES, read_study

    small_one, large = (read_study(STUDIES / f"{name}.toml").tuning for name in ("two_by_two", "models_x_losses"))
    further = extend_range([small_one], [Rate(small_one.high, edge=True)])
    assert set(learning_rate_grid(large)) <= {*learning_rate_grid(small_one), *learning_rate_grid(further)}


@pytest.mark.slow
def test_a_trials_record_says_what_it_did_and_never_saw_a_test_car(tuned):
    output = tuned[0]
    for row in trials(output):
        folder = output / "trials" / row["key"]
        result, config = (json.loads((folder / name).read_text()) for name in ("result.json", "config.json"))
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        assert (
            float(row["value"]) == round(result["value"], 7)
            and result["value"] == last["val/dice"]
            and last["epoch"] == 2
        )
        assert config["config"]["learning_rate"] == float(row["rate"])
        assert ",test" not in (folder / "split.csv").read_text()
        assert not list(folder.glob("scores*")) and not list(folder.glob("*.ckpt"))
    assert not list((output / "runs").glob("*"))


@pytest.mark.slow
def test_trials_are_nested_in_mlflow_and_not_among_the_studys_runs(tuned):
    from tests.test_tracking import store

    _, runs = store(tuned[0])
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    (parent,) = [run for run in runs if run not in nested]
    assert len(nested) == len(trials(tuned[0])) and {r.data.tags["mlflow.parentRunId"] for r in nested} == {
        parent.info.run_id
    }
    assert {r.data.tags["trial"] for r in nested} == {row["trial"] for row in trials(tuned[0])}
    assert all(r.data.tags["key"].startswith("trial-") and "value" in r.data.metrics for r in nested)
    assert not [r for r in runs if "study.tiny" in r.data.tags] and "rate" in parent.data.metrics


@pytest.mark.slow
def test_the_study_takes_the_rate_that_was_found_and_the_plan_says_how_sure_it_is(tuned, made_cars, command, tmp_path):
    import shutil

    output = shutil.copytree(tuned[0], tmp_path / "outputs")
    code, shown, _ = command(*words(tuned[1], made_cars, output, "study"))
    assert code == 0 and "trial " not in shown.split("Learning rates")[0].split("time left")[1]
    plan = json.loads((output / "studies" / "tiny" / "plan.json").read_text())
    (cell,) = plan["cells"]
    assert cell["tuned"] and cell["rate"] and "not estimable" in shown  # no rate was tried twice
    assert (cell["rate_low"], cell["rate_high"]) == (None, None)
    config = json.loads((output / "runs" / cell["runs"]["0"] / "config.json").read_text())["config"]
    assert config["learning_rate"] == cell["rate"] and config["seed"] == 0


@pytest.mark.slow
@pytest.mark.fault(18)
def test_a_killed_search_ends_with_the_same_trials(tuned, made_cars, tmp_path, command, shared):
    from tests.test_run import at, killed

    given = words(tuned[1], made_cars, tmp_path) + shared
    assert killed(given, at(23)).returncode == -signal.SIGKILL  # in the third trial of ten steps each
    assert len(list((tmp_path / "trials").glob("*/result.json"))) == 2
    assert command(*given)[0] == 0
    assert trials(tmp_path) == trials(tuned[0])


@pytest.mark.slow
def test_the_trials_do_not_change_when_the_test_cars_do(tuned, cars, tmp_path, command, shared):
    """Noise instead of the test cars' photographs gives the same trials: only the data's fingerprint differs."""
    from experiments.data import carvana
    from experiments.data.splits import split

    for sample in split(carvana.build(cars)).test:
        noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(sample.image)
    assert command(*words(tuned[1], cars, tmp_path / "out"), *shared)[0] == 0
    rows = [trials(output) for output in (tuned[0], tmp_path / "out")]
    values = [{(row["rate"], row["value"]) for row in one} for one in rows]
    assert values[0] == values[1] and not {row["key"] for row in rows[0]} & {row["key"] for row in rows[1]}


@pytest.mark.slow
def test_where_one_cell_is_at_the_end_of_the_range_every_cell_gets_the_further_trials(
    made_cars, tmp_path, command, shared
):
    code, shown, _ = command(*words(study_file(tmp_path, RISING, '"bce", "dice"'), made_cars, tmp_path), *shared)
    rows, times = trials(tmp_path), shown.count("more trials for every cell")
    assert code == 0 and 1 <= times <= 2
    counts = {cell: [row["rate"] for row in rows if row["cell"] == cell] for cell in ("bce", "dice")}
    assert sorted(counts["bce"]) == sorted(counts["dice"]) and len(set(counts["bce"])) == 4 + 2 * times
    plan = json.loads((tmp_path / "studies" / "tiny" / "plan.json").read_text())
    assert plan["tuning"]["extended"] == times and plan["tuning"]["budget"] == 4 + 2 * times
    assert any(cell["edge"] for cell in plan["cells"]) == ("no verdict" in shown)


@pytest.mark.slow
def test_a_trial_that_diverges_is_shown_as_such_and_counts(made_cars, tmp_path, command):
    from tests.test_tracking import store

    code, shown, _ = command(*words(study_file(tmp_path, losses='"tests.test_study:broken"'), made_cars, tmp_path))
    rows = trials(tmp_path)
    assert code == 0 and {row["state"] for row in rows} == {"diverged"} and {row["value"] for row in rows} == {""}
    assert "has no learning rate" in shown and "diverged" in shown
    nested = [run for run in store(tmp_path)[1] if "mlflow.parentRunId" in run.data.tags]
    assert {(run.info.status, run.data.tags["diverged"]) for run in nested} == {("FAILED", "true")}


def row(rate, value):
    return {"rate": rate, "value": value}


def test_the_rate_is_the_top_of_the_curve_and_not_the_luckiest_trial():
    rates = np.geomspace(1e-4, 1e-1, 7)
    smooth = [0.98 - 0.01 * (np.log10(rate) + 2.5) ** 2 for rate in rates]
    lucky = [value + 0.004 * (i == 4) for i, value in enumerate(smooth)]
    found = choose_rate([row(rate, value) for pair in (smooth, lucky) for rate, value in zip(rates, pair, strict=True)])
    assert abs(np.log10(found.value) + 2.5) < 0.15 and not found.edge and found.low <= found.value <= found.high


def test_one_trial_a_rate_does_not_show_how_sure_the_rate_is():
    rates = np.geomspace(1e-4, 1e-1, 7)
    once = [row(rate, 0.98 - 0.01 * (np.log10(rate) + 2.5) ** 2 + 1e-4 * (i % 2)) for i, rate in enumerate(rates)]
    found, twice = choose_rate(once), choose_rate([*once, *({**one, "value": one["value"] + 1e-4} for one in once)])
    assert (
        found.value is not None
        and (found.low, found.high) == (None, None)
        and found.interval(" to ") == "not estimable"
    )
    assert (
        twice.low is not None
        and twice.low < twice.value < twice.high
        and twice.interval(" to ") == f"{twice.low:.2g} to {twice.high:.2g}"
    )
    assert study_folder.tuning_metrics({"rate": found.value, "rate_low": None, "rate_high": None}, 7) == {
        "rate": found.value,
        "trials": 7.0,
    }


def test_a_cell_whose_trials_diverged_has_no_rate_but_a_reason():
    found = choose_rate([row(rate, None) for rate in (1e-3, 1e-2, 1e-1, 1.0)])
    assert found.value is None and found.edge and "diverged" in found.reason


@pytest.mark.parametrize(("rate", "side"), [(1e-3, "low"), (3e-2, "high")])
def test_the_range_is_extended_in_the_grids_own_steps_at_the_end_where_the_best_rate_lies(rate, side):
    further = extend_range([TUNING], [Rate(5e-3), Rate(rate, edge=True)])
    together = sorted(learning_rate_grid(TUNING) + learning_rate_grid(further))
    assert np.allclose(np.diff(np.log(together)), np.log(30) / 3, atol=1e-4) and further.points == 2
    assert (together[0] < 1e-3) == (side == "low") and further.seeds == TUNING.seeds
    assert extend_range([TUNING], [Rate(5e-3), Rate(6e-3)]) is None


POOLED = dataclasses.replace(TUNING, points=3, seeds=(100,), fit="pooled")


def test_the_rates_of_a_networks_cells_interleave_and_cover_the_range_together():
    grids = [learning_rate_grid(POOLED, (number, 4)) for number in range(4)]
    together = sorted(rate for grid in grids for rate in grid)
    assert {len(grid) for grid in grids} == {3} and together == pytest.approx(np.geomspace(1e-3, 3e-2, 12), rel=1e-5)
    assert learning_rate_grid(TUNING, (2, 4)) == learning_rate_grid(TUNING)


@pytest.mark.parametrize("rate", [1e-3, 3e-2])
def test_a_staggered_range_is_extended_in_the_steps_of_all_cells_together(rate):
    further = extend_range([POOLED], [Rate(5e-3), Rate(rate, edge=True)], cells=4)
    together = sorted(r for part in (POOLED, further) for n in range(4) for r in learning_rate_grid(part, (n, 4)))
    assert np.allclose(np.diff(np.log(together)), np.log(30) / 11, atol=1e-4) and further.points == 1


def test_three_staggered_trials_a_cell_give_every_cell_of_a_network_a_rate_and_its_tolerance():
    rows = {
        f"c{n}": [
            row(rate, 0.98 + 0.001 * n - 0.01 * (np.log10(rate) + 2.3) ** 2)
            for rate in learning_rate_grid(POOLED, (n, 4))
        ]
        for n in range(4)
    }
    found = choose_pooled_rates(rows)
    assert all(abs(np.log10(rate.value) + 2.3) < 0.05 and rate.low < rate.value < rate.high for rate in found.values())
    assert not any(rate.edge for rate in found.values())


def test_a_cell_whose_trials_diverged_has_no_rate_and_its_network_has_one():
    rates = np.geomspace(1e-3, 1e-1, 5)
    rows = {f"c{n}": [row(rate, 0.98 - 0.01 * (np.log10(rate) + 2) ** 2) for rate in rates] for n in range(2)}
    found = choose_pooled_rates(rows | {"bad": [row(rate, None) for rate in rates]})
    assert found["bad"].value is None and found["bad"].edge and "diverge" in found["bad"].reason
    assert found["c0"].value == pytest.approx(1e-2, rel=0.1)
    assert {rate.value for rate in choose_pooled_rates({"bad": rows["c0"][:2]}).values()} == {None}


def test_no_rate_is_chosen_at_or_above_one_that_diverged():
    rates = np.geomspace(1e-3, 1e-1, 7)
    rows = {
        f"c{n}": [row(rate, None if n and rate > 5e-3 else 0.98 - 0.01 * (np.log10(rate) + 2) ** 2) for rate in rates]
        for n in range(2)
    }
    found = choose_pooled_rates(rows)
    assert found["c1"].edge and found["c1"].value < 5e-3 and not found["c0"].edge


@pytest.mark.slow
def test_a_study_with_staggered_trials_tunes_all_its_cells_and_shows_their_tolerance(made_cars, tmp_path, command):
    table = '[tuning]\nlow = 1e-3\nhigh = 3e-2\npoints = 3\nseeds = [100]\nfit = "pooled"\n'
    file = study_file(tmp_path, table, '"bce", "dice"')
    code, shown, _ = command(*words(file, made_cars, tmp_path / "out"))
    plan = json.loads((tmp_path / "out" / "studies" / "tiny" / "plan.json").read_text())
    rows = trials(tmp_path / "out")
    assert code == 0 and plan["tuning"]["fit"] == "pooled" and "Learning rates" in shown
    counts = {cell: len({row["rate"] for row in rows if row["cell"] == cell}) for cell in ("bce", "dice")}
    assert set(counts.values()) == {plan["tuning"]["budget"]} and len({row["rate"] for row in rows}) == len(rows)
    assert all(cell["rate_low"] <= cell["rate"] <= cell["rate_high"] for cell in plan["cells"])


def test_too_few_trials_for_a_networks_shape_are_refused_before_any_is_run(made_cars, tmp_path, command):
    table = '[tuning]\nlow = 1e-3\nhigh = 3e-2\npoints = 3\nseeds = [100]\nfit = "pooled"\n'
    asked = words(study_file(tmp_path, table), made_cars, tmp_path / "out")
    for line in (["study", *asked[1:], "--dry-run"], asked):
        code, _, errors = command(*line)
        assert code == 2 and "raise points" in errors and not (tmp_path / "out" / "studies").exists()


def asked(folder, tuning, count, name="a/b"):
    """Take `count` trials of one cell, as a worker would that is started for each."""
    found = []
    for _ in range(count):
        cell = TrialQueue(folder, name, tuning, lambda rate, seed: folder / f"{rate:.6g}-{seed}")
        with cell.next() as taken:
            if taken is None:
                continue
            trial, _ = taken
            cell.tell(trial, 1 - (np.log10(trial.rate) + 2.5) ** 2)
            found.append((trial.rate, trial.seed))
    return found


def test_the_grid_is_every_rate_with_every_seed_once_and_then_the_budget_is_spent(tmp_path):
    found = asked(tmp_path, TUNING, 10)
    assert (
        sorted(found) == sorted((rate, seed) for rate in learning_rate_grid(TUNING) for seed in TUNING.seeds)
        and len(found) == 8
    )


@pytest.mark.fault(18)
def test_tpe_resumed_suggests_what_it_would_have_suggested(tmp_path):
    """Started for each trial or once for all: the same trials, none of them twice."""
    tpe = dataclasses.replace(TUNING, sampler="tpe")
    cell = TrialQueue(tmp_path / "one", "a/b", tpe, lambda rate, seed: tmp_path / "one" / f"{rate:.6g}-{seed}")
    whole = []
    for _ in range(8):
        with cell.next() as (trial, _):
            cell.tell(trial, 1 - (np.log10(trial.rate) + 2.5) ** 2)
            whole.append((trial.rate, trial.seed))
    assert asked(tmp_path / "other", tpe, 9) == whole and len({rate for rate, _ in whole}) == 8


def test_an_abandoned_trial_is_rescheduled_and_a_running_one_is_not(tmp_path):
    def cell():
        return TrialQueue(tmp_path, "a/b", TUNING, lambda rate, seed: tmp_path / f"{rate:.6g}-{seed}")

    with cell().next() as first, cell().next() as second:
        assert first[0] != second[0]
    with cell().next() as again:  # the two were left without an end
        assert again[0] == first[0]


@pytest.mark.fault(6)
def test_a_storage_that_fails_is_named_with_what_to_do(tmp_path):
    cell = TrialQueue(tmp_path, "a/b", TUNING, lambda rate, seed: tmp_path / f"{rate:.6g}-{seed}")
    with cell.next() as (trial, _):
        whole = (tmp_path / "optuna.db").read_bytes()
        (tmp_path / "optuna.db").write_bytes(b"no database" * 1000)
        for act in (cell.trials, lambda: cell.tell(trial, 0.5), lambda: ExitStack().enter_context(cell.next())):
            with pytest.raises(RunFailed, match=r"optuna\.db failed .*repeat the command"):
                act()
        (tmp_path / "optuna.db").write_bytes(whole)
        cell.tell(trial, 0.5)
    assert [ended for _, ended in cell.trials()] == [True]


@pytest.mark.slow
@pytest.mark.fault(11)
def test_a_trial_whose_value_was_changed_is_refused(tuned, made_cars, tmp_path, command, shared):
    output, file, _ = tuned
    shutil.copytree(output, tmp_path / "out")
    path = sorted((tmp_path / "out" / "trials").glob("*/result.json"))[0]
    path.write_text(re.sub(r'"value": [\d.]+', '"value": 0.999', path.read_text()))
    code, _, complaint = command(*words(file, made_cars, tmp_path / "out"), *shared)
    assert code == 2 and f"{path} was changed" in complaint


def hears(process, number):
    """Whether a process has a handler for a signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.fault(4)
def test_a_worker_that_waits_for_another_at_the_storage_can_be_stopped(made_cars, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / "optuna.lock"):
        command = [sys.executable, "run.py", *words(study_file(tmp_path), made_cars, tmp_path / "out")]
        waiting = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not hears(waiting, signal.SIGTERM):
            assert waiting.poll() is None
            time.sleep(0.1)
        waiting.terminate()
        waiting.communicate(timeout=60)
    assert waiting.returncode == 128 + signal.SIGTERM


def test_waiting_for_a_short_lived_lock_times_out(tmp_path):
    with (
        FileLock(tmp_path / "lock"),
        pytest.raises(RunFailed, match="seems to be suspended"),
        leases.wait_for_lock(tmp_path / "lock", patience=0.1),
    ):
        pass
    with leases.wait_for_lock(tmp_path / "lock", patience=0.1):  # given back by then
        pass


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
@pytest.mark.fault(17)
def test_a_worker_killed_between_ask_and_its_rate_costs_no_trial(tmp_path, sampler):
    import optuna

    tuning = dataclasses.replace(TUNING, sampler=sampler)
    cell = TrialQueue(tmp_path, "a/b", tuning, lambda rate, seed: tmp_path / f"{rate:.6g}-{seed}")
    study = optuna.load_study(study_name="a/b", storage=f"sqlite:///{tmp_path / 'optuna.db'}", sampler=cell._sampler(0))
    study.ask()  # and killed
    optuna.load_study(
        study_name="a/b", storage=f"sqlite:///{tmp_path / 'optuna.db'}"
    ).ask()  # without a point of the grid
    with ExitStack() as others:  # four workers at their trials: none of these may be given out again
        at_work = [others.enter_context(cell.next())[0] for _ in range(4)]
        found = asked(tmp_path, tuning, 6) + [(trial.rate, trial.seed) for trial in at_work]
        assert len(found) == len(set(found)) == 8


@pytest.mark.slow
@pytest.mark.fault(17)
def test_two_workers_never_get_the_same_last_trial(tmp_path, monkeypatch):
    """The second comes when the first has counted the trials and not yet asked for its own."""
    asked(tmp_path, TUNING, 7)
    first, second = (
        TrialQueue(tmp_path, "a/b", TUNING, lambda rate, seed: tmp_path / f"{rate:.6g}-{seed}") for _ in range(2)
    )
    kept, found = first._sampler, []

    def take():
        with second.next() as taken:
            found.append(taken)

    other = threading.Thread(target=take)

    def counted(number):
        other.start()
        other.join(3)  # it waits for its turn; it would be at an end by then if it did not
        assert other.is_alive()
        return kept(number)

    monkeypatch.setattr(first, "_sampler", counted)
    with first.next() as taken:
        other.join()
        assert taken is not None and found == [None] and len(first.trials()) == 8


@pytest.mark.slow
def test_one_combination_is_tuned_and_then_trained_with_the_rate_that_was_found(made_cars, tmp_path, command, shared):
    from tests.conftest import run_folder

    given = [
        *small(made_cars, tmp_path),
        *shared,
        "--tune",
        "--tune-range",
        "1e-3:3e-2",
        "--tune-points",
        "4",
        "--tune-seeds",
        "100",
    ]
    code, shown, _ = command(*given)
    assert code == 0 and "Learning rates" in shown and "test Dice" in shown
    config = json.loads((run_folder(tmp_path) / "config.json").read_text())["config"]
    (plan,) = (tmp_path / "studies").glob("*/plan.json")
    assert config["learning_rate"] == json.loads(plan.read_text())["cells"][0]["rate"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--tune", "--learning-rate", "1e-3"], "leave out --learning-rate"),
        (["--tune-points", "5"], "add --tune"),
        (["--tune", "--tune-points", "0"], "Must be >= 1"),
        (["--tune", "--tune-range", "3e-2"], "LOW:HIGH"),
        (["--tune", "--tune-seeds", "0"], "must not hold 0"),
        (["--tune", "--tune-sampler", "gird"], 'Did you mean "grid"?'),
    ],
)
def test_invalid_arguments_of_a_tuning_are_refused_in_one_sentence(made_cars, tmp_path, command, given, sentence):
    code, _, complaint = command("--preset", "demo", "--data-dir", made_cars, *given, "--output-dir", tmp_path / "out")
    assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(17)
@pytest.mark.parametrize(("unfinished", "ends"), [
    # y is repeated elsewhere; x fails
    ([["x", "y"], ["x", "y"], ["x"]], "1 trial failed, so its cell has no learning rate"),
    ([["x", "z"], ["z"], []], None),  # x is repeated elsewhere, z is still running there, and ends
])  # fmt: skip
def test_trials_that_another_worker_repeated_are_no_failures_of_this_one(monkeypatch, unfinished, ends):
    looks = [set(keys) for keys in unfinished]
    answers = iter([TrialOutcome("x failed", {"x": "out of memory"}), TrialOutcome("y failed", {"y": "out of memory"})])
    here = {"now": looks[0]}

    def left():
        here["now"] = looks.pop(0) if looks else here["now"]
        return len(here["now"])

    monkeypatch.setattr(tune_cells, "POLL_SECONDS", 0)
    monkeypatch.setattr(tune_cells.study_folder, "write_trials", lambda *given: None)
    plan = SimpleNamespace(cells=["cell"])
    search = SimpleNamespace(plan=plan, left=left, open_keys=lambda: sorted(here["now"]), rows=list)

    class Executor:
        turns = 0

        def capacity(self):
            return 1

        def run_tasks(self, act, plan, jobs):
            self.turns += 1
            assert self.turns < 20, "it waits for ever"
            return [(job, next(answers, None)) for job in jobs]

    if ends is None:
        tune_cells._run_trials(search, Executor())
    else:
        with pytest.raises(RunFailed, match=ends):
            tune_cells._run_trials(search, Executor())
