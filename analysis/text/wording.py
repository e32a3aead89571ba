"""Words in English and Chinese: templates/TOPIC.en.j2 and templates/TOPIC.zh.j2 hold the same macros and word lists.

Python decides which sentence applies and hands over the values; a template words it and formats its numbers. Whatever
is missing (a template, a macro, a value) raises. A sentence may be wrapped in its template: a line break stands for the
language's gap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.records.study_results import Study
from analysis.statistics.comparisons import Comparison

LANGUAGES = ("en", "zh")
GAP = {"en": " ", "zh": ""}  # between sentences, and in place of a line break
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
JOIN = " · "  # between the levels of a cell, outside sentences
TEMPLATES = Path(__file__).parent / "templates"
CHINESE = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef“”"


class Phrases:
    """A topic's macros, called with keywords, and its word lists, in one language."""

    def __init__(self, topic: str, language: str) -> None:
        self.language = language
        self._module = environment().get_template(f"{topic}.{language}.j2").module

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._module, name)
        return (lambda **values: _unwrapped(part(**values), self.language)) if callable(part) else part


@cache
def phrases(topic: str, language: str) -> Phrases:
    """The phrases of a topic, such as `phrases("notes", "en").ceiling(ceilings=...)`."""
    return Phrases(topic, language)


@cache
def environment() -> Environment:
    """What the templates see."""
    made = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=False)
    made.filters |= {"score": score, "signed": signed, "count": lambda n: f"{n:,}", "plain": lambda n: f"{n:.3g}"}
    made.filters |= {"size": size, "span": span, "p": p_value, "word": word}
    return made


def score(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where it is not known."""
    return "–" if value is None or value != value else minus(f"{value:.{digits}f}")


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign."""
    return minus(f"{round(value, digits) + 0.0:+.{digits}f}")


def minus(text: str) -> str:
    """`text` with minus signs in place of hyphens."""
    return text.replace("-", "−")


def decimals(comparison: Comparison) -> int:
    """Decimals of a difference in Dice: four, or three where its interval is wide."""
    return 4 if comparison.high - comparison.low < 0.02 else 3


def size(comparison: Comparison) -> str:
    """How large a difference is, without its sign."""
    return f"{abs(comparison.difference):.{decimals(comparison)}f}"


def span(comparison: Comparison, to: str) -> str:
    """The interval of a difference, signs only where its ends differ in sign; a dash where there is none."""
    if not finite(comparison):
        return score(None)
    digits = decimals(comparison)
    ends = [round(end, digits) + 0.0 for end in (comparison.low, comparison.high)]
    form = f".{digits}f" if min(ends) >= 0 else f"+.{digits}f"
    return minus(to.join(format(end, form) for end in ends))


def word(number: int) -> str:
    """A number in English: in letters up to ten."""
    return NUMBERS[number] if 0 <= number < len(NUMBERS) else f"{number:,}"


def p_value(p: float) -> str:
    """A p value as papers print it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def points(value: float, digits: int = 2) -> str:
    """A difference in Dice in points (× 100), signed."""
    rounded = round(100 * value, digits) + 0.0
    return minus(f"{rounded:+.{digits}f}") if rounded else f"{0:.{digits}f}"


def factor_name(study: Study, factor: str, language: str) -> str:
    """A factor as people write it."""
    return _label(study.reading.labels, factor, language) or phrases("names", language).factors.get(factor, factor)


def level_name(study: Study, level: str, language: str) -> str:
    """A level as people write it: its label in the study file, else the usual name of a registry entry, else itself."""
    return _label(study.reading.labels, level, language) or phrases("names", language).levels.get(level, level)


def cell_name(study: Study, levels: Mapping[str, str], language: str) -> str:
    """A cell as tables and pictures write it: its levels of the factors that vary, or of all where none does."""
    shown = {factor: level for factor, level in levels.items() if factor in study.varied} or dict(levels)
    return JOIN.join(level_name(study, level, language) for level in shown.values() if level)


def place_name(study: Study, levels: Sequence[str], language: str) -> str:
    """A combination of levels as people write it."""
    return joined([level_name(study, level, language) for level in levels if level], language)


def joined(names: Sequence[str], language: str) -> str:
    """The levels of one combination."""
    return phrases("names", language).combination(names=list(names))


def listed(names: Sequence[str], language: str, most: int = 3) -> str:
    """Names in a row, `most` of them at most; of more the first ones, and how many others there are."""
    shown = list(names) if len(names) <= most else list(names[: most - 1])
    return phrases("names", language).listed(names=shown, more=len(names) - len(shown))


def finite(comparison: Comparison) -> bool:
    """Whether a comparison has an interval."""
    return math.isfinite(comparison.low) and math.isfinite(comparison.high)


def _label(labels: Mapping[str, Any], name: str, language: str) -> str:
    label = labels.get(name, "")
    return str(label.get(language) or label.get("en") or "") if isinstance(label, Mapping) else str(label)


def _unwrapped(text: str, language: str) -> str:
    text = re.sub(r"\s*\n\s*", GAP[language], text)
    if language == "zh":  # a name stands between spaces; next to Chinese it needs none
        text = re.sub(rf"(?<=[{CHINESE}]) +(?=[{CHINESE}])|(?<=[\u3000-\u303f\uff00-\uffef]) +", "", text)
        text = re.sub(r" +(?=[\u3000-\u303f\uff00-\uffef])", "", text)
    return re.sub(" +", " ", text)
