"""A study: what its file may say, what it prints first, how its runs are carried out, and what it leaves behind."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.records import files
from experiments.config.schema import RunConfig
from experiments.data.samples import Sample
from experiments.studies import display, estimates
from experiments.studies import plan as study_plan
from experiments.studies.study_file import STUDIES, parse_study, read_study
from experiments.training import final_evaluation
from registry import InputError
from tests.conftest import ROOT, run_folder
from tests.strangers import write_strangers_folder
from tests.test_command_line import HEAVY, imported_by

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {
    "preset": "demo", "data": "carvana", "size": "48x32", "epochs": 2, "batch_size": 16, "precision": "fp32",
    "model_kwargs": {"width": 4},
}  # fmt: skip
TOML = """
[question]
en = "Which loss?"
zh = "哪个损失函数？"
[settings]
preset = "demo"
data = "carvana"
size = "48x32"
epochs = 2
batch_size = 16
precision = "fp32"
model_kwargs = { width = 4 }
[factors]
loss = ["bce", "dice"]
[design]
seeds = [0, 1]
confirmatory = ["loss"]
"""
TUNING = "[tuning]\nlow = 1e-3\nhigh = 3e-2\npoints = 4\nseeds = [100]\n"


def content(**other):
    return {"settings": SETTINGS, "factors": {"loss": ["bce", "dice"]}, "design": {"seeds": [0, 1]}} | other


def study(**other):
    return parse_study("tiny", content(**other), "The study file tiny.toml")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    return path


def words(file, cars, output):
    return ["study", str(file), "--data-dir", str(cars), "--output-dir", str(output)]


def scores(output):
    """What must not differ between two ways to carry out one study."""
    plan = json.loads((output / "studies" / "tiny" / "plan.json").read_text())
    keys = [key for cell in plan["cells"] for key in cell["runs"].values()]
    names = ("scores_last.csv", "scores_best.csv", "metrics.jsonl")
    return plan["cells"], {(key, name): (output / "runs" / key / name).read_bytes() for key in keys for name in names}


@pytest.fixture(scope="module")
def finished(finished_study, tmp_path_factory):
    """A copy of the finished study: its output folder, its file and what it printed."""
    folder = shutil.copytree(finished_study, tmp_path_factory.mktemp("study") / "copy")
    return folder / "outputs", folder / "tiny.toml", (folder / "shown.txt").read_text()


WRONG = [
    ({"design": {"seeds": [0, 0]}}, r"\[design\] seeds holds 0 twice"),
    ({"design": {"seeds": []}}, r"\[design\] seeds should hold at least one value"),
    ({"design": {"seeds": [-1]}}, r"\[design\] seeds should be greater than or equal to 0, not -1"),
    ({"design": {"seeds": [0], "rope": 10**400}}, r"\[design\] rope should be a valid number, not 1000.*\.\.\."),
    ({"design": {"seeds": [0], "rope": float("nan")}}, r"\[design\] rope should be a finite number, not nan"),
    ({"design": {"seeds": [0], "rope": 0}}, r"\[design\] rope should be greater than 0, not 0"),
    ({"design": {"seeds": [0], "ropes": 1}}, r"\[design\] ropes is unknown \(did you mean 'rope'\?\)"),
    ({"design": {"seeds": [0], "confirmatory": ["los"]}}, r"names 'los' \(did you mean 'loss'\?\)"),
    ({"design": {"seeds": [0], "simple_effects": ["pairs"]}}, "simple_effects.* names 'pairs'; it takes loss"),
    ({"design": {"seeds": [0], "baseline": {"model": "unet"}}}, r"\[design.baseline\] names .model.; it takes loss"),
    ({"design": {"seeds": [0], "simple_effects": ["loss"], "baseline": {"loss": "bcee"}}},
     r"\[design.baseline\] loss names 'bcee' \(did you mean 'bce'\?\)"),
    (
        {"factors": {"train_cars": [20, 40]},
         "design": {"seeds": [0], "simple_effects": ["train_cars"], "baseline": {"train_cars": 30}}},
        r"train_cars names '30'.*it takes 20, 40",
    ),
    ({"design": {"seeds": [0], "at_budget": True}}, r"\[design\] at_budget is unknown"),
    ({"design": {"seeds": "3-10"}}, r'seeds should be a list, or counts from 2 to 100 such as "3..10"'),
    ({"design": {"seeds": [0], "draw_training_cars": True}}, r"\[design\] draw_training_cars needs train_cars"),
    ({"design": {"seeds": [0], "simple_effects": "loss", "within": {"loss": "loss"}}}, r"\] loss names .loss."),
    ({"design": {"seeds": [0]}, "labels": {"bcee": "BCE"}}, r"\[labels\] names .bcee. \(did you mean .bce.\?\)"),
    ({"design": {"seeds": [0]}, "labels": {"bce": {"fr": "BCE"}}}, r"\[labels\] bce should be text, or a table"),
    ({"design": {"seeds": [0], "pilot": {"cells": 9}}}, r"\[design.pilot\] cells is 9, but the study has 2"),
    ({"design": {"seeds": [0], "guess": {"seed": -1}}},
     r"\[design.guess\] seed should be greater than or equal to 0, not -1"),
    ({"design": [1]}, r"\[design\] should be a table"),
    ({"design": {"seeds": [True]}}, r"\[design\] seeds should be a valid integer, not True"),
    ({"desing": {}}, r"\[desing\] is unknown \(did you mean 'design'\?\)"),
    ({"factors": {}}, r"\[factors\] needs at least one factor"),
    ({"factors": {"loss": ["bce", "bce"]}}, r"\[factors\] loss names the level 'bce' twice"),
    ({"factors": {"loss": ["bcee"]}}, r"\[factors\] loss: Unknown loss 'bcee' \(did you mean 'bce'\?\)"),
    ({"factors": {"model": ["unett"]}}, r"\[factors\] model: Unknown model 'unett'"),
    ({"factors": {"loss": "bce"}}, r"\[factors\] loss should be a list"),
    ({"factors": {"start": ["a", "b"]}}, r"\[factors\] start is no setting of a run"),
    ({"factors": {"start": [{"label": "a"}]}}, r"\[factors\] start has a level without a setting"),
    ({"factors": {"start": [{"epochs": 1}]}}, r"\[factors.start\] label is missing"),
    ({"factors": {"start": [{"label": "a", "epocs": 1}]}},
     r"\[factors.start\] epocs is unknown \(did you mean 'epochs'\?\)"),
    ({"factors": {"epochs": [2, 0]}}, r"\[factors\] epochs: Invalid value \"0\" for epochs"),
    ({"factors": {"epochs": [2, 3]}}, r"epochs sets epochs, which \[settings\] sets too"),
    ({"settings": SETTINGS | {"seed": 1}}, r"\[settings\] seed belongs in \[design\]"),
    ({"settings": SETTINGS | {"early_stopping": 3}}, r"\[settings\] early_stopping must be 0"),
    ({"settings": SETTINGS | {"modle": "unet"}}, r"\[settings\] modle is unknown \(did you mean 'model'\?\)"),
    ({"settings": SETTINGS | {"lr": 1e-3}}, r"\[settings\] lr is unknown \(did you mean 'learning_rate'\?\)"),
    ({"settings": {"preset": "dmo"}}, r"\[settings\] preset: Invalid value \"dmo\" for preset"),
    ({"tuning": {"low": 1e-2, "high": 1e-3, "points": 4, "seeds": [9]}}, r"\[tuning\] low \(0.01\) must be below high"),
    ({"tuning": {"low": 1e-3, "high": 1e-2, "points": 0, "seeds": [9]}},
     r"\[tuning\] points should be greater than or equal to 3, not 0"),
    ({"tuning": {"low": 1e-3, "high": 1e-2, "points": 3, "seeds": [9]}},
     r"\[tuning\] points is 3: each cell needs 4 rates for its own curve"),
    ({"tuning": {"low": 1e-3, "high": 1, "points": 4, "seeds": [9], "fit": "poled"}}, r"did you mean 'pooled'"),
    ({"tuning": {"low": 1e-3, "high": 1e-2, "points": 4, "seeds": []}},
     r"\[tuning\] seeds should hold at least one value"),
    ({"tuning": {"low": 1e-3, "high": 1e-2, "points": 4, "seeds": [1]}}, r"\[tuning\] seeds must not hold 1"),
    ({"tuning": {"low": 0, "high": 1e-2, "points": 4, "seeds": [9]}},
     r"\[tuning\] low should be greater than 0, not 0"),
    ({"tuning": {"low": 1e-3, "points": 4, "seeds": [9]}}, r"\[tuning\] high is missing"),
    ({"tuning": {"low": 1e-3, "high": 1, "points": 4, "seeds": [9], "sampler": "gird"}}, r"did you mean 'grid'"),
    ({"settings": SETTINGS | {"learning_rate": 1}, "tuning": {"low": 1e-3, "high": 1, "points": 4, "seeds": [9]}},
     r"\[tuning\] finds the learning_rate"),
]  # fmt: skip


@pytest.mark.parametrize(("other", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_an_invalid_study_file_is_refused_in_one_sentence_with_the_key(other, sentence):
    with pytest.raises(InputError, match=sentence) as found:
        study(**other)
    assert "\n" not in str(found.value) and str(found.value).startswith("The study file tiny.toml: [")


def test_an_invalid_study_ends_the_command_before_anything_heavy_is_imported(file, tmp_path, command):
    file.write_text(TOML.replace("seeds = [0, 1]", "seeds = [0, 0]"))
    code, _, complaint = command("study", file, "--output-dir", tmp_path / "out")
    assert code == 2 and "holds 0 twice" in complaint and not (tmp_path / "out").exists()
    assert not HEAVY & imported_by("study", str(file))
    assert not HEAVY & imported_by("study", "no_such_study")
    assert "did you mean 'two_by_two'?" in command("study", "two_by_tow")[2]
    assert "no [tuning]" in command("tune", (file.write_text(TOML), file)[1])[2]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--models", "unett", "--losses", "bce", "--seeds", "0"], "did you mean 'unet'?"),
        (["--models", "unet", "--losses", "bce", "--seeds", "3-1"], "0-4"),
        (["--models", "unet", "--losses", "bce", "--seeds", "0", "0"], "holds 0 twice"),
        (["--models", "unet", "--losses", "bce", "--seeds", "0", "--name", "A b"], "a-z"),
        (
            ["--models", "unet", "smp", "--model-kwargs", "arch=Unet", "--losses", "bce", "--seeds", "0"],
            "The model 'unet' has no option 'arch'. It takes: width, up. --model-kwargs are given to every model",
        ),
        (
            ["--models", "unet", "--losses", "bce", "--seeds", "0", "--tune", "--tune-range", "1e-2:1e-3"],
            "must be below",
        ),
        (["--models", "unet", "--losses", "bce", "--seeds", "100", "--tune", "--preset", "demo"], "must not hold 100"),
    ],
)
def test_invalid_arguments_of_a_grid_are_refused_in_one_sentence(command, tmp_path, given, sentence):
    code, _, complaint = command("grid", *given, "--output-dir", tmp_path / "out")
    assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_committed_study_is_valid_and_asks_its_question_in_both_languages(path):
    found = read_study(path)
    assert found.question["en"] and found.question["zh"] and len(found.cells()) >= 2


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_committed_study_can_be_planned(path, tmp_path, monkeypatch):
    """On 270 cars that are nowhere; a file of weights is looked for, and not into."""
    cars = [f"{number:012x}" for number in range(270)]
    samples = [
        Sample(tmp_path / f"{car}_{view:02}.jpg", tmp_path / f"{car}.gif", car) for car in cars for view in range(1, 17)
    ]
    monkeypatch.setattr(study_plan, "list_samples", lambda *given: samples)
    monkeypatch.setattr(study_plan, "fingerprint", lambda listed: "0" * 16)
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r'"(weights/[^"]+)"', path.read_text()):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    plan, found = study_plan.build(read_study(path), {}), read_study(path)
    assert len(plan.cells) == len(found.cells())
    assert {len({s.group for s in cell.base.parts.test}) for cell in plan.cells} == {54}


def test_cells_are_all_combinations_and_options_of_two_factors_come_together():
    start = [{"label": "plain", "model_kwargs": {"up": "bilinear"}}, {"label": "Res (x)", "model": "attention_unet"}]
    found = study(factors={"start": start, "loss": ["bce", "dice"]}).cells()
    assert [cell.id for cell in found] == ["plain+bce", "plain+dice", "res-x+bce", "res-x+dice"]
    assert found[0].fields == {"model_kwargs": {"up": "bilinear"}, "loss": "bce"}
    assert found[2].levels == {"start": "Res (x)", "loss": "bce"}


def test_a_dry_run_prints_the_plan_and_runs_nothing(file, made_cars, tmp_path, command):
    code, shown, _ = command(*words(file, made_cars, tmp_path / "out"), "--dry-run")
    said = " ".join(re.sub("[│\n]", " ", shown).split())
    assert code == 0 and "2 cells x 2 seeds = 4: 4 missing" in said
    assert "an estimate, from a timed handful of steps" in said and "guessed, not measured" in said
    assert "a cell against the baseline's: a difference of" in said and "probability" in said
    assert not (tmp_path / "out").exists() or not {p.name for p in (tmp_path / "out").iterdir()} - {"cache"}


def test_a_plan_without_detectable_differences_says_what_its_verdicts_are():
    """One test car is no reason for `undecided`: the seeds are compared on it."""
    from analysis.statistics import compare

    seed, car = [[0.9, 0.91, 0.9]], [[0.9], [0.91], [0.9]]
    assert compare(seed, [[0.1, 0.1, 0.1]]).verdict == "undecided" and "undecided" in display.no_power(1, "car")
    assert compare(car, [[0.1], [0.11], [0.1]]).verdict == "better" and "undecided" not in display.no_power(3, "car")


def test_the_runs_go_seed_by_seed_and_the_plan_names_their_keys(finished):
    output, _, shown = finished
    lines = re.findall(r"\[(\d)/4\] (\S+), seed (\d): test Dice 0\.\d+, .* s of it neither training nor scoring", shown)
    assert lines == [("1", "bce", "0"), ("2", "dice", "0"), ("3", "bce", "1"), ("4", "dice", "1")]
    plan = json.loads((output / "studies" / "tiny" / "plan.json").read_text())
    baseline = {"loss": "bce"}
    assert plan["design"] == {
        "seeds": [0, 1],
        "rope": 0.001,
        "confirmatory": ["loss"],
        "simple_effects": [],
        "baseline": baseline,
    }
    assert plan["tuning"] is None and plan["variances"]["source"] == "guess" and plan["question"]["zh"]
    for cell in plan["cells"]:
        assert cell["settings"] == {"loss": cell["levels"]["loss"]} and cell["rate"] == 0.003
        for seed, key in cell["runs"].items():
            config = json.loads((output / "runs" / key / "config.json").read_text())["config"]
            assert (config["seed"], config["loss"], config["early_stopping"]) == (int(seed), cell["levels"]["loss"], 0)


def test_a_finished_study_is_skipped_and_its_status_shows_the_matrix(finished, made_cars, command):
    output, file, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (output / "runs").glob("*/*")}
    code, shown, _ = command(*words(file, made_cars, output))
    assert code == 0 and "4 done" in shown and "seed 0: test Dice" not in shown
    assert {path: path.stat().st_mtime_ns for path in (output / "runs").glob("*/*")} == before
    code, shown, _ = command(*words(file, made_cars, output), "--status")
    assert code == 0 and "4 done, 0 running, 0 failed, 0 missing" in shown
    _, values = scores(output)
    assert len(values) == 12


def test_a_studys_runs_lie_at_the_top_of_mlflow_with_its_tag(finished):
    from experiments.tracking import tracker
    from tests.test_tracking import store

    _, runs = store(finished[0])
    assert len(runs) == 4 and all(run.data.tags["study.tiny"] == "true" for run in runs)
    assert all("mlflow.parentRunId" not in run.data.tags and "test/dice" in run.data.metrics for run in runs)
    key = runs[0].data.tags["key"]
    with tracker.session(None, finished[0], print) as session:
        session.tag(key, {"verdict.tiny": "undecided"})
    assert {r.data.tags.get("verdict.tiny") for r in store(finished[0])[1] if r.data.tags["key"] == key} == {
        "undecided"
    }


@pytest.mark.slow
@pytest.mark.fault(1)
def test_a_killed_study_ends_with_the_records_of_an_undisturbed_one(finished, made_cars, tmp_path, command, shared):
    """The plan times six steps, every run makes ten: the kill comes in the second epoch of the second run."""
    from tests.test_run import at, killed

    given = words(finished[1], made_cars, tmp_path) + shared
    assert killed(given, at(23)).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 1
    code, shown, _ = command(*given)
    assert code == 0 and "4 done" in shown
    assert scores(tmp_path) == scores(finished[0])


@pytest.mark.slow
@pytest.mark.fault(4)
def test_an_interrupted_study_says_so_and_resumes(finished, made_cars, tmp_path, command, shared):
    from tests.test_run import signalled

    given = words(finished[1], made_cars, tmp_path) + shared
    code, _, complaint = signalled(command, given, 23)
    assert code == 143 and "Re-run the command to resume" in complaint
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 1
    assert command(*given)[0] == 0 and scores(tmp_path) == scores(finished[0])


@pytest.mark.slow
@pytest.mark.fault(15)
def test_two_processes_share_one_study_and_run_nothing_twice(finished, made_cars, tmp_path, shared):
    given = words(finished[1], made_cars, tmp_path) + shared
    workers = [
        subprocess.Popen([sys.executable, "run.py", *given], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    shown = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    ended = [re.findall(r"\] (\S+, seed \d): test Dice", text) for text in shown]
    assert sorted(ended[0] + ended[1]) == ["bce, seed 0", "bce, seed 1", "dice, seed 0", "dice, seed 1"]
    assert all("4 done" in text for text in shown)  # each waits for what the other is at
    assert scores(tmp_path) == scores(finished[0])


def broken(logits, mask):
    """A loss that diverges once it sees photographs."""
    return logits.float().mean() / (0.0 if logits.numel() > 10 else 1.0)


@pytest.mark.fault(8)
def test_a_run_that_diverges_is_recorded_the_study_goes_on_and_does_not_repeat_it(
    file, made_cars, tmp_path, command, shared
):
    file.write_text(TOML.replace('"dice"]', '"tests.test_study:broken"]').replace("seeds = [0, 1]", "seeds = [0]"))
    noted = []
    for _ in range(2):
        code, shown, _ = command(*words(file, made_cars, tmp_path / "out"), *shared)
        assert code == 1 and "1 done, 0 running, 1 failed" in shown and "stopped being finite" in shown
        (failed,) = (tmp_path / "out" / "runs").glob("*/failed.json")
        noted.append(failed.read_bytes())
    assert noted[0] == noted[1]  # with the time at which it happened
    assert json.loads(failed.read_text())["diverged"] and not (failed.parent / "last.ckpt").exists()
    assert len(list((tmp_path / "out" / "runs").glob("*/result.json"))) == 1


@pytest.mark.fault(6)
def test_a_run_that_failed_for_another_reason_is_tried_again_by_the_next_command(
    file, made_cars, tmp_path, command, monkeypatch, shared
):
    from experiments.training import checkpoint

    file.write_text(TOML.replace('"bce", "dice"', '"bce"').replace("seeds = [0, 1]", "seeds = [0]"))
    kept = files.write_atomically

    def full(path, *parts, **asked):
        if path.name == "last.ckpt":
            raise OSError(28, "No space left on device", str(path))
        kept(path, *parts, **asked)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        code, shown, _ = command(*words(file, made_cars, tmp_path / "out"), *shared)
    assert code == 1 and "disk is full" in shown
    assert command(*words(file, made_cars, tmp_path / "out"), *shared)[0] == 0


def test_the_time_of_epochs_at_half_the_size_is_counted_as_such(monkeypatch):
    config = RunConfig(epochs=10, progressive=0.8)
    monkeypatch.setattr(estimates, "training_speeds", lambda c, steps: iter([1.0, 300 if c.half_size_epochs else 100]))
    speed = estimates._timed(SimpleNamespace(config=config))
    assert speed == pytest.approx(10 / (8 / 300 + 2 / 100))
    epochs = [{"images_per_second": speed} for speed in [300] * 8 + [100] * 2]
    recorded = final_evaluation._speed(SimpleNamespace(timings=lambda: epochs), config)
    assert recorded == pytest.approx(speed, abs=0.01)


def planned(made_cars, **other):
    return study_plan.build(study(**other), {"data_dir": made_cars})


@pytest.mark.parametrize(
    "factors", [{"train_cars": [2, 5]}, {"split": ["car", "image"]}, {"batch_size": [4, 16]}], ids=str
)
def test_every_cell_makes_the_same_number_of_steps_whatever_it_trains_on(made_cars, factors):
    shared = {name: value for name, value in SETTINGS.items() if name not in factors}
    plan = planned(made_cars, settings=shared, factors=factors)
    batches = {cell.steps * cell.config.epochs for cell in plan.cells}
    assert len(batches) == 1 and len({cell.config.key for cell in plan.cells}) == 2


def test_an_epoch_of_a_given_length_goes_through_the_images_again():
    import numpy as np

    from experiments.data.cache import Pixels
    from experiments.data.dataset import Batches, ImageDataset
    from experiments.data.samples import Sample

    samples = [Sample(ROOT / f"{i}.jpg", ROOT / f"{i}.gif", str(i)) for i in range(5)]
    pixels = Pixels(np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(3, 3), np.zeros((5, 1, 1), np.uint8))
    batches = Batches(ImageDataset(samples, (1, 1), pixels=pixels), 2, steps=5)
    shown = [images.ravel()[::3].tolist() for images, _ in batches.epoch(1)]
    assert len(batches) == len(shown) == 5
    assert all(len({*shown[i], *shown[i + 1]}) == 4 for i in (0, 2))  # no photograph twice in one pass
    assert shown[3:] == [images.ravel()[::3].tolist() for images, _ in batches.epoch(1, start=3)]
    assert shown[:2] == [
        i.ravel()[::3].tolist() for i, _ in Batches(ImageDataset(samples, (1, 1), pixels=pixels), 2).epoch(1)
    ]


def test_cells_that_differ_in_what_must_be_equal_are_refused(made_cars):
    shared = {name: value for name, value in SETTINGS.items() if name != "epochs"}
    levels = [{"label": "short", "epochs": 1}, {"label": "long", "epochs": 2}]
    for model in ({"loss": "bce"}, {"weight_decay": 0.1}):
        with pytest.raises(InputError, match="differ in epochs"):
            planned(made_cars, settings=shared, factors={"length": [level | model for level in levels]})
    assert len(planned(made_cars, settings=shared, factors={"length": levels}).cells) == 2
    assert len(planned(made_cars, settings=shared, factors={"epochs": [1, 2]}).cells) == 2
    with pytest.raises(InputError, match="the same in everything"):
        planned(made_cars, factors={"loss": ["dice", {"label": "Dice", "loss": "dice"}]})
    with pytest.raises(InputError, match="The cell resnet_unet"):
        planned(made_cars, factors={"model": ["resnet_unet"]})


def test_a_preset_that_stops_early_does_not_do_so_in_a_study(made_cars):
    plan = planned(made_cars, settings=SETTINGS | {"preset": "carvana"})
    assert {cell.config.early_stopping for cell in plan.cells} == {0}


def test_a_grid_makes_the_runs_of_the_same_study_in_a_file(finished, made_cars, command, tmp_path):
    given = ["--preset", "demo", "--data", "carvana", "--data-dir", made_cars, "--size", "48x32", "--epochs", "2"]
    given += ["--batch-size", "16", "--precision", "fp32", "--model-kwargs", "width=4", "--output-dir", finished[0]]
    code, shown, _ = command(
        "grid", "--models", "unet", "--losses", "bce", "dice", "--seeds", "0-1", *given, "--status"
    )
    assert code == 0 and "4 done" in shown


@pytest.mark.slow
def test_the_pilots_variances_replace_the_guess(file, made_cars, tmp_path, command, shared):
    file.write_text(TOML.replace("seeds = [0, 1]", "seeds = [0]\npilot = { cells = 2, seeds = 2 }"))
    code, shown, _ = command(*words(file, made_cars, tmp_path), *shared)
    said = " ".join(re.sub("[│\n]", " ", shown).split())
    assert code == 0 and "guessed, not measured" in said and "measured by the pilot" in said
    plan = json.loads((tmp_path / "studies" / "tiny" / "plan.json").read_text())
    assert plan["variances"]["source"] == "pilot" and plan["variances"]["seed"] > 0
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 4  # two of them beyond the study's own seeds


def test_a_plan_is_not_replaced_silently(finished, made_cars, command, tmp_path):
    """Another loss, or another seed: refused with the difference; with --extend a copy of the earlier plan stays."""
    from experiments.studies.study_folder import refuse_replaced

    output, file, _ = finished
    place = output / "studies" / "tiny" / "plan.json"
    before = place.read_bytes()
    for change, said in (
        (('"dice"]', '"focal"]'), "factors"),
        (("seeds = [0, 1]", "seeds = [0, 1, 2]"), "design seeds"),
        (("epochs = 2", "epochs = 3"), "epochs"),
    ):
        other = tmp_path / "tiny.toml"
        other.write_text(file.read_text().replace(*change))
        code, _, complaint = command(*words(other, made_cars, output))
        assert code == 2 and f"differs in {said} (" in complaint and "Add --extend" in complaint
        assert place.read_bytes() == before
        code, _, complaint = command(*words(other, made_cars, output), "--dry-run")
        assert code == 0 and f"differs in {said} (" in complaint
    plan = study_plan.build(read_study(other), {"data_dir": made_cars, "output_dir": output})
    refuse_replaced(plan, extend=True)
    copy = place.with_name("plan.1.json")
    assert copy.read_bytes() == before
    copy.unlink()
    same = study_plan.build(read_study(file), {"data_dir": made_cars, "output_dir": output})
    refuse_replaced(same, extend=False)


def test_a_level_that_means_something_else_under_its_label_is_another_plan():
    from experiments.studies.study_folder import _differences

    def made(size):
        cells = [{"cell": "small", "settings": {"size": size}}, {"cell": "large", "settings": {"size": [192, 128]}}]
        factors = {"size": ["small", "large"]}
        return {
            "factors": factors,
            "settings": {},
            "data_fingerprint": "f",
            "design": {},
            "cells": cells,
            "tuning": None,
        }

    assert _differences(made([96, 64]), made([96, 64])) == []
    assert _differences(made([96, 64]), made([128, 96])) == ["size of small ([96, 64] before, [128, 96] now)"]


def test_a_study_without_a_file_is_read_from_the_plan_that_it_left(finished, made_cars):
    from experiments.studies.study_file import study_of_plan

    output = finished[0]
    plan = study_plan.build(study_of_plan("tiny", output), {"data_dir": made_cars, "output_dir": output})
    written = json.loads((output / "studies" / "tiny" / "plan.json").read_text())
    assert {plan.run(cell, seed).config.key for cell, seed in plan.runs()} == {
        key for cell in written["cells"] for key in cell["runs"].values()
    }
    with pytest.raises(InputError, match=r"There is no study 'tinyy' \(did you mean 'tiny'\?\)"):
        study_of_plan("tinyy", output)


def test_a_grid_from_a_file_of_weights_is_not_read_from_its_plan(tmp_path):
    from experiments.studies.study_file import study_of_plan

    (place := tmp_path / "studies" / "grid").mkdir(parents=True)
    cell = {"cell": "smp", "settings": {"model_kwargs": {"pretrained": "file"}}, "rate": 1e-3}
    (place / "plan.json").write_text(json.dumps({"settings": {}, "cells": [cell], "design": {"seeds": [0]}}))
    with pytest.raises(InputError, match="pretrained weights that its runs had"):
        study_of_plan("grid", tmp_path)


def test_what_a_study_of_own_pairs_detects_is_not_guessed_from_cars(command, tmp_path):
    (file := tmp_path / "tiny.toml").write_text(TOML.replace('"carvana"', '"folder"'))
    typed = words(file, write_strangers_folder(tmp_path / "pairs"), tmp_path / "outputs")
    code, shown, complaint = command(*typed, "--dry-run")
    said = " ".join(re.sub("[│\n]", " ", shown).split())
    assert code == 0, complaint
    assert "not known before the first seeds are in" in said and "a difference of" not in said
    assert "very little training: --epochs" in said and "input 48x32; learning rate 0.003" in said
    file.write_text(f"{file.read_text()}guess = {{ car = 0.02, seed = 0.01, residual = 0.01 }}\n")
    assert "a cell against the baseline's: a difference of" in " ".join(command(*typed, "--dry-run")[1].split())


def test_a_study_of_pairs_names_their_masks_in_its_file_or_on_the_command_line(command, tmp_path):
    folder = write_strangers_folder(tmp_path / "pairs")
    for mask in list((folder / "masks").iterdir()):
        mask.rename(mask.with_name(f"{mask.stem.removesuffix('_mask')}_annotated{mask.suffix}"))
    text = TOML.replace('"carvana"', '"folder"').replace('"bce", "dice"', '"bce"').replace("[0, 1]", "[0]")
    (file := tmp_path / "tiny.toml").write_text(
        text.replace("epochs = 2", "epochs = 1").replace('confirmatory = ["loss"]', "")
    )
    typed = words(file, folder, tmp_path / "outputs")
    code, _, complaint = command(*typed)
    assert code == 2 and "--mask-pattern" in complaint
    pattern = ("--mask-pattern", "{name}_annotated")
    assert command(*typed, "--dry-run", *pattern)[0] == 0
    file.write_text(file.read_text().replace("[factors]", 'mask_pattern = "{name}_annotated"\n[factors]'))
    code, _, complaint = command(*typed)
    assert code == 0, complaint
    key = run_folder(tmp_path / "outputs").name
    where = ("--data-dir", folder, "--output-dir", tmp_path / "outputs")
    for typed in (
        ("evaluate", "--run", key, *pattern),
        ("robustness", file, "--views", "1"),
        ("predict", folder / "images", "--run", key),
    ):
        code, _, complaint = command(*typed, *(where if typed[0] != "predict" else where[2:]))
        assert code == 0, complaint
    code, _, complaint = command("evaluate", "--run", key, *where)
    assert code == 2 and "--mask-pattern" in complaint
