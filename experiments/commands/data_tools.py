"""What `run.py data …` and `run.py runs …` do, once their words are checked."""

from __future__ import annotations

import errno
import importlib
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.config.schema import DATA_DIRS
from experiments.config.values import ParsedArgs, one_of, typed, whole
from experiments.data import cache
from experiments.data import splits as splitting
from experiments.data.archives import unpack
from experiments.data.checks import Report, verify
from experiments.data.listing import Listing, Problem
from experiments.data.synthetic.cars import write_cars
from experiments.runtime import progress
from experiments.runtime.errors import RunFailed
from experiments.runtime.interrupts import Interrupted, Stop, handle_signals
from experiments.training import run_index
from registry import DATASETS, InputError


def verify_data(wanted: ParsedArgs) -> int:
    """Decode the whole data set and list what is wrong; 0: nothing, 1: something."""
    listing, folder = _listing(wanted)
    parts, undivided = _divided(wanted, listing)
    part = {s.name: name for name in splitting.PARTS for s in getattr(parts, name)} if parts else {}
    with _stoppable() as stop:
        with progress.progress_counter("decoding photographs and masks", stop.check) as show:
            report = verify(listing, part, show)
        problems = ([Problem(folder, "no split", undivided)] if undivided else []) + report.problems
        for problem in problems:
            print(f"{problem.what}: {problem.text}")
        _show_known_faulty(report)
        _summarise(report, part)
        return _verdict(problems, folder)
    return _interrupted(stop)


def _listing(wanted: ParsedArgs) -> tuple[Listing, Path]:
    """What lies in the data set's folder. A data set of one's own that cannot list is built instead."""
    name = wanted.fields.get("data", "carvana")
    entry, folder = DATASETS[name], wanted.machine.get("data_dir") or DATA_DIRS.get(name, Path("data"))
    options: dict[str, Any] = {"data_dir": folder}
    pattern = wanted.fields.get("group_pattern")
    if pattern is not None and "group_pattern" not in entry.options():
        raise InputError(f"--group-pattern is for --data folder; {name} knows its groups.")
    if pattern is not None:
        options["group_pattern"] = pattern
    list_files = getattr(importlib.import_module(entry.load().__module__), "listing", None)
    return (list_files(**options) if list_files else Listing(entry.build(**options))), folder


def _divided(wanted: ParsedArgs, listing: Listing) -> tuple[splitting.Split | None, str]:
    """The split that a run would use, or why there is none."""
    manifest, fields = wanted.machine.get("split_file"), wanted.fields
    if manifest and not manifest.is_file():
        raise InputError(f"There is no manifest {manifest}. Give --split-file a CSV of image,part.")
    try:
        if manifest:
            return splitting.read_manifest(manifest, listing.samples), ""
        by, seed, fold = fields.get("split", "car"), fields.get("seed", 0), fields.get("fold")
        return splitting.split(listing.samples, by=by, seed=seed, fold=fold), ""
    except InputError as error:
        return None, str(error)


def _show_known_faulty(report: Report) -> None:
    if report.known_faulty:
        names = " ".join(sample.image.stem for sample in report.known_faulty)
        print(
            f"Publicly known faulty masks, Kaggle's own and no fault of this copy ({len(report.known_faulty)}): {names}"
        )


def _summarise(report: Report, part: dict[str, str]) -> None:
    groups = len({look.sample.group for look in report.looks})
    sizes = [f"{width}x{height}" for width, height in report.sizes]
    shown = f"{sizes[0]} to {sizes[-1]} ({len(sizes)} sizes)" if len(sizes) > 1 else "".join(sizes) or "no size"
    line = f"{len(report.looks)} photographs with masks in {groups} groups, {shown}"
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


def make_cars(data_dir: Path, cars: str, seed: str, size: str) -> int:
    """Write synthetic cars in Carvana's layout."""
    count, number, (width, height) = whole("--cars", cars, 1), whole("--seed", seed, 0), typed("size", size)
    with _stoppable() as stop, _writing(data_dir):
        with progress.progress_counter(f"making synthetic cars in {data_dir}", stop.check) as show:
            write_cars(data_dir, count, number, (width, height), show)
        print(
            f"{data_dir} holds {count} synthetic car{'s' if count > 1 else ''}: {16 * count} photographs of {width}x{height} with their masks."
        )
        print(f"Train on them: python run.py --data synthetic --data-dir {data_dir}")
        return 0
    return _interrupted(stop)


def download(name: str, data_dir: Path) -> int:
    """Fetch a data set from its publisher and unpack it."""
    from experiments.data.download import fetch

    one_of("data set to download", name, ("carvana",))
    archives = fetch()
    print("kagglehub keeps the zips; delete them when you like: " + " ".join(map(str, archives)))
    return import_zips(archives, data_dir)


def import_zips(archives: Sequence[Path], data_dir: Path) -> int:
    """Unpack Kaggle's zips into `data_dir`."""
    with _stoppable() as stop, _writing(data_dir):
        with progress.progress_counter(f"unpacking into {data_dir}", stop.check) as show:
            imported = unpack(archives, data_dir, show)
        if imported.left_out:
            more = " …" if len(imported.left_out) > 3 else ""
            print(f"Left out, as training does not need it: {', '.join(imported.left_out[:3])}{more}")
        there = f" ({imported.there} more were there already)" if imported.there else ""
        print(f"{imported.new} pictures are new in {data_dir}{there}.")
        print(f"Look at them: python run.py data verify --data carvana --data-dir {data_dir}")
        return 0
    return _interrupted(stop)


def list_runs(output_dir: Path) -> int:
    """A table of every run with its state and size on disk, and what the cache takes."""
    found = run_index.runs(output_dir / "runs")
    if found:
        console = Console()
        wide = console if console.is_terminal else Console(width=max(console.width, 160))
        wide.print(_table(found))
    else:
        print(f"No runs under {output_dir / 'runs'}. Train one: python run.py --model unet --loss bce_dice")
    states = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in found).most_common())
    print(
        f"{len(found)} run{'' if len(found) == 1 else 's'}{f' ({states})' if found else ''}: {megabytes(sum(run.size for run in found))}."
    )
    cached = cache.disk_size(output_dir / "cache")
    print(f"Cache: {megabytes(cached)}{'; free it with: python run.py runs clean-cache' if cached else ''}.")
    return 0


def _table(found: Sequence[run_index.Run]) -> Table:
    table = Table()
    for name in ("run", "model", "loss", "data", "seed", "state", "test Dice", "size"):
        table.add_column(name, overflow="fold", justify="right" if name in ("seed", "test Dice", "size") else "left")
    for run in found:
        words = [str(run.config.get(name, "-")) for name in ("model", "loss", "data", "seed")]
        state = f"{run.state}: {run.why}" if run.why else run.state
        table.add_row(run.key, *words, state, "-" if run.dice is None else f"{run.dice:.4f}", megabytes(run.size))
    return table


def clean_cache(output_dir: Path) -> int:
    """Delete the decoded pixels, which the next run makes again, and nothing else."""
    running = {run.cache for run in run_index.runs(output_dir / "runs") if run.state == "running"}
    with _writing(output_dir / "cache"):
        freed, left = cache.clean(output_dir / "cache", spare=running)
    for name in left:
        print(f"Left {output_dir / 'cache' / name}: a run is using it.")
    print(f"Freed {megabytes(freed)}; the next run decodes its photographs again.")
    return 0


def megabytes(size: int) -> str:
    """A number of bytes as people read it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def _stoppable() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM end the work at the next file; what was begun is undone by whoever began it."""
    with handle_signals() as stop, suppress(Interrupted):
        yield stop


def _interrupted(stop: Stop) -> int:
    name = signal.Signals(stop.signal).name
    print(f"Interrupted by {name}. Nothing was changed; the same command begins again.", file=sys.stderr)
    return 130 if stop.signal == signal.SIGINT else 143


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What the disk refuses, in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunFailed(f"The disk under {folder} is full. Free some space and repeat the command.") from None
        place = error.filename or folder
        raise InputError(
            f"{place} cannot be written ({error.strerror}). See to its permissions or name another folder."
        ) from None
