"""The effect of a factor within each combination of the others, against plain loops over the scores."""

import json

import numpy as np
import pytest

from analysis.records import gather
from analysis.statistics.comparisons import compare
from analysis.text import tables
from analysis.text.sentences import answer_sentences
from analysis.verdicts.answer import answer_study
from tests.made_study import write_study

ASKED = {"seeds": [0, 1, 2], "rope": 0.001, "confirmatory": ["loss"], "simple_effects": ["loss"]}
MODELS = {"unet": 0.0, "attention_unet": 0.001, "resnet_unet": 0.002}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    output = tmp_path_factory.mktemp("simple")
    write_study(output, models=MODELS, losses={"bce": 0.0, "dice": 0.003}, design=ASKED)
    return answer_study(gather.gather_study(output, "made"))


def cars(found, cell, score):
    """The scores of a cell (seeds, cars) by a plain loop."""
    rows = found.study.scores[found.study.scores.cell == cell]
    names = sorted(set(rows.group.astype(str)))
    return np.array(
        [[rows[(rows.seed == seed) & (rows.group == car)][score].mean() for car in names] for seed in (0, 1, 2)]
    )


def test_every_part_is_the_difference_of_two_cells_and_the_first_their_mean(found):
    whole, *parts = found.simple["loss"]
    assert whole.where is None and [part.where for part in parts] == list(MODELS) and whole.difference == "dice − bce"
    for score in ("dice", "iou", "boundary_iou"):
        each = [
            cars(found, f"{model}-dice", score).mean() - cars(found, f"{model}-bce", score).mean() for model in MODELS
        ]
        assert [part.found[score].difference for part in parts] == pytest.approx(each, abs=1e-12)
        assert whole.found[score].difference == pytest.approx(np.mean(each), abs=1e-12)
    effect = next(one for one in found.effects if one.factor == "loss").effect.family.comparisons["dice", "bce"]
    for name in ("difference", "low", "high", "p"):
        assert getattr(whole.found["dice"], name) == pytest.approx(getattr(effect, name), rel=1e-9)


def test_the_parts_intervals_are_no_narrower_than_without_adjustment_and_the_clearest_is_holms_widest(found):
    parts = found.simple["loss"][1:]
    alone = [compare(cars(found, f"{m}-dice", "iou"), cars(found, f"{m}-bce", "iou"), rope=0) for m in MODELS]
    for part, one in zip(parts, alone, strict=True):
        assert part.found["iou"].high - part.found["iou"].low >= (one.high - one.low) * (1 - 1e-9)
        assert part.found["iou"].p >= one.p
    assert min(part.found["iou"].p for part in parts) == pytest.approx(3 * min(one.p for one in alone), rel=1e-6)


def test_the_table_is_in_both_languages_and_a_factor_that_is_not_asked_for_has_none(found):
    english, chinese = (tables.simple_effects_table(found.simple["loss"], language) for language in ("en", "zh"))
    assert list(english["with"]) == ["over all the others", *MODELS] and set(english["difference"]) == {"dice − bce"}
    assert list(chinese["Dice [95 %]"]) == list(english["Dice [95 %]"]) and "边界 IoU [95 %]" in chinese
    assert list(found.simple) == ["loss"]


def test_with_a_baseline_the_others_are_compared_with_it_alone_and_no_interval_pays_for_more(tmp_path):
    asked = {**ASKED, "simple_effects": ["model"], "baseline": {"model": "attention_unet"}}
    write_study(tmp_path, models=MODELS, losses={"bce": 0.0, "dice": 0.003}, design=asked)
    found = answer_study(gather.gather_study(tmp_path, "made"))
    parts = found.simple["model"]
    assert {part.difference for part in parts} == {"unet − attention_unet", "resnet_unet − attention_unet"}
    within = [part for part in parts if part.where is not None]
    alone = [
        compare(cars(found, f"{part.b}-{part.where}", "iou"), cars(found, f"{part.a}-{part.where}", "iou"), rope=0)
        for part in within
    ]
    assert len(within) == 4 and min(p.found["iou"].p for p in within) == pytest.approx(
        4 * min(one.p for one in alone), rel=1e-6
    )
    for part, one in zip(within, alone, strict=True):
        assert part.found["iou"].difference == pytest.approx(one.difference, abs=1e-12)
    told = " ".join(answer_sentences(found, "en"))
    assert (
        "By model, unet, resnet_unet against attention_unet, one by one (exploratory): undecided with bce, dice."
        in told
    )
    assert "unet、resnet_unet 相对于 attention_unet" in " ".join(answer_sentences(found, "zh"))


def test_a_level_that_is_missing_somewhere_is_left_out_there(tmp_path):
    plan = write_study(tmp_path, models=MODELS, losses={"bce": 0.0, "dice": 0.003}, design=ASKED)
    gone = next(cell for cell in plan["cells"] if cell["cell"] == "unet-dice")
    for key in gone["runs"].values():
        (tmp_path / "runs" / key / "result.json").unlink()
    parts = answer_study(gather.gather_study(tmp_path, "made")).simple["loss"]
    assert [part.where for part in parts] == [None, "attention_unet", "resnet_unet"]


def test_a_difference_of_a_cell_without_a_verdict_stands_without_an_interval(tmp_path):
    plan = write_study(tmp_path, models=MODELS, losses={"bce": 0.0, "dice": 0.003}, design=ASKED)
    next(cell for cell in plan["cells"] if cell["cell"] == "unet-dice")["edge"] = True
    (tmp_path / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(gather.gather_study(tmp_path, "made"))
    whole, *parts = found.simple["loss"]
    assert [part.where for part in parts] == list(MODELS) and whole.of == (2, 3)
    doubtful, *judged = parts
    assert not doubtful.found and doubtful.doubts == ("rate at the edge",) and all(part.found for part in judged)
    each = {
        score: cars(found, "unet-dice", score).mean() - cars(found, "unet-bce", score).mean()
        for score in doubtful.values
    }
    assert doubtful.values == pytest.approx(each, abs=1e-12)
    assert whole.found["dice"].difference == pytest.approx(np.mean([part.values["dice"] for part in judged]), abs=1e-12)
    english, chinese = (tables.simple_effects_table(found.simple["loss"], language) for language in ("en", "zh"))
    assert list(english["with"][:2]) == ["over the 2 of 3 with a verdict", "unet"]
    assert english.iloc[1, 2] == "no verdict (rate at the edge)" and english.iloc[1, 3] == f"{each['dice']:+.4f}"
    assert chinese.iloc[1, 2] == "无判定（学习率在范围边缘）"
