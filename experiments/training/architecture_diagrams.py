"""Network diagrams drawn from the traced feature-map shapes of the built models."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.plots.architecture import NetworkLevel, Shape, save_gate, save_unet
from registry import MODELS

Shapes = dict[str, Shape]


def draw(folder: Path, width: int = 64, size: tuple[int, int] = (512, 512)) -> list[Path]:
    """Write U-Net.png into `folder`, and diagrams of Attention U-Net and of one gate into its docs/; their paths."""
    docs = folder / "docs"
    docs.mkdir(parents=True, exist_ok=True)
    paths = [folder / "U-Net.png", docs / "attention-unet.png", docs / "attention-gate.png"]
    for path, name, words in ((paths[0], "unet", "U-Net"), (paths[1], "attention_unet", "Attention U-Net")):
        model = MODELS[name].build(width=width)
        shapes, macs = trace(model, size)
        count = sum(p.numel() for p in model.parameters())
        title = f"{words}: {count:,} parameters, {macs / 1e9:.1f} GMACs for an image of {size[0]}×{size[1]}"
        save_unet(path, levels(shapes), shapes["head"], title)
    save_gate(paths[2], **gate(shapes), title="An attention gate: the decoder says where to look (Oktay et al. 2018)")
    return paths


def trace(model: nn.Module, size: tuple[int, int]) -> tuple[Shapes, float]:
    """The shape (C, H, W) of what each module of `model` returns for an image of `size`, and its multiply-adds."""
    shapes: Shapes = {}

    def note(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            shapes[name] = _shape(output)
            shapes.setdefault(f"{name} in", _shape(inputs[0]))

        model.get_submodule(name).register_forward_hook(hook)

    for name, _ in model.named_modules():
        if name:
            note(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.to("meta").eval()(torch.empty(1, 3, size[1], size[0], device="meta"))
    return shapes, counter.get_total_flops() / 2


def levels(shapes: Shapes) -> list[NetworkLevel]:
    """The traced shapes of a UNet by resolution, finest first."""
    depth = sum(name.startswith("encoder.") and name.count(".") == 1 and " " not in name for name in shapes)
    found = []
    for number in range(depth):
        up = f"decoder.{depth - 1 - number}"
        found.append(
            NetworkLevel(
                _double(shapes, f"encoder.{number}"),
                shapes[f"{up}.up"],
                _double(shapes, f"{up}.conv")[1:],
                shapes.get(f"{up}.gate"),
            )
        )
    return [*found, NetworkLevel(_double(shapes, "bottleneck"))]


def gate(shapes: Shapes) -> dict[str, Shape]:
    """The shapes in the finest attention gate."""
    last = max(name for name in shapes if name.endswith(".gate")).removesuffix(".gate")
    skip = shapes[f"{last}.gate in"]
    inner = shapes[f"{last}.gate.theta"]
    return {"skip": skip, "signal": shapes[f"{last}.gate.phi in"], "inner": inner, "alpha": (1, skip[1], skip[2])}


def _double(shapes: Shapes, name: str) -> list[Shape]:
    """What enters a double convolution, and what each of its two convolutions gives."""
    return [shapes[f"{name} in"], shapes[f"{name}.0"], shapes[f"{name}.3"]]


def _shape(feature_map: torch.Tensor) -> Shape:
    _, channels, height, width = feature_map.shape
    return channels, height, width
