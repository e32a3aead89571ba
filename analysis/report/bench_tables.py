"""The tables of docs/en/performance.md and docs/zh/performance.md, rendered from docs/bench/*.json, the output of
`python run.py bench --json`.

python -m analysis.report.bench_tables    write them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from analysis.records.places import ROOT
from analysis.text.markdown import render, table_of

DOCUMENTS = {language: ROOT / "docs" / language / "performance.md" for language in ("en", "zh")}
Results = dict[str, Any]


def rendered(text: str, language: str) -> str:
    """The document's text as it should be."""
    return render(text, parts(ROOT / "docs" / "bench", language))


def parts(folder: Path, language: str = "en") -> dict[str, str]:
    """The rendered parts by marker: one table for each thing that was measured, over all files of `folder`."""
    files = [_read(path) for path in sorted(folder.glob("*.json"))]
    nothing = {"en": "not measured", "zh": "未测量"}[language]
    return {f"bench {name}": "\n\n".join(_tables(name, language, files)) or nothing for name in ROWS}


def _read(path: Path) -> Results:
    """What bench printed; or the result.json of a run, which is measured in time too."""
    results = json.loads(path.read_text(encoding="utf-8"))
    if "test" not in results:
        return results
    machine = {"processor": results["device"], "device": "cpu", "threads": results["threads"]}
    return {"machine": machine | {"torch": results["versions"]["torch"]}, "quality": results}


def _tables(name: str, language: str, files: Iterable[Results]) -> list[str]:
    """A table a machine: figures of two machines never stand in one."""
    by_machine: dict[str, list[list[str]]] = {}
    for results in files:
        if name in results:
            rows = [[_translated(cell, language) for cell in row] for row in ROWS[name](results)]
            by_machine.setdefault(_machine(results["machine"], language), []).extend(rows)
    headings = [_translated(heading, language) for heading in HEADINGS[name]]
    return [f"{machine}\n\n{table_of(headings, rows)}" for machine, rows in by_machine.items()]


def _machine(about: Results, language: str) -> str:
    on_cpu = about["device"] == "cpu"
    threads = [f"{about['threads']} {'个线程' if language == 'zh' else 'threads'}"] if on_cpu else []
    parts = [about["processor" if on_cpu else "device"], *threads, f"torch {about['torch']}"]
    return f"*{('，' if language == 'zh' else ', ').join(parts)}*"


def _translated(text: str, language: str) -> str:
    """A heading or cell in the page's language; numbers and names stay as they are."""
    if language == "zh":
        for english, chinese in CHINESE.items():
            text = text.replace(english, chinese)
    return text


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
    run = results["quality"]
    before = run["seconds"]["this_sitting"] - run["seconds"]["scoring"]
    size = "×".join(map(str, run["size"]))
    scores = [f"{run['test']['last'][name]:.4f}" for name in ("dice", "iou", "boundary_iou")]
    about = [f"`{run['model']}`, {run['loss']}", f"{run['cars']['train']} at {size}", f"{before:.0f}"]
    return [[*about, *scores, f"{run['ceiling']:.4f}"]]


HEADINGS = {
    "step": [
        "work", "images/s", "times a plain loop (its images/s)", "of the fp32 peak, GFLOP/s",
        "of the bf16 peak, GFLOP/s", "of the roofline, images/s", "memory, GB (plain)",
    ],
    "loader": ["augmentation", "cached, images/s", "decoding, images/s", "ratio"],
    "scoring": ["what", "image", "ms on one thread"],
    "overhead": ["what", "seconds"],
    "quality": ["what", "training cars", "seconds before scoring", "test Dice", "IoU", "boundary IoU", "ceiling"],
}  # fmt: skip
CHINESE = {  # in this order: longer phrases before those that they contain
    "times a plain loop (its images/s)": "相对普通写法的倍数（其图像/秒）",
    "of the fp32 peak, GFLOP/s": "占 fp32 峰值 / GFLOP/s", "of the bf16 peak, GFLOP/s": "占 bf16 峰值 / GFLOP/s",
    "of the roofline, images/s": "占 roofline / 图像/秒", "memory, GB (plain)": "内存 GB（普通写法）",
    "cached, images/s": "读缓存，图像/秒", "decoding, images/s": "重新解码，图像/秒", "images/s": "图像/秒",
    "ms on one thread": "单线程毫秒", "seconds before scoring": "评分前秒数", "training cars": "训练车",
    "test Dice": "测试 Dice", "boundary IoU": "边界 IoU", "augmentation": "数据增强", "ceiling": "理论上限",
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


if __name__ == "__main__":
    for language, page in DOCUMENTS.items():
        page.write_text(rendered(page.read_text(encoding="utf-8"), language), encoding="utf-8")
