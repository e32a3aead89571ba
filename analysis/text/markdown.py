"""Tables as grids of text, which Markdown, the terminal, LaTeX and HTML show alike; and text and pages in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from registry import InputError

MARKED = ("▲", "▼", "=", "≈")  # cells that begin with a mark of a verdict


@dataclass(frozen=True)
class TableCell:
    """A cell's text: `head` (bold or not), `tail` on the same line, and `below` it in small letters."""

    head: str = ""
    tail: str = ""
    below: str = ""
    bold: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.head, self.tail, self.below)))


@dataclass(frozen=True)
class Grid:
    """A table; `title` says what distinguishes it from others of the same kind."""

    headings: list[str]
    rows: list[list[TableCell]]
    title: str = ""
    left: int = 1  # columns that are aligned to the left


def render(text: str, parts: Mapping[str, str]) -> str:
    """Put each part between `<!-- NAME -->` and `<!-- /NAME -->`. Raises InputError where a marker is missing."""
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)  # type: ignore[misc]
        if count != 1:
            raise InputError(
                f"A page needs the markers <!-- {name} --> and <!-- /{name} --> once; they are there {count} times."
            )
    return text


def table_of(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int | None = None) -> str:
    """A table for GitHub from cells that are Markdown already; all but the first `left` columns to the right."""
    ends = ["---" if left is None else ":--" if n < left else "--:" for n in range(len(headings))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ends, *rows))


def grid_table(grid: Grid) -> str:
    """A grid for GitHub; nothing in a cell can break it."""
    rows = [[_cell(cell) for cell in row] for row in grid.rows]
    return table_of([escaped(heading) for heading in grid.headings], rows, grid.left)


def _cell(cell: TableCell) -> str:
    head = escaped(cell.head)
    if head[:1] in MARKED:
        head = head.replace(" ", "&nbsp;", 1)
    head = f"**{head}**" if cell.bold and head else head
    tail = escaped(cell.tail).replace(" ", "&nbsp;")
    below = f"<br><sub>{escaped(cell.below).replace(' ', '&nbsp;')}</sub>" if cell.below else ""
    return " ".join(filter(None, (head, tail))) + below


def escaped(text: str) -> str:
    """`text` as Markdown shows it letter by letter, on one line. Plain words and intervals stay as they are."""
    text = " ".join(str(text).split())
    plain = re.fullmatch(r"[\w\s.,;:%()\[\]+±/=~†‡▲▼≈×·–−\-（）、，。：；“”]*", text)
    if plain and not re.search(r"(\b|^)_|_(\b|$)|\][(\[:]|~~", text):
        return text
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(text, quote=False))
