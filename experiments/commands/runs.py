"""The commands `run.py runs …`. The work is imported once the flags are checked."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App

from experiments.commands.flags import OutputDir, switch
from experiments.config.schema import RuntimeConfig
from experiments.runtime.progress import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from experiments.training.run_index import ListedRun

runs = App(name="runs", help="List the runs, and free disk space.\n\nExample: python run.py runs")


@runs.default
def list_runs(*, output_dir: OutputDir = Path("outputs")) -> int:
    """List the runs with their state (finished, interrupted, running, failed), test Dice and size on disk.

    Example: python run.py runs
    """
    from rich.console import Console

    from experiments.data import cache
    from experiments.training import run_index

    listed = run_index.list_runs(output_dir / "runs")
    if listed:
        console = Console()
        wide = console if console.is_terminal else Console(width=max(console.width, 160))
        wide.print(_table(listed))
    else:
        print(f"No runs under {output_dir / 'runs'}. Train one: python run.py --model unet --loss bce_dice")
    states = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in listed).most_common())
    print(
        f"{count(len(listed), 'run')}{f' ({states})' if listed else ''}: {megabytes(sum(run.size for run in listed))}."
    )
    cached = cache.disk_size(output_dir / "cache")
    free = f"; free it with: python run.py runs clean-cache{RuntimeConfig(output_dir=output_dir).output_flag}"
    print(f"Cache: {megabytes(cached)}{free if cached else '.'}")
    return 0


@runs.command(name="clean-cache")
def clean_cache(*, output_dir: OutputDir = Path("outputs")) -> int:
    """Delete the cache of decoded images under --output-dir and nothing else; the next run rebuilds it.

    Example: python run.py runs clean-cache
    """
    from experiments.data import cache
    from experiments.runtime.errors import disk_errors
    from experiments.training import run_index

    folder = output_dir / "cache"
    listed = [run for name in ("runs", "trials") for run in run_index.list_runs(output_dir / name)]
    used = {run.cache for run in listed if run.state == "running"}
    with disk_errors(folder, "another --output-dir"):
        freed, left = cache.clean_cache(folder, spare=used)
    for name in left:
        print(f"Kept {folder / name}: a run is using it.")
    print(f"Freed {megabytes(freed)}; the next run decodes its images again.")
    return 0


@runs.command
def prune(
    *,
    yes: Annotated[bool, switch("do not ask for confirmation")] = False,
    output_dir: OutputDir = Path("outputs"),
) -> int:
    """Delete what finished runs keep only to resume training; their weights and every other run are kept.

    These are previous.ckpt and the optimizer state in last.ckpt; predict, evaluate, export and report do not use them.

    Example: python run.py runs prune
    """
    from experiments.runtime.errors import disk_errors
    from experiments.training import prune_runs as pruning

    prunable = pruning.prunable(output_dir / "runs")
    if not prunable:
        print(f"Nothing to free: no finished run under {output_dir / 'runs'} has more than its weights.")
        return 0
    size = megabytes(sum(run.size for run in prunable))
    print(f"{count(len(prunable), 'finished run')}: {size} of optimizer states and previous checkpoints.")
    if not (yes or _confirmed(f"Free {size}? [y/N] ")):
        print("Nothing was changed." if sys.stdin.isatty() else "Nothing was changed: add --yes to free them.")
        return 0
    with disk_errors(output_dir / "runs", "another --output-dir"):
        freed = pruning.prune(prunable)
    print(f"Freed {megabytes(freed)}.")
    return 0


def _confirmed(question: str) -> bool:
    """Ask on a terminal; elsewhere the answer is no."""
    if not sys.stdin.isatty():
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _table(listed: Sequence[ListedRun]) -> Table:
    from rich.table import Table

    table = Table()
    for name in ("run", "model", "loss", "data", "seed", "state", "test Dice", "size"):
        table.add_column(name, overflow="fold", justify="right" if name in ("seed", "test Dice", "size") else "left")
    for run in listed:
        settings = [str(run.config.get(name, "-")) for name in ("model", "loss", "data", "seed")]
        state = f"{run.state}: {run.reason}" if run.reason else run.state
        table.add_row(run.key, *settings, state, "-" if run.dice is None else f"{run.dice:.4f}", megabytes(run.size))
    return table


def megabytes(size: int) -> str:
    """A number of bytes in MB or GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
