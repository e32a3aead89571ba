"""Which runs may stand in one table, and which cells may be judged in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.records.study_results import SHARED, Study
from registry import InputError

WORDS = {"data_fingerprint": "the data's fingerprint", "protocol": "protocol", "epochs": "budget (epochs)"}


@dataclass(frozen=True)
class Eligibility:
    """Whether a cell is judged, and if not, why.

    kind: judged | not measured | failed | not converged | rate at the edge; `reason` is that of a failed run. `doubt`
    says why a cell has not shown to have converged: "one epoch", or "rise" of validation Dice by `rise` over its last
    fifth; of a judged cell it may also be "others", which have not.
    """

    kind: str
    reason: str = ""
    seeds: int = 0  # finished
    planned: int = 0
    doubt: str = ""
    rise: float = math.nan

    @property
    def converged(self) -> bool:
        return self.doubt in ("", "others")


def refuse_mixed(study: Study) -> None:
    """Raise InputError where finished runs differ in anything that is not the study's factor (budget, data, ...)."""
    runs, varied = study.finished, varied_fields(study)
    for name in SHARED:
        groups = dict(iter(runs.groupby(runs[name].astype(str), sort=True)))
        if len(groups) < 2 or name in varied:
            continue
        examples = "; ".join(f"{value or 'none'}: {_example(part)}" for value, part in groups.items())
        raise InputError(
            f"The runs of the study {study.name} cannot stand in one table: they differ in {WORDS.get(name, name)} "
            f"({examples}), which is no factor of it. Finish the study with python run.py study {study.name}, or "
            "delete the other runs' rows from its runs.csv."
        )
    _refuse_unequal_tuning(study)


def _refuse_unequal_tuning(study: Study) -> None:
    """Refuse cells whose seeds ran at different rates, or whose rates had unequal numbers of trials."""
    done = study.finished
    for cell, part in done.groupby("cell", sort=False):
        if part.rate.nunique() > 1:
            rates = ", ".join(f"{rate:g}" for rate in sorted(part.rate.unique()))
            raise InputError(
                f"The runs of {cell} in the study {study.name} had different learning rates ({rates}): finish the "
                f"study with python run.py study {study.name}, or delete the rows of the old rate from its runs.csv."
            )
    trials = study.trials.cell.value_counts().reindex(sorted(set(done.cell)), fill_value=0)
    if trials.nunique() > 1 and not study.trials.empty:
        counts = ", ".join(f"{cell} {count}" for cell, count in trials.items())
        raise InputError(
            f"The cells of the study {study.name} had unequal budgets of tuning trials ({counts}). "
            f"Finish them with: python run.py tune {study.name}"
        )


def varied_fields(study: Study) -> set[str]:
    """The fields that the study varies on purpose: its factors, and what the levels of its cells set."""
    fields = set(study.factors) | {name for cell in study.cells for name in cell.get("settings", {})}
    return fields | ({"data_fingerprint"} if fields & {"data", "data_dir"} else set())


def eligibilities(study: Study) -> dict[str, Eligibility]:
    """Decide for each planned cell whether it may be judged."""
    rows = {str(cell): part for cell, part in study.runs.groupby("cell", sort=False)}
    eligibility_of = {
        cell["cell"]: _eligibility(study, cell, rows.get(cell["cell"], study.runs[:0])) for cell in study.cells
    }
    judged = {cell: eligibility for cell, eligibility in eligibility_of.items() if eligibility.kind == "judged"}
    if not all(eligibility.converged for eligibility in judged.values()):
        eligibility_of |= {
            cell: replace(eligibility, doubt=eligibility.doubt or "others") for cell, eligibility in judged.items()
        }
    return eligibility_of


def _eligibility(study: Study, cell: Mapping[str, Any], runs: pd.DataFrame) -> Eligibility:
    done, failed = runs[runs.state == "finished"], runs[runs.state == "failed"]
    counts = (len(done), len(runs))
    if len(failed):
        return Eligibility("failed", f"seed {failed.seed.iloc[0]}: {failed.reason.iloc[0]}", *counts)
    if not len(done):
        return Eligibility("not measured", "", *counts)
    rise = float(done.val_rise.mean(skipna=False))
    doubt = "" if rise <= study.rope else "one epoch" if math.isnan(rise) else "rise"  # one epoch proves no convergence
    if doubt and not study.at_budget:
        return Eligibility("not converged", "", *counts, doubt, rise)
    if cell.get("edge"):
        return Eligibility("rate at the edge", "", *counts)
    return Eligibility("judged", "", *counts, doubt, rise)


def _example(runs: pd.DataFrame) -> str:
    row = runs.iloc[0]
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{row.cell} with seed {row.seed}{more}"
