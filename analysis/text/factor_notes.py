"""What is told of the interactions between factors, beside a study's table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from analysis.statistics.estimator import Array
from analysis.text.wording import Say
from analysis.verdicts.answer import Answer, Effect


def interactions(answer: Answer, say: Say) -> list[str]:
    """How clear the clearest departure from additivity is, for each pair of factors that are crossed; one square is told once."""
    once: dict[object, Effect] = {}
    for effect in answer.effects:  # two factors may share a square, whose p is adjusted over the squares of each
        if effect.interaction.where:
            place = _square(effect)
            once[place] = min(once.get(place, effect), effect, key=lambda one: one.interaction.p)
    found = [_interaction(effect, say) for effect in once.values()]
    told = {effect.factor for effect in answer.effects if effect.interaction.where}
    varied = [factor for factor, levels in answer.study.factors.items() if len(levels) > 1]
    missing = [factor for factor in varied if factor not in told] if len(varied) > 1 and answer.family else []
    names, among = ", ".join(missing), "、".join(missing)
    return found + [say(
        f"Interaction of {names} with the others: not checked, too few cells are judged for that.",
        f"{among} 与其余因素的交互作用：已判定的单元太少，没有检查。",
    )] * bool(missing)  # fmt: skip


def _square(effect: Effect) -> frozenset[frozenset[tuple[str, str]]]:
    """The four cells of an interaction, each by its factors and levels, whichever way round it is told."""
    assert effect.interaction.where is not None
    firsts, seconds = effect.interaction.where
    return frozenset(effect.others[second] | {(effect.factor, first)} for first in firsts for second in seconds)


def _interaction(effect: Effect, say: Say) -> str:
    """The two differences whose difference it is, the larger one first and turned so that it is not negative."""
    found = effect.interaction
    assert found.where is not None
    (a, b), (c, d) = found.where
    at = effect.means
    first, second, low, high = at[a, c] - at[b, c], at[a, d] - at[b, d], found.low, found.high
    if abs(second) > abs(first):
        (c, d), first, second, low, high = (d, c), second, first, -high, -low
    if first < 0:
        (a, b), first, second, low, high = (b, a), -first, -second, -high, -low
    size = f"{first - second:+.4f} [{low:+.4f}, {high:+.4f}]"
    clear = found.p <= 0.05
    among = say("the only one that could be checked", "唯一可检查的一个") if found.checked == 1 else say(
        f"the clearest of the {found.checked} that could be checked", f"可检查的 {found.checked} 个中最明显的")  # fmt: skip
    return say(
        f"Interaction: {a} minus {b} is {first:+.4f} with {c}, and {second:+.4f} with {d}; the first less the second: {size}, p {found.p:.3f} "
        f"({among}). "
        + (
            "The difference is not the same everywhere: read the cells."
            if clear
            else "Not found, which does not prove that there is none."
        ),
        f"交互作用：{a} 与 {b} 之差在 {c} 下为 {first:+.4f}，在 {d} 下为 {second:+.4f}；前者减后者：{size}，p = {found.p:.3f}（{among}）。"
        + ("这个差别并非处处相同：请看各个单元。" if clear else "未发现交互作用，但这并不证明没有。"),
    )


def one_rate(answer: Answer, say: Say) -> list[str]:
    """Which cell was the highest at each rate that all were tried at, beside the highest of the runs at their own: what tuning changes.

    The runs' validation Dice counts, not the top of the curve through the trials, which the luckiest of them draws up.
    """
    study, labels = answer.study, {row.cell: row.label for row in answer.rows}
    trials, own = study.trials, study.finished.groupby("cell").val_dice_last.mean()
    scores = trials.groupby(["rate", "cell"]).value
    means = scores.agg(lambda values: values.mean(skipna=False)).unstack("cell").dropna(how="all")
    means = means[means.notna().sum(axis=1) == trials.cell.nunique()]
    complete = len(study.finished) == len(study.runs) and own.notna().all()
    if trials.cell.nunique() < 2 or not len(means) or not complete or set(means) != set(own.index):
        return []
    rates: dict[str, list[str]] = {}
    for rate, cell in means.idxmax(axis=1).items():
        rates.setdefault(labels[str(cell)], []).append(f"{rate:.2g}")
    best, own = labels[str(own.idxmax())], own[list(means)]
    leads = [float(high - second) for *_, second, high in np.sort(means.to_numpy(), axis=1)]
    taus = [kendall(row, own.to_numpy()) for row in means.to_numpy()]
    others, a_rate = (
        len(means) - len(rates.get(best, [])),
        " to ".join(map(str, sorted({scores.size().min(), scores.size().max()}))),
    )
    told = say("; ", "；").join(
        say(f"{label} at {', '.join(at)}", f"学习率 {'、'.join(at)} 时为 {label}") for label, at in rates.items()
    )
    return [say(
        f"One rate for all, or each its own? Of the tuning trials on validation cars ({a_rate} a cell and rate) the highest was that of {told}; it leads the next by "
        f"{min(leads):.4f} to {max(leads):.4f}. Of the runs, each cell at its own rate, the highest mean validation Dice is that of {best}. So another cell is the highest at {others} of {len(means)} "
        f"shared rates, and the order of all cells has a Kendall's τ of {min(taus):.2f} to {max(taus):.2f} with that of the runs (1: the same order, 0: as many pairs of cells in the same order as in the opposite one). "
        "So few trials do not rank cells whose lead is smaller than what seeds differ by, and no cell was tested at a shared rate: an order, not a verdict.",
        f"所有单元用同一个学习率，还是各用自己的？在验证车上的调参试验中（每个单元、每个学习率 {a_rate.replace(' to ', '–')} 次），最高的单元：{told}；它领先第二名 {min(leads):.4f} 至 {max(leads):.4f}。"
        f"各用自己的学习率的正式运行中，验证集 Dice 均值最高的是 {best}。也就是说，在 {len(means)} 个共用的学习率中有 {others} 个换了最高的单元；全部单元的排序与正式运行的排序之间，Kendall τ 为 "
        f"{min(taus):.2f} 至 {max(taus):.2f}（1：排序相同；0：顺序相同与相反的单元对一样多）。这样少的试验不足以区分领先小于种子间差异的单元，也没有任何单元在共用的学习率下测试过：这只是排序，不是判定。",
    )]  # fmt: skip


def kendall(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float:
    """Kendall's τ of two lists of scores: pairs in the same order less pairs in the opposite one, as a share of all (tau-a, 1938)."""
    pairs = list(combinations(range(len(a)), 2))
    return float(sum(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs)) / len(pairs)
