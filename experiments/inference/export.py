"""`run.py export`: a trained network as an ONNX graph that needs neither this project nor PyTorch, or as an MLflow model.

The graph takes RGB photographs from 0 to 255, float32 `(N, 3, H, W)`, any number of them and any H and W from 32 up, and
gives the probability of the foreground, float32 `(N, 1, H, W)`. Scaling, normalisation, padding and cropping are inside.
It does not resize: a network sees cars best at the size that it was trained at, which the file's metadata name.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.config.schema import RuntimeConfig
from experiments.data.cache import load_image
from experiments.data.run_inputs import list_samples
from experiments.data.synthetic.cars import write_cars
from experiments.inference.input_files import gather_images
from experiments.inference.trained_model import TrainedModel, find_runs
from experiments.runtime.errors import RunFailed, disk_errors
from experiments.runtime.progress import log_to_stderr
from experiments.tracking import onnx_model
from registry import InputError

INPUT, OUTPUT = "photograph", "probability"
NEEDED = "pip install -r requirements.txt"
SHOWN = 4  # photographs to compare on
ODD = (131, 97)  # WIDTHxHEIGHT that no network takes without padding
TOLERANCE = 1e-3  # of a probability, beyond which the graph is not the network

Photographs = NDArray[np.float32]


class Deployed(nn.Module):
    """A network with what a user would have to know put inside: RGB 0-255 `(N, 3, H, W)` -> probability `(N, 1, H, W)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, photograph: Tensor) -> Tensor:
        return self.model(photograph / 255).sigmoid()


def export(
    run: str, kind: str, output: Path | None, photographs: Path | None, output_dir: Path, uri: str | None
) -> int:
    """Write the graph or the MLflow model, and print the largest difference from PyTorch's outputs; the exit code."""
    need("onnx", "onnxscript", "onnxruntime")
    (trained,) = find_runs(run, [], output_dir)
    output = output or Path("exports") / (f"{trained.key}.onnx" if kind == "onnx" else trained.key)
    if kind == "mlflow" and output.exists():
        raise InputError(f"{output} is there already. Remove it, or name another --output.")
    shown, said = comparison(trained, photographs)
    model = Deployed(trained.model()).eval()
    with disk_errors(output, "another --output"), tempfile.TemporaryDirectory() as place:
        output.parent.mkdir(parents=True, exist_ok=True)
        graph = Path(place) / "model.onnx"
        graph.write_bytes(to_onnx(model, described(trained)))
        difference = largest_difference(graph, model, shown)
        print(f"Largest difference from PyTorch's probabilities on {said}: {difference:.1e}")
        if not difference <= TOLERANCE:
            raise RunFailed(f"The graph differs from the network by more than {TOLERANCE}, so nothing was written.")
        if kind == "onnx":
            output.write_bytes(graph.read_bytes())
        else:
            _save_mlflow(graph, output, shown, trained, output_dir, uri)
    print(f"Written: {output}")
    return 0


def to_onnx(model: nn.Module, metadata: dict[str, str]) -> bytes:
    """The ONNX graph of a `Deployed` network, its batch and sides free. Raises RunFailed where the network cannot be exported so."""
    import onnx

    example = torch.zeros(2, 3, 96, 160)
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=(free,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:  # torch.export has a kind of its own for each thing that it cannot follow
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunFailed(
            f"PyTorch cannot export this network as a graph for every size ({reason.strip()[:150]}). Its checkpoint can be used as it is."
        ) from error
    assert program is not None
    graph = program.model_proto
    for side, name in ((0, "batch"), (2, "height"), (3, "width")):
        graph.graph.output[0].type.tensor_type.shape.dim[side].dim_param = name  # not as a formula of themselves
    graph.doc_string = f"{metadata['input']} -> {metadata['output']}"
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


def described(trained: TrainedModel) -> dict[str, str]:
    """What the graph's metadata say of it."""
    width, height = trained.config.size
    return {
        "input": f"{INPUT}: RGB from 0 to 255, float32 (N, 3, H, W), H and W from 32 up; normalisation is inside",
        "output": f"{OUTPUT}: of the foreground, float32 (N, 1, H, W); above 0.5 is foreground",
        "trained_at": f"{width}x{height}",
        "resizing": f"reduce photographs to {width}x{height} by area averages, enlarge the output bilinearly",
        "run": trained.key,
        "model": trained.config.model,
        "loss": trained.config.loss,
        "data": trained.config.data,
    }


def largest_difference(graph: Path, model: nn.Module, photographs: Photographs) -> float:
    """Between ONNX Runtime's and PyTorch's probabilities: all photographs at once, one alone, and at an odd size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    odd = torch.nn.functional.interpolate(torch.from_numpy(photographs), size=ODD[::-1], mode="area").numpy()
    found = []
    for given in (photographs, photographs[:1], odd):
        with torch.no_grad():
            ours = model(torch.from_numpy(given)).numpy()
        theirs = session.run([OUTPUT], {INPUT: given})[0]
        found.append(float(np.abs(ours - theirs).max()))
    return max(found)


def comparison(trained: TrainedModel, photographs: Path | None) -> tuple[Photographs, str]:
    """A few photographs at the run's input size, (N, 3, H, W) from 0 to 255, and what they are.

    Those that were asked for, else validation photographs of the run (its test photographs stay unread), else synthetic cars.
    """
    paths, said = (
        (list(gather_images([str(photographs)], Path("exports"))), "")
        if photographs
        else (_validation(trained), "validation ")
    )
    with tempfile.TemporaryDirectory() as place:
        if not paths:
            write_cars(Path(place) / "cars", cars=1, size=(480, 320))
            paths, said = sorted((Path(place) / "cars" / "train").glob("*.jpg")), "synthetic "
            log_to_stderr(
                "The run's photographs are not where they were; name some with --photographs to compare on them."
            )
        chosen = paths[:: max(1, len(paths) // SHOWN)][:SHOWN]
        stacked = np.stack([load_image(path, trained.config.size) for path in chosen])
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2), np.float32), f"{len(chosen)} {said}photographs"


def _validation(trained: TrainedModel) -> list[Path]:
    place = Path(trained.machine.get("data_dir") or "")
    try:
        with open(trained.path.parent / "split.csv", newline="", encoding="utf-8") as file:
            names = {row["image"] for row in csv.DictReader(file) if row["part"] == "val"}
        if not place.is_dir():
            return []
        return [
            sample.image
            for sample in list_samples(trained.config, RuntimeConfig(data_dir=place))
            if sample.name in names
        ]
    except (OSError, KeyError, InputError):
        return []


def _save_mlflow(
    graph: Path, output: Path, shown: Photographs, trained: TrainedModel, output_dir: Path, uri: str | None
) -> None:
    import onnx

    onnx_model.save_onnx_model(onnx.load(str(graph)), output, shown, described(trained))
    if onnx_model.attach(output, trained.key, output_dir, uri):
        print("The model is among the artifacts of its run in MLflow, too.")


def need(*packages: str) -> None:
    """Raise InputError where one of the packages is not installed."""
    import importlib.util

    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"Exporting needs {package}, which is not installed. Type: {NEEDED}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its own developers much; none of it is about the network."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
