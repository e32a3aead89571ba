"""The commands `run.py draw` and `run.py list`. The work is imported once the flags are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from experiments.commands.flags import flag
from experiments.config import types
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS


def draw(
    *,
    output: Annotated[Path, flag("folder for U-Net.png and docs/ (default: .)")] = Path("."),
    width: Annotated[types.Count, flag("channels at full resolution (default: 64)")] = 64,
    size: Annotated[types.Size, flag("image size (default: 512x512)")] = (512, 512),
) -> int:
    """Draw the U-Net, the Attention U-Net and an attention gate from the shapes of the built networks.

    Example: python run.py draw
    """
    from experiments.training import architecture_diagrams

    for path in architecture_diagrams.draw(output, width, size):
        print(path)
    return 0


def list_choices() -> int:
    """Show every model, loss, augmentation and data set with its source.

    Example: python run.py list
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for flag_name, choices in (
        ("--model", MODELS),
        ("--loss", LOSSES),
        ("--augment", AUGMENTATIONS),
        ("--data", DATASETS),
    ):
        table = Table(title=flag_name, title_justify="left")
        for name in ("name", "what it is", "中文", "source"):
            table.add_column(name, overflow="fold")
        for entry in choices.values():
            table.add_row(entry.name, entry.summary, entry.summary_zh, entry.source)
        console.print(table)
    return 0
