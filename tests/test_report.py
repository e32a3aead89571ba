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

from analysis.plots import comparison
from analysis.records import committed, gather, run_files, test_set_ledger
from analysis.records.places import Places, load_study
from analysis.report import report
from analysis.statistics.power import detectable, spread_of
from analysis.text import tables
from analysis.text.sentences import answer_sentences, verdict
from analysis.text.study_page import study_long_form
from analysis.verdicts.answer import answer_study
from tests.conftest import ROOT
from tests.made_study import made_config, write_run, write_study

MARKERS = "".join(f"# {n}\n<!-- study made {n} -->\n<!-- /study made {n} -->\n" for n in ("en", "zh"))
TWO = {"models": {"unet": 0.0, "attention_unet": 0.004}, "losses": {"bce": 0.0, "dice": 0.0}}


@pytest.fixture
def all_pictures():
    """Asked for by tests that need every picture; the others are spared the second that drawing takes."""


@pytest.fixture
def place(tmp_path, monkeypatch, request):
    """The words that make `report` work in a folder of its own, as if that were its checkout."""
    monkeypatch.setattr("analysis.records.places.RESULTS", tmp_path / "results")
    if "all_pictures" not in request.fixturenames:
        monkeypatch.setattr(report, "PICTURES", {"intervals": comparison.intervals})
    (tmp_path / "README.md").write_text(MARKERS)
    return [
        "--output-dir",
        tmp_path / "outputs",
        "--results-dir",
        tmp_path / "results",
        "--readme",
        tmp_path / "README.md",
    ]


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
    return Places(folder / "outputs", folder / "results", folder / "README.md")


def rows(readme, language="en"):
    """The rows of the study's table in a README: each a list of texts."""
    text = readme.read_text().split(f"<!-- study made {language} -->")[1].split("<!-- /study")[0]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


def everything(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_number_of_the_table_is_what_a_plain_loop_over_the_score_files_gives(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    assert command("report", "made", *place)[0] == 0
    heading, _, *body = rows(tmp_path / "README.md")
    plan = json.loads((made / "studies/made/plan.json").read_text())
    for cell in plan["cells"]:
        row = dict(zip(heading, next(r for r in body if r[1:3] == list(cell["levels"].values())), strict=True))
        found = [
            run_files.summarise_scores(run_files.read_score_table(made / "runs" / key / "scores_last.csv"))
            for key in cell["runs"].values()
        ]
        best = [
            run_files.summarise_scores(run_files.read_score_table(made / "runs" / key / "scores.csv"))["dice"]
            for key in cell["runs"].values()
        ]
        assert row["Dice [95 %]"].startswith(f"{np.mean([f['dice'] for f in found]):.4f} [")
        assert row["IoU"] == f"{np.mean([f['iou'] for f in found]):.4f}"
        assert row["boundary IoU"] == f"{np.mean([f['boundary_iou'] for f in found]):.4f}"
        assert row["Dice, best epoch"] == f"{np.mean(best):.4f}" and row["seeds"] == "3"
        distances = [
            float(line["hd95"])
            for key in cell["runs"].values()
            for line in read(made / "runs" / key / "scores_last.csv")
        ]
        assert row["HD95, median px (failures)"] == f"{np.median(distances):.1f} (0)"


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_runs_csv_holds_each_runs_own_summary(made):
    runs = gather.gather_study(made, "made").runs
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
    first = everything(tmp_path / "results"), (tmp_path / "README.md").read_text()
    shutil.rmtree(tmp_path / "outputs")
    assert command("report", "--latex", *place)[0] == 0
    assert (everything(tmp_path / "results"), (tmp_path / "README.md").read_text()) == first
    assert {
        "intervals.svg",
        "main-effects.svg",
        "heatmap.svg",
        "pairs.svg",
        "responses.svg",
        "angles.svg",
        "made.tex",
    } <= set(first[0])


@pytest.mark.slow
def test_a_report_imports_neither_torch_nor_mlflow(made, tmp_path):
    Places(results=tmp_path / "results").write_results(
        {
            tmp_path / "results" / "made" / name: content
            for name, content in committed.study_files(gather.gather_study(made, "made")).items()
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


def test_check_is_quiet_where_all_agrees_and_exits_1_where_the_readme_or_a_csv_was_changed(
    made, tmp_path, command, place
):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", *place)
    assert command("report", "--check", *place) == (0, "", "")
    text = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace("0.98", "0.99", 1))
    code, _, complaint = command("report", "--check", *place)
    assert code == 1 and "python run.py report" in complaint and "0.99" in complaint
    (tmp_path / "README.md").write_text(text)
    runs = tmp_path / "results/made/runs.csv"
    runs.write_text(runs.read_text().replace("0.98", "0.99", 1))
    code, _, complaint = command("report", "--check", *place)
    assert code == 1 and "runs.csv" in complaint


def test_check_asks_for_results_of_a_study_that_the_readme_shows(tmp_path, command, place):
    code, _, complaint = command("report", "--check", *place)
    assert code == 2 and "python run.py report made" in complaint


def test_a_study_without_a_single_run_is_a_table_of_what_was_not_measured(tmp_path, command, place, all_pictures):
    write_study(tmp_path / "outputs", **TWO, tuned=False)
    shutil.rmtree(tmp_path / "outputs/runs")
    code, shown, complaint = command("report", "made", "--html", tmp_path / "page.html", *place)
    assert code == 0, complaint
    assert "Nothing has been measured yet" in shown and "missing: unet-bce, seed 0: not begun" in shown
    body = rows(tmp_path / "README.md")[2:]
    assert len(body) == 4 and all(row[2:] == ["not measured", "0 of 3"] for row in body)
    assert all("未测量" in row for row in rows(tmp_path / "README.md", "zh")[2:])


def test_one_run_gets_a_mean_and_no_verdict(tmp_path, command, place, all_pictures):
    write_study(tmp_path / "outputs", models={"unet": 0}, losses={"bce": 0}, seeds=(0,))
    code, shown, _ = command("report", "made", *place)
    assert code == 0 and "No verdict" in shown
    (row,) = rows(tmp_path / "README.md")[2:]
    assert "no interval" in " ".join(row) and "nothing to compare with" in row


def test_one_seed_is_always_undecided(tmp_path, command, place):
    write_study(tmp_path / "outputs", **TWO, seeds=(0,))
    _, shown, _ = command("report", "made", *place)
    assert "Undecided: one seed" in shown and "better" not in shown


def break_run(output, how):
    """Damage the run of unet with bce, seed 1; return what the table of cells and the list of runs should say."""
    plan = json.loads((output / "studies/made/plan.json").read_text())
    folder = output / "runs" / plan["cells"][0]["runs"]["1"]
    if how == "failed":
        (folder / "result.json").unlink()
        (folder / "failed.json").write_text(
            json.dumps({"reason": "The loss became NaN in step 17.\nTry a lower rate."})
        )
        return "failed (seed 1: The loss became NaN in step 17. Try a lower rate.)", "failed: unet-bce, seed 1"
    if how == "partial":
        (folder / "result.json").unlink()
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join(lines[:3]) + lines[3][:9])
        return "2 of 3", "unfinished, epoch 3 of 10"
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
        return "2 of 3", "missing: unet-bce, seed 1"
    return "2 of 3", "its scores cannot be read"


@pytest.mark.parametrize(
    "how", ["failed", "partial", "without scores", "with a torn table", "with a word for a number", "with broken JSON"]
)
def test_an_incomplete_run_neither_crashes_the_report_nor_is_hidden(how, tmp_path, command, place, made):
    output = shutil.copytree(made, tmp_path / "outputs")
    in_table, in_list = break_run(output, how)
    code, shown, complaint = command("report", "made", *place)
    assert code == 0, complaint
    assert in_list in shown and "11 of 12 runs are finished" in shown
    row = next(row for row in rows(tmp_path / "README.md")[2:] if row[1:3] == ["unet", "bce"])
    assert in_table in row
    assert len(pd.read_csv(tmp_path / "results/made/runs.csv")) == 12


def test_a_failed_run_blocks_its_cells_verdict_and_nobody_elses(tmp_path, made):
    output = shutil.copytree(made, tmp_path / "outputs")
    break_run(output, "failed")
    found = answer_study(gather.gather_study(output, "made"))
    assert [row.cell for row in found.rows if row.eligibility.kind == "failed"] == ["unet-bce"] and len(
        found.judged
    ) == 3
    assert not any("unet-bce" in pair for pair in found.family.comparisons)
    assert "No verdict (failed): unet + bce." in answer_sentences(found, "en")


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


def rewrite_curve(output, cell, dice):
    plan = json.loads((output / "studies/made/plan.json").read_text())
    for key in plan["cells"][cell]["runs"].values():
        lines = [
            {"epoch": n + 1, "train/loss": 1, "val/loss": 1, "val/dice": d, "val/iou": d, "learning_rate": 1}
            for n, d in enumerate(dice)
        ]
        (output / "runs" / key / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("dice", "kind"),
    [
        ([0.5, 0.9, 0.95, 0.97, 0.98, 0.98, 0.98, 0.98, 0.9805, 0.9809], "judged"),  # 0.0009 over the last fifth
        ([0.5, 0.9, 0.95, 0.97, 0.98, 0.98, 0.98, 0.98, 0.9805, 0.9812], "not converged"),
        ([0.9, 0.97, 0.98, 0.99], "not converged"),  # the last fifth begins within the last epoch: 0.008 of 0.01
        ([0.99, 0.985, 0.98, 0.97], "judged"),
        ([0.98], "not converged"),
    ],
)
def test_a_cell_whose_validation_dice_still_rises_gets_no_verdict(dice, kind, made, tmp_path):
    output = shutil.copytree(made, tmp_path / "outputs")
    rewrite_curve(output, 0, dice)
    found = {row.cell: row for row in answer_study(gather.gather_study(output, "made")).rows}
    assert found["unet-bce"].eligibility.kind == kind and found["unet-dice"].eligibility.kind == "judged"
    assert bool(found["unet-bce"].verdicts) == (kind == "judged")


def test_a_study_about_budgets_judges_cells_that_have_not_converged_and_says_so(made, tmp_path):
    output = shutil.copytree(made, tmp_path / "outputs")
    rewrite_curve(output, 0, [0.9, 0.97, 0.98, 0.99])
    plan = json.loads((output / "studies/made/plan.json").read_text())
    plan["design"]["at_budget"] = True
    (output / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(gather.gather_study(output, "made"))
    row = {row.cell: row for row in found.rows}["unet-bce"]
    assert row.eligibility.kind == "judged" and row.verdicts
    english, chinese = (verdict(row, language) for language in ("en", "zh"))
    assert english.endswith("; at this budget (validation Dice rose by 0.00800 over the last fifth of its steps)")
    others = [verdict(row, "en") for row in found.rows if row.cell != "unet-bce"]
    assert all(other.endswith("; at this budget (others are not shown to have converged)") for other in others)
    assert "就此训练预算而言" in chinese and "0.0080" in chinese
    assert f"not shown to have converged is {row.label}." in " ".join(answer_sentences(found, "en"))
    assert f"尚未显示收敛的单元有 {row.label}。" in " ".join(answer_sentences(found, "zh"))


def test_a_cell_whose_rate_lies_at_the_edge_gets_no_verdict(made, tmp_path):
    output = shutil.copytree(made, tmp_path / "outputs")
    plan = json.loads((output / "studies/made/plan.json").read_text())
    plan["cells"][2]["edge"] = True
    (output / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(gather.gather_study(output, "made"))
    assert [row.cell for row in found.rows if row.eligibility.kind == "rate at the edge"] == ["attention_unet-bce"]
    english, chinese = (" ".join(answer_sentences(found, language)) for language in ("en", "zh"))
    assert (
        "over all the other factors" not in english
        and "By model, within dice alone, the only one of 2 combinations" in english
    )
    assert "仅在 dice 之内，因为其余因素的 2 种组合中只有这一种的两个水平都已判定" in chinese
    assert "judged cell" in english and "已判定的单元" in chinese


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
    assert "the committed ones" not in page.read_text() and command("report", "--check", *place)[0] == 0
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
    first = gather.gather_study(made, "made")
    enter_study(first, tmp_path)
    once = (tmp_path / "ledger.csv").read_bytes()
    enter_study(first, tmp_path)
    assert (tmp_path / "ledger.csv").read_bytes() == once
    write_study(tmp_path / "other", "other", models={"resnet_unet": 0}, losses={"bce": 0}, seeds=(7, 8))
    found = enter_study(gather.gather_study(tmp_path / "other", "other"), tmp_path)
    assert list(found.runs) == [12, 2] and test_set_ledger.times_read(found, first) == [(12, 14, 2)]
    write_study(tmp_path / "third", "third", models={"resnet_unet": 0}, losses={"bce": 0}, cars=9)
    assert test_set_ledger.times_read(
        enter_study(gather.gather_study(tmp_path / "third", "third"), tmp_path), first
    ) == [(12, 14, 2)]


def test_test_set_use_is_counted_per_car_over_all_splits(made, tmp_path):
    first = gather.gather_study(made, "made")
    enter_study(first, tmp_path)
    write_study(tmp_path / "other", "other", models={"resnet_unet": 0}, losses={"bce": 0}, seeds=(7, 8))
    other = gather.gather_study(tmp_path / "other", "other")
    found = enter_study(replace(other, runs=other.runs.assign(split="siblings")), tmp_path)
    assert sorted(found.split) == ["car", "siblings"] and test_set_ledger.times_read(found, first) == [(12, 14, 2)]


def test_a_table_for_a_paper_that_is_not_of_these_scores_is_noticed(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", "--latex", *place)
    assert command("report", "--check", *place)[0] == 0
    path = tmp_path / "results/made/made.tex"
    path.write_text(path.read_text().replace("0.98", "0.99", 1))
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
    "<!-- /study made en -->",
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
    text = (tmp_path / "README.md").read_text()
    assert len(rows(tmp_path / "README.md")) == 2 + 14 and text.count("<!-- /study made en -->") == 1
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {19} and "<script" not in text
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script") == 1 and "&lt;script&gt;" in page
    for picture in (tmp_path / "results/made").glob("*.svg"):
        assert ET.fromstring(picture.read_text()).tag.endswith("svg")
        assert "<script" not in picture.read_text()
    words = {
        part.text for part in ET.parse(tmp_path / "results/made/intervals.svg").iter("{http://www.w3.org/2000/svg}text")
    }
    assert any(word and word.startswith("$x_1$ & 50 % #1") for word in words)
    tex = (tmp_path / "results/made/made.tex").read_text()
    assert r"\$x\_1\$ \& 50 \% \#1" in tex
    assert {path.parent for path in (tmp_path / "results").rglob("*") if path.is_file()} == {
        tmp_path / "results",
        tmp_path / "results/made",
    }
    assert command("report", "--check", *place)[0] == 0


def test_the_page_loads_nothing_and_holds_everything(made, tmp_path, command, place, all_pictures):
    import re

    shutil.copytree(made, tmp_path / "outputs")
    assert command("report", "made", "--html", tmp_path / "page.html", *place)[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "@import" not in page and "url(" not in page
    assert len(re.findall(r"<img [^>]*src=\"data:image/svg", page)) == 10
    for word in (
        "Which model with which loss",
        "哪个模型配哪个损失函数",
        "Every pair of cells",
        "torch",
        "ceiling",
        "unet-bce",
        "Main effect of loss",
    ):
        assert word.lower() in page.lower(), word


def test_the_colours_of_the_figures_have_contrast_on_white_and_on_dark():
    """Oracle: relative luminance and contrast ratio of WCAG 2.1."""
    from analysis.plots import style

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(a, b):
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for page in ("#ffffff", "#0d1117"):
        assert contrast(style.TEXT, page) >= 4.3
        assert all(contrast(colour, page) >= 3 for colour in style.COLOURS)


def test_a_name_that_is_no_study_is_refused_in_a_sentence_with_the_nearest(made, command):
    code, _, complaint = command("report", "mode", "--output-dir", made)
    assert code == 2 and "did you mean 'made'?" in complaint
    code, _, complaint = command("report", "../made", "--output-dir", made)
    assert code == 2 and "\n" not in complaint.strip()


def test_without_any_study_the_report_says_how_to_begin_one(tmp_path, command, place):
    (tmp_path / "README.md").write_text("nothing yet\n")
    code, shown, _ = command("report", *place)
    assert code == 0 and "There is no study" in shown and "python run.py study" in shown


def test_a_study_without_a_place_in_the_readme_gets_advice_on_how_to_add_one(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    (tmp_path / "README.md").write_text("no place\n")
    code, shown, _ = command("report", "made", *place)
    assert code == 0 and "<!-- study made en -->" in shown and (tmp_path / "README.md").read_text() == "no place\n"


def test_what_was_seen_is_that_of_the_judged_cells_alone(tmp_path):
    """A cell without a verdict, and one with half of its seeds failed, do not change what the others could detect."""
    plan = write_study(
        tmp_path,
        models={"unet": 0, "attention_unet": 0, "resnet_unet": 0},
        losses={"bce": 0, "dice": 0.003},
        seeds=range(4),
    )
    first, second = plan["cells"][0], plan["cells"][3]
    first["edge"] = True
    for seed in ("2", "3"):
        (tmp_path / "runs" / second["runs"][seed] / "result.json").unlink()
        (tmp_path / "runs" / second["runs"][seed] / "failed.json").write_text('{"reason": "The loss became NaN."}')
    (tmp_path / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(gather.gather_study(tmp_path, "made"))
    judged = [found.scores[row.cell] for row in found.judged]
    assert len(judged) == 4 and {len(one) for one in judged} == {4}
    due = detectable(spread_of(judged), 4, 12, {"cell": 4}, 0.001)["pair"]
    text = study_long_form(found, test_set_ledger.read_ledger(tmp_path), "en", "pictures", ())
    (row,) = [line for line in text.splitlines() if line.startswith("| found with 80 % power: a pair of cells |")]
    assert row.split(" | ")[2].strip(" |") == f"{due:.4f}"
    (row,) = [
        line
        for line in text.splitlines()
        if line.startswith("| resnet\\_unet + dice |") or line.startswith("| resnet_unet + dice |")
    ]
    rises = found.study.finished.query("cell == 'resnet_unet-dice'").val_rise
    assert f"{rises.mean():.4f} ({(rises > 0.001).sum()} / 4)" in row


def test_a_cell_whose_curves_are_gone_has_none_of_their_numbers_in_the_long_form(tmp_path):
    plan = write_study(tmp_path, models={"unet": 0, "attention_unet": 0}, losses={"bce": 0}, tuned=False)
    for key in plan["cells"][0]["runs"].values():
        (tmp_path / "runs" / key / "metrics.jsonl").unlink()
    found = answer_study(gather.gather_study(tmp_path, "made"))
    text = study_long_form(found, test_set_ledger.read_ledger(tmp_path), "en", "pictures", ())
    (row,) = [line for line in text.splitlines() if line.startswith("| unet + bce |")]
    assert row.split(" | ")[2:4] == ["–", "–"]


def test_a_page_with_a_study_that_cannot_be_read_does_not_hide_what_else_is_wrong(made, tmp_path, command, place):
    shutil.copytree(made, tmp_path / "outputs")
    command("report", "made", *place)
    (tmp_path / "results/made/scores.csv.gz").write_bytes(b"damaged")
    shutil.copytree(tmp_path / "results/made", tmp_path / "results/other")
    code, shown, complaint = command("report", "--check", *place)
    said = (shown + complaint).splitlines()
    assert code == 1 and sum("results/made cannot be read" in line for line in said) == 1
    assert sum("results/other cannot be read" in line for line in said) == 1


@pytest.mark.slow
def test_the_long_form_is_rendered_beside_the_readme_and_checked(made, tmp_path, command):
    from analysis.statistics.power import spread_of

    document = tmp_path / "docs" / "studies.md"
    document.parent.mkdir()
    document.write_text(
        "".join(f"<!-- long made {language} -->\n<!-- /long made {language} -->\n" for language in ("en", "zh"))
    )
    (tmp_path / "README.md").write_text("")
    where = ["--output-dir", made, "--results-dir", tmp_path / "results", "--readme", tmp_path / "README.md"]
    assert command("report", "made", *where)[0] == 0
    text = document.read_text(encoding="utf-8")
    found = answer_study(load_study(Places(made, tmp_path / "results", tmp_path / "README.md"), "made"))
    seen = spread_of([found.scores[row.cell] for row in found.measured])
    assert f"| sd of a difference: seeds | 0.0005 | {seen.seed:.4f} |" in text and "差值的标准差" in text
    for row in found.measured:
        assert f"| {row.label} |" in text.replace("\\", "")
    for picture in re.findall(r"\]\((.*?\.svg)\)", text):
        assert (document.parent / picture).resolve().exists(), picture
    assert command("report", "--check", *where)[0] == 0
    document.write_text(text.replace(f"{seen.seed:.4f}", "0.1234", 1), encoding="utf-8")
    code, _, complaint = command("report", "--check", *where)
    assert code == 1 and "studies.md differs" in complaint


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


def test_the_tables_of_both_languages_have_the_same_rows_and_columns(made):
    found = answer_study(gather.gather_study(made, "made"))
    english, chinese = (tables.cell_table(found, language) for language in ("en", "zh"))
    assert english.shape == chinese.shape
    same = [0, 1, 2, 3, 4, 5, 6, 7]
    assert (english.iloc[:, same].to_numpy() == chinese.iloc[:, same].to_numpy()).all()


def test_cells_scored_on_different_cars_are_compared_on_those_that_all_share(made, tmp_path):
    output = shutil.copytree(made, tmp_path / "outputs")
    plan = json.loads((output / "studies/made/plan.json").read_text())
    cell, hard = plan["cells"][0], np.zeros(9)
    for seed in range(3):
        shutil.rmtree(output / "runs" / cell["runs"][str(seed)])
        write_run(output / "runs", cell, seed, 0.985, hard, 4, 10, 0.0005)
    found = answer_study(gather.gather_study(output, "made"))
    assert {scores.shape for scores in found.scores.values()} == {(3, 9)}
