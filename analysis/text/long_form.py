"""The long form of a study, for docs/studies.md: power beforehand and as seen, convergence, sensitivities."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from analysis.text import markdown, tables
from analysis.text.notes import notes
from analysis.text.sentences import sentences
from analysis.text.wording import Say, speaker
from analysis.verdicts.answer import Answer
from analysis.verdicts.observed_power import observed_power

WITHIN = {
    "en": "What {factor} changes within each combination of the other factors; intervals are Holm-adjusted over all rows but the averages, each score by itself; "
    "where a cell has no verdict, the difference stands without an interval.",
    "zh": "{factor} 在其余因素的每种组合之内带来的差别；除取平均的行外，表中各行的区间一并作了 Holm 校正，每种分数各自校正；若所比较的单元中有一个没有判定，则只给出差值，不给区间。",
}
PICTURES = {
    "main-effects": ("Main effects", "主效应"), "simple-effects": ("Simple effects", "简单效应"), "pairs": ("Differences between cells", "单元之间的差别"),
    "responses": ("Validation Dice against the learning rate", "验证集 Dice 随学习率的变化"),
    "validation": ("Validation Dice over the training", "训练过程中的验证集 Dice"), "angles": ("Dice by viewing angle", "各拍摄角度的 Dice"),
    "worst-cars": ("The worst cars", "最差的汽车"), "cost": ("Dice against cost", "Dice 与成本（训练时间和计算量）"),
}  # fmt: skip


def long_form(answer: Answer, readings: pd.DataFrame, language: str, pictures: str, drawn: Collection[str]) -> str:
    """The study in Markdown; `pictures` is the folder of those that were `drawn`, seen from the document."""
    say = speaker(language)
    parts = [
        markdown.safe(say(" ", "").join(sentences(answer, language))),
        f"**{say('Design and power', '设计与功效')}**", markdown.markdown(_power(answer, say)),
        f"**{say('Convergence and sensitivities', '收敛与敏感性分析')}**", markdown.markdown(_cells(answer, say)),
        *_unknown_rates(answer, say), *_main(answer, language), *within(answer, language),
        "\n".join(f"- {markdown.safe(note)}" for note in notes(answer, readings, language)),
        *(f"![{say(*PICTURES[name])}]({pictures}/{name}.svg)" for name in PICTURES if name in drawn),
    ]  # fmt: skip
    return "\n\n".join(parts)


def within(answer: Answer, language: str) -> list[str]:
    """The simple effects that the plan asks for: a sentence and a table for each factor."""
    return [
        part
        for factor, parts in answer.simple.items()
        for part in (
            markdown.safe(WITHIN[language].format(factor=factor)),
            markdown.markdown(tables.simple_effects(parts, language)),
        )
    ]


def _unknown_rates(answer: Answer, say: Say) -> list[str]:
    tuned = [cell for cell in answer.study.cells if cell.get("tuned") and cell.get("rate_low") is None]
    return [say(
        "Not estimable: no rate was tried twice near the top, so the trials do not show how far a repeated trial would fall, nor how uncertain the rate is.",
        "无法估计：最高点附近没有任何学习率试过两次，因此从试验看不出重复一次会相差多少，也看不出学习率有多不确定。",
    )] * bool(tuned and answer.measured)  # fmt: skip


def _main(answer: Answer, language: str) -> list[str]:
    """Every two levels of every factor."""
    about = {
        "en": "Every two levels, averaged over those combinations of the other factors in which both are judged; Holm-adjusted within each factor.",
        "zh": "每两个水平之差，对其余因素中两者都有判定的组合取平均；在每个因素之内作了 Holm 校正。",
    }
    return [about[language], markdown.markdown(tables.main_effects(answer.effects, language))] if answer.effects else []


def _power(answer: Answer, say: Say) -> pd.DataFrame:
    """What was expected beforehand beside what the study's own scores give."""
    plan = answer.study.plan
    guessed, planned = plan.get("variances") or {}, plan.get("detectable") or {}
    found = observed_power(answer)
    spread = say("sd of a difference: ", "差值的标准差：")
    rows = [
        (spread + say(*names), guessed.get(name), getattr(found.spread, name) if found else None)
        for name, names in {
            "car": ("cars", "汽车之间"),
            "seed": ("seeds", "随机种子之间"),
            "residual": ("rest", "其余"),
        }.items()
    ]
    found_by = say("found with 80 % power: ", "功效 80 % 时能检出：")
    rows.append((found_by + say("a pair of cells", "一对单元"), planned.get("pair"), found.pair if found else None))
    rows += [
        (
            found_by + say(f"{name}, over all else", f"{name} 的主效应"),
            (planned.get("main") or {}).get(name),
            found.main.get(name) if found else None,
        )
        for name in answer.study.factors
    ]
    rows.append(
        (
            say("chance that two equal cells are called equivalent", "两个相等的单元被判为等效的概率"),
            planned.get("equivalent"),
            found.equivalent if found else None,
        )
    )
    source = {"pilot": say("a pilot", "预实验"), "guess": say("guessed", "猜测")}.get(guessed.get("source", ""), "")
    headings = [
        "",
        say("beforehand", "事前") + (say(f" ({source})", f"（{source}）") if source else ""),
        say("as seen, of the cells that are judged", "实测（仅就已判定的单元）"),
    ]
    return pd.DataFrame([(name, *map(_number, values)) for name, *values in rows], columns=headings)


def _cells(answer: Answer, say: Say) -> pd.DataFrame:
    """Each measured cell's rate, how far it had converged, and what other ways to score it would give."""
    plans = {cell["cell"]: cell for cell in answer.study.cells}
    done, curves = answer.study.finished, answer.study.curves.sort_values("epoch")
    rises = done.groupby("cell").val_rise.mean()
    known = done[done.val_rise.notna()]
    risen = known.val_rise.gt(answer.study.rope).groupby(known.cell).agg(["sum", "size"])
    last = (
        curves.groupby(["cell", "seed"])
        .val_dice.agg(lambda dice: dice.diff().iloc[-1])
        .groupby("cell")
        .agg(["mean", "count"])
    )
    steps = last["mean"].where(
        last["count"].eq(done.groupby("cell").size().reindex(last.index))
    )  # of all seeds or of none
    validation = done.groupby("cell").val_dice_last.mean()
    rows = []
    for row in answer.measured:
        low, high = (plans[row.cell].get(name) for name in ("rate_low", "rate_high"))
        ends = say("not estimable", "无法估计") if low is None or high is None else f"{low:.2g}, {high:.2g}"
        interval = f" [{ends}]" if plans[row.cell].get("tuned") else ""
        scores = answer.scores[row.cell]
        deviation = scores.mean(1).std(ddof=1) if len(scores) > 1 else None
        without = None if answer.faultless is None else answer.faultless.dice.get(row.cell)
        rows.append(
            (
                row.label,
                f"{row.rate:.3g}{interval}",
                _number(rises.get(row.cell))
                + (f" ({' / '.join(map(str, risen.loc[row.cell]))})" if row.cell in risen.index else ""),
                *map(
                    _number,
                    (steps.get(row.cell), validation.get(row.cell), deviation, row.dice, row.dice_best, without),
                ),
            )
        )
    rope = answer.study.rope
    headings = [
        say("cell", "单元"), say("rate [95 %]", "学习率 [95 %]"), say(f"rise over the last fifth (seeds above {rope:g})", f"最后五分之一的上升（超过 {rope:g} 的种子数）"),
        say("rise over the last epoch", "最后一轮的上升"), say("validation Dice", "验证集 Dice"),
        say("sd between seeds", "随机种子之间的标准差"), "Dice", say("Dice, best epoch", "Dice，最佳轮"),
        say("Dice without listed faulty masks", "Dice，去掉公开列出的错误掩码"),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=headings)


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"
