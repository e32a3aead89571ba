"""The tables of docs/performance.md, from what `python run.py bench --json` printed into docs/bench/*.json.

python -m analysis.report.bench_tables    write them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from analysis.records.places import ROOT
from analysis.text.markdown import render

DOCUMENT = ROOT / "docs" / "performance.md"
Found = dict[str, Any]


def rendered(text: str) -> str:
    """The document's text as it should be."""
    return render(text, parts(DOCUMENT.parent / "bench"))


def parts(folder: Path) -> dict[str, str]:
    """The rendered parts by marker: one table for each thing that was measured, over all files of `folder`."""
    files = [_read(path) for path in sorted(folder.glob("*.json"))]
    return {f"bench {name}": "\n\n".join(_tables(name, rows, files)) or "not measured" for name, rows in ROWS.items()}


def _read(path: Path) -> Found:
    """What bench printed; or the result.json of a run, which is measured in time too."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if "test" not in found:
        return found
    machine = {
        "processor": found["device"],
        "device": "cpu",
        "threads": found["threads"],
        "torch": found["versions"]["torch"],
    }
    return {"machine": machine, "quality": found}


def _tables(name: str, rows: Callable[[Found], list[list[str]]], files: Iterable[Found]) -> list[str]:
    """A table a machine: figures of two machines never stand in one."""
    by_machine: dict[str, list[list[str]]] = {}
    for found in files:
        if name in found:
            by_machine.setdefault(_machine(found["machine"]), []).extend(rows(found))
    return [f"{machine}\n\n{_markdown(HEADINGS[name], found)}" for machine, found in by_machine.items()]


def _machine(about: Found) -> str:
    threads = f", {about['threads']} threads" if about["device"] == "cpu" else ""
    return f"*{about['processor'] if about['device'] == 'cpu' else about['device']}{threads}, torch {about['torch']}*"


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["| " + " | ".join(row) + " |" for row in (headings, ["---"] * len(headings), *rows)])


def _work(work: Found) -> str:
    options = " ".join(f"{name}={value}" for name, value in work["model_kwargs"].items())
    compiled = "" if work["compile"] == "off" else f", compile {work['compile']}"
    return f"`{work['model']} {options}`, {work['size'][0]}×{work['size'][1]}, batch {work['batch_size']}, {work['precision']}{compiled}"


def _step(found: Found) -> list[list[str]]:
    step = found["step"]
    speeds, peak, share = step["images_per_second"], step["peak"], step["share_of_peak"]
    over = "; ".join(f"{ratio:.2f} × {name} ({speeds[name]:.2f})" for name, ratio in step["own_over"].items())
    peaks = [f"{share[name]:.0%} of {peak[name] / 1e9:.0f}" for name in ("fp32", "bf16")]
    roofline = f"{speeds['own'] / step['roofline_images_per_second']:.0%} of {step['roofline_images_per_second']:.1f}"
    return [
        [
            _work(found["work"]),
            f"{speeds['own']:.2f}",
            over,
            *peaks,
            roofline,
            f"{step['peak_memory_gb']['own']:.2f} ({step['peak_memory_gb']['plain']:.2f})",
        ]
    ]


def _loader(found: Found) -> list[list[str]]:
    return [
        [f"`{n}`", f"{f['cached']:.0f}", f"{f['decoding']:.0f}", f"{f['ratio']:.1f}"]
        for n, f in found["loader"].items()
    ]


def _scoring(found: Found) -> list[list[str]]:
    size = found["scoring"]["photograph"].replace("x", "×")
    return [[name, size, f"{value:.1f}"] for name, value in found["scoring"].items() if name != "photograph"]


def _overhead(found: Found) -> list[list[str]]:
    kinds = {"imports": "start and imports of", "run": "a run,"}
    return [
        [f"{kinds[kind]} {name}", f"{value:.2f}"]
        for kind, values in found["overhead"].items()
        for name, value in values.items()
    ]


def _quality(found: Found) -> list[list[str]]:
    run = found["quality"]
    before = run["seconds"]["this_sitting"] - run["seconds"]["scoring"]
    size = "×".join(map(str, run["size"]))
    scores = [f"{run['test']['last'][name]:.4f}" for name in ("dice", "iou", "boundary_iou")]
    return [
        [
            f"`{run['model']}`, {run['loss']}",
            f"{run['cars']['train']} at {size}",
            f"{before:.0f}",
            *scores,
            f"{run['ceiling']:.4f}",
        ]
    ]


HEADINGS = {
    "step": ["work", "images/s", "times a plain loop (its images/s)", "of the fp32 peak, GFLOP/s", "of the bf16 peak, GFLOP/s",
             "of the roofline, images/s", "memory, GB (plain)"],
    "loader": ["augmentation", "cached, photographs/s", "decoding, photographs/s", "ratio"],
    "scoring": ["what", "photograph", "ms on one thread"],
    "overhead": ["what", "seconds"],
    "quality": ["what", "training cars", "seconds before scoring", "test Dice", "IoU", "boundary IoU", "ceiling"],
}  # fmt: skip
ROWS: dict[str, Callable[[Found], list[list[str]]]] = {
    "step": _step, "loader": _loader, "scoring": _scoring, "overhead": _overhead, "quality": _quality,
}  # fmt: skip


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
