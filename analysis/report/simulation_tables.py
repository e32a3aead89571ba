"""The tables of docs/en/statistics.md and docs/zh/statistics.md, rendered from the simulations that have been kept.

python -m analysis.report.simulation_tables           print them
python -m analysis.report.simulation_tables --write   write them into both pages

The results are in docs/simulations; `python -m analysis.statistics.simulate` makes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.records.places import ROOT
from analysis.statistics.simulate import KEPT
from analysis.text.markdown import render, table_of

DOCUMENT = ROOT / "docs" / "en" / "statistics.md"
CHINESE_DOCUMENT = ROOT / "docs" / "zh" / "statistics.md"
POOLED = ("pooled_parabola", "pooled_steeper", "pooled_flat", "pooled_cliff")
TABLES = {  # by the name of a table's markers, the simulations whose rows it has
    "coverage": ("coverage",),
    "verdicts": ("verdicts",),
    "unequal": ("unequal",),
    "stalls": ("stalls",),
    "detectable": ("detectable",),
    "looks": ("looks",),
    "training draws": ("training_draws",),
    "tuning": ("own_curves",),
    "pooled": POOLED,
    "ledger": ("ledger",),
}


CHINESE = {  # in this order: longer phrases before those that they contain
    "seed sd / residual sd": "种子标准差 / 残差标准差", "seed sd": "种子标准差",
    "12 equal cells: any false verdict": "12 种相同组合：有任何错误结论",
    "equal: `equivalent`": "相同：判为 `equivalent`",
    "equal: false verdict": "相同：错误结论", "equal: all `equivalent`": "相同：全部判为 `equivalent`",
    "seeds (0.001)": "种子数 (0.001)", "seeds (0.002)": "种子数 (0.002)", " found": " 检出",
    "interaction 检出": "误报交互作用", "any false, all pairs": "任何错误，两两比较",
    "any false, networks": "任何错误，网络",
    "any false, losses": "任何错误，损失函数", "any false if rates were free": "任何错误，若不计学习率的代价",
    "any false": "任何错误", "spread between networks": "网络间波动", "unequal (": "不等 (", "equal": "相等",
    "without stalled runs": "剔除停滞的训练", "as seen": "实测", "spread": "波动", "flagged at": "被标记，倍数",
    "threshold for 0.05": "0.05 对应的倍数", "difference of a pair, all pairs (old)": "两种组合之差（旧：两两比较）",
    "difference of a network, over losses": "网络之差（对损失函数平均）",
    "difference of a loss, over networks": "损失函数之差（对网络平均）", "comparisons": "比较", "one pair": "一对",
    "a family of three, over four cells": "一族三个，各对四种组合平均", "looks at": "查看于", "runs": "训练",
    "independent": "相互独立", "matched": "按种子配对", "by seed": "", " to ": " 到 ",
    "10 seeds": "10 个种子", "8 seeds": "8 个种子",
    "fresh training sets": "全新训练集",
    "new draws of": "重新抽取", "of these": "辆，共", " cars": " 辆车", "trials a cell": "每种组合的试验",
    "noise of trials": "试验噪声", "coverage": "覆盖率", "wider, networks": "加宽倍数，网络",
    "wider, losses": "加宽倍数，损失函数", "rate in its interval": "学习率在其区间内", "seeds": "种子数",
    "lowest": "最低",
    "mean": "平均", "highest": "最高", "decades apart": "相距（数量级）", "luckiest trial": "最高的单次试验",
    "one parabola": "整条抛物线", "local parabola": "局部抛物线", "steeper above": "右侧较陡",
    "cliff above": "右侧陡降",
    "flat top": "顶部平缓", ", 5 rates": "，5 个学习率", "flat (0.005) and noisy": "平缓 (0.005) 且噪声大",
    "the same, 2 trials a rate": "同上，每个学习率 2 次试验", "response": "响应", "parabola": "抛物线", "all": "全部",
    "questions without an improvement: accepts any": "个没有改进的问题：接受了任何一个",
    "an improvement of 2 SD: accepted": "2 个标准差的改进：被接受",
}  # fmt: skip


def kept_rows(name: str) -> list[dict[str, Any]]:
    """The rows that a simulation has kept."""
    return list(json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8")))


def rendered_tables() -> dict[str, str]:
    """The document's tables by the name of their markers."""
    return {name: as_table([row for part in parts for row in kept_rows(part)]) for name, parts in TABLES.items()}


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of named figures as a table in Markdown."""
    headings = tuple(rows[0])
    return table_of(headings, [tuple(_text(name, row[name]) for name in headings) for row in rows])


def _text(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if name.startswith("difference"):
        return f"{value:.4f}"
    if name.startswith("wider"):
        return f"{value:.1f}"
    return f"{value:g}" if name in ("seed sd / residual sd", "decades apart", "noise of trials") else f"{value:.3f}"


def in_chinese(table: str) -> str:
    """A table with its words in Chinese; its numbers stay as they are."""
    for english, chinese in CHINESE.items():
        table = table.replace(english, chinese)
    return table


def main(arguments: list[str]) -> int:
    parts = rendered_tables()
    if "--write" in arguments:
        DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8"), parts), encoding="utf-8")
        page = render(CHINESE_DOCUMENT.read_text(encoding="utf-8"), {n: in_chinese(part) for n, part in parts.items()})
        CHINESE_DOCUMENT.write_text(page, encoding="utf-8")
    for name, part in parts.items():
        print(f"\n{name}\n\n{part}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
