"""A trained network as an MLflow model: written as a folder, and put among the artifacts of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.tracking import store
from experiments.tracking.store import local_uri, store_uri
from experiments.tracking.tracker import Session, session


def save_onnx_model(
    graph: Any, folder: Path, photographs: Any, metadata: Mapping[str, str], size: tuple[int, int] | None = None
) -> None:
    """Write an ONNX graph of one input and one output as an MLflow model, without a pickle or code of this project.

    `photographs` is an input (N, 3, H, W); the signature leaves N free, and H and W without a `size` (width, height).
    """
    store.set_up()
    import importlib.metadata

    import mlflow.onnx
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    given, found = (place[0].name for place in (graph.graph.input, graph.graph.output))
    kind, (width, height) = photographs.dtype, size or (-1, -1)
    inputs, outputs = (
        Schema([TensorSpec(np.dtype(kind), (-1, c, height, width), name)]) for c, name in ((3, given), (1, found))
    )
    packages = [f"{name}=={importlib.metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy")]
    mlflow.onnx.save_model(
        graph,
        str(folder),
        signature=ModelSignature(inputs, outputs),
        metadata=dict(metadata),
        pip_requirements=packages,
    )


def attach(folder: Path, key: str, output_dir: Path, uri: str | None) -> bool:
    """Put `folder` among the artifacts of the run with this key, as `model`; whether MLflow has such a run.

    Prints a sentence where MLflow is away: no other command uploads the model.
    """
    place = store_uri(uri, output_dir)
    if place == local_uri(output_dir) and not (output_dir / "mlflow.db").exists():
        return False
    with session(place, output_dir, lambda _: None) as opened:
        sent: list[str] = []
        opened.submit(lambda: _attach(opened, folder, key, sent))
    if opened.away:
        again = "repeat the export when it is back" if opened.usable else "do so, then repeat the export"
        print(f"{opened.trouble} The model is not among the artifacts of its run: {again}.")
    return bool(sent)


def _attach(opened: Session, folder: Path, key: str, sent: list[str]) -> None:
    if (run_id := opened.find(key)) is not None:
        opened.client.log_artifacts(run_id, str(folder), "model")
        sent.append(run_id)
