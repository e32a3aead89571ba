"""A study's networks on corrupted and on foreign images: what is scored, stored and reported."""

import contextlib
import io
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.records import committed, load_runs
from analysis.records.robustness_files import read_file
from analysis.records.study_paths import RESULTS
from analysis.text.advice import caveats
from analysis.text.robustness import differences, robustness_grids, turned_round
from analysis.text.sentences import findings
from analysis.text.wording import points
from analysis.verdicts.answer import answer_study
from experiments.config.schema import RunConfig
from experiments.data import folder
from experiments.data.corruptions import CONDITIONS, CORRUPTIONS, corrupt
from experiments.evaluation import evaluator
from experiments.inference.trained_model import TrainedModel
from experiments.studies import robustness
from experiments.studies.robustness import CorruptedDataset
from tests.strangers import scene
from tests.test_data import write_pairs
from tests.test_reading import write_depths
from tests.test_study import TOML, words

pytestmark = pytest.mark.usefixtures("one_thread")

PHOTO = scene(96, 64, 3)[0]


def changed(condition, photo=PHOTO, name="a.jpg"):
    return np.abs(corrupt(photo, condition, name).astype(int) - photo).mean()


def test_every_corruption_changes_an_image_the_more_the_stronger_it_is_and_a_clean_one_stays():
    assert corrupt(PHOTO, "clean", "a.jpg") is PHOTO
    for kind in CORRUPTIONS:
        one, two, three = (changed(f"{kind} {strength}") for strength in (1, 2, 3))
        assert 0 < one < two < three, kind
    for condition in CONDITIONS:
        found = corrupt(PHOTO, condition, "a.jpg")
        assert found.shape == PHOTO.shape and found.dtype == np.uint8


def test_what_is_drawn_depends_on_the_images_name_alone():
    assert (corrupt(PHOTO, "noise 2", "a.jpg") == corrupt(PHOTO, "noise 2", "a.jpg")).all()
    assert (corrupt(PHOTO, "noise 2", "a.jpg") != corrupt(PHOTO, "noise 2", "b.jpg")).any()


def test_strengths_are_what_they_are_said_to_be():
    grey = np.full((200, 300, 3), 128, np.uint8)
    assert corrupt(grey, "noise 1", "a").std() / 255 == pytest.approx(0.1, rel=0.02)
    assert (corrupt(grey, "brightness 2", "a") == 179).all()
    steps = np.tile(np.array([100, 150], np.uint8)[None, :, None], (4, 3, 3))
    assert set(np.unique(corrupt(steps, "contrast 3", "a"))) == {120, 130}
    edge = np.zeros((100, 400, 3), np.uint8)
    edge[:, 200:] = 255
    line = corrupt(edge, "blur 3", "a")[50, :, 0] / 255.0
    places = np.arange(400) + 0.5 - 200
    spread = np.sqrt((np.gradient(line) * places**2).sum())  # the derivative of a blurred edge is the blur itself
    assert spread == pytest.approx(2.0, rel=0.1)  # 0.02 of the height


def test_indexing_a_corrupted_dataset_gives_the_corrupted_image_and_the_clean_mask(tmp_path):
    write_pairs(tmp_path, names=["x1"])
    samples = folder.build(tmp_path)
    clean, noisy = (CorruptedDataset(samples, (48, 32), condition) for condition in ("clean", "noise 3"))
    assert (noisy[0][0].permute(1, 2, 0) * 255).round().numpy().tolist() == noisy.image(0).tolist()
    assert not torch.equal(clean[0][0], noisy[0][0]) and torch.equal(clean[0][1], noisy[0][1])


@pytest.mark.parametrize(("data", "foreground"), [("folder", (2,)), ("carvana", ())])
def test_images_from_elsewhere_are_read_as_those_of_the_runs(tmp_path, monkeypatch, data, foreground):
    seen = []
    monkeypatch.setattr(evaluator, "evaluate", lambda models, dataset, *given: seen.extend(dataset.samples) or [])
    monkeypatch.setattr(TrainedModel, "model", lambda trained: torch.nn.Identity())
    trained = TrainedModel(tmp_path, RunConfig(data=data, intensity=(0.0, 4095.0), foreground=(2,)), {})
    others = folder.build(write_pairs(tmp_path / "wild"))
    place, stop = SimpleNamespace(folder=tmp_path), SimpleNamespace(check=lambda: None)
    robustness._score(place, {"key": (trained, [])}, "wild", others, len(others), stop)
    assert [(s.name, s.reading.intensity, s.reading.foreground) for s in seen] == [
        (s.name, (0.0, 4095.0), foreground) for s in others
    ]


def test_images_of_12_bits_from_elsewhere_have_one_scale_where_the_run_has_none(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(evaluator, "evaluate", lambda models, dataset, *given: seen.extend(dataset.samples) or [])
    monkeypatch.setattr(TrainedModel, "model", lambda trained: torch.nn.Identity())
    trained = TrainedModel(tmp_path, RunConfig(), {})
    others = folder.build(write_depths(tmp_path / "wild", "uint16", 0, 4095, "png"))
    place, stop = SimpleNamespace(folder=tmp_path), SimpleNamespace(check=lambda: None)
    runs = {"one": (trained, []), "two": (replace(trained, path=tmp_path / "two" / "last.ckpt"), [])}
    robustness._score(place, runs, "wild", others, len(others), stop)
    assert {sample.reading.intensity for sample in seen} == {(0, 4095)}
    assert capsys.readouterr().out.count("Intensity scale: ") == 1


def test_runs_of_other_threads_are_named_where_none_is_found(tmp_path):
    config, folder = RunConfig(threads=1), tmp_path / "studies" / "tiny"
    cells = [SimpleNamespace(id="unet", config=config)]
    plan = SimpleNamespace(cells=cells, folder=folder, machine=SimpleNamespace(runs_dir=tmp_path / "runs"))
    assert robustness._made_otherwise(plan) == ""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"cells": [{"cell": "unet", "runs": {"0": "aa"}}]}))
    (tmp_path / "runs" / "aa").mkdir(parents=True)
    saved = replace(config, threads=4, seed=7).to_dict()
    (tmp_path / "runs" / "aa" / "config.json").write_text(json.dumps({"config": saved}))
    assert robustness._made_otherwise(plan) == ""
    (tmp_path / "runs" / "aa" / "result.json").write_text("{}")
    sentence = robustness._made_otherwise(plan)
    assert "made with threads 4 (here 1)" in sentence and "OMP_NUM_THREADS=4 before the command" in sentence


@pytest.fixture(scope="module")
def scored(made_cars, tmp_path_factory, one_thread):
    """A finished study whose networks were scored everywhere: its folder, and the words that do it."""
    import run

    folder = tmp_path_factory.mktemp("robustness")
    (folder / "tiny.toml").write_text(TOML.replace("epochs = 2", "epochs = 3"))
    write_pairs(folder / "wild", names=["x1", "x2", "y1"])
    output = folder / "outputs"
    asked = [str(folder / "tiny.toml"), "--data-dir", str(made_cars), "--output-dir", str(output), "--views", "2"]
    asked = ["robustness", *asked, "--elsewhere", str(folder / "wild")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        assert run.main(asked) == 2 and "no finished run" in said.getvalue()
        assert run.main(words(folder / "tiny.toml", made_cars, output)) == 0
        assert run.main(asked) == 0
    return folder, asked


def kept(folder):
    return sorted((folder / "outputs" / "studies" / "tiny" / "robustness").glob("*.csv"))


@pytest.mark.slow
def test_clean_images_score_as_in_the_runs_test_and_at_most_so_many_of_a_car(scored):
    folder, _ = scored
    assert len(kept(folder)) == len(CONDITIONS) + 1
    clean = read_file(folder / "outputs" / "studies" / "tiny" / "robustness" / "clean.csv")
    assert clean.key.nunique() == 4 and (clean.groupby(["key", "group"]).size() == 2).all()
    for key, mine in clean.groupby("key"):
        known = pd.read_csv(folder / "outputs" / "runs" / key / "scores_last.csv").set_index("image").dice
        assert mine.set_index("image").dice.to_dict() == known[mine.image].to_dict()
    noisy = read_file(folder / "outputs" / "studies" / "tiny" / "robustness" / "noise-3.csv")
    assert (noisy.dice.to_numpy() != clean.dice.to_numpy()).any()
    wild = read_file(folder / "outputs" / "studies" / "tiny" / "robustness" / "wild.csv")
    assert set(wild.group) == {"x1", "x2", "y1"} or wild.group.nunique() == 3


@pytest.mark.slow
def test_a_place_that_is_not_there_is_named_with_what_belongs_into_it(scored, command, tmp_path):
    asked = [*scored[1][:-1], str(tmp_path / "nowhere")]
    code, _, complaint = command(*asked)
    assert code == 2 and f"into {tmp_path / 'nowhere' / 'masks'}" in complaint and "--data-dir" not in complaint


@pytest.mark.slow
def test_the_same_command_scores_only_what_is_missing(scored, command):
    folder, asked = scored
    before = {path: path.read_bytes() for path in kept(folder)}
    path = next(path for path in before if path.name == "blur-2.csv")
    table = read_file(path)
    table[table.key != table.key.iloc[0]].to_csv(path, index=False)
    times = {one: one.stat().st_mtime_ns for one in before if one != path}
    assert command(*asked)[0] == 0
    assert {one: one.stat().st_mtime_ns for one in times} == times
    again = read_file(path).sort_values(["key", "image"], ignore_index=True)
    pd.testing.assert_frame_equal(again, table.sort_values(["key", "image"], ignore_index=True))


@pytest.mark.slow
def test_with_other_views_every_run_is_scored_again_on_the_same_images(scored, command):
    folder, asked = scored
    before = {path: path.read_bytes() for path in kept(folder)}
    at = asked.index("--views")
    assert command(*asked[:at], "--views", "1", *asked[at + 2 :])[0] == 0
    clean = read_file(folder / "outputs" / "studies" / "tiny" / "robustness" / "clean.csv")
    assert (clean.groupby(["key", "group"]).size() == 1).all()
    assert command(*asked)[0] == 0
    for path, content in before.items():
        assert sorted(path.read_text().splitlines()) == sorted(content.decode().splitlines())


@pytest.mark.slow
def test_the_report_shows_it_and_the_committed_files_alone_give_it_again(scored, command, tmp_path):
    folder, _ = scored
    (tmp_path / "README.md").write_text("")
    where = ["--results-dir", str(tmp_path / "results"), "--readme", str(tmp_path / "README.md")]
    assert command("report", "tiny", "--output-dir", str(folder / "outputs"), *where)[0] == 0
    pages = {language: tmp_path / "docs" / language / "studies" / "tiny.md" for language in ("en", "zh")}
    text = pages["en"].read_text(encoding="utf-8")
    assert "| vs. BCE | clean | blur | brightness | contrast | JPEG | noise | wild |" in text
    assert "退化图像" in pages["zh"].read_text(encoding="utf-8")
    assert "--elsewhere data/wild" in text
    results = tmp_path / "results" / "tiny"
    assert (results / "robustness.svg").exists()
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    assert command("report", "tiny", "--output-dir", str(tmp_path / "nothing"), *where)[0] == 0
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before
    assert pages["en"].read_text(encoding="utf-8") == text


@pytest.mark.slow
def test_every_condition_tells_what_the_other_levels_change_against_the_baseline(scored):
    found = answer_study(load_runs.load_recorded_study(scored[0] / "outputs", "tiny"))
    (grid,) = robustness_grids(found, "en")
    assert [row[0].head for row in grid.rows] == ["Dice loss"]
    scores = found.study.robustness.join(found.study.finished.set_index("key")[["cell"]], on="key")
    of_all = differences(found, "loss")
    for column, names in (("wild", ["wild"]), ("noise", ["noise 1", "noise 2", "noise 3"])):
        mine = scores[scores.condition.isin(names)].groupby(["cell", "group"], observed=True).dice.mean()
        by_cell = mine.groupby("cell", observed=True).mean()
        difference = of_all[column]["dice"].difference
        assert difference == pytest.approx(by_cell["dice"] - by_cell["bce"], abs=1e-9)
        shown = grid.rows[0][grid.headings.index(column)].head
        assert shown.split()[1] == points(difference, 0 if abs(difference) >= 0.1 else 1)


@pytest.mark.slow
def test_the_mark_of_each_condition_agrees_with_its_interval(scored):
    found = answer_study(load_runs.load_recorded_study(scored[0] / "outputs", "tiny"))
    lower = found.study.robustness.assign(dice=lambda rows: rows.dice.where(rows.condition != "wild", 0.0))
    keys = found.study.finished.set_index("key").cell
    steady = lower.key.map(keys).map({"bce": 0.5, "dice": 0.7}) + pd.Series(range(len(lower)), lower.index) % 3 * 1e-4
    lower["dice"] = lower.dice.where(~lower.condition.str.startswith("jpeg"), steady)
    found = replace(found, study=replace(found.study, robustness=lower))
    (grid,) = robustness_grids(found, "en")
    marks = dict(zip(grid.headings, [cell.head.split()[0] for cell in grid.rows[0]], strict=True))
    assert marks["wild"] == "=" and marks["JPEG"] == "▲"
    for name, column in differences(found, "loss").items():
        low, high, margin = column["dice"].low, column["dice"].high, found.study.reading.cell_margin
        due = "=" if max(-low, high) < margin else "▲" if low > 0 else "▼" if high < 0 else "≈"
        assert marks["JPEG" if name == "jpeg" else name] == due


@pytest.mark.slow
def test_the_answer_names_the_corruptions_under_which_another_level_is_better_than_the_one_to_take():
    answer = answer_study(committed.read_study(RESULTS, "augmentation"))
    found = differences(answer, "augment")
    kinds = [kind for kind in found if kind in CORRUPTIONS]
    strong = {kind: found[kind]["strong"] for kind in kinds}
    sure = [kind for kind, c in strong.items() if c.difference > 0 and c.p <= 0.05 / len(kinds)]
    assert 0 < len(sure) < sum(c.verdict == "better" for c in strong.values())
    ((level, best, gains),) = turned_round(answer, {"augment": "none"})
    assert (level, best) == ("none", "strong") and gains == {kind: strong[kind].difference for kind in sure}
    assert not list(turned_round(answer, {"augment": "photometric"}))  # under no corruption worse than none
    (sentence,) = caveats(answer, "en")
    assert "Under contrast and noise, though," in sentence and sentence == findings(answer, "en")[-1]


def test_a_cell_of_an_earlier_plan_is_left_out_and_changes_nothing_under_any_condition(scored):
    found = answer_study(load_runs.load_recorded_study(scored[0] / "outputs", "tiny"))
    due = differences(found, "loss")
    strange = replace(found.cells[0], name="elder", levels={"loss": ""})
    assert due and differences(replace(found, cells=[*found.cells, strange]), "loss") == due
    scores = found.study.robustness
    more = pd.concat([scores, scores.assign(key=scores.key + "x")])  # the elder cell was scored, too
    finished = found.study.finished
    runs = pd.concat([found.study.runs, finished.assign(key=finished.key + "x", cell="elder")])
    study = replace(found.study, robustness=more, runs=runs)
    assert differences(replace(found, cells=[*found.cells, strange], study=study), "loss") == due


@pytest.mark.slow
def test_a_corruption_that_was_not_scored_at_every_strength_has_no_column(scored, command, tmp_path):
    folder, _ = scored
    output = shutil.copytree(folder / "outputs", tmp_path / "outputs")
    place = output / "studies" / "tiny" / "robustness"
    (place / "noise-3.csv").unlink()
    half = read_file(place / "jpeg-2.csv")
    half[half.key != half.key.iloc[0]].to_csv(place / "jpeg-2.csv", index=False)  # one run of one cell is missing
    for path in place.glob("b*.csv"):
        path.unlink()
    (tmp_path / "README.md").write_text("")
    page = tmp_path / "docs" / "en" / "studies" / "tiny.md"
    where = ["--output-dir", output, "--results-dir", tmp_path / "results", "--readme", tmp_path / "README.md"]
    assert command("report", "tiny", *where)[0] == 0
    # a mean over other seeds than the neighbours' would mislead: no column for JPEG
    assert "| vs. BCE | clean | contrast | wild |" in page.read_text(encoding="utf-8")
    (place / "contrast-1.csv").unlink()
    (place / "jpeg-1.csv").unlink()
    shutil.rmtree(tmp_path / "results")  # committed rows of a condition stay where this machine has none of it
    assert command("report", "tiny", *where)[0] == 0
    text = page.read_text(encoding="utf-8")
    assert "Corrupted and other images" not in text and "robustness.svg" not in text


@pytest.mark.slow
def test_a_damaged_file_is_named_with_what_to_do(scored, command):
    folder, asked = scored
    path = next(path for path in kept(folder) if path.name == "jpeg-1.csv")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2].rsplit(b",", 1)[0])
    code, _, complaint = command(*asked)
    path.write_bytes(whole)
    assert code == 2 and "jpeg-1.csv cannot be read" in complaint and "Delete it" in complaint


@pytest.mark.slow
def test_a_folder_that_would_be_taken_for_a_corruption_is_refused(scored, command, tmp_path):
    _, asked = scored
    write_pairs(tmp_path / "clean", names=["a1"])
    code, _, complaint = command(*asked[:-1], str(tmp_path / "clean"))
    assert code == 2 and "another name" in complaint
