"""Network diagrams: a U-Net drawn from the shapes of its feature maps, and one attention gate, as boxes in space.

The face of a box (slab) is as high as the feature map (in steps of a halving), and it is as thick as the map has
channels (in steps of a doubling). Nothing here depends on a model: every number drawn is handed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon

Shape = tuple[int, int, int]  # channels, height, width

INK, SKIP, GATE = "#737a82", "#5a86c4", "#d55e00"  # on a page of any colour: there is no ground
COLOURS = {
    "input": "#a9b1ba",
    "encoder": "#3b82c4",
    "bottleneck": "#8a6fd1",
    "decoder": "#2f9e6e",
    "copy": "#a9cbe8",
    "alpha": "#f59e0b",
}
ARROWS = {
    "conv": (INK, "3×3 convolution, BatchNorm, ReLU"),
    "pool": ("#d1453b", "2×2 max pooling"),
    "up": ("#2f9e6e", "2×2 transposed convolution, or bilinear and 1×1"),
    "skip": (SKIP, "skip connection, concatenated"),
    "head": ("#8a6fd1", "1×1 convolution: one logit a pixel"),
}


@dataclass(frozen=True)
class NetworkLevel:
    """The feature maps of one resolution. The bottleneck, the last, has no `up` and no `decoder`."""

    encoder: Sequence[Shape]  # what enters, and what each convolution makes of it
    up: Shape | None = None
    decoder: Sequence[Shape] = ()
    gated: Shape | None = None  # the skip after its attention gate, if it has one


@dataclass(frozen=True)
class Slab:
    """Where a feature map was drawn: its left and right end, its bottom, its height and its depth."""

    left: float
    right: float
    bottom: float
    height: float
    depth: float

    @property
    def middle(self) -> float:
        return self.bottom + self.height / 2

    @property
    def into(self) -> tuple[float, float]:
        """Where an arrow to this map ends."""
        return self.left - 0.05, self.middle

    @property
    def out(self) -> tuple[float, float]:
        """Where an arrow from this map begins: in the middle of its face."""
        return self.right + self.depth / 2 + 0.05, self.middle


def save_unet(path: Path, levels: Sequence[NetworkLevel], logits: Shape, title: str) -> None:
    """Draw the network, from the image at the upper left to the logits at the upper right."""
    figure, axes = _empty_figure(16, 10)
    bottoms = _bottoms(levels)
    x, rows = 0.0, []
    for number, level in enumerate(levels):
        kind = "bottleneck" if number == len(levels) - 1 else "encoder"
        rows.append(_row(axes, level.encoder, x, bottoms[number], kind, number == 0))
        if number:
            _down(axes, rows[number - 1][-1], rows[number][0])
        _label(axes, rows[number][0].left, bottoms[number] - 0.15, _size(level.encoder[-1]))
        x = rows[number][-1].right + 0.35
    last = rows[-1][-1]
    for number in reversed(range(len(levels) - 1)):
        last = _step_up(axes, levels[number], rows[number][-1], last, bottoms[number])
    end = _slab(axes, last.right + last.depth + 0.6, last.bottom, logits, "bottleneck")
    _arrow(axes, last.out, end.into, "head")
    _label(axes, end.left - 0.2, end.bottom - 0.15, f"logits {_size(logits)}")
    axes.set_title(title, fontsize=17, color=INK, loc="left")
    _legend(axes, any(level.gated for level in levels))
    _save(figure, path)


def save_gate(path: Path, skip: Shape, signal: Shape, inner: Shape, alpha: Shape, title: str) -> None:
    """Draw one attention gate (Oktay et al. 2018): skip and coarser map to alpha, and alpha times the skip."""
    figure, axes = _empty_figure(15, 7)
    top, low, middle = 4.2, -2.0, 1.1
    from_skip = _slab(axes, 0, top, skip, "encoder", "skip", centred=True)
    from_below = _slab(axes, 0, low, signal, "decoder", "gating signal g", centred=True)
    theta = _slab(axes, 4.8, top, inner, "copy", centred=True)
    phi = _slab(axes, 4.8, low, inner, "copy", centred=True)
    small = _slab(axes, 12.1, middle, (1, *inner[1:]), "alpha", "alpha", centred=True)
    large = _slab(axes, 15.1, middle, alpha, "alpha", "alpha", centred=True)
    gated = _slab(axes, 19.2, top, skip, "encoder", "gated skip", centred=True)
    plus, times = (7.9, middle), (17.8, top)
    _arrow(axes, from_skip.out, theta.into, "conv", "theta: 2×2, stride 2")
    _arrow(axes, from_below.out, phi.into, "conv", "phi: 1×1")
    for start in (theta, phi):
        _arrow(axes, start.out, plus, "conv")
    _arrow(axes, plus, small.into, "conv", "ReLU, psi: 1×1, sigmoid")
    _arrow(axes, small.out, large.into, "conv", "enlarged")
    x, y = from_skip.left + from_skip.depth / 2, from_skip.bottom + from_skip.height + from_skip.depth / 2
    axes.plot([x, x, times[0], times[0]], [y, y + 1.2, y + 1.2, top], color=SKIP, lw=2.6, zorder=5)
    _arrow(axes, large.out, times, "conv")
    _arrow(axes, times, gated.into, "conv")
    for place, sign in ((plus, "+"), (times, "×")):
        _circle(axes, *place, sign)
    axes.set_title(title, fontsize=16, color=INK, loc="left")
    _save(figure, path)


def _empty_figure(width: float, height: float) -> tuple[Figure, Axes]:

    figure = Figure(figsize=(width, height), facecolor="none")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_aspect("equal")
    return figure, axes


def _bottoms(levels: Sequence[NetworkLevel]) -> list[float]:
    """The height at which each level is drawn: below the slabs of the one above, with room for its own."""
    bottom, bottoms = 0.0, []
    for number, level in enumerate(levels):
        high, depth, _ = _measures(level.encoder[-1])
        bottom -= (high + depth + 0.95) if number else 0.0
        bottoms.append(bottom)
    return bottoms


def _row(axes: Axes, shapes: Sequence[Shape], x: float, y: float, kind: str, has_input: bool) -> list[Slab]:
    """Draw the feature maps of one resolution, a convolution between each two; the first of all is the image."""
    slabs: list[Slab] = []
    for number, shape in enumerate(shapes):
        first = number == 0
        slab = _slab(axes, x, y, shape, "input" if first and has_input else kind, fade=first and not has_input)
        if slabs:
            _arrow(axes, slabs[-1].out, slab.into, "conv")
        slabs.append(slab)
        x = slab.right + slab.depth + 0.5
    return slabs


def _step_up(axes: Axes, level: NetworkLevel, skip: Slab, below: Slab, y: float) -> Slab:
    """Draw a level of the decoder: upsampled map, skip, convolutions; returns the last slab."""
    assert level.up is not None
    back = (below.right + below.depth, below.bottom + below.height + below.depth)
    copied = _slab(axes, below.right + below.depth + 1.15, y, level.encoder[-1], "copy", label="")
    enlarged = _slab(
        axes, copied.right, y, level.up, "decoder", fade=True, label=f"{level.encoder[-1][0]} + {level.up[0]}"
    )
    _arrow(axes, (back[0] + 0.05, back[1] - 0.1), (enlarged.left + 0.1, enlarged.bottom - 0.06), "up")
    _arrow(axes, (skip.right + skip.depth + 0.1, copied.middle), copied.into, "skip")
    if level.gated is not None:
        _gate(axes, copied.left - 0.55, copied.middle, (back[0] - 0.1, back[1] + 0.3))
    last = enlarged
    for shape in level.decoder:
        slab = _slab(axes, last.right + last.depth + (1.25 if last is enlarged else 0.5), y, shape, "decoder")
        _arrow(axes, last.out, slab.into, "conv")
        last = slab
    return last


def _measures(shape: Shape) -> tuple[float, float, float]:
    """Height, depth and thickness of the slab of a feature map."""
    channels, height, _ = shape
    high = 0.7 + 0.5 * max(0.0, math.log2(height / 16))
    return high, 0.26 * high, 0.07 + 0.06 * math.log2(1 + channels)


def _slab(
    axes: Axes,
    x: float,
    y: float,
    shape: Shape,
    kind: str,
    name: str = "",
    fade: bool = False,
    label: str | None = None,
    centred: bool = False,
) -> Slab:
    """Draw a feature map as a box with its lower left corner (`centred`: middle of its left side) at (x, y)."""

    high, deep, thick = _measures(shape)
    y = y - high / 2 if centred else y
    corners = {
        1.0: [(x, y), (x + thick, y), (x + thick, y + high), (x, y + high)],
        1.25: [(x, y + high), (x + thick, y + high), (x + thick + deep, y + high + deep), (x + deep, y + high + deep)],
        0.8: [(x + thick, y), (x + thick + deep, y + deep), (x + thick + deep, y + high + deep), (x + thick, y + high)],
    }
    for light, points in corners.items():
        face = tuple(min(1.0, part * light) for part in to_rgb(COLOURS[kind]))
        axes.add_patch(Polygon(points, facecolor=face, edgecolor=INK, lw=0.5, alpha=0.45 if fade else 1.0, zorder=3))
    text = str(shape[0]) if label is None else label
    axes.text(
        x + thick / 2 + deep, y + high + deep + 0.07, text, ha="center", va="bottom", fontsize=11.5, color=INK, zorder=6
    )
    if name:
        _label(axes, x, y - 0.15, f"{name}\n{shape[0]}×{shape[1]}×{shape[2]}")
    return Slab(x, x + thick, y, high, deep)


def _down(axes: Axes, above: Slab, below: Slab) -> None:
    start = (above.right - 0.05, above.bottom - 0.06)
    _arrow(axes, start, (below.left + 0.2 * below.depth, below.bottom + below.height + 0.3 * below.depth), "pool")


def _gate(axes: Axes, x: float, y: float, signal: tuple[float, float]) -> None:
    style = dict(arrowstyle="-|>", color=GATE, lw=1.8, linestyle=(0, (3, 2)), shrinkA=0, shrinkB=0)
    axes.annotate("", xy=(x, y - 0.22), xytext=signal, arrowprops=style, zorder=5)
    _circle(axes, x, y, r"$\alpha$")


def _circle(axes: Axes, x: float, y: float, sign: str) -> None:

    axes.add_patch(Circle((x, y), 0.24, facecolor=GATE, edgecolor="none", zorder=7))
    axes.text(x, y, sign, ha="center", va="center_baseline", fontsize=15, color="white", zorder=8)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], kind: str, label: str = "") -> None:
    colour = ARROWS[kind][0]
    style = dict(
        arrowstyle="-|>", color=colour, lw=2.6 if kind == "skip" else 1.9, shrinkA=0, shrinkB=0, mutation_scale=15
    )
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=5)
    if label:
        _label(axes, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1, label, ha="center", va="bottom")


def _label(axes: Axes, x: float, y: float, text: str, ha: str = "left", va: str = "top") -> None:
    axes.text(x, y, text, ha=ha, va=va, fontsize=12.5, color=INK, zorder=6)


def _legend(axes: Axes, gated: bool) -> None:

    lines = [Line2D([], [], color=colour, lw=2.6, label=label) for colour, label in ARROWS.values()]
    if gated:
        lines.append(
            Line2D([], [], color=GATE, lw=1.8, ls=(0, (3, 2)), label=r"gating signal of an attention gate $\alpha$")
        )
    axes.legend(handles=lines, loc="lower right", frameon=False, fontsize=15, labelcolor=INK, bbox_to_anchor=(1.0, 0.0))


def _size(shape: Shape) -> str:
    return f"{shape[2]}×{shape[1]}"


def _save(figure: Figure, path: Path) -> None:
    figure.axes[0].autoscale_view()
    figure.savefig(path, dpi=100, bbox_inches="tight", pad_inches=0.2, metadata={"Software": None})
