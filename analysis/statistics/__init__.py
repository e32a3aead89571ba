"""Comparisons of scores (seeds, cars): intervals, verdicts, effects, power. Pure functions; no torch."""

from analysis.statistics.baseline_comparisons import against_baseline
from analysis.statistics.comparisons import Comparison, Family, compare, compare_all
from analysis.statistics.possible_best import best_set
from analysis.statistics.power import detectable, smallest_difference, spread_of, what_it_can_detect
from analysis.statistics.sequential_looks import look_level

__all__ = [
    "Comparison",
    "Family",
    "against_baseline",
    "best_set",
    "compare",
    "compare_all",
    "detectable",
    "look_level",
    "smallest_difference",
    "spread_of",
    "what_it_can_detect",
]
