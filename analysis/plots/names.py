"""How a study's pictures write its factors and levels: by its labels, else as people usually write them."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.records.study_results import Study
from analysis.text.wording import phrases

JOIN = " · "  # between the levels of a cell


def factor_name(study: Study, factor: str, language: str) -> str:
    """How a factor is written."""
    return _label(study, factor, language)


def level_name(study: Study, level: str, language: str) -> str:
    """How a level of a factor is written."""
    return _label(study, level, language)


def cell_name(study: Study, levels: Mapping[str, str], language: str) -> str:
    """How a cell is written: its levels of the factors that vary, or of all where none does."""
    shown = {factor: level for factor, level in levels.items() if factor in study.varied} or dict(levels)
    return JOIN.join(level_name(study, level, language) for level in shown.values() if level)


def _label(study: Study, name: str, language: str) -> str:
    label = study.reading.labels.get(name)
    if isinstance(label, Mapping):
        label = label.get(language) or label.get("en")
    return " ".join(str(label or phrases("pictures", language).usual.get(name, name)).split())
