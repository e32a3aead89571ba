"""Free the space of checkpoints that no command uses: `run.py runs prune`.

A finished run keeps the weights in best.ckpt and last.ckpt; predict, evaluate, export, robustness and figures use them.
What goes is needed only to resume training: previous.ckpt, and the optimizer's state in last.ckpt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.runtime.errors import Busy
from experiments.runtime.leases import hold
from experiments.training import run_index

SMALL = 1.05  # a last.ckpt up to this much larger than best.ckpt holds weights only


@dataclass(frozen=True)
class Prunable:
    """A finished run with something to free; `size` in bytes."""

    folder: Path
    size: int


def prunable(runs_dir: Path) -> list[Prunable]:
    """The finished runs with something to free; all others are left alone."""
    sizes = [(run.folder, _to_free(run.folder)) for run in run_index.list_runs(runs_dir) if run.state == "finished"]
    return [Prunable(folder, size) for folder, size in sizes if size]


def prune(runs: Sequence[Prunable]) -> int:
    """Free the space of these runs; the bytes freed. A run that another process holds meanwhile is skipped."""
    return sum(_prune(run.folder) for run in runs)


def _prune(folder: Path) -> int:
    from experiments.training import checkpoint

    before, last = _disk_size(folder), folder / "last.ckpt"
    with contextlib.suppress(Busy), hold(folder) as lease:
        if not (folder / "result.json").exists():
            return 0
        if _surplus(folder):
            with contextlib.suppress(checkpoint.Damaged):  # it is left as it is
                state = checkpoint.load(last)
                weights = {"epoch": state["epoch"], "model": state["model"], "pruned": True}
                checkpoint.save(last, weights, lease.confirm)
        lease.confirm()
        (folder / "previous.ckpt").unlink(missing_ok=True)
    return before - _disk_size(folder)


def _to_free(folder: Path) -> int:
    return _size(folder / "previous.ckpt") + _surplus(folder)


def _surplus(folder: Path) -> int:
    """The size of the optimizer's state: by how much last.ckpt is larger than best.ckpt, which holds weights only."""
    last, weights = _size(folder / "last.ckpt"), _size(folder / "best.ckpt")
    return last - weights if weights and last > SMALL * weights else 0


def _disk_size(folder: Path) -> int:
    return sum(_size(path) for path in folder.glob("*.ckpt"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
