"""Markdown: tables, escaped text, and the parts of a page that are rendered between markers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd


def render(text: str, parts: Mapping[str, str]) -> str:
    """Put each part between `<!-- NAME -->` and `<!-- /NAME -->`. Raises ValueError where a marker is missing."""
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(
                f"The README needs the markers <!-- {name} --> and <!-- /{name} --> once; they are there {count} times."
            )
    return text


def table_of(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for GitHub from cells that are Markdown already."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows))


def escaped_table(frame: pd.DataFrame) -> str:
    """A table for GitHub; nothing in a cell can break it."""
    return table_of([*map(escaped, frame.columns)], ([*map(escaped, row)] for row in frame.itertuples(index=False)))


def escaped(text: str) -> str:
    """`text` as Markdown shows it letter by letter, on one line. Plain words and intervals stay as they are."""
    text = " ".join(str(text).split())
    plain = re.fullmatch(r"[\w\s.,;:%()\[\]+±/=★\-（）、，。：；]*", text)
    if plain and not re.search(r"(\b|^)_|_(\b|$)|\][(\[:]", text):
        return text
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(text, quote=False))
