"""What may stand in one table, and which cells may be judged in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.records.study_results import SHARED, Study
from registry import InputError

WORDS = {"data_fingerprint": "the data's fingerprint", "protocol": "protocol", "epochs": "budget (epochs)"}


ONE_EPOCH = ("one epoch cannot show whether it had converged", "只有一轮，看不出是否已经收敛")
OTHERS = ("others are not shown to have converged", "其他单元中有未显示收敛的")
RISES = (
    "validation Dice rose by {:.5f} over the last fifth of its steps",
    "验证集 Dice 在最后五分之一的步数里上升了 {:.5f}",
)


@dataclass(frozen=True)
class Eligibility:
    """Whether a cell is judged, and if not, why.

    kind: judged | not measured | failed | not converged | rate at the edge; `reason` has the particulars. That of a judged
    cell is empty, unless it is judged at its budget: because it has not converged, or because others have not.
    """

    kind: str
    reason: str = ""
    seeds: int = 0  # finished
    planned: int = 0
    reason_zh: str = ""  # where it is the project's own sentence
    converged: bool = True


def refuse_mixed(study: Study) -> None:
    """Raise InputError where finished runs differ in budget, data, protocol or anything else that is not the study's factor."""
    runs, varied = study.finished, varied_fields(study)
    for name in SHARED:
        groups = dict(iter(runs.groupby(runs[name].astype(str), sort=True)))
        if len(groups) < 2 or name in varied:
            continue
        told = "; ".join(f"{value or 'none'}: {_example(part)}" for value, part in groups.items())
        raise InputError(
            f"The runs of the study {study.name} cannot stand in one table: they differ in {WORDS.get(name, name)} ({told}), which is no "
            f"factor of it. Finish the study with python run.py study {study.name}, or delete the other runs' rows from its runs.csv."
        )
    _refuse_unequal_tuning(study)


def _refuse_unequal_tuning(study: Study) -> None:
    """A cell whose seeds ran at different rates, or whose rate had more trials than another's, is not fairly compared."""
    done = study.finished
    for cell, part in done.groupby("cell", sort=False):
        if part.rate.nunique() > 1:
            rates = ", ".join(f"{rate:g}" for rate in sorted(part.rate.unique()))
            raise InputError(
                f"The runs of {cell} in the study {study.name} had different learning rates ({rates}): finish the study with "
                f"python run.py study {study.name}, or delete the rows of the old rate from its runs.csv."
            )
    trials = study.trials.cell.value_counts().reindex(sorted(set(done.cell)), fill_value=0)
    if trials.nunique() > 1 and not study.trials.empty:
        told = ", ".join(f"{cell} {count}" for cell, count in trials.items())
        raise InputError(
            f"The cells of the study {study.name} had unequal budgets of tuning trials ({told}). "
            f"Finish them with: python run.py tune {study.name}"
        )


def varied_fields(study: Study) -> set[str]:
    """The fields that the study varies on purpose: its factors, and what the levels of its cells set."""
    fields = set(study.factors) | {name for cell in study.cells for name in cell.get("settings", {})}
    return fields | ({"data_fingerprint"} if fields & {"data", "data_dir"} else set())


def eligibilities(study: Study) -> dict[str, Eligibility]:
    """Each planned cell's standing."""
    rows = {str(cell): part for cell, part in study.runs.groupby("cell", sort=False)}
    found = {cell["cell"]: _standing(study, cell, rows.get(cell["cell"], study.runs[:0])) for cell in study.cells}
    if all(one.converged for one in found.values() if one.kind == "judged"):
        return found
    return {cell: replace(one, reason=one.reason or OTHERS[0], reason_zh=one.reason_zh or OTHERS[1]) if one.kind == "judged" else one
            for cell, one in found.items()}  # fmt: skip


def _standing(study: Study, cell: Mapping[str, Any], runs: pd.DataFrame) -> Eligibility:
    done, failed = runs[runs.state == "finished"], runs[runs.state == "failed"]
    counts = (len(done), len(runs))
    if len(failed):
        return Eligibility("failed", f"seed {failed.seed.iloc[0]}: {failed.reason.iloc[0]}", *counts)
    if not len(done):
        return Eligibility("not measured", str(runs.reason.iloc[0]) if len(runs) else "not planned", *counts)
    rise = done.val_rise.mean(skipna=False)
    english = chinese = ""
    if not rise <= study.rope:  # a rise that cannot be told (one epoch) proves no convergence either
        english, chinese = ONE_EPOCH if rise != rise else (text.format(rise) for text in RISES)
        if not study.at_budget:
            return Eligibility("not converged", english, *counts, chinese)
    if cell.get("edge"):
        return Eligibility(
            "rate at the edge", "its best learning rate lies in the outer sixth of the range that was tried", *counts
        )
    return Eligibility("judged", english, *counts, chinese, converged=not english)


def _example(runs: pd.DataFrame) -> str:
    row = runs.iloc[0]
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{row.cell} with seed {row.seed}{more}"
