"""The tables of docs/statistics.md that come from simulation.

python -m analysis.report.simulation_tables           print them
python -m analysis.report.simulation_tables --write   write them into docs/statistics.md
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np

from analysis.records.places import ROOT
from analysis.statistics.simulate import CHOICES, LIMITS, RESPONSES, Results, run_simulations
from analysis.text.markdown import render, table_of

DOCUMENT = ROOT / "docs" / "statistics.md"


def rendered_tables(results: Results) -> dict[str, str]:
    """The document's tables by the name of their markers; every figure is the share of `DRAWS` simulated tables."""
    groups = {(str(s), f"{sd:g}"): (s, sd) for s, sd in product((3, 5, 10), (0.0, 0.25, 1.0, 3.0))}
    covered_shares = {
        name: [rates.covered for case, rates in results.coverage.items() if (case.seeds, case.seed) == group]
        for name, group in groups.items()
    }
    covered_shares["all", "all"] = [rates.covered for rates in results.coverage.values()]
    covered = [(*name, *(f"{f(h):.3f}" for f in (min, np.mean, max))) for name, h in covered_shares.items()]
    verdicts = [
        (
            f"{seeds}",
            f"{v.different.better:.2f}",
            f"{v.equal.equivalent:.2f}",
            f"{v.equal.separated:.3f}",
            f"{v.twelve:.3f}",
        )
        for seeds, v in results.verdicts.items()
    ]
    tuning = [
        (response, f"{apart:g}", *(f"{results.tuning[response, apart, name]:.3f}" for name in CHOICES))
        for response, apart in product(RESPONSES | LIMITS, (0.0, 0.5))
    ]
    headings = ("0.001 found", "equal: `equivalent`", "equal: false verdict", "12 equal cells: any false verdict")
    return {
        "coverage": table_of(("seeds", "seed sd / residual sd", "lowest", "mean", "highest"), covered),
        "verdicts": table_of(("seeds", *headings), verdicts),
        "tuning": table_of(("response", "decades apart", *CHOICES), tuning),
    }


def main(arguments: list[str]) -> int:
    parts = rendered_tables(run_simulations())
    if "--write" in arguments:
        DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8"), parts), encoding="utf-8")
    for name, part in parts.items():
        print(f"\n{name}\n\n{part}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
