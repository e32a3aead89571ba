"""The table of a study for a paper that loads booktabs, its finding in the caption."""

from __future__ import annotations

import pandas as pd

from analysis.text.markdown import Grid, TableCell
from analysis.text.sentences import finding_and_status
from analysis.text.tables import caption, legend, matrices
from analysis.verdicts.answer import Answer

SYMBOLS = {
    "▲": "$\\blacktriangle$", "▼": "$\\blacktriangledown$", "≈": "$\\approx$", "−": "$-$", "±": "$\\pm$",
    "×": "$\\times$", "†": "$\\dagger$", "‡": "$\\ddagger$", "–": "--", "·": "$\\cdot$",
}  # fmt: skip


def latex_table(answer: Answer) -> str:
    """The matrix, or one below the other; whatever names hold is escaped by pandas. Marks take amssymb."""
    texts = [*finding_and_status(answer, "en"), caption(answer, "en").replace("**", ""), legend(answer, "en")]
    lines = [
        "\\begin{table}[t]",
        f"\\caption{{{_escaped(' '.join(filter(None, texts)).strip())}}}",
        f"\\label{{tab:{answer.study.name}}}",
        "\\centering",
    ]
    for grid in matrices(answer, "en"):
        lines += [f"\\par\\medskip {_escaped(grid.title)}\\par"] if grid.title else []
        lines += _tabular(grid)
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _tabular(grid: Grid) -> list[str]:
    columns = "l" * grid.left + "r" * (len(grid.headings) - grid.left)
    rows = [" & ".join(_cell(cell) for cell in row) + " \\\\" for row in grid.rows]
    heading = " & ".join(map(_escaped, grid.headings)) + " \\\\"
    return [
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        heading,
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _cell(cell: TableCell) -> str:
    head = f"\\textbf{{{_escaped(cell.head)}}}" if cell.bold and cell.head else _escaped(cell.head)
    return " ".join(filter(None, (head, _escaped(cell.tail), _escaped(cell.below))))


def _escaped(text: str) -> str:
    """`text` escaped as pandas escapes cells, with marks as LaTeX writes them."""
    if not text:
        return ""
    styled = pd.DataFrame([" ".join(text.split())]).style.format(escape="latex").hide(axis=0).hide(axis=1)
    escaped = str(styled.to_latex().split("\n")[1]).rstrip(" \\")
    for mark, command in SYMBOLS.items():
        escaped = escaped.replace(mark, command)
    return escaped
