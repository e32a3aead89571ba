"""The tables of docs/performance.md, rendered from docs/bench/*.json, the output of `python run.py bench --json`.

python -m analysis.report.bench_tables    write them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from analysis.records.places import ROOT
from analysis.text.markdown import render, table_of

DOCUMENT = ROOT / "docs" / "performance.md"
Results = dict[str, Any]


def rendered(text: str) -> str:
    """The document's text as it should be."""
    return render(text, parts(DOCUMENT.parent / "bench"))


def parts(folder: Path) -> dict[str, str]:
    """The rendered parts by marker: one table for each thing that was measured, over all files of `folder`."""
    files = [_read(path) for path in sorted(folder.glob("*.json"))]
    return {f"bench {name}": "\n\n".join(_tables(name, rows, files)) or "not measured" for name, rows in ROWS.items()}


def _read(path: Path) -> Results:
    """What bench printed; or the result.json of a run, which is measured in time too."""
    results = json.loads(path.read_text(encoding="utf-8"))
    if "test" not in results:
        return results
    machine = {"processor": results["device"], "device": "cpu", "threads": results["threads"]}
    return {"machine": machine | {"torch": results["versions"]["torch"]}, "quality": results}


def _tables(name: str, read_rows: Callable[[Results], list[list[str]]], files: Iterable[Results]) -> list[str]:
    """A table a machine: figures of two machines never stand in one."""
    by_machine: dict[str, list[list[str]]] = {}
    for results in files:
        if name in results:
            by_machine.setdefault(_machine(results["machine"]), []).extend(read_rows(results))
    return [f"{machine}\n\n{table_of(HEADINGS[name], rows)}" for machine, rows in by_machine.items()]


def _machine(about: Results) -> str:
    threads = f", {about['threads']} threads" if about["device"] == "cpu" else ""
    return f"*{about['processor'] if about['device'] == 'cpu' else about['device']}{threads}, torch {about['torch']}*"


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
    "loader": ["augmentation", "cached, photographs/s", "decoding, photographs/s", "ratio"],
    "scoring": ["what", "photograph", "ms on one thread"],
    "overhead": ["what", "seconds"],
    "quality": ["what", "training cars", "seconds before scoring", "test Dice", "IoU", "boundary IoU", "ceiling"],
}  # fmt: skip
ROWS: dict[str, Callable[[Results], list[list[str]]]] = {
    "step": _step,
    "loader": _loader,
    "scoring": _scoring,
    "overhead": _overhead,
    "quality": _quality,
}


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
