"""Which segmentation model, with which loss, is better on your task, and can you believe the answer?

Without a command it trains one combination and scores it on cars it has never seen:

    python run.py --model attention_unet --loss bce_dice

哪个分割模型、配哪个损失函数更好？不带子命令时，训练一个组合，并在从未见过的汽车上评分。
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from experiments.config import PRESETS, setting_fields
from experiments.errors import InputError, RunFailed
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, OptionError, UnknownName

TABLES = {"model": MODELS, "loss": LOSSES, "augment": AUGMENTATIONS, "data": DATASETS}
MACHINE_HELP = {
    "data_dir": "where the photographs lie (default: data/ and the data set's name)",
    "workers": "processes that load photographs (default: none on the CPU, up to 8 with a GPU)",
    "split_file": "a CSV of image,part that divides the data by hand; no group may be on two sides",
}

app = App(name="run.py", help_format="plaintext", version_flags=[], result_action="return_value")


def _words(without: tuple[str, ...] = ()) -> type:
    """A dataclass of everything that decides a run, as it is typed: text, or None where nothing was given.

    It is made from RunConfig's own fields, so the command line cannot drift from what a run consists of.
    """
    fields: list[tuple[str, Any, Any]] = []
    for name, field in setting_fields().items():
        if name in without:
            continue
        text = field.metadata["help"]
        if name in TABLES:
            text += f": {', '.join(TABLES[name])}"
        many = name.endswith("_kwargs")
        default = "the preset's" if any(name in preset for preset in PRESETS.values()) else _shown(field.default)
        default = "" if many or field.default is None else f" (default: {default})"
        kind = list[str] | None if many else str | None
        parameter = Parameter(help=text + default, consume_multiple=True, negative_iterable=(), show_default=False)
        fields.append((name, Annotated[kind, parameter], None))
    for name, text in MACHINE_HELP.items():
        fields.append((name, Annotated[str | None, Parameter(help=text, show_default=False)], None))
    return Parameter(name="*")(dataclasses.make_dataclass("Words", fields, kw_only=True, namespace={"__module__": __name__}))


def _shown(default: Any) -> str:
    return "x".join(map(str, default)) if isinstance(default, tuple) else str(default)


Words: Any = _words()
GridWords: Any = _words(without=("model", "loss", "augment", "seed", "early_stopping"))
Output = Annotated[Path, Parameter(help="where runs, the cache and MLflow's store lie")]
Tracking = Annotated[
    str | None, Parameter(help="an MLflow server or store (default: sqlite under --output-dir)", show_default=False)
]
Preset = Annotated[
    str | None, Parameter(help=f"{', '.join(PRESETS)} (default: what fits the data that is there)", show_default=False)
]
Config = Annotated[Path | None, Parameter(help="settings from a YAML or TOML file; the command line wins", show_default=False)]
DataDir = Annotated[Path | None, Parameter(help=MACHINE_HELP["data_dir"], show_default=False)]
Workers = Annotated[str | None, Parameter(help=MACHINE_HELP["workers"], show_default=False)]
Choices = Annotated[list[str], Parameter(consume_multiple=True, negative_iterable=())]
DryRun = Annotated[bool, Parameter(help="print the plan and stop there", negative=())]
Status = Annotated[bool, Parameter(help="show which runs are done, running, failed or missing, and stop there", negative=())]


@Parameter(name="*")
@dataclasses.dataclass(kw_only=True)
class TuneWords:
    """How a learning rate is found: trials on validation cars, a curve fitted to all of them."""

    tune: Annotated[bool, Parameter(help="first find the learning rate, by trials on validation cars", negative=())] = False
    tune_range: Annotated[
        str | None, Parameter(help="the rates to try, LOW:HIGH (default: a tenth to ten times the preset's)", show_default=False)
    ] = None
    tune_points: Annotated[str | None, Parameter(help="how many rates in that range (default: 7)", show_default=False)] = None
    tune_seeds: Annotated[
        list[str] | None,
        Parameter(
            help="the seeds of the trials, never those of reported runs (default: 100 101)",
            show_default=False, consume_multiple=True, negative_iterable=(),
        ),
    ] = None  # fmt: skip
    tune_sampler: Annotated[
        str | None, Parameter(help="grid (the same rates for every cell) or tpe (default: grid)", show_default=False)
    ] = None


@app.default
def train(
    *,
    words: Words | None = None,
    tuning: TuneWords | None = None,
    preset: Preset = None,
    config: Config = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
) -> int:
    """Train one model with one loss and score it on test cars.

    Example: python run.py --model attention_unet --loss bce_dice --model-kwargs width=32
    """
    wanted = _wanted(words, preset, config, output_dir, tracking_uri)
    if tuning and tuning.tune:
        from experiments import study_words

        study = study_words.single(wanted, vars(tuning))
        from experiments import study_main

        return study_main.tune_one(study, wanted)
    if tuning and any(value is not None for name, value in vars(tuning).items() if name != "tune"):
        raise InputError("--tune-range, --tune-points, --tune-seeds and --tune-sampler say how to tune: add --tune.")
    from experiments import main

    return main.train_one(wanted)


@app.command
def study(
    name: str,
    /,
    *,
    dry_run: DryRun = False,
    status: Status = False,
    data_dir: DataDir = None,
    workers: Workers = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
) -> int:
    """Carry out a study of experiments/studies (or a .toml file): plan, tuning, runs. The same command goes on with it.

    Example: python run.py study two_by_two --dry-run
    """
    from experiments import study_file

    found = study_file.read(study_file.find(name))
    machine = _machine(data_dir, workers, output_dir, tracking_uri)
    from experiments import study_main

    return study_main.carry_out(found, machine, dry_run, status)


@app.command
def grid(
    *,
    models: Choices,
    losses: Choices,
    seeds: Choices,
    augments: Choices | None = None,
    name: str | None = None,
    rope: str | None = None,
    tuning: TuneWords | None = None,
    words: GridWords | None = None,
    preset: Preset = None,
    dry_run: DryRun = False,
    status: Status = False,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
) -> int:
    """Compare models and losses over seeds, without a study file.

    Example: python run.py grid --models unet attention_unet --losses bce dice --seeds 0-2 --dry-run

    Parameters
    ----------
    models
        the networks to compare
    losses
        the losses to compare
    seeds
        the seeds, the same for every cell: 0 1 2 or 0-4
    augments
        augmentations to compare (default: the preset's)
    name
        what the study is called (default: grid_ and a hash of what it consists of)
    rope
        the difference in Dice that does not matter (default: 0.001)
    """
    wanted = _wanted(words, preset, None, output_dir, tracking_uri)
    factors = {"model": models, "loss": losses} | ({"augment": augments} if augments else {})
    for label, chosen in factors.items():
        for choice in chosen:
            _ = TABLES[label][choice]
    from experiments import study_words

    given = {"seeds": seeds, "name": name, "rope": rope, **(vars(tuning) if tuning else {})}
    found = study_words.grid(wanted, factors, given)
    from experiments import study_main

    return study_main.carry_out(found, wanted.machine, dry_run, status)


@app.command
def tune(
    study: str,
    /,
    *,
    data_dir: DataDir = None,
    workers: Workers = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
) -> int:
    """Find the learning rate of every cell of a study. Several of these commands share the work.

    Example: python run.py tune two_by_two
    """
    from experiments import study_file

    found = study_file.read(study_file.find(study))
    if found.tuning is None:
        raise InputError(f"The study {found.name} has no [tuning]: its cells train with the rate that is set.")
    machine = _machine(data_dir, workers, output_dir, tracking_uri)
    from experiments import study_main

    return study_main.tune(found, machine)


def _wanted(words: Any, preset: str | None, config: Path | None, output_dir: Path, tracking_uri: str | None) -> Any:
    """What was typed, checked."""
    given = {name: value for name, value in vars(words).items() if value is not None} if words else {}
    given |= {name: value for name, value in {"preset": preset, "tracking_uri": tracking_uri}.items() if value is not None}
    from experiments import settings

    wanted = settings.read(given, config)
    wanted.machine["output_dir"] = output_dir
    return wanted


def _machine(data_dir: Path | None, workers: str | None, output_dir: Path, tracking_uri: str | None) -> dict[str, Any]:
    """Where a study is carried out: fields of Machine."""
    from experiments import settings

    words = {"data_dir": data_dir, "workers": workers, "tracking_uri": tracking_uri}
    given = {name: value for name, value in words.items() if value is not None}
    return {**settings.read(given).machine, "output_dir": output_dir}


@app.command(name="list")
def list_choices() -> int:
    """Show every model, loss, augmentation and data set with its source.

    Example: python run.py list
    """
    from experiments import main

    return main.list_choices()


@app.command
def ui(*, output_dir: Output = Path("outputs"), tracking_uri: Tracking = None, port: int = 5000) -> int:
    """Open MLflow's pages on this machine, with the runs of this project in them.

    Example: python run.py ui
    """
    from experiments import tracking

    tracking.serve(output_dir, tracking_uri, port)
    return 0


def main(words: list[str]) -> int:
    """Run a command line; the exit code says how it ended (0 done, 1 a run failed, 2 wrong input, 130/143 interrupted)."""
    if words and not words[0].startswith("-") and words[0] not in app:
        from experiments.settings import nearest

        commands = [name for name in app if not name.startswith("-")]
        return _complain(
            f"Unknown command '{words[0]}'{nearest(words[0], commands)}. Commands: {', '.join(commands)}; see --help."
        )
    try:
        return app(words, exit_on_error=False, print_error=False) or 0
    except UnknownOptionError as error:
        from experiments.settings import nearest

        flag = error.token.keyword or error.token.value
        return _complain(f"Unknown flag {flag}{nearest(flag, _flags())}. See python run.py --help.")
    except CycloptsError as error:
        return _complain(f"{' '.join(str(error).split())} See python run.py --help.")
    except (InputError, UnknownName, OptionError) as error:
        return _complain(str(error))
    except RunFailed as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain("Interrupted. The same command goes on from the last checkpoint.", 130)


def _flags() -> list[str]:
    names = [*setting_fields(), *MACHINE_HELP, "preset", "config", "output_dir", "tracking_uri", "port"]
    names += [*TuneWords.__dataclass_fields__, "models", "losses", "seeds", "augments", "name", "rope", "dry_run", "status"]
    return [f"--{name.replace('_', '-')}" for name in names]


def _complain(sentence: str, code: int = 2) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.path.append(os.getcwd())  # for targets of one's own, from wherever the command is typed
    sys.exit(main(sys.argv[1:]))
