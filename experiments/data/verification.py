"""Print what is wrong with a data set: `run.py data verify`."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.schema import DATA_DIRS
from experiments.config.values import ParsedArgs
from experiments.data import splits as splitting
from experiments.data.checks import DatasetReport, check_dataset
from experiments.data.listing import Listing, Problem
from experiments.runtime import progress
from experiments.runtime.interrupts import NOTHING_CHANGED, Stop, interruptible
from registry import DATASETS, InputError


def verify_data(args: ParsedArgs) -> int:
    """Decode the whole data set and list what is wrong; 0: nothing, 1: something."""
    listing, folder = _listing(args)
    parts, undivided = _split(args, listing)
    part = {s.name: name for name in splitting.PARTS for s in getattr(parts, name)} if parts else {}

    def work(stop: Stop) -> int:
        with progress.progress_counter("decoding images and masks", stop.check) as show:
            report = check_dataset(listing, part, show)
        problems = ([Problem(folder, "no split", undivided)] if undivided else []) + report.problems
        for problem in problems:
            print(f"{problem.what}: {problem.text}")
        _show_known_faulty(report)
        _summarise(report, part)
        return _verdict(problems, folder)

    return interruptible(work, NOTHING_CHANGED)


def _listing(args: ParsedArgs) -> tuple[Listing, Path]:
    """What lies in the data set's folder. A data set of one's own that cannot list is built instead."""
    name = args.fields.get("data", "carvana")
    entry, folder = DATASETS[name], args.machine.get("data_dir") or DATA_DIRS.get(name, Path("data"))
    options: dict[str, Any] = {"data_dir": folder}
    pattern = args.fields.get("group_pattern")
    if pattern is not None and "group_pattern" not in entry.options():
        raise InputError(f"--group-pattern is for --data folder; {name} knows its groups.")
    if pattern is not None:
        options["group_pattern"] = pattern
    list_files = getattr(importlib.import_module(entry.load().__module__), "listing", None)
    return (list_files(**options) if list_files else Listing(entry.build(**options))), folder


def _split(args: ParsedArgs, listing: Listing) -> tuple[splitting.Split | None, str]:
    """The split that a run would use, or why there is none."""
    manifest, fields = args.machine.get("split_file"), args.fields
    if manifest and not manifest.is_file():
        raise InputError(f"There is no manifest {manifest}. Give --split-file a CSV of image,part.")
    try:
        if manifest:
            return splitting.read_manifest(manifest, listing.samples), ""
        by, seed, fold = fields.get("split", "car"), fields.get("seed", 0), fields.get("fold")
        return splitting.split(listing.samples, by=by, seed=seed, fold=fold), ""
    except InputError as error:
        return None, str(error)


def _show_known_faulty(report: DatasetReport) -> None:
    if report.known_faulty:
        names = " ".join(sample.image.stem for sample in report.known_faulty)
        print(
            f"Publicly known faulty masks, Kaggle's own and no fault of this copy ({len(report.known_faulty)}): {names}"
        )


def _summarise(report: DatasetReport, part: dict[str, str]) -> None:
    groups = len({pair.sample.group for pair in report.pairs})
    sizes = [f"{width}x{height}" for width, height in report.sizes]
    shown = f"{sizes[0]} to {sizes[-1]} ({len(sizes)} sizes)" if len(sizes) > 1 else "".join(sizes) or "no size"
    line = f"{len(report.pairs)} images with masks in {groups} groups, {shown}"
    if report.foreground:
        low, mean, high = (
            min(report.foreground),
            sum(report.foreground) / len(report.foreground),
            max(report.foreground),
        )
        line += f"; foreground {low:.1%} to {high:.1%}, mean {mean:.1%}"
    counts = Counter(part.values())
    print(line + "".join(f"; {counts[name]} {name}" for name in splitting.PARTS if counts[name]) + ".")


def _verdict(problems: Sequence[Problem], folder: Path) -> int:
    if not problems:
        print(f"Nothing is wrong with {folder}.")
        return 0
    kinds = ", ".join(f"{count} {what}" for what, count in Counter(problem.what for problem in problems).most_common())
    print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {folder}: {kinds}.")
    return 1
