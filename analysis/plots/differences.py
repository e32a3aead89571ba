"""Differences with their intervals, the region of equivalence shaded: one row per comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from analysis.plots.style import BAND, BLUE, GREEN, ORANGE, TEXT, sheet, shorten
from analysis.verdicts.judge import Pair

COLOURS = {"better": BLUE, "worse": ORANGE, "equivalent": GREEN}
MOST = 40  # rows


def differences(pairs: Sequence[Pair], rope: float) -> Figure:
    """Draw a - b and its interval for each pair, in the order given; unbounded intervals run off both sides."""
    shown = pairs[:MOST]
    figure, (axis,) = sheet(8, 0.9 + 0.27 * len(shown))
    reach = max((abs(end) for p in shown for end in _ends(p) if math.isfinite(end)), default=1.0) * 1.1
    axis.axvspan(-rope, rope, color=BAND)
    axis.axvline(0, color=TEXT, linewidth=0.8)
    for row, pair in enumerate(shown):
        low, high = (min(max(end, -reach), reach) for end in _ends(pair))
        colour = COLOURS.get(pair.comparison.verdict, TEXT)
        axis.plot([low, high], [row, row], color=colour, linewidth=2)
        axis.plot(pair.comparison.difference, row, "o", color=colour, markersize=5)
    axis.set_yticks(range(len(shown)), [shorten(f"{pair.a} − {pair.b}", 56) for pair in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlim(-reach, reach)
    axis.set_xlabel("difference and its interval; band: too small to matter")
    return figure


def _ends(pair: Pair) -> tuple[float, float]:
    return pair.comparison.low, pair.comparison.high
