"""Words in English and Chinese: templates/TOPIC.en.j2 and templates/TOPIC.zh.j2 hold the same macros and word lists.

Python decides which sentence applies and hands over the values; a template words it and formats its numbers. Whatever
is missing (a template, a macro, a value) raises. A sentence may be wrapped in its template: a line break stands for the
language's gap.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.statistics.comparisons import Comparison

LANGUAGES = ("en", "zh")
GAP = {"en": " ", "zh": ""}  # between sentences, and in place of a line break
TEMPLATES = Path(__file__).parent / "templates"


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
    made.filters |= {"score": score, "signed": signed, "interval": interval}
    return made


def score(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where it is not known."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}"


def interval(found: Comparison) -> str:
    """A difference and its interval."""
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _unwrapped(text: str, language: str) -> str:
    return re.sub(r"\s*\n\s*", GAP[language], text)
