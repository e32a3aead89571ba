"""Markdown: tables, escaped text, and the parts of a page that are rendered between markers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

import pandas as pd


def render(text: str, parts: Mapping[str, str]) -> str:
    """`text` with each part between `<!-- NAME -->` and `<!-- /NAME -->`. Raises ValueError where a marker is missing."""
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        text, found = pattern.subn(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(
                f"The README needs the markers <!-- {name} --> and <!-- /{name} --> once; they are there {found} times."
            )
    return text


def markdown(frame: pd.DataFrame) -> str:
    """A table for GitHub; nothing in a cell can break it."""
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(text if text == "---" else safe(text) for text in line) + " |" for line in lines)


def safe(text: str) -> str:
    """`text` as Markdown shows it letter by letter, on one line. Plain words and intervals stay as they are."""
    text = " ".join(str(text).split())
    if re.fullmatch(r"[\w\s.,;:%()\[\]+±/=★\-（）、，。：；]*", text) and not re.search(
        r"(\b|^)_|_(\b|$)|\][(\[:]", text
    ):
        return text
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(text, quote=False))
