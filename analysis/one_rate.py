"""What is told of one learning rate for all cells beside each its own: does the winner change?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from analysis.answer import Answer
from analysis.contrast import Array
from analysis.wording import Say


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
