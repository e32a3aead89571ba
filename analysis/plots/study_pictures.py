"""The pictures of a study, by the names of their files."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from analysis.plots import comparison, effects, hero, robustness, training
from analysis.verdicts.answer import Answer

PICTURES: dict[str, Callable[[Answer, str], Figure | None]] = {
    "hero": hero.hero,
    "main-effects": effects.main_effects,
    "simple-effects": effects.simple_effects,
    "heatmap": comparison.heatmap,
    "cost": comparison.cost,
    "responses": training.responses,
    "validation": training.validation,
    "robustness": robustness.robustness,
}
