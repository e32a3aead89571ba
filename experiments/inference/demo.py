"""`run.py page`: a local demo page that shows the mask of a dropped image. The one door to Gradio.

Nothing leaves the machine: the page is served on loopback only, without a shared address, telemetry or external fonts,
and dropped images are deleted when it is closed.
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
from PIL import Image

from experiments.config.resolve import find_device
from experiments.data.images import in_srgb
from experiments.inference.pictures import cutout, grey, overlay
from experiments.inference.predictor import Predictor
from experiments.inference.trained_model import TrainedModel, find_run
from experiments.runtime.interrupts import Stop, interruptible
from registry import InputError

HOST = "127.0.0.1"
PRIVATE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False"}
Answer = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], str]  # mask, overlay, cut-out, a line of text


def page(run: str, port: int, device: str, output_dir: Path) -> int:
    """Serve the page until interrupted; return the exit code. Raises InputError if Gradio or the run is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError(
            "The page needs Gradio, in an environment of its own. Type make .venv-page/complete, then "
            ".venv-page/bin/python run.py page (without make: see requirements-page.txt)."
        )
    trained = find_run(run, output_dir)
    print(trained.name, flush=True)
    predictor = Predictor([trained], find_device(device))
    return interruptible(
        lambda stop: _serve(trained, predictor, port, stop), "The page is closed; dropped images are deleted."
    )


def _serve(trained: TrainedModel, predictor: Predictor, port: int, stop: Stop) -> int:
    with tempfile.TemporaryDirectory() as uploads:
        os.environ.update(PRIVATE, GRADIO_TEMP_DIR=uploads)
        blocks, options = build(trained, predictor)
        try:
            _, address, _ = blocks.launch(server_name=HOST, server_port=port, prevent_thread_lock=True, **options)
        except OSError:
            raise InputError(
                f"Port {port} is taken on this machine. Name another, such as --port {port + 1}."
            ) from None
        print(f"Open {address} and drop an image there. Ctrl-C stops it.", flush=True)
        try:
            while not stop():
                time.sleep(0.2)
        finally:
            blocks.close(verbose=False)
    stop.check()
    return 0


def build(trained: TrainedModel, predictor: Predictor) -> tuple[Any, dict[str, Any]]:
    """The Gradio page, and the options of its `launch`."""
    import gradio as gr

    def respond(path: str | None) -> Answer | tuple[None, None, None, str]:
        if path is None:
            return None, None, None, ""
        try:
            return answer(predictor, Path(path))
        except InputError as error:
            raise gr.Error(str(error).replace(path, Path(path).name), duration=None) from None

    with gr.Blocks(title="run.py page", analytics_enabled=False) as blocks:
        gr.Markdown(f"## {trained.config.model}, {trained.config.loss}\n{trained.name}")
        with gr.Row():
            drop = gr.Image(
                type="filepath", image_mode=None, sources=["upload"], label="Photograph 图像", elem_id="photograph"
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
        drop.change(respond, drop, [mask, shown, cut, seconds], api_visibility="private")
    closed = {"share": False, "ssr_mode": False, "mcp_server": False, "enable_monitoring": False, "inbrowser": False}
    return blocks, {**closed, "quiet": True, "footer_links": [], "max_file_size": "100mb"}


def answer(predictor: Predictor, path: Path) -> Answer:
    """Mask (H, W) of 0 and 255, overlay (H, W, 3), cut-out (H, W, 4) and a line with the time it took.

    Raises InputError for a file that is not a complete image.
    """
    began = time.perf_counter()
    image = predictor.read(path)
    mask = predictor.mask(image)()
    seconds = time.perf_counter() - began
    pixels, profile = predictor.display(image)
    if profile is not None and (shown := in_srgb(Image.fromarray(pixels), profile)) is not None:
        pixels = np.asarray(shown)  # the page's files carry no profile
    width, height = image.size
    line = f"{seconds:.2f} s for {width}x{height} pixels; {mask.mean():.1%} of them are foreground"
    return grey(mask), overlay(pixels, mask), cutout(pixels, mask), line
