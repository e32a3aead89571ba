"""From records to tables, verdicts and pictures; what is committed gives the same again; what is missing is shown."""

import csv
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.plots import hero
from analysis.records import committed, load_runs, run_files, test_set_ledger
from analysis.records.study_paths import StudyPaths
from analysis.text.sentences import answer_sentences
from analysis.verdicts.answer import answer_study
from registry import InputError
from tests.conftest import ROOT, report_flags
from tests.made_study import made_config, write_run, write_study

MARKERS = "<!-- findings -->\n<!-- /findings -->\n"
TWO = {"models": {"unet": 0.0, "attention_unet": 0.004}, "losses": {"bce": 0.0, "dice": 0.0}}


@pytest.fixture
def all_pictures():
    """Asked for by tests that need every picture; the others are spared the second that drawing takes."""


@pytest.fixture
def place(tmp_path, monkeypatch, request):
    """The words that make `report` work in a folder of its own, as if that were its checkout."""
    monkeypatch.setattr("analysis.records.study_paths.RESULTS", tmp_path / "results")
    if "all_pictures" not in request.fixturenames:
        monkeypatch.setattr("analysis.report.picture_files.PICTURES", {"hero": hero.hero})
    (tmp_path / "README.md").write_text(MARKERS)
    return report_flags(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of two models and two losses, to be read only."""
    output = tmp_path_factory.mktemp("made")
    write_study(output, **TWO)
    return output


def enter_study(study, results):
    """Enter a study's runs into the ledger under `results`, as `report` does; returns the ledger."""
    ledger = test_set_ledger.entered(test_set_ledger.read_ledger(results), study)
    (results / "ledger.csv").write_bytes(test_set_ledger.as_csv(ledger))
    return ledger


def places(folder):
    return StudyPaths(folder / "outputs", folder / "results", folder / "README.md")


def page_of(folder, language="en"):
    """The text of the study's page."""
    return (folder / "docs" / language / "studies" / "made.md").read_text(encoding="utf-8")


def rows(folder, language="en"):
    """The rows of the first table of the study's page: each a list of texts."""
    table = re.search(r"(?:^\|.*\n)+", page_of(folder, language), re.M)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def everything(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_runs_csv_holds_each_runs_own_summary(made):
    runs = load_runs.load_recorded_study(made, "made").runs
    for run in runs.itertuples():
        folder = made / "runs" / run.key
        summary = run_files.summarise_scores(run_files.read_score_table(folder / "scores_last.csv"))
        for name in ("dice", "iou", "boundary_iou", "hd95_median"):
            assert getattr(run, name) == pytest.approx(summary[name], abs=1e-7)
        assert (run.test_cars, run.test_images, run.hd95_failures) == (12, 48, 0)


def test_the_committed_files_alone_give_every_number_and_every_figure_again(
    made, tmp_path, command, place, all_pictures
):
    shutil.copytree(made, tmp_path / "outputs")
    assert command("report", "made", "--latex", *place)[0] == 0
    first = everything(tmp_path / "results"), page_of(tmp_path), (tmp_path / "README.md").read_text()
    shutil.rmtree(tmp_path / "outputs")
    assert command("report", "--latex", *place)[0] == 0
    assert (everything(tmp_path / "results"), page_of(tmp_path), (tmp_path / "README.md").read_text()) == first
    drawn = {name + suffix for name in ("hero", "main-effects", "responses", "cost") for suffix in (".svg", ".zh.svg")}
    assert drawn | {"made.tex", "pairs.csv", "pictures.json"} <= set(first[0])


@pytest.mark.slow
def test_a_report_imports_neither_torch_nor_mlflow(made, tmp_path):
    StudyPaths(results=tmp_path / "results").write_results(
        {
            tmp_path / "results" / "made" / name: content
            for name, content in committed.study_files(load_runs.load_recorded_study(made, "made")).items()
        }
    )
    (tmp_path / "README.md").write_text(MARKERS)
    words = [
        "report",
        "--output-dir",
        "none",
        "--results-dir",
        "results",
        "--readme",
        "README.md",
        "--html",
        "page.html",
    ]
    heavy = "{'torch', 'mlflow', 'segmentation_models_pytorch', 'albumentations', 'optuna', 'cv2'}"
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run; code = run.main({words!r}); "
        f"print(sorted(set(sys.modules) & {heavy})); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_check_is_quiet_where_all_agrees_and_exits_1_where_a_page_or_a_csv_was_changed(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", *place)
    assert command("report", "--check", *place) == (0, "", "")
    pages = [tmp_path / "README.md", *(tmp_path / "docs").rglob("*.md"), tmp_path / "results/made/runs.csv"]
    assert len(pages) == 4
    for page in pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace("98.", "99.", 1) if page.suffix == ".md" else text.replace("0.98", "0.99", 1))
        code, _, complaint = command("report", "--check", *place)
        assert code == 1 and page.name in complaint and "python run.py report" in complaint
        page.write_text(text, encoding="utf-8")
    (tmp_path / "docs/zh/studies/made.md").unlink()
    assert "There is no page" in command("report", "--check", *place)[2]


def test_a_study_without_a_single_run_has_a_page_without_tables(tmp_path, command, place, all_pictures):
    write_study(tmp_path / "outputs", **TWO, tuned=False)
    shutil.rmtree(tmp_path / "outputs/runs")
    code, shown, complaint = command("report", "made", "--html", tmp_path / "page.html", *place)
    assert code == 0, complaint
    assert "Nothing has been measured yet" in shown and "missing: unet-bce, seed 0: not begun" in shown
    assert "## Every combination" not in page_of(tmp_path) and "尚未测量" in page_of(tmp_path, "zh")
    assert "No study has been measured yet." in (tmp_path / "README.md").read_text()


def test_one_run_gets_a_mean_and_no_verdict(tmp_path, command, place, all_pictures):
    write_study(tmp_path / "outputs", models={"unet": 0}, losses={"bce": 0}, seeds=(0,))
    code, shown, _ = command("report", "made", *place)
    assert code == 0 and "there is no verdict" in " ".join(shown.split())
    *_, row = rows(tmp_path)
    assert row[0] == "U-Net" and re.fullmatch(r"9\d\.\d\d", row[1])


def test_one_seed_is_never_enough(tmp_path, command, place):
    write_study(tmp_path / "outputs", **TWO, seeds=(0,))
    _, shown, _ = command("report", "made", *place)
    assert "one seed does not show how far" in " ".join(shown.split()) and "clearly" not in shown


def break_run(output, how):
    """Damage the run of unet with bce, seed 1; return what the answer and the list of runs should say."""
    plan = json.loads((output / "studies/made/plan.json").read_text())
    folder = output / "runs" / plan["cells"][0]["runs"]["1"]
    if how == "failed":
        (folder / "result.json").unlink()
        (folder / "failed.json").write_text(
            json.dumps({"reason": "The loss became NaN in step 17.\nTry a lower rate."})
        )
        return "a run failed", "failed: unet-bce, seed 1"
    if how == "partial":
        (folder / "result.json").unlink()
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join(lines[:3]) + lines[3][:9])
        return "not all runs are finished", "unfinished, epoch 3 of 10"
    if how == "without scores":
        (folder / "scores_last.csv").unlink()
    elif how == "with a torn table":
        text = (folder / "scores_last.csv").read_text()
        (folder / "scores_last.csv").write_text(text[: len(text) // 2])
    elif how == "with a word for a number":
        text = (folder / "scores_last.csv").read_text()
        (folder / "scores_last.csv").write_text(text.replace("0.9", "soup", 1))
    elif how == "with broken JSON":
        (folder / "result.json").write_text("{")
        return "not all runs are finished", "missing: unet-bce, seed 1"
    return "not all runs are finished", "its scores cannot be read"


@pytest.mark.parametrize(
    "how", ["failed", "partial", "without scores", "with a torn table", "with a word for a number", "with broken JSON"]
)
def test_an_incomplete_run_neither_crashes_the_report_nor_is_hidden(how, tmp_path, command, place, made):
    output = shutil.copytree(made, tmp_path / "outputs")
    in_answer, in_list = break_run(output, how)
    code, shown, complaint = command("report", "made", *place)
    assert code == 0, complaint
    said = " ".join(shown.split())
    assert in_list in said and f"No verdict on U-Net with BCE: {in_answer}." in said
    assert ("So far (11 of 12 runs)" in said) == (how != "failed")
    row = next(row for row in rows(tmp_path) if row[0] == "U-Net")
    assert re.match(r"\(9\d\.\d\d\)", row[1].replace("**", ""))
    assert len(pd.read_csv(tmp_path / "results/made/runs.csv")) == 12


def test_a_failed_run_blocks_its_cells_verdict_and_nobody_elses(tmp_path, made):
    output = shutil.copytree(made, tmp_path / "outputs")
    break_run(output, "failed")
    found = answer_study(load_runs.load_recorded_study(output, "made"))
    assert [cell.name for cell in found.cells if cell.eligibility.kind == "failed"] == ["unet-bce"]
    assert len(found.judged) == 3 and not any("unet-bce" in pair for pair in found.pairs.comparisons)
    assert "No verdict on U-Net with BCE: a run failed." in answer_sentences(found, "en")


def test_a_run_that_is_listed_twice_counts_once_and_two_runs_of_one_seed_are_refused(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", *place)
    shutil.rmtree(tmp_path / "outputs")
    runs = tmp_path / "results/made/runs.csv"
    text = runs.read_text()
    runs.write_text(text + text.splitlines(keepends=True)[1])
    code, shown, _ = command("report", "made", *place)
    assert code == 0 and "there twice" in shown and runs.read_text() == text
    line = text.splitlines(keepends=True)[1].split(",")
    runs.write_text(text + ",".join([*line[:4], "f" * 16, *line[5:]]))
    code, _, complaint = command("report", "made", *place)
    assert code == 2 and "two different runs of unet-bce with seed 0" in complaint


def change_configs(output, cell, **fields):
    plan = json.loads((output / "studies/made/plan.json").read_text())
    for key in plan["cells"][cell]["runs"].values():
        path = output / "runs" / key / "config.json"
        content = json.loads(path.read_text())
        content["config"] |= fields
        path.write_text(json.dumps(content))


MIXED = [
    {"epochs": 20},
    {"data_fingerprint": "f" * 16},
    {"protocol": 2},
    {"size": [384, 256]},
    {"batch_size": 4},
    {"precision": "bf16"},
]


@pytest.mark.parametrize("fields", MIXED, ids=lambda f: next(iter(f)))
def test_other_budgets_data_and_protocols_are_refused_unless_they_are_the_factor(
    fields, made, tmp_path, command, place
):
    output = shutil.copytree(made, tmp_path / "outputs")
    change_configs(output, 1, **fields)
    code, _, complaint = command("report", "made", *place)
    assert code == 2 and "cannot stand in one table" in complaint and "unet-dice" in complaint
    assert not (tmp_path / "results").exists() and (tmp_path / "README.md").read_text() == MARKERS
    plan = json.loads((output / "studies/made/plan.json").read_text())
    plan["cells"][1]["settings"] |= fields
    (output / "studies/made/plan.json").write_text(json.dumps(plan))
    assert command("report", "made", *place)[0] == 0


def test_every_field_of_a_run_is_shared_by_a_table_or_known_not_to_be():
    from analysis.records.study_results import SHARED

    may_differ = {
        "model",
        "model_kwargs",
        "loss",
        "loss_kwargs",
        "learning_rate",
        "seed",
        "weights",
        "threads",
        "device",
    }
    assert set(made_config(0, 1)) <= set(SHARED) | may_differ and not set(SHARED) & may_differ


def test_unequal_tuning_budgets_and_two_rates_in_one_cell_are_refused(made, tmp_path, command, place):
    output = shutil.copytree(made, tmp_path / "outputs")
    trials = output / "studies/made/trials.csv"
    text = trials.read_text()
    trials.write_text("".join(text.splitlines(keepends=True)[:-1]))
    code, _, complaint = command("report", "made", *place)
    assert code == 2 and "unequal budgets of tuning trials" in complaint and "13" in complaint
    trials.write_text(text)
    plan = json.loads((output / "studies/made/plan.json").read_text())
    path = output / "runs" / plan["cells"][0]["runs"]["0"] / "config.json"
    path.write_text(path.read_text().replace('"learning_rate": 0.004', '"learning_rate": 0.009'))
    code, _, complaint = command("report", "made", *place)
    assert code == 2 and "different learning rates (0.004, 0.009)" in complaint


def test_a_cell_whose_rate_lies_at_the_edge_gets_no_verdict(made, tmp_path):
    output = shutil.copytree(made, tmp_path / "outputs")
    plan = json.loads((output / "studies/made/plan.json").read_text())
    plan["cells"][2]["edge"] = True
    (output / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(load_runs.load_recorded_study(output, "made"))
    assert [cell.name for cell in found.cells if cell.eligibility.kind == "rate at the edge"] == ["attention_unet-bce"]
    english, chinese = (" ".join(answer_sentences(found, language)) for language in ("en", "zh"))
    assert "With Dice loss, Dice is higher with Attention U-Net" in english  # an average over one combination
    assert "No verdict on Attention U-Net with BCE: the best learning rate lay at the edge" in english
    assert "Attention U-Net · BCE 没有结论：最优学习率落在搜索范围的边缘" in chinese


def test_committed_runs_stay_where_the_records_lack_them(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    page = tmp_path / "README.md"
    command("report", "made", *place)
    before = everything(tmp_path / "results")
    plan = json.loads((made / "studies/made/plan.json").read_text())
    for key in plan["cells"][3]["runs"].values():
        shutil.rmtree(tmp_path / "outputs/runs" / key)
    code, shown, _ = command("report", "made", *place)
    assert code == 0 and "3 of the runs are the committed ones" in shown
    assert (
        "the committed ones" not in page_of(tmp_path) + page.read_text()
        and command("report", "--check", *place)[0] == 0
    )
    after = everything(tmp_path / "results")
    assert all(after[name] == before[name] for name in ("runs.csv", "scores.csv.gz", "curves.csv", "configs.json"))


def test_a_run_that_was_repeated_otherwise_takes_the_committed_ones_place_even_if_it_failed(
    made, tmp_path, command, place
):
    output = shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", *place)
    plan = json.loads((output / "studies/made/plan.json").read_text())
    new = "e" * 16
    shutil.move(output / "runs" / plan["cells"][0]["runs"]["1"], output / "runs" / new)
    plan["cells"][0]["runs"]["1"] = new
    (output / "studies/made/plan.json").write_text(json.dumps(plan))
    break_run(output, "failed")
    command("report", "made", *place)
    row = pd.read_csv(tmp_path / "results/made/runs.csv").query("cell == 'unet-bce' and seed == 1").iloc[0]
    assert (row.state, row.key) == ("failed", new)
    scores = pd.read_csv(io.BytesIO(gzip.decompress((tmp_path / "results/made/scores.csv.gz").read_bytes())))
    assert len(scores) == 11 * 48 and not len(scores.query("cell == 'unet-bce' and seed == 1"))


def test_the_ledger_counts_each_run_once_over_all_studies_and_forgets_none(made, tmp_path):
    first = load_runs.load_recorded_study(made, "made")
    enter_study(first, tmp_path)
    once = (tmp_path / "ledger.csv").read_bytes()
    enter_study(first, tmp_path)
    assert (tmp_path / "ledger.csv").read_bytes() == once
    write_study(tmp_path / "other", "other", models={"resnet_unet": 0}, losses={"bce": 0}, seeds=(7, 8))
    found = enter_study(load_runs.load_recorded_study(tmp_path / "other", "other"), tmp_path)
    assert list(found.runs) == [12, 2] and test_set_ledger.times_read(found, first) == [(12, 14, 2)]
    write_study(tmp_path / "third", "third", models={"resnet_unet": 0}, losses={"bce": 0}, cars=9)
    assert test_set_ledger.times_read(
        enter_study(load_runs.load_recorded_study(tmp_path / "third", "third"), tmp_path), first
    ) == [(12, 14, 2)]


def test_test_set_use_is_counted_per_car_over_all_splits(made, tmp_path):
    first = load_runs.load_recorded_study(made, "made")
    enter_study(first, tmp_path)
    write_study(tmp_path / "other", "other", models={"resnet_unet": 0}, losses={"bce": 0}, seeds=(7, 8))
    other = load_runs.load_recorded_study(tmp_path / "other", "other")
    found = enter_study(replace(other, runs=other.runs.assign(split="siblings")), tmp_path)
    assert sorted(found.split) == ["car", "siblings"] and test_set_ledger.times_read(found, first) == [(12, 14, 2)]


def test_a_table_for_a_paper_that_is_not_of_these_scores_is_noticed(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", "--latex", *place)
    assert command("report", "--check", *place)[0] == 0
    path = tmp_path / "results/made/made.tex"
    path.write_text(path.read_text().replace("98.", "97.", 1))
    code, shown, complaint = command("report", "--check", *place)
    assert (
        code == 1
        and "made.tex differs from what scores.csv.gz gives" in shown + complaint
        and "report made --latex" in shown + complaint
    )


NASTY = [
    "<script>alert(1)</script>",
    "a|b\nc",
    "../../up",
    "$x_1$ & 50 % #1",
    "[link](http://x)",
    "__init__",
    "<!-- /findings -->",
]


@pytest.mark.slow
@pytest.mark.fault(26)
def test_no_name_breaks_a_table_a_path_or_a_page(tmp_path, command, place, all_pictures):
    write_study(
        tmp_path / "outputs",
        models={name: 0.001 * n for n, name in enumerate(NASTY)},
        losses={'b"c,e': 0, "dice": 0.001},
    )
    code, _, complaint = command("report", "made", "--html", tmp_path / "page.html", "--latex", *place)
    assert code == 0, complaint
    assert len(rows(tmp_path)) == 2 + 7 + 1 and (tmp_path / "README.md").read_text().count("<!-- /findings -->") == 1
    for language in ("en", "zh"):
        text = page_of(tmp_path, language)
        assert "<script" not in text
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script") == 1 and "&lt;script&gt;" in page and "<!-- /findings" not in page
    for picture in (tmp_path / "results/made").glob("*.svg"):
        assert ET.fromstring(picture.read_text()).tag.endswith("svg")
        assert "<script" not in picture.read_text()
    words = {
        part.text
        for part in ET.parse(tmp_path / "results/made/main-effects.svg").iter("{http://www.w3.org/2000/svg}text")
    }
    assert any(word and word.startswith("$x_1$ & 50 % #1") for word in words)
    tex = (tmp_path / "results/made/made.tex").read_text()
    assert r"\$x\_1\$ \& 50 \% \#1" in tex
    assert not (tmp_path / "up.md").exists()
    assert {path.parent for path in (tmp_path / "results").rglob("*") if path.is_file()} == {
        tmp_path / "results",
        tmp_path / "results/made",
    }
    assert command("report", "--check", *place)[0] == 0


def test_a_name_that_is_no_study_is_refused_in_a_sentence_with_the_nearest(made, command):
    code, _, complaint = command("report", "mode", "--output-dir", made)
    assert code == 2 and "did you mean 'made'?" in complaint
    code, _, complaint = command("report", "../made", "--output-dir", made)
    assert code == 2 and "\n" not in complaint.strip()


def test_without_any_study_the_report_says_how_to_begin_one(tmp_path, command, place):
    (tmp_path / "README.md").write_text("nothing yet\n")
    code, shown, _ = command("report", *place)
    assert code == 0 and "There is no study" in shown and "python run.py study" in shown


def test_a_results_folder_that_is_not_there_does_not_empty_the_readme(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", *place)
    before = (tmp_path / "README.md").read_bytes()
    words = ["none" if word == tmp_path / "outputs" or word == str(tmp_path / "outputs") else word for word in place]
    words[words.index("--results-dir") + 1] = tmp_path / "nope"
    assert command("report", *words)[0] == 0 and (tmp_path / "README.md").read_bytes() == before


def test_a_page_with_a_study_that_cannot_be_read_does_not_hide_what_else_is_wrong(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", *place)
    (tmp_path / "results/made/scores.csv.gz").write_bytes(b"damaged")
    shutil.copytree(tmp_path / "results/made", tmp_path / "results/other")
    code, shown, complaint = command("report", "--check", *place)
    said = (shown + complaint).splitlines()
    assert code == 1 and sum("results/made cannot be read" in line for line in said) == 1
    assert sum("results/other cannot be read" in line for line in said) == 1


@pytest.mark.parametrize("flags", [(), ("--check",)], ids=str)
def test_a_missing_readme_is_reported_before_anything_is_written(flags, made, tmp_path, command):
    where = [
        "--results-dir",
        str(tmp_path / "results"),
        "--readme",
        str(tmp_path / "none.md"),
        "--output-dir",
        str(made),
    ]
    code, _, complaint = command("report", *flags, *where)
    assert code == 2 and "none.md cannot be read" in complaint and "--readme" in complaint
    assert not (tmp_path / "results").exists()


def test_cells_scored_on_different_cars_are_compared_on_those_that_all_share(made, tmp_path):
    output = shutil.copytree(made, tmp_path / "outputs")
    plan = json.loads((output / "studies/made/plan.json").read_text())
    cell, hard = plan["cells"][0], np.zeros(9)
    for seed in range(3):
        shutil.rmtree(output / "runs" / cell["runs"][str(seed)])
        write_run(output / "runs", cell, seed, 0.985, hard, 4, 10, 0.0005)
    found = answer_study(load_runs.load_recorded_study(output, "made"))
    assert {scores.shape for scores in found.scores.values()} == {(3, 9)}


def test_a_study_page_that_the_user_wrote_or_changed_is_not_replaced(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    page = tmp_path / "docs/zh/studies/made.md"
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    code, _, complaint = command("report", "made", *place)
    assert code == 2 and "made.md was not written by this project" in complaint and page.read_text() == "mine"
    assert not (tmp_path / "results").exists() and not (tmp_path / "docs/en").exists()
    page.unlink()
    assert [command("report", "made", *place)[0] for _ in range(2)] == [0, 0]
    page.write_text(page.read_text() + "mine")
    assert command("report", "made", *place)[0] == 2 and page.read_text().endswith("mine")


def test_a_committed_file_that_a_merge_broke_is_named_and_nothing_is_overwritten(tmp_path, command):
    write_study(tmp_path / "outputs")
    place = report_flags(tmp_path)
    (tmp_path / "README.md").write_text("")
    assert command("report", "made", *place)[0] == 0
    for name in ("study.json", "configs.json"):
        path = tmp_path / "results" / "made" / name
        good = path.read_bytes()
        path.write_text("<<<<<<< HEAD\n")
        code, _, complaint = command("report", "made", *place)
        assert code == 2 and f"{path} cannot be read" in complaint and path.read_text() == "<<<<<<< HEAD\n"
        path.write_bytes(good)


def test_runs_whose_scores_are_gone_are_refused_in_a_sentence(tmp_path):
    write_study(tmp_path / "outputs")
    study = load_runs.load_recorded_study(tmp_path / "outputs", "made")
    files = committed.study_files(replace(study, scores=study.scores[study.scores.seed != 1]))
    folder = tmp_path / "results" / "made"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="scores of 12 finished runs"):
        committed.read_study(tmp_path / "results", "made")


def test_robustness_of_one_condition_leaves_the_committed_rows_of_the_others(tmp_path):
    write_study(tmp_path / "outputs")
    study = load_runs.load_recorded_study(tmp_path / "outputs", "made")
    key = study.runs.key.iloc[0]
    rows = pd.DataFrame([{"key": key, "condition": name, "group": "g", "dice": 0.9} for name in ("clean", "noise 1")])
    rows = rows.reindex(columns=study.robustness.columns)
    newer = rows[:1].assign(dice=0.8)
    merged = committed.merge_studies(replace(study, robustness=rows), replace(study, robustness=newer)).robustness
    assert merged.set_index("condition").dice.to_dict() == {"clean": 0.8, "noise 1": 0.9}


def test_a_page_that_lacks_only_its_last_line_end_is_named(tmp_path, command):
    write_study(tmp_path / "outputs")
    (tmp_path / "README.md").write_text("")
    place = report_flags(tmp_path)
    assert command("report", "made", *place)[0] == 0
    page = tmp_path / "docs" / "en" / "studies" / "made.md"
    page.write_text(page.read_text().rstrip("\n"))
    code, shown, complaint = command("report", "--check", *place)
    assert code == 1 and "made.md" in shown + complaint


def test_a_page_without_the_end_of_a_marked_part_is_refused_in_a_sentence(tmp_path, command):
    write_study(tmp_path / "outputs")
    (tmp_path / "README.md").write_text("<!-- findings -->\n")
    code, _, complaint = command("report", "made", *report_flags(tmp_path))
    assert code == 2 and "needs the markers <!-- findings --> and <!-- /findings --> once" in complaint


def test_a_study_whose_cells_share_no_test_car_has_no_verdict_and_no_traceback(tmp_path):
    write_study(tmp_path / "outputs")
    study = load_runs.load_recorded_study(tmp_path / "outputs", "made")
    scores = study.scores.assign(group=study.scores.group.astype(str) + study.scores.cell.astype(str))
    answer = answer_study(replace(study, scores=scores))
    assert answer.judged == [] and answer.seeds == 0
    assert "fewer than two combinations can be compared" in answer_sentences(answer, "en")[0]


def test_a_matched_study_with_unlike_numbers_of_seeds_is_refused_in_a_sentence(tmp_path):
    write_study(tmp_path / "outputs", design={"seeds": [0, 1, 2], "draw_training_cars": True})
    study = load_runs.load_recorded_study(tmp_path / "outputs", "made")
    plan = {**study.plan, "cells": [{**study.plan["cells"][0], "runs": {"0": "a", "1": "b"}}, *study.plan["cells"][1:]]}
    lacking = (study.scores.cell == plan["cells"][0]["cell"]) & (study.scores.seed == 2)
    gone = (study.runs.cell == plan["cells"][0]["cell"]) & (study.runs.seed == 2)
    short = replace(study, plan=plan, scores=study.scores[~lacking], runs=study.runs[~gone])
    with pytest.raises(InputError, match=r"matched by seed, and .* has 2 seeds where others have 3"):
        answer_study(short)


def test_a_study_that_cannot_compare_anything_yet_is_none_of_the_findings(tmp_path, command):
    plan = write_study(tmp_path / "outputs")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- findings -->\n<!-- /findings -->\n")
    for cell in plan["cells"][1:]:
        for key in cell["runs"].values():
            shutil.rmtree(tmp_path / "outputs" / "runs" / key)
    assert command("report", "made", *report_flags(tmp_path))[0] == 0
    assert "No study has been measured yet" in readme.read_text()


def test_a_page_on_published_scores_replaces_no_file_of_the_users(tmp_path):
    from analysis.report import pages

    readme, results = tmp_path / "README.md", ROOT / "analysis" / "results"
    readme.write_text("mine")
    own = tmp_path / "docs" / "en" / "studies" / "medsegbench.md"
    own.parent.mkdir(parents=True)
    own.write_text("mine, too")
    with pytest.raises(InputError, match="not written by this project"):
        pages.check_study_pages(readme, results, [])
    with pytest.raises(InputError):
        pages.write_pages(readme, results, {})
    assert own.read_text() == "mine, too"
