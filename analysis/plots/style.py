"""Shared style of all plots: no background, colours legible on white and on dark pages, text that stays text.

A picture is an SVG without a background, so it takes the page's. Colours are mid-tones: each has a contrast of at least
3 against white and against GitHub's dark page, and the grey of the text at least 4.3 (WCAG 2.1, 1.4.11 and 1.4.3).
Text is drawn by the viewer's fonts, so drawing needs no Chinese font; widths are measured here as those of DejaVu Sans,
which comes with matplotlib, and of one em for a wide character.
"""

from __future__ import annotations

import functools
import io
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

P = ParamSpec("P")
T = TypeVar("T")
TEXT = "#737a82"
BLUE, ORANGE, GREEN = "#0f7fc4", "#d55e00", "#129070"
VERDICT_COLOURS = {"better": BLUE, "worse": ORANGE, "equivalent": GREEN, "undecided": TEXT}
# Of levels and cells; none is a verdict's.
COLOURS = ("#8a6fd1", "#a07a00", "#2f8f9d", "#c2659a", "#6f8a2a", "#c8553d", "#5a86c4", "#8a7a70")
LINES = ("-", "--", ":", "-.")
BAND = (0.46, 0.49, 0.52, 0.18)  # of the region of practical equivalence
FONTS = ("DejaVu Sans", "Arial", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei")
WIDTH = 8.7  # inches: a README's column, 838 pixels, without scaling
SMALL = 8  # points, of labels
LINE = 0.155  # inches, the height of a line of labels
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "picture",
    "text.parse_math": False,
    "font.size": 9,
    "font.family": "sans-serif",
    "font.sans-serif": list(FONTS),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT),
    **dict.fromkeys(("axes.titlecolor", "legend.labelcolor", "grid.color"), TEXT),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SMALL),
    "axes.titlesize": 9,
    "axes.labelsize": SMALL + 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
}


class _Renderer(RendererSVG):
    """Measures a wide character as one em, whatever fonts there are."""

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        return text_to_path.get_text_width_height_descent(_measurable(s), prop, ismath)


class _Canvas(FigureCanvasSVG):
    """A canvas whose layout is made with the same measures as its drawing."""

    def get_renderer(self) -> RendererSVG:
        width, height = self.figure.get_size_inches() * self.figure.dpi
        return _Renderer(width, height, io.StringIO(), image_dpi=self.figure.dpi)


def style() -> Any:
    """The style, as a context: `with style(): ...`."""
    return rc_context(STYLE)


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """A function that draws in the style, wherever it is called."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> T:
        with style():
            return draw(*args, **options)

    return drawn


def sheet(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its axes, row by row."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def legend_below(
    names: Sequence[str], height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes], Callable[[Sequence[Any]], None]]:
    """Axes that are `height` inches high in all, and a function that writes the legend with all `names` below them.

    Names are wrapped, not cut; the figure is as high as the legend needs.
    """
    texts = [wrap(name, (WIDTH / 2 - 0.6) * 72) for name in names]
    widest = max(text_width(line) for lines in texts for line in lines) / 72 + 0.55
    across = max(1, int((WIDTH - 0.1) / widest))
    down = -(-len(texts) // across)
    below = sum(max(len(lines) for lines in texts[row::down]) * 0.165 + 0.03 for row in range(down)) + 0.15
    figure, axes = sheet(WIDTH, height + below, rows, columns, **options)

    def write_legend(handles: Sequence[Any]) -> None:
        labels = ["\n".join(lines) for lines in texts]
        figure.legend(list(handles), labels, loc="outside lower center", ncols=across, columnspacing=1.2, borderpad=0)

    return figure, axes, write_legend


def svg(figure: Figure) -> str:
    """The figure as SVG; the same figure gives the same text."""
    buffer = io.StringIO()
    with style():
        renderer = measuring(figure, buffer)
        figure.draw(renderer)
        renderer.finalize()
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the document type, so that it can stand inside a page


def measuring(figure: Figure, buffer: io.StringIO | None = None) -> Any:
    """A renderer of the figure as SVG, with which `get_window_extent` gives the sizes of its texts, too."""
    _Canvas(figure)
    figure.dpi = 72
    width, height = figure.get_size_inches()
    drawn = _Renderer(width * 72, height * 72, buffer or io.StringIO(), metadata={"Date": None, "Creator": None})
    return MixedModeRenderer(figure, width, height, 72, drawn)


def logarithmic(axis: Axes, *steps: float) -> None:
    """A logarithmic x axis whose ticks, at `steps` times each power of ten, are plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=steps or (1.0,)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def text_width(text: str, size: float = SMALL) -> float:
    """The width of a line of text, in points."""
    return _width_at_ten(text) * size / 10


def wrap(text: str, width: float, size: float = SMALL) -> list[str]:
    """Break a label into lines of at most `width` points, where that hurts least. Nothing is cut."""

    def fits(part: str) -> bool:
        return text_width(part.rstrip(" ·"), size) <= width

    lines, line = list[str](), ""
    for part in _units(" ".join(str(text).split()), fits):
        while not fits(line + part):
            if not line:  # one word that is longer than a line
                most = max(1, max(n for n in range(len(part) + 1) if fits(part[:n])))
                line, part = part[:most], part[most:]
            lines, line = [*lines, line.rstrip()], ""
        line += part
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def side_labels(axis: Axes, labels: Sequence[tuple[float, Sequence[str]]], **options: Any) -> None:
    """Write labels left of an axis, each centred at its height; each line is a text of its own and ends at the axis."""
    axis.set_yticks([])
    for place, lines in labels:
        for number, line in enumerate(lines):
            up = ((len(lines) - 1) / 2 - number) * LINE * 72
            axis.annotate(
                line,
                (0, place),
                xycoords=axis.get_yaxis_transform(),
                xytext=(-6, up),
                textcoords="offset points",
                ha="right",
                va="center",
                **({"fontsize": SMALL} | options),
            )


def number_ticks(axis: Axes, points: float, text: Callable[[float], str] = "{:.6g}".format) -> None:
    """Place ticks on the x axis of a width in points, as many as there is room for their texts."""
    low, high = axis.get_xlim()
    power = math.floor(math.log10(high - low)) - 2
    for step in (base * 10.0 ** (power + more) for more in range(5) for base in (1, 2, 5)):
        values = [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(values) < 2 or max(map(text_width, map(text, values))) + 5 <= step / (high - low) * points:
            break
    axis.set_xticks(values, list(map(text, values)))


def place_axes(figure: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """An axis at a place in inches, from the upper left corner of the figure."""
    whole_width, whole_height = figure.get_size_inches()
    bottom = whole_height - top - height
    place = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    return figure.add_axes(place, **options)


def write(
    figure: Figure, left: float, top: float, lines: Sequence[str], ha: str = "left", size: float = SMALL, **options: Any
) -> None:
    """Write lines from a place in inches, from the upper left corner of the figure; every line is a text of its own."""
    width, height = figure.get_size_inches()
    for number, line in enumerate(lines):
        y = 1 - (top + (number + 0.5) * LINE) / height
        figure.text(left / width, y, line, ha=ha, va="center", fontsize=size, **options)


def shorten(label: str, letters: int = 42) -> str:
    """A label on one line that leaves room for the picture."""
    label = " ".join(str(label).split())
    return label if len(label) <= letters else label[: letters - 1] + "…"


def _units(text: str, fits: Callable[[str], bool]) -> list[str]:
    """What a line may end after: a level of a cell, a part of a level that is too long, a word of such a part."""
    units = [text]
    for pattern in (r".+?(?: · |$)", r".+?(?:, |，|(?=（)|$)"):
        units = [part for unit in units for part in ([unit] if fits(unit) else re.findall(pattern, unit))]
    return [part for unit in units for part in ([unit] if fits(unit) else _words(unit))]


def _words(text: str) -> list[str]:
    """The words of a text with their spaces, and its wide characters; closing marks stay with what they close."""
    pieces: list[str] = []
    for character in text:
        last = pieces[-1] if pieces else " "
        ends = last[-1] == " " or (_wide(last[-1]) and last[-1] not in "（《“") or _wide(character)
        if pieces and (not ends or character in " ·，。、；：）》”%"):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _measurable(text: str) -> str:
    """The text with a dash of one em for each wide character."""
    return "".join("—" if _wide(character) else character for character in text)


@functools.lru_cache(4096)
def _width_at_ten(text: str) -> float:
    font = FontProperties(family=[FONTS[0]], size=10)
    return float(text_to_path.get_text_width_height_descent(_measurable(text), font, False)[0])
