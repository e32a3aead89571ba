"""What the pictures of numbers share: no background, colours that are legible on white and on dark, text that stays
text.

A picture is an SVG without a background, so it takes the page's. Colours are mid-tones: each has a contrast of at least
3 against white and against GitHub's dark page, and the grey of the text at least 4.3 (WCAG 2.1, 1.4.11 and 1.4.3).
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

TEXT = "#737a82"
BLUE, ORANGE, GREEN, PINK = "#0f7fc4", "#d55e00", "#129070", "#c2659a"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#a07a00", "#8a6fd1", "#4b8fb0", "#c8553d")  # those that are alike far apart
LINES = ("-", "--", ":", "-.")
BAND = (0.46, 0.49, 0.52, 0.18)  # of the region of practical equivalence
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "picture",
    "text.parse_math": False,
    "font.size": 9,
    "font.family": "sans-serif",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT),
    **dict.fromkeys(("axes.titlecolor", "legend.labelcolor", "grid.color"), TEXT),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
}


def style() -> Any:
    """The style, as a context: `with style(): ...`."""
    return rc_context(STYLE)


def sheet(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def svg(figure: Figure) -> str:
    """The figure as SVG; the same figure gives the same text."""
    buffer = io.StringIO()
    with style():
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the document type, so that it can stand inside a page


def logarithmic(axis: Axes, *steps: float) -> None:
    """A logarithmic x axis whose ticks, at `steps` times each power of ten, are plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=steps or (1.0,)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def shorten(label: str, letters: int = 42) -> str:
    """A label on one line that leaves room for the picture."""
    label = " ".join(str(label).split())
    return label if len(label) <= letters else label[: letters - 1] + "…"
