"""The pictures of studies: whole labels within the canvas and beside each other, the same bytes again, no warnings."""

import itertools
import json
import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.plots import style
from analysis.plots.effects import cell_interval
from analysis.plots.hero import hero
from analysis.plots.robustness import line_styles
from analysis.records import committed, load_runs
from analysis.report.picture_files import PICTURES
from analysis.text.wording import cell_name
from analysis.verdicts.answer import answer_study
from tests.conftest import ROOT
from tests.made_study import write_study

LANGUAGES = ("en", "zh")
COMMITTED = ("models_x_losses", "pretraining", "leak", "augmentation", "two_by_two")
LONG = {
    "model": {"en": "network", "zh": "网络"},
    "unet": {
        "en": "a network whose name is a whole sentence, with a comma, and goes on until nobody reads it any more",
        "zh": "一个名字长得像一整句话的网络，中间还有逗号，直到没有人再读下去为止，仍然不能被截断（包括括号）",
    },
    "attention_unet": "x" * 130,
}
PLAIN = {"unet": 0.0, "attention_unet": 0.004}


def made(folder, **options):
    write_study(folder, **options)
    return answer_study(load_runs.load_recorded_study(folder, "made"))


def answers(folder):
    """Studies at the edges of what a picture has room for."""
    one = {"models": {"unet": 0.0}, "losses": {"bce": 0.0}}
    two = {"models": PLAIN, "losses": {"bce": 0.0, "dice": 0.001}}
    many = {
        "models": {f"model {n}": 0.001 * n for n in range(8)},
        "losses": {f"loss {n}": 0.0005 * n for n in range(5)},
    }
    write_study(folder / "nothing", **two)
    for path in (folder / "nothing" / "runs").rglob("*.json"):
        path.unlink()
    (folder / "nothing" / "studies" / "made" / "trials.csv").unlink()
    return {
        "one cell": made(folder / "one", **one),
        "one factor": made(folder / "factor", models=PLAIN, losses={"bce": 0.0}),
        "one seed": made(folder / "seed", seeds=(0,), **two),
        "many cells": made(folder / "many", cars=4, views=1, tuned=False, **many),
        "long labels": made(folder / "long", labels=LONG, **two),
        "a stalled run": stalled(made(folder / "stalled", **two)),
        "nothing measured": answer_study(load_runs.load_recorded_study(folder / "nothing", "made")),
    }


def stalled(answer):
    """The study with one run of one cell far below all others."""
    study = answer.study
    cell, seed = study.cells[0]["cell"], 1

    def lowered(table, column):
        at = (table.cell == cell) & (table.seed == seed)
        return table.assign(**{column: table[column].where(~at, table[column] - 0.4)})

    curves = lowered(study.curves, "val_dice")
    study = replace(study, runs=lowered(study.runs, "dice"), scores=lowered(study.scores, "dice"), curves=curves)
    names = [f"{kind} {strength}" for kind in ("blur", "noise") for strength in (1, 2, 3)]
    keys = study.finished.key
    rows = [(key, name, group, 0.9, 0.8) for key in keys for name in ("clean", *names, "wild") for group in ("a", "b")]
    return answer_study(
        replace(study, robustness=pd.DataFrame(rows, columns=["key", "condition", "group", "dice", "iou"]))
    )


@pytest.fixture(scope="module")
def every_answer(tmp_path_factory):
    found = {name: answer_study(committed.read_study(ROOT / "analysis" / "results", name)) for name in COMMITTED}
    return found | answers(tmp_path_factory.mktemp("pictures"))


CACHE = {}


def drawn(answer, picture, language):
    """A picture as SVG, drawn once; every warning fails the test."""
    if (place := (id(answer), picture, language)) not in CACHE:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = PICTURES[picture](answer, language)
            CACHE[place] = None if figure is None else style.svg(figure)
    return CACHE[place]


def texts(svg):
    """Every text of a picture, where the viewer's font puts it: (text, left, top, right, bottom) in points."""
    for part in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        looks = dict(item.split(": ", 1) for item in part.get("style").split("; "))
        size = float(looks["font-size"].removesuffix("px"))
        numbers = [float(n) for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", part.get("transform", ""))]
        angle = numbers[-1] if "translate" in part.get("transform", "") and "rotate" in part.get("transform") else 0.0
        if "translate" in part.get("transform", ""):
            x, y = numbers[:2]
        else:
            x, y = float(part.get("x")), float(part.get("y"))
            angle = numbers[0] if numbers else 0.0
        width = style.text_width(part.text or "", size)
        before = width * {"start": 0.0, "middle": 0.5, "end": 1.0}[looks.get("text-anchor", "start")]
        if abs(angle) == 90:
            yield part.text, x - 0.75 * size, y - width + before, x + 0.2 * size, y + before
        else:
            yield part.text, x - before, y - 0.75 * size, x - before + width, y + 0.2 * size


def read(svg):
    """What a reader reads, without spaces: the lines of a wrapped label follow each other."""
    return "".join(re.sub(r"\s", "", text) for text, *_ in texts(svg))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "picture", [name if name == "hero" else pytest.param(name, marks=pytest.mark.slow) for name in PICTURES]
)
def test_every_text_lies_within_the_canvas_and_on_no_other(every_answer, picture, language):
    count = 0
    for name, answer in every_answer.items():
        if (svg := drawn(answer, picture, language)) is None:
            continue
        count += 1
        width, height = (float(ET.fromstring(svg).get(side).removesuffix("pt")) for side in ("width", "height"))
        found = list(texts(svg))
        for text, left, top, right, bottom in found:
            assert left >= 0 and top >= 0 and right <= width and bottom <= height, (name, text)
        for (a, *first), (b, *second) in itertools.combinations(found, 2):
            apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
            assert apart, (name, a, b)
    assert count, picture


@pytest.mark.parametrize("language", ["en", pytest.param("zh", marks=pytest.mark.slow)])
def test_every_cell_is_named_in_full(every_answer, language):
    for name, answer in every_answer.items():
        for picture in ("hero", "cost", "validation", "responses", "robustness"):
            svg = drawn(answer, picture, language)
            words = read(svg) if svg is not None else ""
            for cell in answer.measured if svg is not None else ():
                label = re.sub(r"\s", "", cell_name(answer.study, cell.levels, language))
                assert label and label in words, (name, picture, cell.name)


def test_chinese_pictures_need_no_english_but_names(every_answer):
    known = {"U-Net", "AttentionU-Net", "Dice", "BCE", "SD", "epoch", "JPEG", "GMACs"}
    words = read(drawn(every_answer["pretraining"], "hero", "zh"))
    assert "·8辆训练车·450步" in words and "（基线：8辆训练车）" in words
    left_over = set(re.findall(r"[A-Za-z][A-Za-z-]+", words)) - known
    assert left_over <= {"ImageNet"}


def test_the_same_study_gives_the_same_bytes_in_another_process_and_order(every_answer):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from analysis.records import committed;"
        "from analysis.plots import style; from analysis.report.picture_files import PICTURES;"
        "from analysis.verdicts.answer import answer_study;"
        "a = answer_study(committed.read_study(Path('analysis/results'), 'leak'));"
        "sys.stdout.write(''.join(style.svg(f) for n in reversed(PICTURES) if (f := PICTURES[n](a, 'zh'))))"
    )
    again = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    here = [drawn(every_answer["leak"], picture, "zh") for picture in reversed(PICTURES)]
    assert again == "".join(svg for svg in here if svg)


def test_the_hero_numbers_the_winner_of_each_seed_and_says_how_many_there_were(every_answer):
    answer = every_answer["models_x_losses"]
    found = [text for text, *_ in texts(drawn(answer, "hero", "en"))]
    assert "One run each: three different winners in five tries" in found
    numbers = [text for text in found if re.fullmatch(r"\d( \d)*", text) and text != "0"]
    assert sorted(" ".join(numbers).split()) == ["1", "2", "3", "4", "5"]
    dots = sum(len(line.get_xdata()) for line in hero(answer).axes[0].lines if line.get_marker() == "o")
    assert dots == len(answer.study.finished) == 80
    assert "3 个种子得出同一个“冠军”" in read_lines(every_answer["pretraining"], "hero", "zh")


def read_lines(answer, picture, language):
    return "\n".join(text for text, *_ in texts(drawn(answer, picture, language)))


def test_a_run_far_below_the_others_stands_at_the_edge_with_its_score(every_answer):
    axis = hero(every_answer["a stalled run"]).axes[0]
    low = float(every_answer["a stalled run"].study.finished.dice.min())
    assert low < 0.6 < axis.get_xlim()[0]
    assert f"{low:.3f}" in [text.get_text() for text in axis.texts]


def test_an_effect_lies_where_its_comparison_says_and_its_band_is_the_margin(every_answer):
    answer = every_answer["models_x_losses"]
    axis = hero(answer).axes[1]
    points = [float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == "o"]
    expected = [one.difference for found in answer.effects for one in found.comparisons.values()]
    assert points == pytest.approx(expected)
    intervals = [tuple(line.get_xdata()) for line in axis.lines if line.get_linewidth() == 2]
    expected = [(c.low, c.high) for found in answer.effects for c in found.comparisons.values()]
    assert np.ravel(intervals) == pytest.approx(np.ravel(expected))
    bands = {round(float(abs(part.get_paths()[0].vertices[:, 0]).max()), 6) for part in axis.collections}
    assert bands == {0.001}


def test_effects_of_other_sizes_have_axes_of_their_own(every_answer):
    spread = PICTURES["simple-effects"](every_answer["pretraining"], "en").axes
    assert len({axis.get_xlim() for axis in spread}) == len(spread) == 4
    alike = PICTURES["main-effects"](every_answer["models_x_losses"], "en").axes
    assert len(alike) == 2 and len({axis.get_xlim() for axis in alike}) == 1


def test_stalled_runs_are_marked_in_their_curves(every_answer):
    marks = [text for text, *_ in texts(drawn(every_answer["models_x_losses"], "validation", "en")) if text == "‡"]
    assert len(marks) == sum(len(cell.eligibility.stalled) for cell in every_answer["models_x_losses"].cells) == 2


def test_a_heatmap_shows_every_cell_by_itself(every_answer):
    answer = every_answer["leak"]
    numbers = re.findall(r"9\d\.\d\d(?= ±)", read_lines(answer, "heatmap", "en"))
    assert sorted(numbers) == sorted(f"{100 * cell.dice:.2f}" for cell in answer.measured) and len(numbers) == 8
    assert drawn(every_answer["one factor"], "heatmap", "en") is None


def test_robustness_shows_the_baseline_as_a_thick_line_and_one_range_of_dice(every_answer):
    for name in ("augmentation", "a stalled run"):
        figure = PICTURES["robustness"](every_answer[name], "en")
        shown = [axis for axis in figure.axes if axis.get_visible()]
        assert len({axis.get_ylim() for axis in shown}) == 1
        widths = [line.get_linewidth() for line in shown[0].lines]
        assert widths[0] == 4 and max(widths[1:]) < 2
        assert figure.legends[0].get_texts()[0].get_text().endswith("(baseline)")


def test_robustness_has_a_panel_for_every_corruption_and_place_and_names_every_cell(every_answer):
    answer = every_answer["a stalled run"]
    scores = answer.study.robustness
    again = scores[scores.condition == "wild"].assign(condition="wild_too")
    keys = answer.study.finished.key[answer.study.finished.cell == answer.cells[1].name]
    less = pd.concat([scores[~(scores.condition.str.match("blur|clean") & scores.key.isin(keys))], again])
    figure = PICTURES["robustness"](replace(answer, study=replace(answer.study, robustness=less)), "en")
    titles = [axis.get_title("left") for axis in figure.axes if axis.get_visible()]
    assert titles == ["blur", "noise", "other images: wild", "other images: wild_too"]
    assert len(figure.legends[0].get_texts()) == 4
    half = replace(answer.study, robustness=less[~less.condition.str.match(".* 3")])
    assert PICTURES["robustness"](replace(answer, study=half), "en") is None


def test_a_study_of_one_network_has_no_panel_with_one_vertical_line(every_answer):
    assert len(PICTURES["cost"](every_answer["augmentation"], "en").axes) == 1
    assert len(PICTURES["cost"](every_answer["models_x_losses"], "en").axes) == 2


def test_nothing_measured_is_no_picture(every_answer):
    answer = every_answer["nothing measured"]
    assert {picture: drawn(answer, picture, "en") for picture in PICTURES} == dict.fromkeys(PICTURES)


def test_a_cells_interval_is_its_difference_from_the_baseline(every_answer):
    answer = every_answer["models_x_losses"]
    figure = cell_interval(answer, "resnet_unet-from-scratch+bce")
    (point,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    comparison = answer.against_baseline["resnet_unet-from-scratch+bce"]
    assert point.get_xdata()[0] == comparison.difference < 0
    (interval,) = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert tuple(interval.get_xdata()) == (comparison.low, comparison.high)
    assert "against U-Net · BCE" in "".join(text.get_text() for text in figure.texts)
    assert "the baseline itself" in style.svg(cell_interval(answer, "unet+bce"))
    nothing = every_answer["nothing measured"]
    assert "not judged" in style.svg(cell_interval(nothing, nothing.cells[1].name))


@pytest.mark.parametrize("width", [30, 80, 200])
def test_wrapping_loses_nothing_and_keeps_to_the_width(width):
    for text in [*(label for label in LONG["unet"].values()), LONG["attention_unet"], "U-Net · BCE + Dice", ""]:
        lines = style.wrap(text, width)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(style.text_width(line.rstrip(" ·")) <= width for line in lines)
        assert not any(line.startswith(("，", "）", "·")) for line in lines)
    assert style.wrap("ResNet-18 U-Net, from scratch · BCE + Dice", 150) == [
        "ResNet-18 U-Net, from scratch ·",
        "BCE + Dice",
    ]


def test_no_two_cells_are_drawn_alike_and_a_factors_level_is_a_colour():
    crossed = [(steps, policy) for policy in "abcde" for steps in ("short", "long")]
    looks = line_styles(crossed)
    assert (
        len({(look["color"], look["linestyle"]) for look in looks}) == len({look["marker"] for look in looks}) * 5 == 10
    )
    assert all(looks[at]["color"] == looks[at + 1]["color"] for at in range(0, 10, 2))
    for many in ([(str(number),) for number in range(48)], [(a, b) for a in "abcdefgh" for b in "abcde"]):
        looks = line_styles(many)
        assert len({(look["color"], look["linestyle"], look["marker"]) for look in looks}) == len(many)


def test_the_colours_of_the_figures_have_contrast_on_white_and_on_dark():
    """Oracle: relative luminance and contrast ratio of WCAG 2.1."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(a, b):
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for page in ("#ffffff", "#0d1117"):
        assert contrast(style.TEXT, page) >= 4.3
        assert all(contrast(colour, page) >= 3 for colour in (*style.COLOURS, style.BLUE, style.ORANGE, style.GREEN))


def test_a_picture_has_no_ground_and_no_drawn_letters(every_answer):
    svg = drawn(every_answer["two_by_two"], "hero", "zh")
    assert "PingFang SC" in svg and "Noto Sans CJK SC" in svg and "#ffffff" not in svg.replace("fill: #ffffff", "")
    assert json.dumps("基线")[1:-1] not in svg and "基线" in svg
    assert not np.any(["DejaVuSans-" in part for part in re.findall(r'id="[^"]+"', svg)])
