"""Print what is wrong with a data set: `run.py data verify`."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.config.schema import DATA_DIRS
from experiments.config.values import ParsedArgs
from experiments.data import splits as splitting
from experiments.data.checks import DatasetReport, check_dataset
from experiments.data.groups import ungrouped
from experiments.data.images import read_header
from experiments.data.listing import Listing, Problem
from experiments.data.reading import Reading, deep_ranges
from experiments.data.run_inputs import describe_pages, determine_reading, list_folder, read_as, takes_pattern
from experiments.runtime import progress
from experiments.runtime.interrupts import NOTHING_CHANGED, Stop, interruptible
from experiments.runtime.progress import count
from registry import InputError

UNLIKE = 1.5  # ratio of two images' width / height from which stretching both to one size is worth a sentence


def verify_data(args: ParsedArgs) -> int:
    """Decode the whole data set and list what is wrong; 0: nothing, 1: something."""
    listing, folder = _listing(args)
    parts, undivided = _split(args, listing)
    part = {s.name: name for name in splitting.PARTS for s in getattr(parts, name)} if parts else {}
    train = parts.train if parts else listing.samples
    reading, notices = determine_reading(Reading.of(args.fields), listing.samples, train)
    listing = dataclasses.replace(listing, samples=read_as(listing.samples, reading))

    def work(stop: Stop) -> int:
        with progress.progress_counter("decoding images and masks", stop.check) as show:
            report = check_dataset(listing, part, show)
        problems = ([Problem(folder, "no split", undivided)] if undivided else []) + report.problems
        for problem in problems:
            print(f"{problem.what}: {problem.text}")
        _show_known_faulty(report)
        names = ungrouped(listing.samples) if takes_pattern(args.fields.get("data", "carvana")) else ""
        others = filter(None, [describe_pages(listing.samples), names])
        for notice in [*notices, *_depths(report, reading), *_turned(report), *_stretched(report), *others]:
            print(notice)
        _summarise(report, part)
        return _verdict(problems, folder, bool(names))

    return interruptible(work, NOTHING_CHANGED)


def _listing(args: ParsedArgs) -> tuple[Listing, Path]:
    """What lies in the data set's folder, and the folder."""
    name = args.fields.get("data", "carvana")
    folder = args.machine.get("data_dir") or DATA_DIRS.get(name, Path("data"))
    return list_folder(name, folder, args.fields.get("group_pattern"), args.machine.get("mask_pattern")), folder


def _split(args: ParsedArgs, listing: Listing) -> tuple[splitting.Split | None, str]:
    """The split that a run would use, or why there is none."""
    manifest, fields = args.machine.get("split_file"), args.fields
    if manifest and not manifest.is_file():
        raise InputError(f"There is no manifest {manifest}. Give --split-file a CSV of image,part.")
    try:
        if manifest:
            return splitting.read_manifest(manifest, listing.samples), ""
        by, seed, fold = fields.get("split", "car"), fields.get("seed", 0), fields.get("fold")
        return splitting.divide(listing.samples, by, seed, fold), ""
    except InputError as error:
        return None, str(error)


def _depths(report: DatasetReport, reading: Reading) -> list[str]:
    """Sentences about the values of images of more than 8 bits, which a scale may clip."""
    ranges = deep_ranges(pair.sample.image for pair in report.pairs)
    if not ranges:
        return []
    low, high = min(r.low for r in ranges.values()), max(r.high for r in ranges.values())
    text = (
        f"{len(ranges)} of {len(report.pairs)} images have more than 8 bits, with values from {low:.10g} to {high:.10g}"
    )
    text += " (the others are read as they are)" if len(ranges) < len(report.pairs) else ""
    if reading.intensity is None:
        return [f"{text}; they are read as {'16' if high > 255 else '8'} bits."]
    beyond = sum(r.low < reading.intensity[0] or r.high > reading.intensity[1] for r in ranges.values())
    outside = f"; {beyond} of them have values outside the scale, which are clipped" if beyond else ""
    return [f"{text}; {reading.intensity[0]:.10g} to {reading.intensity[1]:.10g} become 0 to 255{outside}."]


def _turned(report: DatasetReport) -> list[str]:
    """A sentence about the images that EXIF data turn."""
    headers = [read_header(pair.sample.image) for pair in report.pairs]
    turned = Counter(header.orientation for header in headers if header and header.orientation > 1)
    if not turned:
        return []
    kinds = ", ".join(f"{count} with orientation {kind}" for kind, count in sorted(turned.items()))
    return [f"EXIF turns {sum(turned.values())} of {len(headers)} images ({kinds})."]


def _stretched(report: DatasetReport) -> list[str]:
    """A sentence about images of different shapes, which a run stretches to one."""
    ratios = sorted(width / height for width, height in report.sizes)
    if not ratios or ratios[-1] < UNLIKE * ratios[0]:
        return []
    return [
        f"Width / height goes from {ratios[0]:.2f} to {ratios[-1]:.2f}: a run stretches every image to its one --size."
    ]


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
    line = f"{count(len(report.pairs), 'image')} with masks in {count(groups, 'group')}, {shown}"
    if report.foreground:
        low, mean, high = (
            min(report.foreground),
            sum(report.foreground) / len(report.foreground),
            max(report.foreground),
        )
        line += f"; foreground {low:.1%} to {high:.1%}, mean {mean:.1%}"
    counts = Counter(part.values())
    print(line + "".join(f"; {counts[name]} {name}" for name in splitting.PARTS if counts[name]) + ".")


def _verdict(problems: Sequence[Problem], folder: Path, ungrouped: bool) -> int:
    if not problems:
        print(f"Nothing is wrong with {folder}{', except that groups may be divided: see above' if ungrouped else ''}.")
        return 0
    kinds = ", ".join(f"{n} {what}" for what, n in Counter(problem.what for problem in problems).most_common())
    print(f"{count(len(problems), 'problem')} in {folder}: {kinds}.")
    return 1
