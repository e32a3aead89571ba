"""The commands for who uses a trained model: their words and help. The work is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from experiments.commands.flags import Output, Tracking
from experiments.config.schema import RUNTIME_HELP, setting_fields
from registry import DATASETS, InputError

Run = Annotated[str, Parameter(help="best (by validation Dice), a run's KEY, or a checkpoint's FILE")]

Ensemble = Annotated[
    list[str] | None,
    Parameter(
        help="average the probabilities of these runs, instead of --run",
        consume_multiple=True, negative_iterable=(), show_default=False,
    ),
]  # fmt: skip

Flips = Annotated[bool, Parameter(help="average with the prediction of the mirror image", negative=())]

Tile = Annotated[
    str | None,
    Parameter(
        help="cut larger photographs into overlapping tiles of WIDTHxHEIGHT of their pixels, each seen as a photograph",
        show_default=False,
    ),
]

Device = Annotated[str, Parameter(help="auto (CUDA, else MPS, else CPU), cuda, mps or cpu")]

Threads = Annotated[
    str | None, Parameter(help="threads that read and write (default: a thread a core)", show_default=False)
]

Shell = Literal["bash", "zsh", "fish"]


def predict(
    photographs: Annotated[list[str] | None, Parameter(help="files, folders, or patterns in quotes")] = None,
    /,
    *,
    run: Run = "best",
    output: Annotated[Path, Parameter(help="the folder for the masks")] = Path("masks"),
    overlay: Annotated[bool, Parameter(help="write the photograph with the object tinted, too", negative=())] = False,
    cutout: Annotated[bool, Parameter(help="write the object on a transparent ground, too", negative=())] = False,
    tta: Flips = False,
    ensemble: Ensemble = None,
    tile: Tile = None,
    threshold: Annotated[str, Parameter(help="the probability from which a pixel is object")] = "0.5",
    device: Device = "auto",
    workers: Threads = None,
    output_dir: Output = Path("outputs"),
) -> int:
    """Write a mask (PNG, 0 and 255) of each photograph at its own size; exit code 1 where one could not be read.

    Example: python run.py predict photos --run best --output masks --overlay
    """
    if not photographs:
        raise InputError(
            "Name photographs: files, folders or patterns, such as python run.py predict photos --run best."
        )
    size, share, kind, count = _size(tile), _share(threshold), _device(device), _count(workers)
    from experiments.inference import predict as predicting

    chosen = predicting.PredictArgs(
        photographs, run, ensemble or [], output, output_dir, overlay, cutout, tta, size, share, kind, count
    )  # fmt: skip
    return predicting.predict(chosen)


def evaluate(
    *,
    run: Run = "best",
    data: Annotated[str, Parameter(help=f"the data set: {', '.join(DATASETS)}")] = "folder",
    data_dir: Annotated[Path | None, Parameter(help=RUNTIME_HELP["data_dir"], show_default=False)] = None,
    group_pattern: Annotated[
        str | None, Parameter(help=str(setting_fields()["group_pattern"].metadata["help"]), show_default=False)
    ] = None,
    sweep: Annotated[bool, Parameter(help="Dice and IoU at thresholds from 0.05 to 0.95, too", negative=())] = False,
    calibration: Annotated[
        bool, Parameter(help="the reliability curve and its expected error, too", negative=())
    ] = False,
    tta: Flips = False,
    output: Annotated[
        Path | None,
        Parameter(help="the folder for scores.csv (default: evaluations/ under --output-dir)", show_default=False),
    ] = None,
    device: Device = "auto",
    workers: Threads = None,
    output_dir: Output = Path("outputs"),
) -> int:
    """Score a trained model on photographs with masks of your own, as a run scores its test photographs.

    Example: python run.py evaluate --run best --data folder --data-dir pairs --sweep --calibration
    """
    kind, count, name = _device(device), _count(workers), DATASETS[data].name
    from experiments.inference import evaluate_dataset

    chosen = evaluate_dataset.EvaluateArgs(
        run, name, data_dir, group_pattern, sweep, calibration, tta, output, kind, count, output_dir
    )  # fmt: skip
    return evaluate_dataset.evaluate(chosen)


def submit(
    *,
    test_dir: Annotated[Path, Parameter(help="the folder of the competition's test photographs")],
    run: Run = "best",
    output: Annotated[Path, Parameter(help="the file to write; .gz is compressed")] = Path("submission.csv.gz"),
    tta: Flips = False,
    ensemble: Ensemble = None,
    device: Device = "auto",
    workers: Threads = None,
    output_dir: Output = Path("outputs"),
) -> int:
    """Write a submission to Kaggle's Carvana competition: img,rle_mask, a line a photograph, at 1918x1280.

    Example: python run.py submit --run best --test-dir data/carvana/test --output submission.csv.gz
    """
    kind, count = _device(device), _count(workers)
    from experiments.inference import kaggle_submission as submitting

    return submitting.submit(test_dir, run, ensemble or [], output, tta, kind, count, output_dir)


def export(
    *,
    run: Run = "best",
    format: Annotated[str, Parameter(help="onnx, or mlflow (the same graph as an MLflow model)")] = "onnx",
    output: Annotated[
        Path | None,
        Parameter(help="the file or folder to write (default: exports/KEY.onnx or exports/KEY)", show_default=False),
    ] = None,
    photographs: Annotated[
        Path | None,
        Parameter(
            help="photographs to compare with PyTorch's outputs on (default: the run's validation ones)",
            show_default=False,
        ),
    ] = None,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
) -> int:
    """Write a trained model as an ONNX graph (RGB 0-255 of any size and number in, probabilities out) and compare it with PyTorch.

    Example: python run.py export --run best --format onnx --output car.onnx
    """
    from experiments.config import values

    kind = values.one_of("format", format, ("onnx", "mlflow"))
    from experiments.inference import export as exporting

    return exporting.export(run, kind, output, photographs, output_dir, tracking_uri)


def completion(app: App, shell: str) -> str:
    """The script that completes `run_py` and, in bash, `python run.py`, too."""
    from experiments.config.values import one_of

    kind: Shell = one_of("shell", shell, ("bash", "zsh", "fish"))  # type: ignore[assignment]
    starts = {"fish": "function run_py; python run.py $argv; end\n"}.get(kind, 'run_py() { python run.py "$@"; }\n')
    return app.generate_completion(prog_name="run_py", shell=kind) + starts + {"bash": _BASH, "zsh": _ZSH}.get(kind, "")


# Cyclopts' script registers itself only from a folder of zsh's own; sourced, it has to be told.
_ZSH = """
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _cyclopts_run_py run_py
"""

# bash completes by a command's first word, which is python: where run.py follows, the words are handed on without it.
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


def _size(tile: str | None) -> tuple[int, int] | None:
    from experiments.config import values

    if tile is None:
        return None
    try:
        return values.typed("size", tile)  # type: ignore[no-any-return]
    except InputError as error:
        raise InputError(str(error).replace("--size", "--tile")) from None


def _share(threshold: str) -> float:
    try:
        share = float(threshold)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise InputError(f"--threshold takes a probability between 0 and 1, not '{threshold}'.")
    return share


def _device(name: str) -> str:
    from experiments.config import values

    return str(values.typed("device", name))


def _count(workers: str | None) -> int | None:
    from experiments.config import values

    return None if workers is None else values.whole("--workers", workers)


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
    from experiments.config import values

    number, kind = values.whole("--port", port), str(values.typed("device", device))
    if number > LAST_PORT:
        raise InputError(f"--port takes a number up to {LAST_PORT}, not {port}. Leave it out for 7860.")
    from experiments.inference import demo as serving

    return serving.page(run, number, kind, output_dir)
