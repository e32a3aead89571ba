"""The commands `run.py bench`, `draw`, `list` and `completion`. The work is imported once the flags are checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App

from experiments.commands.flags import flag, many, parse_flags, setting, switch
from experiments.config import types
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS


def bench(
    *,
    model: Annotated[str, setting("model")] = "unet",
    model_kwargs: Annotated[types.Options | None, setting("model_kwargs")] = None,
    loss: Annotated[str, setting("loss")] = "bce_dice",
    size: Annotated[types.Size, flag("input size of the network, in pixels (default: 128x128)", "Data")] = (128, 128),
    batch_size: Annotated[types.Count, flag("batch size (default: 16)", "Training")] = 16,
    precision: Annotated[types.Precision, setting("precision")] = "auto",
    device: Annotated[types.Device, setting("device")] = "auto",
    compile: Annotated[types.Compile, setting("compile")] = "off",
    data_dir: Annotated[Path | None, flag("directory of Carvana's images, for loader and scoring", "Data")] = None,
    workers: Annotated[types.CountOrZero | None, setting("workers")] = None,
    parts: Annotated[
        list[Literal["step", "loader", "scoring", "overhead"]] | None, many("what to measure (default: all)")
    ] = None,
    steps: Annotated[types.Count, flag("training steps per round (default: 8)")] = 8,
    repeats: Annotated[types.Count, flag("rounds, of which the median is reported (default: 5)")] = 5,
    json: Annotated[bool, switch("print JSON")] = False,
) -> int:
    """Benchmark this machine: training step against a plain loop, data loader, scoring, and overhead of a run.

    Example: python run.py bench --model unet --model-kwargs width=64 --size 256x256 --batch-size 4
    """
    settings = {
        "preset": "carvana-cpu",
        "progressive": 0,
        "model": model,
        "model_kwargs": model_kwargs,
        "loss": loss,
        "size": size,
        "batch_size": batch_size,
        "precision": precision,
        "device": device,
        "compile": compile,
        "data_dir": data_dir,
        "workers": workers,
    }
    args = parse_flags(None, None, **settings)
    from experiments.bench import report
    from experiments.config.resolve import resolve

    config, machine, _ = resolve(args)
    report.print_results(report.measure(config, machine, parts or report.PARTS, steps, repeats), json)
    return 0


Shell = Annotated[Literal["bash", "zsh", "fish"], flag("shell")]

# Cyclopts' zsh script registers itself only when it lies in zsh's own completion folder, not when it is sourced.
_ZSH = """
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _cyclopts_run_py run_py
"""

# bash completes by a command's first word, which is python: where run.py follows, it is dropped before completing.
_BASH = """
_python_run_py() {
  if [[ ${COMP_WORDS[1]##*/} == run.py && $COMP_CWORD -gt 1 ]]; then
    COMP_WORDS=("${COMP_WORDS[@]:1}")
    ((COMP_CWORD -= 1))
    _run_py
  fi
}
complete -o bashdefault -o default -F _python_run_py python python3
"""

_REGISTER = {"bash": _BASH, "zsh": _ZSH}


def script(app: App, shell: Shell) -> str:
    """The completion script of `run_py` and, in bash, of `python run.py`."""
    wrapper = "function run_py; python run.py $argv; end" if shell == "fish" else 'run_py() { python run.py "$@"; }'
    return f"{app.generate_completion(prog_name='run_py', shell=shell)}{wrapper}\n{_REGISTER.get(shell, '')}"


def draw(
    *,
    output: Annotated[Path, flag("folder for U-Net.png and docs/ (default: outputs/drawings)")] = Path(
        "outputs/drawings"
    ),
    width: Annotated[types.Count, flag("channels at full resolution (default: 64)")] = 64,
    size: Annotated[types.Size, flag("image size (default: 512x512)")] = (512, 512),
) -> int:
    """Draw the U-Net, the Attention U-Net and an attention gate from the shapes of the built networks.

    Example: python run.py draw
    """
    import tempfile

    from analysis.records.output_files import OutputFiles
    from experiments.runtime.errors import disk_errors

    files = OutputFiles(output)
    files.check(("U-Net.png", "docs/attention-unet.png", "docs/attention-gate.png"))
    from experiments.training import architecture_diagrams

    with disk_errors(output, "another --output"), tempfile.TemporaryDirectory() as folder:
        drawn = [path.relative_to(folder) for path in architecture_diagrams.draw(Path(folder), width, size)]
        files.take(Path(folder))
    for name in drawn:
        print(output / name)
    return 0


def list_choices() -> int:
    """Show every model, loss, augmentation and data set with its source; in Chinese where the shell's language is.

    Example: python run.py list
    """
    from rich.console import Console
    from rich.table import Table

    console, chinese = Console(), (os.environ.get("LC_ALL") or os.environ.get("LANG") or "").startswith("zh")
    for flag_name, choices in (
        ("--model", MODELS),
        ("--loss", LOSSES),
        ("--augment", AUGMENTATIONS),
        ("--data", DATASETS),
    ):
        table = Table(title=flag_name, title_justify="left")
        for name in ("name", "说明" if chinese else "what it is", "source"):
            table.add_column(name, overflow="fold")
        for entry in choices.values():
            table.add_row(entry.name, entry.summary_zh if chinese else entry.summary, entry.source)
        console.print(table)
    return 0
