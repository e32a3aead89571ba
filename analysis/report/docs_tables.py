"""The tables of two pages, rendered from what commands have left: docs/*/performance.md and docs/*/statistics.md.

    docs/bench          what `python run.py bench --json` printed, and results of runs that were timed
    docs/simulations    the rows of `python -m analysis.statistics.simulate`

python -m analysis.report.docs_tables           print them
python -m analysis.report.docs_tables --write   write them into the pages, in both languages
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from analysis.records.study_paths import ROOT
from analysis.statistics.simulate import KEPT
from analysis.text.markdown import render, table_of
from analysis.text.wording import LANGUAGES

Results = dict[str, Any]


def pages() -> dict[Path, dict[str, str]]:
    """Every page with its tables, by the name of their markers."""
    found: dict[Path, dict[str, str]] = {}
    for language in LANGUAGES:
        docs = ROOT / "docs" / language
        found[docs / "performance.md"] = bench_tables(ROOT / "docs" / "bench", language)
        found[docs / "statistics.md"] = simulation_tables(language)
    return found


def rendered(page: Path, tables: Mapping[str, str]) -> str:
    """The text of a page as it should be."""
    return render(page.read_text(encoding="utf-8"), tables)


def _in(language: str, text: str, chinese: Mapping[str, str]) -> str:
    """A table or a part of it in the page's language; numbers and names stay as they are."""
    for english, translation in chinese.items() if language == "zh" else ():
        text = text.replace(english, translation)
    return text


def bench_tables(folder: Path, language: str = "en") -> dict[str, str]:
    """The rendered parts by marker: one table for each thing that was measured, over all files of `folder`."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    files = [results for results in found if "test" not in results]
    files += _in_time([results for results in found if "test" in results])
    nothing = {"en": "not measured", "zh": "未测量"}[language]
    return {f"bench {name}": "\n\n".join(_tables(name, language, files)) or nothing for name in ROWS}


def _in_time(runs: list[Results]) -> list[Results]:
    """The result.json of runs that were measured in time: those that differ in nothing but the seed together."""
    alike: dict[str, list[Results]] = {}
    for run in runs:
        same = repr([run[name] for name in ("model", "loss", "size", "cars", "device", "threads")])
        alike.setdefault(same, []).append(run)
    machines = [{"processor": of[0]["device"], "device": "cpu", "threads": of[0]["threads"]} for of in alike.values()]
    return [
        {"machine": machine | {"torch": of[0]["versions"]["torch"]}, "quality": of}
        for machine, of in zip(machines, alike.values(), strict=True)
    ]


def _tables(name: str, language: str, files: Iterable[Results]) -> list[str]:
    """A table a machine: figures of two machines never stand in one."""
    by_machine: dict[str, list[list[str]]] = {}
    for results in files:
        if name in results:
            rows = [[_in(language, cell, BENCH_CHINESE) for cell in row] for row in ROWS[name](results)]
            by_machine.setdefault(_machine(results["machine"], language), []).extend(rows)
    headings = [_in(language, heading, BENCH_CHINESE) for heading in HEADINGS[name]]
    return [f"{machine}\n\n{table_of(headings, rows)}" for machine, rows in by_machine.items()]


def _machine(about: Results, language: str) -> str:
    on_cpu = about["device"] == "cpu"
    threads = [f"{about['threads']} {'个线程' if language == 'zh' else 'threads'}"] if on_cpu else []
    parts = [about["processor" if on_cpu else "device"], *threads, f"torch {about['torch']}"]
    return f"*{('，' if language == 'zh' else ', ').join(parts)}*"


def _work(work: Results) -> str:
    options = " ".join(f"{name}={value}" for name, value in work["model_kwargs"].items())
    compiled = "" if work["compile"] == "off" else f", compile {work['compile']}"
    size = "×".join(map(str, work["size"]))
    return f"`{work['model']} {options}`, {size}, batch {work['batch_size']}, {work['precision']}{compiled}"


def _step(results: Results) -> list[list[str]]:
    step = results["step"]
    speeds, peak, share = step["images_per_second"], step["peak"], step["share_of_peak"]
    over = "; ".join(f"{ratio:.2f} × {name} ({speeds[name]:.2f})" for name, ratio in step["own_over"].items())
    peaks = [f"{share[name]:.0%} of {peak[name] / 1e9:.0f}" for name in ("fp32", "bf16")]
    roofline = f"{speeds['own'] / step['roofline_images_per_second']:.0%} of {step['roofline_images_per_second']:.1f}"
    memory = f"{step['peak_memory_gb']['own']:.2f} ({step['peak_memory_gb']['plain']:.2f})"
    return [[_work(results["work"]), f"{speeds['own']:.2f}", over, *peaks, roofline, memory]]


def _loader(results: Results) -> list[list[str]]:
    return [
        [f"`{augmentation}`", f"{speed['cached']:.0f}", f"{speed['decoding']:.0f}", f"{speed['ratio']:.1f}"]
        for augmentation, speed in results["loader"].items()
    ]


def _scoring(results: Results) -> list[list[str]]:
    size = results["scoring"]["photograph"].replace("x", "×")
    return [[name, size, f"{value:.1f}"] for name, value in results["scoring"].items() if name != "photograph"]


def _overhead(results: Results) -> list[list[str]]:
    kinds = {"imports": "start and imports of", "run": "a run,"}
    return [
        [f"{kinds[kind]} {name}", f"{value:.2f}"]
        for kind, values in results["overhead"].items()
        for name, value in values.items()
    ]


def _quality(results: Results) -> list[list[str]]:
    runs = results["quality"]
    before = mean(run["seconds"]["this_sitting"] - run["seconds"]["scoring"] for run in runs)
    dice = [run["test"]["last"]["dice"] for run in runs]
    spread = f" ± {stdev(dice):.4f}" if len(runs) > 1 else ""
    others = [f"{mean(run['test']['last'][name] for run in runs):.4f}" for name in ("iou", "boundary_iou")]
    first, size = runs[0], "×".join(map(str, runs[0]["size"]))
    about = [f"`{first['model']}`, {first['loss']}", f"{first['cars']['train']} at {size}", str(len(runs))]
    return [[*about, f"{before:.0f}", f"{mean(dice):.4f}{spread}", *others, f"{first['ceiling']:.4f}"]]


HEADINGS = {
    "step": [
        "work", "images/s", "times a plain loop (its images/s)", "of the fp32 peak, GFLOP/s",
        "of the bf16 peak, GFLOP/s", "of the roofline, images/s", "memory, GB (plain)",
    ],
    "loader": ["augmentation", "cached, images/s", "decoding, images/s", "ratio"],
    "scoring": ["what", "image", "ms on one thread"],
    "overhead": ["what", "seconds"],
    "quality": ["what", "training cars", "runs", "seconds before scoring", "test Dice", "IoU", "boundary IoU",
                "ceiling"],
}  # fmt: skip
BENCH_CHINESE = {  # in this order: longer phrases before those that they contain
    "times a plain loop (its images/s)": "相对普通写法的倍数（其图像/秒）",
    "of the fp32 peak, GFLOP/s": "占 fp32 峰值（峰值，GFLOP/s）",
    "of the bf16 peak, GFLOP/s": "占 bf16 峰值（峰值，GFLOP/s）",
    "of the roofline, images/s": "占 roofline 的比例（上限，图像/秒）", "memory, GB (plain)": "内存 GB（普通写法）",
    "cached, images/s": "读缓存，图像/秒", "decoding, images/s": "重新解码，图像/秒", "images/s": "图像/秒",
    "ms on one thread": "单线程毫秒", "seconds before scoring": "评分前秒数", "training cars": "训练车",
    "runs": "训练次数",
    "test Dice": "测试 Dice", "boundary IoU": "边界 IoU", "augmentation": "数据增强", "ceiling": "参考上限",
    "start and imports of a run's packages": "启动并导入训练所需的包", "start and imports of": "启动并导入",
    "a run, in a fresh process": "一次训练，新进程中", "a run, after another run": "一次训练，接在另一次之后",
    "read the mask": "读取掩码", "score": "评分", "seconds": "秒", "ratio": "比值", "work": "任务", "what": "项目",
    "image": "图像", ", batch ": "，批大小 ", " at ": " 辆，", "% of ": "% / ", " × plain": " × 普通写法",
}  # fmt: skip
ROWS: dict[str, Callable[[Results], list[list[str]]]] = {
    "step": _step,
    "loader": _loader,
    "scoring": _scoring,
    "overhead": _overhead,
    "quality": _quality,
}


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


SIMULATION_CHINESE = {  # in this order: longer phrases before those that they contain
    "seed sd / residual sd": "种子标准差 / 残差标准差", "seed sd": "种子标准差",
    "12 equal cells: any false verdict": "12 种相同组合：有任何错误结论",
    "equal: `equivalent`": "相同：判为 `equivalent`",
    "equal: false verdict": "相同：错误结论", "equal: all `equivalent`": "相同：全部判为 `equivalent`",
    "seeds (0.001)": "种子数（0.001）", "seeds (0.002)": "种子数（0.002）", " found": " 检出",
    "interaction 检出": "误报交互作用", "any false, all pairs": "两两比较：出现错误结论",
    "any false, networks": "网络：出现错误结论",
    "any false, losses": "损失函数：出现错误结论", "any false if rates were free": "不计学习率的代价时：出现错误结论",
    "any false": "出现错误结论", "spread between networks": "网络间波动", "unequal (": "不等 (", "equal": "相等",
    "without stalled runs": "剔除停滞的训练", "as seen": "实测", "spread": "波动", "flagged at": "被标记，倍数",
    "threshold for 0.05": "0.05 对应的倍数", "difference of a pair, all pairs (old)": "两种组合之差（旧：两两比较）",
    "difference of a network, over losses": "网络之差（对损失函数平均）",
    "difference of a loss, over networks": "损失函数之差（对网络平均）", "comparisons": "比较", "one pair": "一对",
    "a family of three, over four cells": "一族三项比较，各对四种组合取平均", "looks at": "查看时点", "runs": "训练",
    "independent": "相互独立", "matched": "按种子配对", "by seed": "", " to ": " 到 ",
    "10 seeds": "10 个种子", "8 seeds": "8 个种子",
    "fresh training sets": "全新训练集",
    "new draws of": "重新抽取", "of these": "辆，共", " cars": " 辆车", "trials a cell": "每种组合的试验数",
    "noise of trials": "试验噪声", "coverage": "覆盖率", "wider, networks": "加宽倍数，网络",
    "wider, losses": "加宽倍数，损失函数", "rate in its interval": "学习率在其区间内", "seeds": "种子数",
    "lowest": "最低",
    "mean": "平均", "highest": "最高", "decades apart": "最佳学习率相距（数量级）", "luckiest trial": "最高的单次试验",
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


def simulation_tables(language: str) -> dict[str, str]:
    """The tables of the page on statistics by the name of their markers; numbers are the same in both languages."""
    tables = {name: as_table([row for part in parts for row in kept_rows(part)]) for name, parts in TABLES.items()}
    return {name: _in(language, table, SIMULATION_CHINESE) for name, table in tables.items()}


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


def main(arguments: Sequence[str]) -> int:
    """Print the tables, or write them with `--write`; the exit code."""
    for page, tables in pages().items():
        if "--write" in arguments:
            page.write_text(rendered(page, tables), encoding="utf-8")
        else:
            print("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
