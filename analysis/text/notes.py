"""What stands beside a table: ceiling, what the design could detect, device and protocol, how often the test cars were read."""

from __future__ import annotations

import pandas as pd

from analysis.records.test_set_ledger import times_read
from analysis.statistics.comparisons import Comparison
from analysis.statistics.seed_correlation import seed_correlation
from analysis.statistics.summary import conditions
from analysis.text.factor_notes import interactions, one_rate
from analysis.text.wording import VERDICTS, Say, speaker
from analysis.verdicts.answer import Answer
from analysis.verdicts.observed_power import observed_power


def notes(answer: Answer, ledger: pd.DataFrame, language: str) -> list[str]:
    """The notes, a line of plain text each; a note whose numbers are not known says so."""
    say = speaker(language)
    study = answer.study
    if not len(study.finished):
        spent = len(study.trials) or len(study.runs[study.runs.state == "failed"])
        found = [_design(answer, say), *[_spent(answer, say)] * bool(spent), *_kept(answer, say)]
        return [*found, *(say(*notice) for notice in study.notices)]
    found = [
        _legend(answer, say), *_photographs(answer, say), _ceiling(study.finished, say), _design(answer, say), _protocol(study.finished, say),
        *_readings(answer, ledger, say), *interactions(answer, say), *_conditions(answer, say), *_correlation(answer, say),
        *one_rate(answer, say), *_faultless(answer, say), _spent(answer, say),
    ]  # fmt: skip
    return [*found, *_kept(answer, say), *(say(*notice) for notice in study.notices)]


def _legend(answer: Answer, say: Say) -> str:
    rope = answer.study.rope
    return say(
        "★: not separated from the top, that is no judged cell is better. Dice, IoU and boundary IoU are means of the last weights over a "
        "car's photographs, then cars, then seeds; a verdict counts the other judged cells, with Holm-adjusted intervals; equivalent: within "
        f"±{rope:g}. The best epoch's Dice is a sensitivity and decides nothing. A cell whose scores vary much may keep the ★ with a low mean: nothing rules it out.",
        f"★：未与最好的区分开，即没有已判定的单元优于它。Dice、IoU、边界 IoU 用最后的权重计算，先对一辆车的照片取平均，再对各车、各随机种子取平均；"
        f"“判定”一栏统计的是其他已判定的单元，区间经 Holm 校正；等效：在 ±{rope:g} 之内。最佳轮的 Dice 只作敏感性分析，不影响判定。分数波动大的单元即使均值低也可能保留 ★：没有证据排除它。",
    )


def _photographs(answer: Answer, say: Say) -> list[str]:
    """How large the data are, and in which pixels everything was scored: copies of one data set differ in both."""
    known, scores = answer.study.plan.get("photographs"), answer.study.scores
    if not known:
        return []
    data = ", ".join(sorted(set(answer.study.finished.data.astype(str))))
    tested, groups = f"{scores.image.nunique():,}", scores.group.nunique()
    sizes, few = known["sizes"], 3
    shown = ", ".join(sizes[:few]) + (
        say(f" and {len(sizes) - few} more sizes", f" 等 {len(sizes)} 种尺寸") if len(sizes) > few else ""
    )
    return [say(
        f"Data: {data}, {known['photographs']:,} photographs in {known['groups']:,} groups (a car is one); {tested} test photographs of {groups} groups were "
        f"scored at {shown}, and HD95 is in those pixels.",
        f"数据：{data}，{known['photographs']:,} 张照片，分为 {known['groups']:,} 组（一辆车为一组）；{groups} 组的 {tested} 张测试照片以 {shown} 评分，HD95 以这些像素计。",
    )]  # fmt: skip


def _ceiling(runs: pd.DataFrame, say: Say) -> str:
    found = runs.dropna(subset=["ceiling"]).drop_duplicates("size").sort_values("size")
    told = ", ".join(f"{row.size_} {row.ceiling:.4f}" for row in found.rename(columns={"size": "size_"}).itertuples())
    told = told or say("not measured", "未测量")
    return say(
        f"Ceiling of the input size (Dice of the truth itself, reduced and enlarged): {told}.",
        f"输入尺寸的上限（标注真值缩小再放大后的 Dice）：{told}。",
    )


def _design(answer: Answer, say: Say) -> str:
    detectable = answer.study.plan.get("detectable") or {}
    if not detectable:
        return say("What the design could detect: not measured.", "设计能检出的差异：未测量。")
    main = detectable.get("main") or {}
    mains = "".join(
        say(f", between levels of {f} over all the others {_number(d)}", f"，{f} 的主效应 {_number(d)}")
        for f, d in main.items()
    )
    pair, chance = _number(detectable.get("pair")), detectable.get("equivalent")
    same = (
        ""
        if chance is None
        else say(
            f"; two equal cells are called equivalent with a chance of {chance:.2f}",
            f"；两个相等的单元被判为等效的概率为 {chance:.2f}",
        )
    )
    source = (answer.study.plan.get("variances") or {}).get("source", "")
    by = say(
        {"pilot": " (variances from a pilot)", "guess": " (variances guessed)"}.get(source, ""),
        {"pilot": "（方差来自预实验）", "guess": "（方差为猜测）"}.get(source, ""),
    )
    told = say(
        f"What the design could detect with 80 % power if every cell is judged: a difference in Dice between two cells of {pair}{mains}{same}{by}.",
        f"若所有单元都有判定，设计在 80 % 功效下能检出的 Dice 差异：两个单元之间 {pair}{mains}{same}{by}。",
    )
    return told + _as_seen(answer, say)


def _as_seen(answer: Answer, say: Say) -> str:
    found = observed_power(answer)
    if found is None:
        return ""
    mains = "".join(say(f", {f} {_number(d)}", f"，{f} {_number(d)}") for f, d in found.main.items())
    return say(
        f" With the spread that the judged cells' scores showed, for the comparison with the fewest combinations: between two cells {_number(found.pair)}{mains}.",
        f"按已判定单元的分数所显示的离散程度，就组合最少的比较而言：两个单元之间 {_number(found.pair)}{mains}。",
    )


def _protocol(runs: pd.DataFrame, say: Say) -> str:
    if not len(runs):
        return say("Device and protocol: not measured.", "设备与协议：未测量。")
    device, precision, protocol = (
        ", ".join(sorted(set(runs[n].astype(str)))) for n in ("device", "precision", "protocol")
    )
    threads = ", ".join(sorted(set(runs.threads.dropna().astype(str))))
    epochs, batch, steps = (
        say(" or ", " 或 ").join(map(str, sorted(set(runs[n].dropna().astype(int)))))
        for n in ("epochs", "batch_size", "epoch_steps")
    )
    of_steps, of_steps_zh = (f" of {steps} steps", f"（每轮 {steps} 步）") if steps else ("", "")
    mixed = (
        say(" Seconds can be compared on one device only.", "只有同一设备上的秒数可以比较。")
        if runs.device.nunique() > 1
        else ""
    )
    return say(
        f"Device: {device}, {precision}, threads {threads or '0'}. Protocol {protocol}: {epochs} epochs{of_steps}, batches of {batch}, no early stopping.{mixed}",
        f"设备：{device}，{precision}，线程数 {threads or '0'}。协议 {protocol}：{epochs} 轮{of_steps_zh}，批大小 {batch}，不使用早停。{mixed}",
    )


def _readings(answer: Answer, ledger: pd.DataFrame, say: Say) -> list[str]:
    return [
        say(
            f"By the ledger, which counts the runs of reported studies, these {cars} test cars have been read by {runs} runs of "
            f"{studies} stud{'y' if studies == 1 else 'ies'}.",
            f"账本计入已报告的研究的运行：据此，这 {cars} 辆测试车已被 {studies} 项研究的 {runs} 次运行读取。",
        )
        for cars, runs, studies in times_read(ledger, answer.study)
    ]


def _conditions(answer: Answer, say: Say) -> list[str]:
    judged = [answer.scores[row.cell] for row in answer.judged]
    if len(judged) < 2:
        return []
    runs = answer.study.finished
    epochs, size, data = (", ".join(sorted(set(runs[n].astype(str)))) for n in ("epochs", "size", "data"))
    several = sorted(set(runs.epoch_steps.dropna().astype(int)))
    many, steps = len(several) > 1, say(" or ", " 或 ").join(map(str, several))
    budget = f"{epochs} epochs" + (f" of {steps} steps, each cell at its own" if many else "")
    budget_zh = f"{epochs} 轮" + (f"，每轮 {steps} 步，每个单元按自己的步数" if many else "")
    sets = len(runs[["split", "fold", "train_cars"]].drop_duplicates()) * (1 + (runs.split == "image").any())
    tuning = answer.study.plan.get("tuning")
    trials = sorted({row.trials for row in answer.judged})
    once = not answer.study.trials.duplicated(["cell", "rate"]).any()
    one, one_zh = (
        (", one a rate: how uncertain a rate is they cannot show", "，每个学习率一次，看不出学习率有多不确定")
        if once
        else ("", "")
    )
    rates = f"tuned with {trials[-1]} trials a cell{one}" if tuning and trials[-1] else "not tuned"
    rates_zh = f"每个单元调参 {trials[-1]} 次{one_zh}" if tuning and trials[-1] else "未调参"
    english = conditions(
        [len(one) for one in judged],
        judged[0].shape[1],
        budget,
        rates,
        f"{data} at {size}",
        answer.study.rope,
        sets == 1,
    )
    return [
        say(
            english,
            f"这些判定适用于新的随机种子和同类的新测试车（每个单元 {_range([len(one) for one in judged])} 个种子，{judged[0].shape[1]} 辆车），并且只对{'这一组' if sets == 1 else '这些'}训练车、"
            f"这个训练预算（{budget_zh}）、这些学习率（{rates_zh}）和这份数据（{data}，{size}）成立；只有整个区间都在 ±{answer.study.rope:g} 之内才称为等效，“优于”的差距可能更小。",
        )
    ]


def _correlation(answer: Answer, say: Say) -> list[str]:
    """The seeds' correlation between cells, where it can be measured."""
    cells = {row.cell: answer.scores[row.cell] for row in answer.judged}
    if len(cells) < 2 or len({len(one) for one in cells.values()}) > 1:
        return []
    found = seed_correlation(cells)
    if found.overall != found.overall:
        return []
    return [say(
        f"Correlation of seeds between cells: {found.overall:+.2f} (p {found.p:.3f}); seeds are treated as independent.",
        f"各单元之间随机种子的相关系数：{found.overall:+.2f}（p = {found.p:.3f}）；随机种子按独立处理。",
    )]  # fmt: skip


def _faultless(answer: Answer, say: Say) -> list[str]:
    """What the publicly listed faulty masks among the test photographs change."""
    found = answer.faultless
    if found is None or not answer.measured:
        return []
    if not found.photographs:
        return [say(
            "None of the masks that are publicly listed as faulty is among the test photographs.",
            "公开列出的有错误的掩码都不在测试照片中。",
        )]  # fmt: skip
    most = max(abs(found.dice[row.cell] - row.dice) for row in answer.measured)
    words = VERDICTS[say("en", "zh")]
    told = say("; ", "；").join(
        say(f"{name}: ", f"{name}：")
        + f"{words[before.verdict]} {_ends(before)} → {words[after.verdict]} {_ends(after)}"
        for name, before, after in found.changed
    )
    return [say(
        f"Without the {found.photographs} test photographs whose masks are publicly listed as faulty, a cell's Dice changes by at most {most:.5f}, "
        + (f"and these verdicts change: {told}." if told else "and no verdict changes."),
        f"去掉 {found.photographs} 张掩码被公开列为有错误的测试照片后，各单元的 Dice 至多变化 {most:.5f}，"
        + (f"以下判定改变：{told}。" if told else "没有判定改变。"),
    )]  # fmt: skip


def _ends(found: Comparison) -> str:
    """An interval whose ends may be close to where a verdict turns."""
    return f"[{found.low:+.6f}, {found.high:+.6f}]"


def _kept(answer: Answer, say: Say) -> list[str]:
    """The cells that an earlier plan had."""
    left = [str(cell["cell"]) for cell in answer.study.cells if cell.get("kept")]
    if not left:
        return []
    return [say(
        f"No longer in the plan, but kept with their committed runs: {', '.join(left)}.",
        f"已不在计划中，但保留了已提交的运行：{'、'.join(left)}。",
    )]  # fmt: skip


def _spent(answer: Answer, say: Say) -> str:
    """What the study cost in runs, trials and hours of training."""
    runs, trials = answer.study.finished, answer.study.trials
    hours = (runs.training_seconds.sum() + trials.seconds.sum()) / 3600
    failed = int((answer.study.runs.state == "failed").sum())
    lent = int((trials.seconds.isna() & (trials.state == "finished")).sum())
    of, of_zh = (f", {lent} of them spent in other studies", f"（其中 {lent} 次计入其他研究）") if lent else ("", "")
    return say(
        f"Spent: {len(runs)} runs, {failed} more that failed, {len(trials)} tuning trials{of}; {hours:.1f} hours of training, summed over processes.",
        f"开销：{len(runs)} 次运行（另有 {failed} 次失败）、{len(trials)} 次调参试验{of_zh}；各进程训练时间合计 {hours:.1f} 小时。",
    )


def _range(numbers: list[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)}–{max(numbers)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"  # one seed or one car detects nothing
