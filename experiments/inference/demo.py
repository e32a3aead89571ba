"""`run.py page`: a page on this machine where a photograph is dropped and its mask is shown. The one door to Gradio.

Nothing leaves the machine: the page is served on loopback alone, without a shared address, telemetry or fonts from
elsewhere, and the photographs that were dropped are deleted when it ends.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.config.resolve import find_device
from experiments.inference.predict import overlay
from experiments.inference.predictor import Predictor
from experiments.inference.trained_model import TrainedModel, find_run
from experiments.runtime.interrupts import Stop, interruptible
from registry import InputError

HOST = "127.0.0.1"
PRIVATE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False"}
Answer = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], str]  # mask, overlay, cut-out, a line of text


def page(run: str, port: int, device: str, output_dir: Path) -> int:
    """Serve the page until it is asked to stop; the exit code. Raises InputError where Gradio or the run is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError(
            "The page needs Gradio, which is an option of its own. Type pip install -r requirements-page.txt."
        )
    trained = find_run(run, output_dir)
    print(trained.name, flush=True)
    predictor = Predictor([trained], find_device(device))
    return interruptible(
        lambda stop: _serve(trained, predictor, port, stop), "The page is closed; what was dropped is deleted."
    )


def _serve(trained: TrainedModel, predictor: Predictor, port: int, stop: Stop) -> int:
    with tempfile.TemporaryDirectory() as dropped:
        os.environ.update(PRIVATE, GRADIO_TEMP_DIR=dropped)
        blocks, words = build(trained, predictor)
        try:
            _, address, _ = blocks.launch(server_name=HOST, server_port=port, prevent_thread_lock=True, **words)
        except OSError:
            raise InputError(
                f"Port {port} is taken on this machine. Name another, such as --port {port + 1}."
            ) from None
        print(f"Open {address} and drop a photograph there. Ctrl-C ends it.", flush=True)
        try:
            while not stop():
                time.sleep(0.2)
        finally:
            blocks.close(verbose=False)
    stop.check()
    return 0


def build(trained: TrainedModel, predictor: Predictor) -> tuple[Any, dict[str, Any]]:
    """The page, and the words that it is to be launched with."""
    import gradio as gr

    def answer(photograph: str | None) -> Answer | tuple[None, None, None, str]:
        if photograph is None:
            return None, None, None, ""
        try:
            return predicted(predictor, Path(photograph))
        except InputError as error:
            raise gr.Error(str(error).replace(photograph, Path(photograph).name), duration=None) from None

    with gr.Blocks(title="run.py page", analytics_enabled=False) as blocks:
        gr.Markdown(f"## {trained.config.model}, {trained.config.loss}\n{trained.name}")
        with gr.Row():
            drop = gr.Image(
                type="filepath", image_mode=None, sources=["upload"], label="Photograph 照片", elem_id="photograph"
            )
            shown = gr.Image(format="png", label="Overlay 叠加", elem_id="overlay", buttons=["download", "fullscreen"])
        with gr.Row():
            mask = gr.Image(
                format="png", image_mode="L", label="Mask 掩码", elem_id="mask", buttons=["download", "fullscreen"]
            )
            cut = gr.Image(
                format="png", image_mode="RGBA", label="Cut-out 抠图", elem_id="cutout", buttons=["download"]
            )
        seconds = gr.Textbox(label="Seconds 秒", elem_id="seconds", interactive=False)
        drop.change(answer, drop, [mask, shown, cut, seconds], api_visibility="private")
    closed = {"share": False, "ssr_mode": False, "mcp_server": False, "enable_monitoring": False, "inbrowser": False}
    return blocks, {**closed, "quiet": True, "footer_links": [], "max_file_size": "100mb"}


def predicted(predictor: Predictor, path: Path) -> Answer:
    """Mask (H, W) of 0 and 255, overlay (H, W, 3), cut-out (H, W, 4) and what it took.

    Raises InputError for a file that is no whole photograph.
    """
    began = time.perf_counter()
    photo = predictor.read(path, whole=True)
    mask = predictor.mask(photo)()
    seconds = time.perf_counter() - began
    assert photo.whole is not None
    grey = mask.astype(np.uint8) * 255
    width, height = photo.size
    line = f"{seconds:.2f} s for {width}x{height} pixels; {mask.mean():.1%} of them are foreground"
    return grey, overlay(photo.whole, mask), np.dstack([photo.whole, grey]), line
