"""Which segmentation model, with which loss, is better on your task, and can you believe the answer?

Without a command it trains one combination and scores it on cars it has never seen:

    python run.py --model attention_unet --loss bce_dice

哪个分割模型、配哪个损失函数更好？不带子命令时，训练一个组合，并在从未见过的汽车上评分。
"""

from __future__ import annotations

import os
import re
import select
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (someone who types this may have an older one)
    print(f"Python 3.11 or later is needed; this is {sys.version.split()[0]}.", file=sys.stderr)
    raise SystemExit(2)
try:
    from cyclopts import App, CycloptsError, UnknownOptionError, UnusedCliTokensError

    from experiments.commands import tools
    from experiments.commands.data import data
    from experiments.commands.inference import evaluate, export, page, predict, submit
    from experiments.commands.judge import judge, score
    from experiments.commands.report import report
    from experiments.commands.runs import runs
    from experiments.commands.study import grid, robustness, study, tune
    from experiments.commands.tools import bench, draw, list_choices
    from experiments.commands.tracking import sync, ui
    from experiments.commands.train import train
    from experiments.config.values import suggest
    from experiments.runtime.errors import DISK_FULL, RunFailed, disk_error_message, on_one_line
    from registry import InputError, did_you_mean
except ModuleNotFoundError as missing:
    print(f"The package {missing.name} is missing. Type: pip install -r requirements.txt", file=sys.stderr)
    raise SystemExit(2) from None

LOCAL = ("analysis", "experiments", "models", "registry")

# OpenMP's threads wait for each other by spinning. Where another process wants a core too, that costs up to 90 % of the
# speed; spinning briefly and then sleeping costs nothing on a quiet machine. It must be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

app = App(name="run.py", help_format="plaintext", version_flags=[], result_action="return_value")
app.default(train)
app.command(list_choices, name="list")
app.command(bench)
app.command(draw)
app.command(ui)
app.command(sync)
app.command(study)
app.command(grid)
app.command(tune)
app.command(robustness)
app.command(report)
app.command(judge)
app.command(score)
app.command(data)
app.command(runs)
app.command(predict)
app.command(evaluate)
app.command(submit)
app.command(export)
app.command(page)


@app.command(name="completion")
def print_completion(shell: tools.Shell, /) -> int:
    """Print the completion script of bash, zsh or fish.

    Example: source <(python run.py completion bash)
    """
    print(tools.script(app, shell))
    return 0


def _expanded(arguments: list[str]) -> list[str]:
    """The arguments with ~ as the home folder. Raises InputError for an empty one, which would be this folder."""
    if "" in arguments or any(re.fullmatch(r"--[\w-]+=", word) for word in arguments):
        raise InputError(
            "One of the arguments is empty: is a variable of the shell not set? Leave it out or fill it in."
        )
    home = os.path.expanduser("~")
    return [re.sub(r"^(--[\w-]+=)?~(?=/|$)", lambda m: (m[1] or "") + home, word) for word in arguments]


def main(arguments: list[str]) -> int:
    """Run a command: exit code 0 done, 1 a run failed, 2 wrong input, 130/143 interrupted, 141 output pipe closed."""
    try:
        arguments = _expanded(arguments)
    except InputError as error:
        return _complain(str(error))
    command, rest = app, arguments
    while rest and not rest[0].startswith("-") and rest[0] in command:
        command, rest = command[rest[0]], rest[1:]
    help_command = " ".join(["python run.py", *arguments[: len(arguments) - len(rest)], "--help"])
    commands = [name for name in command if not name.startswith("-")]
    if commands and rest and not rest[0].startswith("-"):
        return _complain(
            f"Unknown command '{rest[0]}'{did_you_mean(rest[0], commands)}. "
            f"Commands: {', '.join(commands)}; see --help."
        )
    try:
        code = app(arguments, exit_on_error=False, print_error=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except CycloptsError as error:
        return _complain(f"{_usage_error(error, command)} See {help_command}.")
    except InputError as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in LOCAL:  # a fault of this project, or of the user's own module
            raise
        if (module := _importing_module(error)) and not _is_required(package):
            return _complain(f"{module} needs the package {package}, which is not installed: pip install {package}.")
        return _complain(f"This needs the package {package}. Type: pip install -r requirements.txt")
    except RunFailed as error:
        return _complain(str(error), 1)
    except BrokenPipeError:
        if not _output_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        return 141
    except (OSError, RuntimeError) as error:
        if (sentence := disk_error_message(error)) is None:
            raise
        return _complain(sentence, 1 if sentence.startswith(DISK_FULL) else 2)
    except KeyboardInterrupt:
        return _complain("Interrupted. Re-run the command to resume.", 130)


def _importing_module(error: ModuleNotFoundError) -> str:
    """The user's own module in which an import failed; empty where it was this project's, or an installed package."""
    name, file, trace = "", "", error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] != "importlib":
            name, file = module, frame.f_code.co_filename
    foreign = "site-packages" in file or name.split(".")[0] in (*LOCAL, "run", "__main__")
    return "" if foreign else name


def _is_required(package: str) -> bool:
    """Whether requirements.txt installs a package."""
    try:
        text = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(rf"^{package.replace('_', '[-_]')}\b", text, re.IGNORECASE | re.MULTILINE) is not None


def _usage_error(error: CycloptsError, command: App) -> str:
    """What is wrong with the words of a command, in a sentence."""
    if isinstance(error, UnknownOptionError):
        flag = error.token.keyword or error.token.value
        return f"Unknown flag {flag}{suggest(flag, _flags(command))}."
    if isinstance(error, UnusedCliTokensError):
        return f"Unexpected argument '{(error.unused_tokens or [''])[0]}'."
    return " ".join(str(error).split())


def _output_closed() -> bool:
    """Whether the other end of the output pipe is closed, as by head or less."""
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
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal or pipe that lacks a letter shows ? instead
            stream.reconfigure(errors="replace")
    sys.path.append(os.getcwd())  # for targets of the user's own, wherever the command is typed
    sys.exit(main(sys.argv[1:]))
