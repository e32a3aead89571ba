"""Which runs may stand in one table, which cells are judged in it, and the marks of their runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records.study_results import SHARED, Study
from analysis.statistics.estimator import t_quantile
from analysis.statistics.stalled_runs import stalled
from registry import InputError

# Settings in which the runs of one table may differ: `weights` is the digest of what model_kwargs names, `intensity` is
# derived from the training images where it was not set.
OWN = ("seed", "learning_rate", "device", "threads", "weights", "intensity")
WORDS = {"data_fingerprint": "the data's fingerprint", "protocol": "protocol", "epochs": "budget (epochs)"}


@dataclass(frozen=True)
class Eligibility:
    """Whether a cell is judged, and if not, why; and the marks of its runs, which never take a verdict away.

    kind: judged | not measured | incomplete (planned runs have not ended) | failed | rate at the edge.
    """

    kind: str
    reason: str = ""  # of a failed run
    seeds: int = 0  # finished
    planned: int = 0
    rise: float = math.nan  # mean rise of validation Dice over the last fifth of training; NaN where that is unknown
    still_improving: bool = False  # marked †: the whole 95 % interval of that mean lies above the margin
    stalled: tuple[int, ...] = ()  # marked ‡: seeds of runs far below the others of their cell

    @property
    def judged(self) -> bool:
        return self.kind == "judged"


def refuse_mixed(study: Study) -> None:
    """Raise InputError where finished runs differ in anything that is not the study's factor (budget, data, ...)."""
    runs, varied = study.finished, varied_fields(study)
    columns = {name: runs[name].astype(str) for name in SHARED} | _further(study)
    for name, values in columns.items():
        groups = dict(iter(runs.groupby(values, sort=True)))
        if len(groups) < 2 or name in varied:
            continue
        examples = "; ".join(f"{value or 'none'}: {_example(part)}" for value, part in groups.items())
        raise InputError(
            f"The runs of the study {study.name} cannot stand in one table: they differ in {WORDS.get(name, name)} "
            f"({examples}), which is no factor of it. Finish the study with python run.py study {study.name}, or "
            "delete the other runs' rows from its runs.csv."
        )
    _refuse_unequal_tuning(study)


def _further(study: Study) -> dict[str, pd.Series]:
    """The values of all settings that runs.csv has no column for, by configs.json; a missing one has its default."""
    runs = study.finished
    runs = runs[runs.key.isin(list(study.configs))]
    names = {name for key in runs.key for name in study.configs[key]} - {*SHARED, *OWN}
    return {
        name: runs.key.map(lambda key, name=name: json.dumps(study.configs[key].get(name)))  # type: ignore[misc]
        for name in sorted(names)
    }


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
    """Decide for each planned cell whether it is judged: every cell whose planned runs ended is, at its budget."""
    rows = {str(cell): part for cell, part in study.runs.groupby("cell", sort=False)}
    found = {cell["cell"]: _eligibility(study, cell, rows.get(cell["cell"], study.runs[:0])) for cell in study.cells}
    marked = stalled_runs(study, [cell for cell, eligibility in found.items() if eligibility.seeds])
    return {cell: replace(eligibility, stalled=marked.get(cell, ())) for cell, eligibility in found.items()}


def stalled_runs(study: Study, cells: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The seeds of the stalled runs of each cell that has any."""
    dice = {cell: study.finished[study.finished.cell == cell].set_index("seed").dice for cell in cells}
    found = stalled({cell: scores.to_numpy(float) for cell, scores in dice.items()}, study.reading.cell_margin)
    return {cell: tuple(int(dice[cell].index[row]) for row in rows) for cell, rows in found.items()}


def _eligibility(study: Study, cell: Mapping[str, Any], runs: pd.DataFrame) -> Eligibility:
    done, failed = runs[runs.state == "finished"], runs[runs.state == "failed"]
    rises = _rises(done)
    shown = Eligibility("judged", "", len(done), len(runs), float(rises.mean()) if len(rises) else math.nan)
    shown = replace(shown, still_improving=_is_above(rises, study.reading.margin))
    if len(failed):
        reason = f"seed {failed.seed.iloc[0]}: {failed.reason.iloc[0]}"
        return replace(shown, kind="failed", reason=reason)
    if not len(done):
        return replace(shown, kind="not measured")
    if len(done) < len(runs):
        return replace(shown, kind="incomplete")
    return replace(shown, kind="rate at the edge") if cell.get("edge") else shown


def _rises(done: pd.DataFrame) -> NDArray[np.float64]:
    """The rise of each finished run (runs,), NaN where the epoch that it is measured from trained at half size.

    There the change to the full size raises validation Dice by far more than the last steps do.
    """
    rises = done.val_rise.to_numpy(float)
    if "progressive" not in done:
        return rises
    half_size = pd.to_numeric(done.progressive, errors="coerce").to_numpy(float)
    epochs = pd.to_numeric(done.epochs, errors="coerce").to_numpy(float)
    whole_size = ~(half_size > 0) | ((np.floor(0.8 * epochs) - 1) / epochs >= half_size)
    return np.where(whole_size, rises, np.nan)


def _is_above(values: NDArray[np.float64], limit: float) -> bool:
    """Whether the whole 95 % interval of the mean of `values` lies above `limit`; with fewer than two, unknown."""
    if len(values) < 2 or np.isnan(values).any():
        return False
    half = t_quantile(0.05, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return bool(values.mean() - half > limit)


def _example(runs: pd.DataFrame) -> str:
    row = runs.iloc[0]
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{row.cell} with seed {row.seed}{more}"
