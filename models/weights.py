"""Pretrained weights from a local file or the Hugging Face hub, read without running code from the file.

预训练权重：来自本机的文件或 Hugging Face；只读取张量，绝不运行文件里的代码。
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor

TIMEOUT = 5.0  # seconds to wait for the server's first response


class WeightsNotFetched(OSError):
    """Pretrained weights are neither cached nor available; the message says what to type instead."""


def cached_or_downloaded(repo_id: str, filename: str, revision: str | None = None) -> Path:
    """Return a file of the hub. A quick request comes first: without a network, hf_hub_download retries for 23 s."""
    if not isinstance(try_to_load_from_cache(repo_id, filename, revision=revision), str):
        get_hf_file_metadata(hf_hub_url(repo_id, filename, revision=revision), timeout=TIMEOUT)
    return Path(hf_hub_download(repo_id, filename, revision=revision))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a .safetensors file or one of torch.save (weights only: no code in it is run).

    Raises ValueError if there is no file, or if it holds anything else.
    """
    if not path.is_file():
        raise ValueError(
            f"There is no weights file {path}. Give another one: --model-kwargs pretrained=PATH, or pretrained=false."
        )
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # cut short, another format, a pickle with code in it: each has its own exception
        raise ValueError(
            f"{path} cannot be read as weights: it should be a plain state dict (.pth or .safetensors)."
        ) from error
    for name in ("state_dict", "model"):  # of Lightning and others; of this project's checkpoints
        state = state.get(name, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict; save one with torch.save(model.state_dict(), PATH).")
    return dict(state)
