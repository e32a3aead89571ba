"""The command `run.py bench`. The work is imported once the flags are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from experiments.commands.flags import flag, many, setting, switch
from experiments.config import types, values


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
        "preset": "carvana-cpu", "model": model, "model_kwargs": model_kwargs, "loss": loss, "size": size,
        "batch_size": batch_size, "precision": precision, "device": device, "compile": compile, "data_dir": data_dir,
        "workers": workers,
    }  # fmt: skip
    args = values.read({name: value for name, value in settings.items() if value is not None})
    from experiments.bench import report
    from experiments.config.resolve import resolve

    config, machine, _ = resolve(args)
    report.print_results(report.measure(config, machine, report.parse_parts([*(parts or [])]), steps, repeats), json)
    return 0
