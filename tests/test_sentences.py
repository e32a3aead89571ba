"""The answer in words: sentence by sentence for hand-made studies of every kind, in both languages."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from jinja2 import TemplateNotFound, UndefinedError

from analysis.records import committed
from analysis.records.study_paths import RESULTS
from analysis.records.study_results import CURVES, RUN, SCORES, TRIALS, Study, empty, typed
from analysis.statistics.comparisons import Comparison
from analysis.statistics.interaction_test import InteractionTest
from analysis.text.advice import advice
from analysis.text.sentences import answer_sentences, cell_verdict, findings
from analysis.text.wording import LANGUAGES, TEMPLATES, environment, phrases, span
from analysis.verdicts.answer import Answer, CellResult, Named, Sensitivity, answer_study
from analysis.verdicts.eligibility import Eligibility
from analysis.verdicts.planned_contrasts import EffectsWithin, FactorEffects

CROSSED = {"model": ["unet", "attention_unet"], "loss": ["bce", "bce_dice"]}
FOUR = {"model": ["unet", "attention_unet", "resnet_unet", "mine:net"], "loss": ["bce", "dice"]}
COST = {"parameters": 1.9e6, "gmacs": 0.3, "training_seconds": 120.0, "images_per_second": 80.0, "peak_memory_gb": 1.8}
ALONE, NO_TEST = {"loss": ["bce", "dice"]}, InteractionTest(0.5, 1, 5, 0.45)


def seen(difference, half, verdict=None, p=0.2):
    """A comparison with its interval; the verdict by the interval, where none is given."""
    low, high = difference - half, difference + half
    own = "equivalent" if max(-low, high) < 0.001 else "better" if low > 0 else "worse" if high < 0 else "undecided"
    return Comparison(difference, low, high, p, verdict or own, low > 0.001 or high < -0.001)


def made(factors, effects, seeds=5, dice=(), best=None, kinds=None, design=None, state="finished", **more):
    """A hand-made answer: `effects` are {factor: {level: comparison with the first level}}, `dice` by cell."""
    levels = [dict(zip(factors, combination, strict=True)) for combination in itertools.product(*factors.values())]
    names = ["+".join(place.values()) for place in levels]
    dice = list(dice) or [0.98 + 0.0001 * n for n in range(len(names))]
    cells = [
        CellResult(
            name,
            place,
            (kinds or {}).get(name, Eligibility("judged", "", seeds, seeds, 0.0)),
            0.01,
            7,
            value,
            0.001,
            value,
            0.96,
            0.8,
            3.0,
            0,
            dict(COST),
            ("0" * 16,),
            ("abc",),
        )
        for name, place, value in zip(names, levels, dice, strict=True)
    ]
    rows = [
        {
            "cell": cell.name,
            "seed": seed,
            "state": state,
            "reason": "",
            "size": "96x64",
            "epochs": 5,
            "epoch_steps": 225,
            "dice": cell.dice + (seed == 0) * (cell is cells[0]),
            "data": "carvana",
            "val_dice_last": 0.98,
            "rate": 0.01,
            "test_cars": 54,
        }
        for cell in cells
        for seed in range(seeds)
    ]
    runs = typed(pd.DataFrame(rows).reindex(columns=list(RUN)))
    plan = {
        "name": "hand_made",
        "factors": factors,
        "settings": {"size": [96, 64], "epochs": 5},
        "design": {"seeds": list(range(seeds)), "confirmatory": list(factors), **(design or {})},
        "cells": [{"cell": n, "levels": p, "settings": dict(p)} for n, p in zip(names, levels, strict=True)],
    }
    places = {f: tuple(itertools.product(*(factors[o] for o in factors if o != f))) for f in factors}
    found = [
        FactorEffects(f, factors[f][0], comparisons, dict.fromkeys(comparisons, places[f]), len(places[f]), 0.001, True)
        for f, comparisons in effects.items()
    ]
    judged = [cell.name for cell in cells if cell.eligibility.judged]
    scores = pd.DataFrame([{"cell": row["cell"], "seed": row["seed"], "group": "g", "image": "i"} for row in rows])
    study = Study(plan, runs, scores.reindex(columns=list(SCORES)), empty(TRIALS), empty(CURVES))
    given = {"best": tuple(judged) if best is None else best, "effects": found}
    if len(factors) > 1:
        given["interaction"] = NO_TEST
    return Answer(study, cells, {name: np.full((seeds, 54), 0.98) for name in judged}, **{**given, **more})


def nothing_found():
    effects = {"model": {"attention_unet": seen(0.0003, 0.0011)}, "loss": {"bce_dice": seen(0.0008, 0.0011)}}
    return made(CROSSED, effects, dice=(0.9817, 0.9831, 0.9826, 0.9828), seeds=3)


def clear_winner():
    effects = {"loss": {"dice": seen(0.012, 0.003)}}
    return made(ALONE, effects, dice=(0.97, 0.982), best=("dice",))


def equivalent():
    effects = {"model": {"attention_unet": seen(0.0002, 0.0005)}, "loss": {"bce_dice": seen(-0.0001, 0.0004)}}
    return made(CROSSED, effects)


def many_levels():
    models = {
        "attention_unet": seen(-0.0001, 0.0013),
        "resnet_unet": seen(-0.0029, 0.0016),
        "mine:net": seen(0.0, 0.001),
    }
    models["mine:net"] = replace(models["mine:net"], verdict="undecided")
    effects = {"model": models, "loss": {"dice": seen(-0.0009, 0.0006)}}
    return made(FOUR, effects, best=("unet+bce", "unet+dice"))


def interacting():
    """The effect of one factor depends on the other: within first, the average after."""
    effects = {"model": {"attention_unet": seen(0.0004, 0.0005)}, "loss": {"bce_dice": seen(0.0013, 0.0006)}}
    comparisons = {
        ("bce_dice", ("unet",)): seen(0.0026, 0.0011),
        ("bce_dice", ("attention_unet",)): seen(0.0, 0.0006),
    }
    differences = {("attention_unet",): seen(-0.0026, 0.001)}
    part = EffectsWithin("loss", "bce", ("model",), comparisons, 0.001, differences)
    return made(CROSSED, effects, within=[part], interaction=InteractionTest(9.0, 1, 5, 0.0004))


def three_factors():
    factors = {"start": ["random", "ImageNet"], "cars": ["8 cars", "32 cars", "189 cars"], "steps": ["450", "1800"]}
    effects = {
        "start": {"ImageNet": seen(0.0152, 0.0068)},
        "cars": {"32 cars": seen(0.0293, 0.0127), "189 cars": seen(0.0436, 0.021)},
        "steps": {"1800": seen(0.0023, 0.0042)},
    }
    within = {("ImageNet", ("8 cars",)): seen(0.0302, 0.0217), ("ImageNet", ("32 cars",)): seen(0.006, 0.0108)}
    within[("ImageNet", ("189 cars",))] = seen(-0.001, 0.004)
    differences = {("32 cars",): seen(-0.0242, 0.02), ("189 cars",): seen(-0.0312, 0.02)}
    part = EffectsWithin("start", "random", ("cars",), within, 0.001, differences)
    return made(factors, effects, within=[part], interaction=InteractionTest(8, 3, 7, 0.011))


def stalled():
    answer = nothing_found()
    cells = [*answer.cells]
    cells[3] = replace(cells[3], eligibility=replace(cells[3].eligibility, stalled=(2,)))
    named, before = Named("loss", "bce_dice"), answer.effects[1].comparisons["bce_dice"]
    without = Sensitivity(1, [(named, before, seen(0.0004, 0.0003))])
    return replace(answer, cells=cells, unstalled=without)


def rising():
    answer = nothing_found()
    cells = [
        replace(cell, eligibility=replace(cell.eligibility, still_improving=n < 2))
        for n, cell in enumerate(answer.cells)
    ]
    return replace(answer, cells=cells)


def partial():
    kinds = {"attention_unet+bce_dice": Eligibility("incomplete", "", 1, 3)}
    answer = made(CROSSED, {"loss": {"bce_dice": seen(0.0008, 0.0011)}}, seeds=3, kinds=kinds)
    over = {"bce_dice": (("unet",),)}
    effects = [replace(answer.effects[0], over=over)]
    runs = answer.study.runs.copy()
    runs.loc[[10, 11], "state"] = "missing"
    return replace(answer, effects=effects, study=replace(answer.study, runs=runs))


def failed():
    kinds = {"unet+bce": Eligibility("failed", "seed 1: The loss became NaN.", 2, 3)}
    answer = made(CROSSED, {"model": {"attention_unet": seen(0.005, 0.001)}}, seeds=3, kinds=kinds)
    return replace(answer, effects=[replace(answer.effects[0], over={"attention_unet": (("bce_dice",),)})])


def one_seed():
    endless = Comparison(0.004, -np.inf, np.inf, 1.0, "undecided", False)
    return made(ALONE, {"loss": {"dice": endless}}, seeds=1)


def unmeasured():
    kinds = dict.fromkeys(("bce", "dice"), Eligibility("not measured", "", 0, 5))
    return made(ALONE, {}, state="missing", kinds=kinds, dice=(np.nan, np.nan), best=())


def extended():
    return made(ALONE, {"loss": {"dice": seen(0.003, 0.001)}}, best=("dice",), design={"extended_from": [3]})


def looked_at():
    design = {"looks": [3, 4, 5, 6, 7, 8]}
    return made(ALONE, {"loss": {"dice": seen(0.001, 0.0015)}}, seeds=4, design=design, level=0.98)


SAID = {
    nothing_found: (
        ["At 96×64, with 3 seeds and 1,125 training steps, neither network nor loss made a clear difference.",
         "Averaged over losses, Dice is 0.0003 higher with Attention U-Net than with U-Net (95% CI −0.0008 to "
         "+0.0014): "
         "no clear difference.",
         "Averaged over networks, Dice is 0.0008 higher with BCE + Dice than with BCE (−0.0003 to +0.0019): no clear "
         "difference.",
         "For these averages, differences above 0.0019 lie outside the 95% intervals; smaller ones are not ruled out.",
         "Had each combination been trained once, two different winners would have come out of three tries.",
         "If you must choose, take U-Net with BCE + Dice: its mean Dice is highest (0.9831), though any other may be "
         "the best."],
        ["输入 96×64、3 个随机种子、训练 1,125 步时，网络和损失函数均没有显著影响。",
         "对损失函数取平均，与 U-Net 相比，Attention U-Net 的测试 Dice 高 0.0003"
         "（95% 置信区间 −0.0008 ~ +0.0014），差异不显著。",
         "对网络取平均，与 BCE 相比，BCE + Dice 的测试 Dice 高 0.0008（−0.0003 ~ +0.0019），差异不显著。",
         "就这些平均值而言，大于 0.0019 的差异在 95% 置信区间之外，更小的差异不能排除。",
         "如果每种组合只用一个种子训练，3 个种子会得出 2 个不同的“冠军”。",
         "若必须选择，可选“U-Net · BCE + Dice”：平均 Dice 最高（0.9831），但最佳的也可能是另外 3 种组合之一。"],
    ),
    clear_winner: (
        ["At 96×64, with 5 seeds and 1,125 training steps, loss made a difference.",
         "Dice is clearly higher with Dice loss than with BCE, by 0.0120 (95% CI 0.0090 to 0.0150).",
         "Had each combination been trained once, two different winners would have come out of five tries.",
         "Take Dice loss: it is clearly the best of the 2 combinations (mean Dice 0.9820)."],
        ["输入 96×64、5 个随机种子、训练 1,125 步时，损失函数有显著影响。",
         "与 BCE 相比，Dice 损失的测试 Dice 高 0.0120（95% 置信区间 0.0090 ~ 0.0150），差异显著。",
         "如果每种组合只用一个种子训练，5 个种子会得出 2 个不同的“冠军”。",
         "推荐“Dice 损失”：它明显优于另一种组合（平均 Dice 0.9820）。"],
    ),
    equivalent: (
        ["At 96×64, with 5 seeds and 1,125 training steps, network and loss made no practical difference.",
         "Averaged over losses, Attention U-Net and U-Net are practically equal: a difference of 0.0002 (95% CI "
         "−0.0003 "
         "to +0.0007).",
         "Averaged over networks, BCE and BCE + Dice are practically equal: a difference of 0.0001 (−0.0003 to "
         "+0.0005).",
         "Had each combination been trained once, two different winners would have come out of five tries.",
         "If you must choose, take Attention U-Net with BCE + Dice: its mean Dice is highest (0.9803), though any "
         "other may be the best."],
        ["输入 96×64、5 个随机种子、训练 1,125 步时，网络和损失函数均没有实际影响。",
         "对损失函数取平均，Attention U-Net 与 U-Net 的测试 Dice 等效，仅相差 0.0002"
         "（95% 置信区间 −0.0003 ~ +0.0007）。",
         "对网络取平均，BCE 与 BCE + Dice 的测试 Dice 等效，仅相差 0.0001（−0.0003 ~ +0.0005）。",
         "如果每种组合只用一个种子训练，5 个种子会得出 2 个不同的“冠军”。",
         "若必须选择，可选“Attention U-Net · BCE + Dice”：平均 Dice 最高（0.9803），"
         "但最佳的也可能是另外 3 种组合之一。"],
    ),
    many_levels: (
        ["At 96×64, with 5 seeds and 1,125 training steps, network and loss made a difference.",
         "Averaged over losses, Dice is clearly higher with U-Net than with ResNet U-Net, by 0.0029 (95% CI 0.0013 to "
         "0.0045).",
         "Attention U-Net and mine:net did not differ clearly from U-Net (intervals within −0.0014 to +0.0012).",
         "Averaged over networks, Dice is higher with BCE than with Dice loss, by 0.0009 (0.0003 to 0.0015).",
         "No interaction of the factors was found (p = 0.45).",
         "Had each combination been trained once, two different winners would have come out of five tries.",
         "If you must choose, take U-Net with Dice loss: its mean Dice is highest (0.9801), though another one may "
         "be the best."],
        ["输入 96×64、5 个随机种子、训练 1,125 步时，网络和损失函数均有显著影响。",
         "对损失函数取平均，与 ResNet U-Net 相比，U-Net 的测试 Dice 高 0.0029"
         "（95% 置信区间 0.0013 ~ 0.0045），差异显著。",
         "与 U-Net 相比，Attention U-Net 和 mine:net 的测试 Dice 均无显著差异（区间都在 −0.0014 ~ +0.0012 之内）。",
         "对网络取平均，与 Dice 损失相比，BCE 的测试 Dice 高 0.0009（0.0003 ~ 0.0015），差异显著，但可能小到可以忽略。",
         "未发现因素之间的交互作用（p = 0.45）。",
         "如果每种组合只用一个种子训练，5 个种子会得出 2 个不同的“冠军”。",
         "若必须选择，可选“U-Net · Dice 损失”：平均 Dice 最高（0.9801），但最佳的也可能是另外 1 种组合。"],
    ),
    interacting: (
        ["At 96×64, with 5 seeds and 1,125 training steps, the effect of loss depends on network.",
         "The factors interact (p < 0.001), so averages hide differences between combinations.",
         "With U-Net, Dice is clearly higher with BCE + Dice than with BCE, by 0.0026 (95% CI 0.0015 to 0.0037).",
         "With Attention U-Net, BCE + Dice and BCE are practically equal: a difference of 0.0000 (−0.0006 to +0.0006).",
         "These two effects clearly differ, by 0.0026 (0.0016 to 0.0036).",
         "Averaged over losses, the difference between Attention U-Net and U-Net lies within ±0.001 (interval −0.0001 "
         "to +0.0009).",
         "On average, Dice is higher with BCE + Dice than with BCE, by 0.0013 (0.0007 to 0.0019)."],
        ["输入 96×64、5 个随机种子、训练 1,125 步时，损失函数的影响取决于网络。",
         "因素之间存在交互作用（p < 0.001），平均值会掩盖各组合之间的差别。",
         "在“U-Net”这一条件下，与 BCE 相比，BCE + Dice 的测试 Dice 高 0.0026"
         "（95% 置信区间 0.0015 ~ 0.0037），差异显著。",
         "在“Attention U-Net”这一条件下，BCE + Dice 与 BCE 的测试 Dice 等效，仅相差 0.0000（−0.0006 ~ +0.0006）。",
         "这两个效应相差 0.0026（0.0016 ~ 0.0036），差异显著。",
         "对损失函数取平均，Attention U-Net 与 U-Net 之差在 ±0.001 以内（区间 −0.0001 ~ +0.0009）。",
         "平均而言，与 BCE 相比，BCE + Dice 的测试 Dice 高 0.0013（0.0007 ~ 0.0019），差异显著，但可能小到可以忽略。"],
    ),
    three_factors: (
        ["At 96×64, with 5 seeds and 1,125 training steps, start and cars made a difference.",
         "The factors interact (p = 0.011), so averages hide differences between combinations.",
         "With 8 cars, Dice is clearly higher with ImageNet than with random, by 0.030 (95% CI 0.009 to 0.052).",
         "With 32 cars and 189 cars, ImageNet did not differ clearly from random (intervals within −0.005 to +0.017).",
         "Compared with 8 cars, this effect is 0.024 (0.004 to 0.044) smaller with 32 cars and 0.031 (0.011 to 0.051) "
         "smaller with 189 cars.",
         "On average, Dice is clearly higher with ImageNet than with random, by 0.0152 (0.0084 to 0.0220).",
         "Averaged over starts and steps, Dice is clearly higher with 189 cars than with 8 cars, by 0.044 (0.023 to "
         "0.065).",
         "Dice is clearly higher with 32 cars than with 8 cars, by 0.029 (0.017 to 0.042).",
         "Averaged over starts and cars, Dice is 0.0023 higher with 1800 than with 450 (−0.0019 to +0.0065): no clear "
         "difference."],
        ["输入 96×64、5 个随机种子、训练 1,125 步时，start 和 cars 均有显著影响。",
         "因素之间存在交互作用（p = 0.011），平均值会掩盖各组合之间的差别。",
         "在“8 cars”这一条件下，与 random 相比，ImageNet 的测试 Dice 高 0.030"
         "（95% 置信区间 0.009 ~ 0.052），差异显著。",
         "在“32 cars 和 189 cars”这一条件下，与 random 相比，ImageNet 的测试 Dice 均无显著差异"
         "（区间都在 −0.005 ~ +0.017 之内）。",
         "与 8 cars 相比，这一效应在“32 cars”这一条件下小 0.024（0.004 ~ 0.044），"
         "在“189 cars”这一条件下小 0.031（0.011 ~ 0.051），差异显著。",
         "平均而言，与 random 相比，ImageNet 的测试 Dice 高 0.0152（0.0084 ~ 0.0220），差异显著。",
         "对 start 和 steps 取平均，与 8 cars 相比，189 cars 的测试 Dice 高 0.044（0.023 ~ 0.065），差异显著。",
         "与 8 cars 相比，32 cars 的测试 Dice 高 0.029（0.017 ~ 0.042），差异显著。",
         "对 start 和 cars 取平均，与 450 相比，1800 的测试 Dice 高 0.0023（−0.0019 ~ +0.0065），差异不显著。"],
    ),
    stalled: (
        ["‡ One of 12 runs stalled (Attention U-Net with BCE + Dice); without it, one comparison changes from "
         "undecided to "
         "equivalent."],
        ["‡ 12 次训练中有 1 次停滞（Attention U-Net · BCE + Dice）；去掉后有 1 项比较由“差异不显著”变为“等效”。"],
    ),
    rising: (
        ["† Validation Dice was still rising at the end for U-Net with BCE and U-Net with BCE + Dice."],
        ["† 训练结束时验证集 Dice 仍在上升：U-Net · BCE 和 U-Net · BCE + Dice。"],
    ),
    partial: (
        ["So far (10 of 12 runs), at 96×64, with 3 seeds and 1,125 training steps, loss made no clear difference.",
         "With U-Net, Dice is 0.0008 higher with BCE + Dice than with BCE (95% CI −0.0003 to +0.0019): no clear "
         "difference.",
         "No verdict on Attention U-Net with BCE + Dice: not all runs are finished.",
         "These comparisons were not fixed before the runs and are exploratory."],
        ["目前（12 次训练中已完成 10 次），输入 96×64、3 个随机种子、训练 1,125 步时，损失函数没有显著影响。",
         "在“U-Net”这一条件下，与 BCE 相比，BCE + Dice 的测试 Dice 高 0.0008"
         "（95% 置信区间 −0.0003 ~ +0.0019），差异不显著。",
         "Attention U-Net · BCE + Dice 没有结论：训练尚未全部完成。",
         "这些比较没有在训练之前写入计划，属于探索性分析。"],
    ),
    failed: (
        ["With BCE + Dice, Dice is clearly higher with Attention U-Net than with U-Net, by 0.0050 (95% CI 0.0040 to "
         "0.0060).",
         "No verdict on U-Net with BCE: a run failed."],
        ["在“BCE + Dice”这一条件下，与 U-Net 相比，Attention U-Net 的测试 Dice 高 0.0050"
         "（95% 置信区间 0.0040 ~ 0.0060），差异显著。",
         "U-Net · BCE 没有结论：有训练失败。"],
    ),
    one_seed: (
        ["At 96×64, with one seed and 1,125 training steps, there is no verdict: one seed does not show how far the "
         "next "
         "would fall.",
         "If you must choose, take Dice loss: its mean Dice is highest (0.9801), though the other may be the best."],
        ["输入 96×64、1 个随机种子、训练 1,125 步时，还没有结论：只有一个随机种子，看不出换一个种子会相差多少。",
         "若必须选择，可选“Dice 损失”：平均 Dice 最高（0.9801），但最佳的也可能是另外那一种组合。"],
    ),
    unmeasured: (
        ["Nothing has been measured yet at 96×64, with 5 seeds and 5 epochs: 0 of 10 runs are finished."],
        ["尚未测量任何结果（输入 96×64、5 个随机种子、训练 5 个 epoch）：10 次训练中完成 0 次。"],
    ),
    extended: (
        ["Seeds were added after results had been seen (from 3 to 5), so false findings are more likely than 5%.",
         "Take Dice loss: it is clearly the best of the 2 combinations (mean Dice 0.9801)."],
        ["在看到结果之后增加了随机种子（由 3 个增至 5 个），假阳性的概率高于 5%。",
         "推荐“Dice 损失”：它明显优于另一种组合（平均 Dice 0.9801）。"],
    ),
    looked_at: (
        ["Dice is 0.0010 higher with Dice loss than with BCE (95% CI over all looks −0.0005 to +0.0025): no clear "
         "difference.",
         "One comparison is still open after 4 of at most 8 seeds."],
        ["与 BCE 相比，Dice 损失的测试 Dice 高 0.0010"
         "（考虑多次期中分析的 95% 置信区间 −0.0005 ~ +0.0025），差异不显著。",
         "4 个种子之后（最多 8 个），仍有 1 项比较尚无定论。"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("case", SAID, ids=lambda case: case.__name__)
def test_what_is_said_of_a_study_sentence_by_sentence(case, language):
    """Of a long answer only the sentences that the case is about are listed; these stand in the order given."""
    sentences, due = answer_sentences(case(), language), SAID[case][LANGUAGES.index(language)]
    assert [sentence for sentence in sentences if sentence in due] == due, sentences
    if case in (nothing_found, clear_winner, equivalent, many_levels, unmeasured, one_seed):
        assert sentences == due


def test_no_bound_is_named_that_no_two_scores_can_exceed():
    """As where two seeds leave an interval wider than the scale of Dice."""
    wide, narrow = (made(ALONE, {"loss": {"dice": seen(0.001, half)}}, seeds=2) for half in (2.0, 0.5))
    assert not any("outside the 95% intervals" in sentence for sentence in answer_sentences(wide, "en"))
    assert any("outside the 95% intervals" in sentence for sentence in answer_sentences(narrow, "en"))


def words_of(sentence):
    return len(sentence.split())


@pytest.fixture(scope="module")
def every_answer():
    """The committed studies and the hand-made ones."""
    known = {name: answer_study(committed.read_study(RESULTS, name)) for name in committed.committed_studies(RESULTS)}
    return known | {case.__name__: case() for case in SAID}


def test_no_sentence_is_long_in_either_language(every_answer):
    for name, answer in every_answer.items():
        for sentence in [*answer_sentences(answer, "en"), *findings(answer, "en")]:
            assert words_of(sentence) <= 25, (name, sentence)
        for sentence in [*answer_sentences(answer, "zh"), *findings(answer, "zh")]:
            assert all(len(clause) <= 60 for clause in re.split("[，；：。（）]", sentence)), (name, sentence)


def test_both_languages_say_the_same_things_about_the_same_numbers(every_answer):
    for name, answer in every_answer.items():
        english, chinese = (answer_sentences(answer, language) for language in LANGUAGES)
        assert len(english) == len(chinese), name
        for a, b in zip(english, chinese, strict=True):
            numbers = [sorted(re.findall(r"\d\.\d{3,}", text)) for text in (a, b)]
            assert numbers[0] == numbers[1], (a, b)


def test_chinese_has_no_space_before_a_percent_sign_or_between_characters(every_answer):
    for answer in every_answer.values():
        text = "".join(answer_sentences(answer, "zh"))
        assert not re.search(r" %|您|[\u4e00-\u9fff] +[\u4e00-\u9fff]", text), text


def test_no_claim_without_a_verdict(every_answer):
    """A clear difference is only stated where the interval of a comparison excludes 0."""
    for answer in every_answer.values():
        clear = sum(c.verdict in ("better", "worse") for _, c in answer.comparisons())
        said = sum(
            bool(re.search("Dice is (clearly )?higher", sentence)) for sentence in answer_sentences(answer, "en")
        )
        assert said <= clear and bool(clear) == bool(said)


def test_the_verdict_on_a_single_cell_is_a_few_words():
    answer = many_levels()
    assert cell_verdict(answer, "unet+bce", "en") == "cannot be excluded as the best"
    assert cell_verdict(answer, "resnet_unet+bce", "en") == "excluded as the best"
    assert cell_verdict(clear_winner(), "dice", "zh") == "最佳组合"
    assert cell_verdict(failed(), "unet+bce", "en") == "a run failed (seed 1: The loss became NaN.)"
    assert cell_verdict(one_seed(), "bce", "en") == "no verdict: too few runs to compare"


def test_a_study_of_ways_to_measure_recommends_none():
    factors = {"split": ["car", "image"], "model": ["unet", "attention_unet"]}
    effects = {"split": {"image": seen(0.003, 0.001)}, "model": {"attention_unet": seen(0.0002, 0.0005)}}
    assert not any("take" in sentence for sentence in answer_sentences(made(factors, effects), "en"))


def test_what_nobody_can_choose_is_named_and_the_choice_is_among_its_equals():
    factors = {"train_cars": ["8", "189"], "model": ["unet", "attention_unet"]}
    answer = made(factors, {}, dice=(0.95, 0.96, 0.97, 0.98), best=("8+attention_unet", "189+attention_unet"))
    words = "Take Attention U-Net: with 189, it is clearly the best of the 2 combinations (mean Dice 0.9800)."
    assert advice(answer, "en") == [words]
    assert advice(answer, "zh") == [
        "推荐“Attention U-Net”：在“189”这一条件下，它明显优于另一种组合（平均 Dice 0.9800）。"
    ]


TOPICS = sorted({path.name.split(".")[0] for path in TEMPLATES.glob("*.j2")})


def exported(topic, language):
    """What a template gives: of a macro the names of its arguments, of a word list its keys or its length."""
    module = environment().get_template(f"{topic}.{language}.j2").module
    names = [name for name in vars(module) if not name.startswith("_")]
    found = {}
    for name in names:
        part = getattr(module, name)
        known = getattr(part, "arguments", None) or (list(part) if isinstance(part, dict) else None)
        found[name] = len(part) if known is None and isinstance(part, list) else known
    return found


@pytest.mark.parametrize("topic", TOPICS)
def test_a_template_has_the_same_macros_with_the_same_arguments_in_both_languages(topic):
    english, chinese = (exported(topic, language) for language in LANGUAGES)
    assert english == chinese and english


def test_every_template_stands_in_both_languages_and_what_is_missing_raises():
    names = {path.name for path in TEMPLATES.glob("*")}
    assert names == {f"{topic}.{language}.j2" for topic in TOPICS for language in LANGUAGES}
    with pytest.raises(TemplateNotFound):
        phrases("no_such_topic", "en")
    for language in LANGUAGES:
        with pytest.raises(AttributeError):
            phrases("notes", language).no_such_sentence()
        with pytest.raises(UndefinedError):
            phrases("notes", language).ceiling()
        with pytest.raises(TypeError):
            phrases("notes", language).interaction(p=0.2, more=1)


def test_no_line_of_a_template_is_longer_than_120_characters():
    for path in TEMPLATES.glob("*.j2"):
        assert all(len(line) <= 120 for line in path.read_text(encoding="utf-8").splitlines()), path.name


def test_a_margin_is_written_as_it_is_and_an_infinite_interval_as_a_dash():
    legend = phrases("tables", "en").legend
    given = dict(verdicts=["equivalent"], marks={"equivalent": "="}, looks=False, averages=False, improving=False)
    given |= {"stalled": False, "no_verdict": False, "missing": False}
    assert "within ±0.05 or ±1.05)" in legend(margins=[100 * 0.0005, 100 * 0.0105], **given)
    assert span(Comparison(0.1, -np.inf, np.inf, 1.0, "undecided", False), " to ") == "–"


def test_nothing_is_recommended_where_one_combination_has_no_equal():
    factors = {"train_cars": ["8", "189"], "model": ["unet", "attention_unet"]}
    kinds = {"189+attention_unet": Eligibility("failed", "", 5, 4, 0.0)}
    assert advice(made(factors, {}, dice=(0.95, 0.96, 0.98, 0.97), kinds=kinds), "en") == []


def test_a_study_whose_baseline_was_not_measured_says_so():
    answer = made({"loss": ["bce", "dice", "focal"]}, {}, kinds={"bce": Eligibility("failed", "", 5, 4, 0.0)})
    assert "no baseline was measured to compare with" in answer_sentences(answer, "en")[0]
