"""Run the benchmarks; return the results as plain data, or print them as JSON or tables."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.bench import loader, roofline, step
from experiments.config.schema import DATA_DIRS, RunConfig, RuntimeConfig
from experiments.data import carvana
from experiments.data.samples import Sample
from experiments.data.synthetic import cars
from experiments.runtime import progress
from experiments.runtime.environment import versions
from registry import InputError

PARTS = ("step", "loader", "scoring", "overhead")
SECONDS = 2.0  # per measurement of the loader


def measure(
    config: RunConfig, machine: RuntimeConfig, parts: Sequence[str], steps: int, repeats: int
) -> dict[str, Any]:
    """Run the requested parts in the order of PARTS; return the results as plain data, ready for JSON."""
    work = step.Workload(config, steps, repeats)
    results: dict[str, Any] = {
        "machine": {**versions(), "device": config.device, "threads": config.threads},
        "work": _workload(config),
    }
    with tempfile.TemporaryDirectory() as folder:
        samples = _samples(machine.data_dir, Path(folder)) if {"loader", "scoring"} & set(parts) else []
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "step": lambda: _step(work),
            "loader": lambda: loader.loader_speeds(loader.spread(samples), config.size, SECONDS, machine.workers or 0),
            "scoring": lambda: _scoring(samples, config.size),
            "overhead": lambda: {"imports": loader.import_seconds(), "run": loader.run_seconds()},
        }
        for name in (part for part in PARTS if part in parts):
            progress.log_to_stderr(f"measuring: {name} ...")
            results[name] = measures[name]()
    return results


def print_results(results: dict[str, Any], as_json: bool) -> None:
    """Print the results of `measure`."""
    if as_json:
        print(json.dumps(results, indent=1))
        return
    console = Console()
    machine = results["machine"]
    console.print(f"{machine['processor']}, torch {machine['torch']}, {_describe(results['work'])}")
    for name, rows in (
        ("step", _step_rows),
        ("loader", _loader_rows),
        ("scoring", _scoring_rows),
        ("overhead", _overhead_rows),
    ):
        if name in results:
            table = Table(title=name, title_justify="left", show_header=False)
            for row in rows(results[name]):
                table.add_row(*row)
            console.print(table)


def _step(work: step.Workload) -> dict[str, Any]:
    results = step.step_speeds(work)
    peaks, flop = roofline.machine_peaks(work.config.device), roofline.step_flop(work)
    own = results["images_per_second"]["own"]
    results["gflop_per_image"] = flop / 1e9
    results["peak"] = peaks
    results["share_of_peak"] = {name: own * flop / peaks[name] for name in ("fp32", "bf16")}
    results["roofline_images_per_second"] = roofline.roofline(work, peaks[_kind(work.config)], peaks["bandwidth"])
    if work.config.device == "cuda":
        results["largest_batch"] = step.largest_batch(work)
    return results


def _kind(config: RunConfig) -> str:
    return "fp32" if config.precision == "fp32" else "bf16"


def _scoring(samples: list[Sample], size: tuple[int, int]) -> dict[str, Any]:
    with loader.one_thread():
        return loader.scoring_milliseconds(samples, size)


def _samples(data_dir: Path, folder: Path) -> list[Sample]:
    """Carvana's images if available; otherwise synthetic cars of half their size."""
    if (data_dir / "train").is_dir():
        return carvana.build(data_dir)
    if data_dir != DATA_DIRS["carvana"]:
        raise InputError(
            f"There is no folder {data_dir / 'train'}. Name Carvana's folder with --data-dir, or leave it out."
        )
    return cars.build(folder / "cars", cars=6, size=(960, 640))


def _workload(config: RunConfig) -> dict[str, Any]:
    names = ("model", "model_kwargs", "loss", "size", "batch_size", "precision", "compile")
    values = config.to_dict()
    return {name: values[name] for name in names}


def _describe(work: dict[str, Any]) -> str:
    options = "".join(f" {name}={value}" for name, value in work["model_kwargs"].items())
    width, height = work["size"]
    return (
        f"{work['model']}{options}, {work['loss']}, {width}x{height}, batch {work['batch_size']}, {work['precision']}"
    )


def _step_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    speeds, peaks = results["images_per_second"], results["peak"]
    rows = [("this project's train", f"{speeds['own']:.2f} images/s")]
    rows += [
        (name, f"{speeds[name]:.2f} images/s; ours is {ratio:.2f} times") for name, ratio in results["own_over"].items()
    ]
    for name in ("fp32", "bf16"):
        rows.append(
            (
                f"{name} matrix product",
                f"{peaks[name] / 1e9:.0f} GFLOP/s; the step reaches {results['share_of_peak'][name]:.0%}",
            )
        )
    rows.append(("arithmetic", f"{results['gflop_per_image']:.2f} GFLOP per image, forward and backward"))
    bound, bandwidth = results["roofline_images_per_second"], peaks["bandwidth"] / 1e9
    rows.append(("roofline", f"{bound:.1f} images/s at {bandwidth:.1f} GB/s of memory traffic"))
    memory = results["peak_memory_gb"]
    rows.append(("peak memory", f"{memory['own']:.2f} GB; plain {memory['plain']:.2f} GB"))
    return rows + ([("largest batch", str(results["largest_batch"]))] if "largest_batch" in results else [])


def _loader_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, f"{f['cached']:.0f} images/s cached, {f['decoding']:.0f} decoding: {f['ratio']:.1f} times")
        for name, f in results.items()
    ]


def _scoring_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    size = results["photograph"]
    return [(name, f"{value:.1f} ms per image of {size}") for name, value in results.items() if name != "photograph"]


def _overhead_rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    imports = [(name, f"{seconds:.2f} s in a fresh process") for name, seconds in results["imports"].items()]
    return imports + [
        (f"a run {where}", f"{seconds:.1f} s besides training and scoring") for where, seconds in results["run"].items()
    ]
