"""The command that opens a page to try a trained model on: its words and help. The work is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from experiments.errors import InputError
from experiments.words import Output

LAST_PORT = 65535


def page(
    *,
    run: Annotated[str, Parameter(help="best (by validation Dice), a run's KEY, or a checkpoint's FILE")] = "best",
    port: Annotated[str, Parameter(help="where on this machine it is served")] = "7860",
    device: Annotated[str, Parameter(help="auto (CUDA, else MPS, else CPU), cuda, mps or cpu")] = "auto",
    output_dir: Output = Path("outputs"),
) -> int:
    """Open a page on this machine: drop a photograph, see its mask, overlay and cut-out (pip install -r requirements-page.txt).

    Example: python run.py page --run best
    """
    from experiments import settings

    number, kind = settings.whole("--port", port), str(settings.typed("device", device))
    if number > LAST_PORT:
        raise InputError(f"--port takes a number up to {LAST_PORT}, not {port}. Leave it out for 7860.")
    from experiments import page as serving

    return serving.page(run, number, kind, output_dir)
