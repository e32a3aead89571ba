"""The tables of docs/statistics.md that come from simulation, rendered from the results that runs have kept.

python -m analysis.report.simulation_tables           print them
python -m analysis.report.simulation_tables --write   write them into docs/statistics.md

The results are in docs/simulations; `python -m analysis.statistics.simulate` makes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.records.places import ROOT
from analysis.statistics.simulate import KEPT
from analysis.text.markdown import render, table_of

DOCUMENT = ROOT / "docs" / "statistics.md"
POOLED = ("pooled_parabola", "pooled_steeper", "pooled_flat", "pooled_cliff")
TABLES = {  # by the name of a table's markers, the simulations whose rows it has
    "coverage": ("coverage",),
    "verdicts": ("verdicts",),
    "unequal": ("unequal",),
    "stalls": ("stalls",),
    "detectable": ("detectable",),
    "looks": ("looks",),
    "training draws": ("training_draws",),
    "tuning": ("own_curves",),
    "pooled": POOLED,
    "ledger": ("ledger",),
}


def kept_rows(name: str) -> list[dict[str, Any]]:
    """The rows that a simulation has kept."""
    return list(json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8")))


def rendered_tables() -> dict[str, str]:
    """The document's tables by the name of their markers."""
    return {name: as_table([row for part in parts for row in kept_rows(part)]) for name, parts in TABLES.items()}


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of named figures as a table in Markdown."""
    headings = tuple(rows[0])
    return table_of(headings, [tuple(_text(name, row[name]) for name in headings) for row in rows])


def _text(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if name.startswith("difference"):
        return f"{value:.4f}"
    if name.startswith("wider"):
        return f"{value:.1f}"
    return f"{value:g}" if name in ("seed sd / residual sd", "decades apart", "noise of trials") else f"{value:.3f}"


def main(arguments: list[str]) -> int:
    parts = rendered_tables()
    if "--write" in arguments:
        DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8"), parts), encoding="utf-8")
    for name, part in parts.items():
        print(f"\n{name}\n\n{part}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
