"""Which segmentation model, with which loss, is better on your task, and can you believe the answer?

Without a command it trains one combination and scores it on cars it has never seen:

    python run.py --model attention_unet --loss bce_dice

哪个分割模型、配哪个损失函数更好？不带子命令时，训练一个组合，并在从未见过的汽车上评分。
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from experiments.commands.data import data, runs
from experiments.commands.flags import Config, Output, Preset, RunFlags, Tracking, TuningFlags, parse_flags
from experiments.commands.inference import completion, evaluate, export, page, predict, submit
from experiments.commands.report import report
from experiments.commands.study import grid, robustness, study, tune
from experiments.commands.tracking import sync, ui
from experiments.runtime.errors import RunFailed, disk_error_message, on_one_line
from registry import InputError, OptionError, UnknownName

# OpenMP's threads wait for each other by spinning. Where another process wants a core too, that costs up to nine tenths of
# the speed; spinning briefly and then sleeping costs nothing on a quiet machine. It counts before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

app = App(name="run.py", help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def train(
    *,
    words: RunFlags | None = None,
    tuning: TuningFlags | None = None,
    preset: Preset = None,
    config: Config = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
) -> int:
    """Train one model with one loss and score it on test cars.

    Example: python run.py --model attention_unet --loss bce_dice --model-kwargs width=32
    """
    asked = parse_flags(words, preset, config, output_dir, tracking_uri)
    if tuning and tuning.tune:
        from experiments.studies import from_flags

        one = from_flags.single(asked, vars(tuning))
        from experiments.commands import train as main

        return main.tune_one(one, asked)
    if tuning and any(value is not None for name, value in vars(tuning).items() if name != "tune"):
        raise InputError("--tune-range, --tune-points, --tune-seeds and --tune-sampler say how to tune: add --tune.")
    from experiments.commands import train as main

    return main.train_one(asked)


@app.command(name="list")
def list_choices() -> int:
    """Show every model, loss, augmentation and data set with its source.

    Example: python run.py list
    """
    from experiments.commands import train as main

    return main.list_choices()


@app.command
def bench(
    *,
    model: str = "unet",
    model_kwargs: Annotated[list[str] | None, Parameter(consume_multiple=True, negative_iterable=())] = None,
    loss: str = "bce_dice",
    size: str = "128x128",
    batch_size: str = "16",
    precision: str = "auto",
    device: str = "auto",
    compile: Annotated[str, Parameter(help="off, default or graphs (CUDA graphs)")] = "off",
    data_dir: Annotated[Path | None, Parameter(help="Carvana's photographs, for loader and scoring")] = None,
    workers: Annotated[str | None, Parameter(help="processes that load photographs")] = None,
    parts: Annotated[
        list[str] | None, Parameter(help="step, loader, scoring, overhead", consume_multiple=True, negative_iterable=())
    ] = None,
    steps: Annotated[str, Parameter(help="training steps in a round")] = "8",
    repeats: Annotated[str, Parameter(help="rounds of which the median is taken")] = "5",
    json: Annotated[bool, Parameter(help="print JSON", negative=())] = False,
) -> int:
    """Measure this machine: the training step beside a plain loop, the loader, scoring, and what a run costs besides.

    Example: python run.py bench --model unet --model-kwargs width=64 --size 256x256 --batch-size 4
    """
    typed = {
        "model": model,
        "loss": loss,
        "size": size,
        "batch_size": batch_size,
        "precision": precision,
        "device": device,
    }
    others = {"compile": compile, "model_kwargs": model_kwargs, "data_dir": data_dir, "workers": workers}
    given = {"preset": "carvana-cpu", **typed, **{name: value for name, value in others.items() if value is not None}}
    from experiments.config import values

    parse_flags = values.read(given)
    counts = values.whole("--steps", steps), values.whole("--repeats", repeats)
    from experiments.commands import train as main

    return main.bench(parse_flags, parts, *counts, json)


@app.command
def draw(
    *,
    output: Annotated[Path, Parameter(help="the folder for U-Net.png and docs/")] = Path("."),
    width: Annotated[str, Parameter(help="channels at full resolution")] = "64",
    size: Annotated[str, Parameter(help="WIDTHxHEIGHT of the photograph")] = "512x512",
) -> int:
    """Draw the U-Net, the Attention U-Net and one attention gate from the shapes that the built networks make.

    Example: python run.py draw
    """
    from experiments.config import values

    channels, pixels = values.whole("--width", width), values.typed("size", size)
    from experiments.commands.draw import draw as save

    for path in save(output, channels, pixels):
        print(path)
    return 0


@app.command(name="completion")
def shell_completion(shell: str, /) -> int:
    """Print the script by which bash, zsh or fish completes commands and flags.

    Example: source <(python run.py completion bash)
    """
    print(completion(app, shell))
    return 0


app.command(ui)
app.command(sync)
app.command(study)
app.command(grid)
app.command(tune)
app.command(robustness)
app.command(report)
app.command(data)
app.command(runs)
app.command(predict)
app.command(evaluate)
app.command(submit)
app.command(export)
app.command(page)


def main(words: list[str]) -> int:
    """Run a command line; the exit code says how it ended (0 done, 1 a run failed, 2 wrong input, 130/143 interrupted, 141 nobody reads)."""
    place, rest = app, words
    while rest and not rest[0].startswith("-") and rest[0] in place:
        place, rest = place[rest[0]], rest[1:]
    called = " ".join(["python run.py", *words[: len(words) - len(rest)]])
    commands = [name for name in place if not name.startswith("-")]
    if commands and rest and not rest[0].startswith("-"):
        from experiments.config.values import nearest

        return _complain(
            f"Unknown command '{rest[0]}'{nearest(rest[0], commands)}. Commands: {', '.join(commands)}; see --help."
        )
    try:
        code = app(words, exit_on_error=False, print_error=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UnknownOptionError as error:
        from experiments.config.values import nearest

        flag = error.token.keyword or error.token.value
        return _complain(f"Unknown flag {flag}{nearest(flag, _flags(place))}. See {called} --help.")
    except CycloptsError as error:
        return _complain(f"{' '.join(str(error).split())} See {called} --help.")
    except (InputError, UnknownName, OptionError) as error:
        return _complain(str(error))
    except RunFailed as error:
        return _complain(str(error), 1)
    except OSError as error:
        if (
            isinstance(error, BrokenPipeError) and _nobody_reads()
        ):  # who read what is printed has enough of it (head, less)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
            return 141
        if (sentence := disk_error_message(error)) is None:
            raise
        return _complain(sentence, 1 if "full" in sentence else 2)
    except KeyboardInterrupt:
        return _complain("Interrupted. Type the same command again: it goes on from what was finished.", 130)


def _nobody_reads() -> bool:
    """Whether the pipe into which this process prints is closed at its other end."""
    if sys.stdout is None or not hasattr(select, "poll"):  # Windows
        return False
    pipe = select.poll()
    pipe.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def _flags(command: App) -> list[str]:
    return [
        name for argument in command.assemble_argument_collection() for name in argument.names if name.startswith("--")
    ]


def _complain(sentence: str, code: int = 2) -> int:
    print(on_one_line(sentence), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.path.append(os.getcwd())  # for targets of one's own, from wherever the command is typed
    sys.exit(main(sys.argv[1:]))
