"""What intervals, verdicts and tuning are worth, by simulation: the code of a study, run where the truth is known.

python -m analysis.statistics.simulate                  run all, about an hour, and keep the results
python -m analysis.statistics.simulate stalls looks     run these
python -m analysis.verdicts.ledger_simulation           the same for a ledger of questions
python -m analysis.report.docs_tables --write     render what is kept into docs/*/statistics.md

Each simulation is a table: rows of named figures, kept in docs/simulations/NAME.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from analysis.statistics.simulate_designs import (
    detectable_rows,
    look_rows,
    stall_rows,
    training_draw_rows,
    unequal_rows,
)
from analysis.statistics.simulate_intervals import Row, coverage_rows, verdict_rows
from analysis.statistics.simulate_tuning import own_curve_rows, pooled_rows

KEPT = Path(__file__).parents[2] / "docs" / "simulations"
SIMULATIONS: dict[str, Callable[[], Iterator[Row]]] = {
    "coverage": coverage_rows,
    "verdicts": verdict_rows,
    "unequal": unequal_rows,
    "stalls": stall_rows,
    "detectable": detectable_rows,
    "looks": look_rows,
    "training_draws": training_draw_rows,
    "own_curves": own_curve_rows,
    "pooled_parabola": partial(pooled_rows, responses=("parabola",)),
    "pooled_steeper": partial(pooled_rows, responses=("steeper above",)),
    "pooled_flat": partial(pooled_rows, responses=("flat top",)),
    "pooled_cliff": partial(pooled_rows, 100, responses=("cliff above",)),
}


def main(names: Sequence[str]) -> int:
    """Run simulations and keep their rows; the exit code."""
    unknown = [name for name in names if name not in SIMULATIONS]
    if unknown:
        print(f"There is no simulation {unknown[0]}. Type one of: {', '.join(SIMULATIONS)}.", file=sys.stderr)
        return 2
    for name in names or SIMULATIONS:
        keep(name, SIMULATIONS[name]())
    return 0


def keep(name: str, rows: Iterator[Row]) -> None:
    """Run one simulation and write its rows."""
    began = time.perf_counter()
    made = list(rows)
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {len(made)} rows in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
