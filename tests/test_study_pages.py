"""The tables and pages of studies: their numbers, their width, and that no digit on them is typed by hand."""

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.records import committed, load_runs, test_set_ledger
from analysis.records.study_paths import README, RESULTS
from analysis.report import pages
from analysis.report.html import html_page
from analysis.report.latex import latex_table
from analysis.text.markdown import Grid, grid_table
from analysis.text.notes import limit_lines, method_lines
from analysis.text.robustness import robustness_grids
from analysis.text.sentences import finding
from analysis.text.study_page import study_page, study_sections
from analysis.text.tables import caption, effect_grids, legend, matrices, pair_table, score_grid, training_grid
from analysis.text.wording import LANGUAGES
from analysis.verdicts.answer import answer_study
from tests import test_sentences
from tests.made_study import write_study

PAGE, PADDING = 838, 27  # pixels of a README column, and of a cell besides its text
LATIN, WIDE, SMALL = 8.0, 16.0, 0.75  # pixels of a letter at 16 px; what <sub> makes of it
TWO = {"models": {"unet": 0.0, "attention_unet": 0.004}, "losses": {"bce": 0.0, "dice": 0.0}}


@pytest.fixture(scope="module")
def every_answer():
    """The committed studies, and the hand-made ones of every kind."""
    known = {name: answer_study(committed.read_study(RESULTS, name)) for name in committed.committed_studies(RESULTS)}
    return known | {case.__name__: case() for case in test_sentences.SAID}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of two models and two losses, to be read only."""
    output = tmp_path_factory.mktemp("made")
    write_study(output, **TWO)
    return answer_study(load_runs.load_recorded_study(output, "made"))


def grids(answer, language):
    """Every table of a study's page."""
    blocks = [block for part in study_sections(answer, LEDGER, language) for block in part.blocks]
    found = [*matrices(answer, language), *effect_grids(answer, language), *robustness_grids(answer, language)]
    return [*found, *(block for block in blocks if isinstance(block, Grid))]


LEDGER = test_set_ledger.read_ledger(RESULTS)


def pixels(text):
    return sum(WIDE if ord(letter) > 0x2E80 else LATIN for letter in text)


def two_lines(words):
    """The width of words (which do not break) on two lines at most."""
    splits = (max(pixels(" ".join(words[:n])), pixels(" ".join(words[n:]))) for n in range(1, len(words) + 1))
    return min(splits, default=0)


def cell_width(cell):
    if cell.below:
        return max(pixels(f"{cell.head} {cell.tail}".strip()), SMALL * pixels(cell.below))
    spaced = re.sub(r"(?<=[⺀-￯])(?=[⺀-￯])", " ", cell.head)  # Chinese breaks anywhere
    return two_lines([*spaced.split(), *([cell.tail] if cell.tail else [])])


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_table_is_wider_than_a_page_with_two_lines_a_row_and_none_has_more_than_nine_columns(every_answer, language):
    for name, answer in every_answer.items():
        for grid in grids(answer, language):
            columns = list(zip(*grid.rows, strict=True))
            assert 2 <= len(columns) == len(grid.headings) <= 9, (name, grid.headings)
            needed = sum(max(map(cell_width, column)) + PADDING for column in columns)
            assert needed <= PAGE, (name, round(needed), grid.headings)


def test_every_number_of_the_matrix_is_what_a_plain_loop_over_the_scores_gives(made):
    (grid,) = matrices(made, "en")
    assert grid.headings == ["network", "BCE", "Dice loss", "vs. U-Net", "train"]
    scores = made.study.scores
    for row, model in zip(grid.rows, ("unet", "attention_unet"), strict=False):
        for cell, loss in zip(row[1:3], ("bce", "dice"), strict=True):
            runs = scores[scores.cell == f"{model}-{loss}"].groupby(["seed", "group"], observed=True).dice.mean()
            means = runs.groupby("seed").mean()
            assert cell.head == f"{100 * means.mean():.2f}"
            assert cell.tail == f"±{100 * np.std(means, ddof=1):.2f}".replace("±0.", "±.")
        assert [cell.bold for cell in row[1:3]].count(True) == 1
    effect = made.effects[0].comparisons["attention_unet"]
    assert grid.rows[1][3].head == f"▲ {100 * effect.difference:+.2f}"
    assert grid.rows[1][3].below == f"[{100 * effect.low:+.2f}, {100 * effect.high:+.2f}]"
    assert grid.rows[2][0].head == "vs. BCE" and grid.rows[2][1].head == "baseline"


def test_both_languages_have_the_same_numbers_in_the_same_places(every_answer):
    for name, answer in every_answer.items():
        english, chinese = (grids(answer, language) for language in LANGUAGES)
        assert len(english) == len(chinese), name
        for a, b in zip(english, chinese, strict=True):
            numbers = [
                [[re.findall(r"\d\.\d+", str(cell)) for cell in row[1:]] for row in grid.rows] for grid in (a, b)
            ]
            assert numbers[0] == numbers[1], name


def test_marks_are_explained_where_they_occur_and_only_there(every_answer):
    for name, answer in every_answer.items():
        if not answer.measured:
            continue
        shown = " ".join(str(cell) for grid in matrices(answer, "en") for row in grid.rows for cell in row)
        said = legend(answer, "en")
        for mark in "▲▼≈†‡":
            assert (mark in said) >= (mark in shown), (name, mark)
        assert ("no verdict" in said) == ("(" in re.sub(r"\((?:from|ImageNet)[^)]*\)", "", shown)), name


def test_a_cell_without_a_verdict_stands_in_brackets_and_a_missing_one_is_a_dash():
    table = grid_table(matrices(test_sentences.partial(), "en")[0])
    assert "| 98.02 ±.10 | (98.03) ±.10 |" in table.replace("**", "")
    assert "–" in grid_table(matrices(test_sentences.unmeasured(), "en")[0])
    assert "U-Net" not in study_page(test_sentences.unmeasured(), LEDGER, "en", "folder", ())


def test_one_factor_alone_has_a_row_for_each_level_with_its_effect():
    (grid,) = matrices(test_sentences.clear_winner(), "en")
    assert grid.headings == ["loss", "Dice ± SD", "vs. BCE", "train"]
    assert [str(cell) for cell in grid.rows[1]] == ["Dice loss", "98.20 ±.10", "▲ +1.20 [+0.90, +1.50]", "2.0 min"]


def test_three_factors_give_a_matrix_for_each_level_of_the_third_and_effects_in_tables_of_their_own():
    answer = test_sentences.three_factors()
    assert [grid.title for grid in matrices(answer, "en")] == ["450", "1800"]
    assert "vs." not in " ".join(matrices(answer, "en")[0].headings)
    within, others = effect_grids(answer, "en")
    assert within.headings == ["cars", "ImageNet − random", "effect − effect at 8 cars"] and len(within.rows) == 4
    assert [row[2].head for row in within.rows] == ["–", "▼ −2.42", "▼ −3.12", ""]
    assert str(within.rows[0][1]) == "▲ +3.02 [+0.85, +5.19]" and within.rows[-1][0].head == "on average"
    assert [row[0].head for row in others.rows] == ["32 cars − 8 cars", "189 cars − 8 cars", "1800 − 450"]


def test_more_levels_than_fit_become_rows_or_another_matrix():
    factors = {"model": ["unet", "attention_unet"], "loss": [f"loss{n}" for n in range(7)]}
    (grid,) = matrices(test_sentences.made(factors, {}), "en")
    assert grid.headings[:3] == ["loss", "U-Net", "Attention U-Net"] and len(grid.rows) == 7
    factors = {name: [f"{name}{n}" for n in range(6)] for name in ("model", "loss")}
    assert [len(grid.headings) for grid in matrices(test_sentences.made(factors, {}), "en")] == [5, 5]


def test_pairs_are_listed_once_with_the_better_mean_first(made):
    table = pair_table(made)
    assert len(table) == 6 and (table.difference >= 0).all()
    assert set(table.verdict) <= {"better", "equivalent", "undecided"}


def test_latex_has_the_same_matrix(made):
    text = latex_table(made)
    assert r"\textbf{" in text and text.count(r"\toprule") == 1 and "▲" not in text and "±" not in text
    assert all(cell.head in text for row in matrices(made, "en")[0].rows[:2] for cell in row[1:3])
    (above,) = re.findall(r"\\caption\{(.*)\}", text)
    assert finding(made, "en")[:30] in above and len(above) < 700


def test_the_details_hold_rates_scores_and_cost_of_every_cell(made):
    assert [row[0].head for row in score_grid(made, "en").rows] == [
        row[0].head for row in training_grid(made, "en").rows
    ]
    assert "[0.002, 0.007]" in grid_table(training_grid(made, "en")).replace("&nbsp;", " ")


def test_one_other_digit_in_any_page_is_noticed(every_answer, tmp_path):
    """A copy of all rendered pages, with one digit of a rendered part changed in each."""
    root = README.parent
    shutil.copytree(root / "docs", tmp_path / "docs")
    for page in root.glob("README*.md"):
        shutil.copy(page, tmp_path / page.name)
    (tmp_path / "analysis").mkdir()
    os.symlink(RESULTS, tmp_path / "analysis" / "results")
    where, known = (tmp_path / "README.md", tmp_path / "analysis" / "results"), dict(every_answer)
    assert pages.problems(*where, known) == []
    altered, rng = [], np.random.default_rng(0)
    for page in [*pages.marked_pages(where[0]), *sorted((tmp_path / "docs").glob("*/studies/*.md"))]:
        text = page.read_text(encoding="utf-8")
        start = 0 if "studies" in page.parts else text.index(pages.MARKER.search(text)[0])
        end = text.index("<!-- /", start) if "studies" not in page.parts else len(text)
        digits = [n for n in range(start, end) if text[n].isdigit()]
        if digits:
            at = int(rng.choice(digits))
            page.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :], encoding="utf-8")
            altered.append(page)
    found = pages.problems(*where, known)
    assert len(altered) >= 2 * len(committed.committed_studies(RESULTS))
    for page in altered:
        assert any(f"{page.name} ({page.parent.name})" in sentence for sentence in found), page


def test_an_altered_or_missing_picture_is_noticed_and_so_are_other_numbers(tmp_path):
    from analysis.report.picture_files import altered_pictures, picture_files

    study = committed.read_study(RESULTS, "two_by_two")
    folder = shutil.copytree(RESULTS / "two_by_two", tmp_path / "two_by_two", ignore=shutil.ignore_patterns("*.svg"))
    files = {path.name: path.read_bytes() for path in folder.glob("*.*")}

    def draw(*names):
        for name, content in picture_files(study, files, dict.fromkeys(names, "<svg/>")).items():
            (folder / name).write_bytes(content)

    draw("hero", "hero.zh")
    assert altered_pictures(study, tmp_path) == [] and len(list(folder.glob("*.svg"))) == 2
    (folder / "hero.svg").write_text("<svg>1</svg>")
    (folder / "hero.zh.svg").unlink()
    assert ["hero.svg is not" in line or "hero.zh.svg is missing" in line for line in altered_pictures(study, tmp_path)]
    draw("hero")
    runs = folder / "runs.csv"
    runs.write_text(runs.read_text().replace("0.98", "0.97", 1))
    assert "drawn from other numbers" in altered_pictures(study, tmp_path)[0]


def test_the_html_page_is_whole_shows_one_language_at_a_time_and_folds_the_details(made):
    page = html_page(made, LEDGER, {"hero": "<svg/>", "hero.zh": "<svg id='zh'/>"}, b"png")
    assert not re.findall(r"(?:src|href)=\"(?!data:|https://)", page) and "@import" not in page and "url(" not in page
    english, chinese = re.findall(r"<main lang=\"\w+\".*?</main>", page, re.S)
    assert "hidden" not in english.split(">")[0] and "hidden" in chinese.split(">")[0]
    for text in (english, chinese):
        first = text.split("<details")[0]
        assert "<table>" in first and first.count("<img") == 2 and text.count("<details") >= 8
    assert "Which model with which loss" in english and "哪个模型配哪个损失函数" in chinese
    assert "prefers-color-scheme: dark" in page and page.count("<script") == 1


def test_the_caption_says_over_what_means_are(made):
    assert caption(made, "en").startswith("Mean test Dice × 100 ± SD over 3 seeds, 12 test cars")


@pytest.mark.parametrize(("language", "said"), [("en", "what uncertain rates cost"), ("zh", "已计入学习率的不确定性")])
def test_where_rates_were_fitted_together_the_page_says_that_intervals_include_their_uncertainty(made, language, said):
    for fit, told in (("pooled", True), (None, False)):
        plan = made.study.plan | {"tuning": made.study.plan["tuning"] | {"fit": fit}}
        lines = method_lines(replace(made, study=replace(made.study, plan=plan)), language)
        assert len(lines) == 5 and (said in " ".join(lines)) == told


def test_the_page_on_published_scores_says_what_a_plain_loop_over_them_gives():
    """Seeds that name different winners, and Welch's test of first and second by scipy, which is less strict."""
    scores = pd.read_csv(RESULTS / "medsegbench" / "scores.csv")
    depends, separated = 0, 0
    for _, part in scores.groupby("dataset"):
        best = [of_seed[of_seed.f1 == of_seed.f1.max()].encoder for _, of_seed in part.groupby("seed")]
        depends += len({names.iloc[0] if len(names) == 1 else "tie" for names in best}) > 1
        first, second = part.groupby("encoder").f1.mean().nlargest(2).index
        runs = [part[part.encoder == name].f1 for name in (first, second)]
        separated += stats.ttest_ind(*runs, equal_var=False).pvalue <= 0.05
    page = (README.parent / "docs" / "en" / "studies" / "medsegbench.md").read_text(encoding="utf-8")
    found = re.search(r"In (\d+) of 38 data sets the two highest means differ .* and in (\d+) the winner", page)
    assert int(found[2]) == depends == 24 and separated - 1 <= int(found[1]) <= separated == 6
    assert page.count("| ▲ |") == int(found[1]) and "monusac: the score 0.559432 stands in 16 runs" in page


def test_no_interval_reaches_beyond_what_a_difference_of_dice_can_be(tmp_path):
    nets = {"unet": -0.3, "attention_unet": -0.5}
    write_study(tmp_path, models=nets, losses={"bce": 0.0, "dice": 0.1}, seeds=(0, 1), sd=0.25, tuned=False)
    answer = answer_study(load_runs.load_recorded_study(tmp_path, "made"))
    assert max(-c.low for _, c in answer.comparisons()) == 1 and answer.pairs is not None
    assert all(-1 <= c.low <= c.high <= 1 for c in answer.pairs.comparisons.values())
    for language in LANGUAGES:
        page = study_page(answer, LEDGER, language, "", ())
        spans = re.findall(r"[+−](\d\.\d+)(?: to |至| ~ )[+−](\d\.\d+)", page)
        assert "±1" in page and spans and all(float(end) <= 1 for ends in spans for end in ends)
        assert all(abs(float(n.replace("−", "-"))) <= 100 for n in re.findall(r"[+−]\d+\.\d+", page))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"photographs": 48, "groups": 12}, {"en": "48 images of 12 groups", "zh": "12 个分组的 48 张图像"}),
        ({"photographs": 48, "groups": 48}, {"en": "48 images; scored on 48 test images", "zh": "在 48 张测试图像上"}),
    ],
)
def test_a_page_calls_the_groups_of_images_what_they_are(made, counts, said):
    """Cars are cars; of other data an image that is its own group is an image."""
    runs = made.study.runs.assign(data="folder")
    study = replace(made.study, runs=runs, plan=made.study.plan | {"photographs": counts})
    for language in LANGUAGES:
        page = study_page(replace(made, study=study), LEDGER, language, "", ())
        assert said[language] in page
        assert not re.search(r"\bcars?\b|辆|汽车", page.split("## Commands")[0].split("## 命令")[0])


def test_a_study_of_own_pairs_names_them_and_says_how_to_get_them(made):
    data = {
        "name": {"en": "my cells", "zh": "我的细胞"},
        "dir": "data/cells",
        "source": {"en": "From us.", "zh": "由我们提供。"},
    }
    runs = made.study.runs.assign(data="folder")
    study = replace(
        made.study, runs=runs, plan=made.study.plan | {"name": "two_by_two", "settings": {"data": "folder"}}
    )
    study.__dict__["reading"] = replace(made.study.reading, notes={"data": data})
    for language in LANGUAGES:
        page = study_page(replace(made, study=study), LEDGER, language, "", ())
        assert data["name"][language] in page and data["source"][language] in page
        assert "python run.py study two_by_two --data-dir data/cells\n" in page


def test_a_study_of_few_test_groups_says_what_that_means(tmp_path):
    for cars, said in ((3, True), (12, False)):
        write_study(tmp_path / str(cars), cars=cars)
        answer = answer_study(load_runs.load_recorded_study(tmp_path / str(cars), "made"))
        assert any("With 3 test cars it is hardly known" in line for line in limit_lines(answer, "en")) == said
        assert any("只有 3 辆测试车" in line for line in limit_lines(answer, "zh")) == said


def test_the_projects_own_readme_lists_its_planned_studies_only(tmp_path, command):
    write_study(tmp_path / "outputs")
    flags = ("--results-dir", tmp_path / "results", "--readme", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("<!-- findings -->\n<!-- /findings -->\n")
    assert command("report", "made", "--output-dir", tmp_path / "outputs", *flags)[0] == 0
    assert "docs/en/studies/made.md" in (tmp_path / "README.md").read_text()
    assert "No study has been measured yet" in pages.findings(README, README, tmp_path / "results", {})
