"""`run.py export`: a trained network as an ONNX graph, which needs neither PyTorch nor this project, or MLflow model.

The graph takes RGB images from 0 to 255, float32 `(N, 3, H, W)`, any N and any H and W from 32 up, and returns the
foreground probability, float32 `(N, 1, H, W)`. Scaling, normalization, padding and cropping are part of the graph.
It does not resize: a network works best at the size it was trained at, which the file's metadata name.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.records.output_files import OutputFiles
from experiments.data.cache import load_image
from experiments.data.synthetic.cars import write_cars
from experiments.inference import seen_images
from experiments.inference.input_files import gather_images
from experiments.inference.trained_model import TrainedModel, find_runs
from experiments.runtime.errors import RunFailed, disk_errors
from experiments.runtime.progress import log_to_stderr
from experiments.tracking import onnx_model
from registry import InputError

INPUT, OUTPUT = "photograph", "probability"
NEEDED = "pip install -r requirements.txt"
MLFLOW_FILES = ("MLmodel", "model.onnx", "conda.yaml", "python_env.yaml", "requirements.txt")
COMPARED = 4  # images to compare on
ODD_SIZE = (131, 97)  # (width, height) that no network takes without padding
TOLERANCE = 1e-3  # largest accepted difference of a probability

Images = NDArray[np.float32]


class Deployed(nn.Module):
    """A network with scaling and sigmoid built in: RGB 0-255 `(N, 3, H, W)` -> probability `(N, 1, H, W)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, photograph: Tensor) -> Tensor:
        return self.model(photograph / 255).sigmoid()


def export(
    run: str,
    kind: str,
    output: Path | None,
    photographs: Path | None,
    output_dir: Path,
    uri: str | None,
    size: tuple[int, int] | None = None,
) -> int:
    """Write the graph or the MLflow model, and print its largest difference from PyTorch. Returns the exit code.

    With a `size` (width, height) the graph takes images of that size only.
    """
    need("onnx", "onnxscript", "onnxruntime")
    (trained,) = find_runs(run, [], output_dir)
    output = output or Path("exports") / (f"{trained.key}.onnx" if kind == "onnx" else trained.key)
    files = OutputFiles.beside(output) if kind == "onnx" else OutputFiles(output)
    if kind == "mlflow" and output.exists() and not files.owns("MLmodel"):
        raise InputError(f"{output} exists already and is not replaced. Name another --output.")
    files.check([output.name] if kind == "onnx" else MLFLOW_FILES, trained.path.parent.iterdir())
    images, description = comparison(trained, photographs, size)
    model = Deployed(trained.model()).eval()
    with disk_errors(output, "another --output"), tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        graph.write_bytes(to_onnx(model, described(trained, size), size))
        difference = largest_difference(graph, model, images, size)
        print(f"Largest difference from PyTorch's probabilities on {description}: {difference:.1e}")
        if not difference <= TOLERANCE:
            raise RunFailed(_differs(graph, model, images, trained, size))
        if kind == "onnx":
            files.write(output.name, graph.read_bytes())
        else:
            _save_mlflow(graph, files, images, trained, output_dir, uri, size)
    print(f"Written: {output}")
    return 0


def to_onnx(model: nn.Module, metadata: dict[str, str], size: tuple[int, int] | None = None) -> bytes:
    """ONNX graph of a `Deployed` network for any batch, and any height and width unless `size` (width, height) is set.

    Raises RunFailed if that is impossible.
    """
    import onnx

    width, height = size or (160, 96)
    example = torch.zeros(2, 3, height, width)
    free = {0: torch.export.Dim("batch")}
    if size is None:
        free |= {2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}
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
        assert program is not None
        graph = program.model_proto
        for side, name in ((0, "batch"), (2, "height"), (3, "width")) if size is None else ((0, "batch"),):
            graph.graph.output[0].type.tensor_type.shape.dim[side].dim_param = name  # not a formula of the inputs
        graph.doc_string = f"{metadata['input']} -> {metadata['output']}"
        onnx.helper.set_model_props(graph, metadata)
        onnx.checker.check_model(graph)
        return bytes(graph.SerializeToString())
    except Exception as error:  # torch.export has an exception type for each thing that it cannot trace
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RunFailed(_not_exported(reason, metadata, size)) from error


def _not_exported(reason: str, metadata: dict[str, str], size: tuple[int, int] | None) -> str:
    """What to do with a network that ONNX does not hold."""
    detail = " ".join(reason.split())[:150]
    if size is not None:
        return f"This network cannot be exported as a graph ({detail}). Use its checkpoint instead."
    return (
        f"This network cannot be exported as a graph for every size ({detail}). For images of one size add --size "
        f"{metadata['trained_at']}."
    )


def _differs(graph: Path, model: nn.Module, images: Images, trained: TrainedModel, size: tuple[int, int] | None) -> str:
    """What to do with a graph that differs from its network: at the run's own size it may be right."""
    if size is None and largest_difference(graph, model, images, trained.config.size) <= TOLERANCE:
        return _not_exported(f"at other sizes it differs by more than {TOLERANCE}", described(trained), size)
    return f"The graph differs from the network by more than {TOLERANCE}, so nothing was written."


def described(trained: TrainedModel, size: tuple[int, int] | None = None) -> dict[str, str]:
    """The graph's metadata."""
    width, height = trained.config.size
    sides = "H and W from 32 up" if size is None else f"H {size[1]}, W {size[0]}"
    return {
        "input": f"{INPUT}: RGB from 0 to 255, float32 (N, 3, H, W), {sides}; normalisation is inside",
        "output": f"{OUTPUT}: of the foreground, float32 (N, 1, H, W); above 0.5 is foreground",
        "trained_at": f"{width}x{height}",
        "resizing": f"reduce photographs to {width}x{height} by area averages; cut the output to 1e-7 to 1 - 1e-7, "
        "take its logit, enlarge that bilinearly: above 0 is foreground",
        **_intensity(trained),
        "run": trained.key,
        "model": trained.config.model,
        "loss": trained.config.loss,
        "data": trained.config.data,
    }


def _intensity(trained: TrainedModel) -> dict[str, str]:
    if trained.config.intensity is None:
        return {}
    low, high = trained.config.intensity
    return {
        "intensity": f"of images of more than 8 bits, the values {low:.10g} to {high:.10g} are 0 to 255 here, clipped"
    }


def largest_difference(graph: Path, model: nn.Module, images: Images, size: tuple[int, int] | None = None) -> float:
    """Largest difference between ONNX Runtime and PyTorch: on the batch, on one image, and at an odd size, if any is
    possible.

    Raises RunFailed where ONNX Runtime cannot carry out the graph.
    """
    import onnx
    import onnxruntime

    odd = torch.nn.functional.interpolate(torch.from_numpy(images), size=ODD_SIZE[::-1], mode="area").numpy()
    differences = []
    try:
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        answers = [
            (batch, session.run([OUTPUT], {INPUT: batch})[0])
            for batch in (images, images[:1], *(() if size is not None else (odd,)))
        ]
    except Exception as error:  # ONNX Runtime has an exception type for each thing that it cannot carry out
        metadata = {part.key: part.value for part in onnx.load(str(graph)).metadata_props}
        raise RunFailed(_not_exported(str(error), metadata, size)) from error
    for batch, probability in answers:
        with torch.no_grad():
            expected = model(torch.from_numpy(batch)).numpy()
        differences.append(float(np.abs(expected - probability).max()))
    return float(np.max(differences))  # not max(), which can drop a NaN


def comparison(
    trained: TrainedModel, photographs: Path | None, size: tuple[int, int] | None = None
) -> tuple[Images, str]:
    """A few images at `size`, or the run's input size, (N, 3, H, W) from 0 to 255, and a description of them.

    They are those named by `photographs`, else the run's validation images (its test images stay unread), else
    synthetic cars.
    """
    if photographs:
        paths, origin = list(gather_images([str(photographs)], Path("exports")).names), ""
    else:
        paths, origin = _validation_images(trained), "validation "
    with tempfile.TemporaryDirectory() as folder:
        if not paths:
            write_cars(Path(folder) / "cars", cars=1, size=(480, 320))
            paths, origin = sorted((Path(folder) / "cars" / "train").glob("*.jpg")), "synthetic "
            log_to_stderr("The run's images are no longer where they were; name some with --photographs.")
        chosen = paths[:: max(1, len(paths) // COMPARED)][:COMPARED]
        stacked = np.stack([load_image(path, size or trained.config.size, trained.config.intensity) for path in chosen])
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2), np.float32), f"{len(chosen)} {origin}images"


def _validation_images(trained: TrainedModel) -> list[Path]:
    """The run's validation images that are still where they were."""
    return [sample.image for sample in seen_images.own_samples(trained, "val")]


def _save_mlflow(
    graph: Path,
    files: OutputFiles,
    images: Images,
    trained: TrainedModel,
    output_dir: Path,
    uri: str | None,
    size: tuple[int, int] | None,
) -> None:
    import onnx

    model = graph.with_name("mlflow")
    onnx_model.save_onnx_model(onnx.load(str(graph)), model, images, described(trained, size), size)
    files.take(model)
    for path in files.folder.glob("*.data"):  # weights of an earlier export, under a random name
        if not (model / path.name).exists():
            files.discard(path.name)
    if onnx_model.attach(model, trained.key, output_dir, uri):
        print("The model is also among the artifacts of its run in MLflow.")


def need(*packages: str) -> None:
    """Raise InputError if one of the packages is not installed."""
    import importlib.util

    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"Exporting needs {package}, which is not installed. Type: {NEEDED}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's own diagnostics."""
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
