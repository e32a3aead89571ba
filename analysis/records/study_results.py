"""A study as it was measured: its plan, its runs, a score for each image, tuning trials and training curves.

Numbers are made in one place, `number`, from the scores of the images, whether these come from the records of the
runs or from the committed files: so both give the same numbers to the last digit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records.study_reading import StudyReading, read_study_reading

DIGITS = 7  # as in the records; more would claim what a float32 network does not know

MEANS = ("dice", "iou", "boundary_iou", "dice_best")
NUMBERS = (*MEANS, "hd95_median", "hd95_failures", "test_cars", "test_images")
# What two runs of one table must share, unless it is what the study varies; `epochs` is the budget.
SHARED = (
    "data", "data_fingerprint", "protocol", "split", "fold", "size", "epochs", "batch_size", "train_cars", "augment",
    "optimizer", "weight_decay", "schedule", "clip", "early_stopping", "accumulate", "compile", "epoch_steps",
    "progressive", "precision", "group_pattern",
)  # fmt: skip
COST = ("parameters", "gmacs", "training_seconds", "images_per_second", "peak_memory_gb")
RUN = (
    "cell", "seed", "key", "state", "reason", "rate", *NUMBERS, "best_epoch", "val_dice_last", "val_rise", *COST,
    "device", "threads", "ceiling", *SHARED, "git_commit", "scores_sha256",
)  # fmt: skip
SCORES = ("cell", "seed", "group", "image", "dice", "iou", "boundary_iou", "hd95", "failed", "dice_best")
TRIALS = ("cell", "trial", "rate", "seed", "state", "value", "key", "seconds")
CURVES = ("cell", "seed", "epoch", "train_loss", "val_loss", "val_dice", "val_iou")
CEILINGS = ("size", "image", "ceiling")
ROBUSTNESS = ("key", "condition", "group", "dice", "iou")
# The types of columns; all others are text.
NUMERIC = {
    "rate", *MEANS, "hd95_median", "hd95", "val_dice_last", "val_rise", *COST, "ceiling", "weight_decay", "clip",
    "progressive", "value", "seconds", "train_loss", "val_loss", "val_dice", "val_iou",
}  # fmt: skip
WHOLE = {
    "seed", "hd95_failures", "test_cars", "test_images", "best_epoch", "parameters", "threads", "protocol", "epochs",
    "batch_size", "train_cars", "early_stopping", "accumulate", "epoch_steps", "trial", "epoch", "failed",
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What is known of a study. `plan` is its plan.json; a run that was planned and not carried out has its row too."""

    plan: dict[str, Any]
    runs: pd.DataFrame  # RUN, and a column for each factor
    scores: pd.DataFrame  # SCORES: the last weights' scores of every finished run, and the best weights' Dice
    trials: pd.DataFrame  # TRIALS
    curves: pd.DataFrame  # CURVES
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # key -> the fields of its RunConfig
    robustness: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(ROBUSTNESS)))  # or empty
    ceilings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(CEILINGS)))  # of each test image
    notices: tuple[tuple[str, int], ...] = ()  # what was noticed: the name of a sentence in the notes, and its count

    @functools.cached_property
    def scores_by_condition(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """The cells' Dice (seeds, groups) under each condition of `robustness`, on the groups that all share."""
        cell_of = self.finished.set_index("key")[["cell", "seed"]]
        scores = self.robustness.join(cell_of, on="key", how="inner")
        found = {}
        for name, rows in scores.groupby("condition", sort=False):
            by_cell = rows.groupby("cell", observed=True)
            tables = {str(cell): part.pivot_table("dice", "seed", "group") for cell, part in by_cell}
            if self.paired:  # a seed that not all have, as where the study went on since, has no partner
                seeds = sorted(set.intersection(*(set(table.index) for table in tables.values())))
                tables = {cell: table.loc[seeds] for cell, table in tables.items()}
            shared = sorted(set.intersection(*(set(table.dropna(axis=1).columns) for table in tables.values())))
            if shared:
                found[str(name)] = {cell: table[shared].to_numpy(float) for cell, table in tables.items()}
        return found

    @property
    def name(self) -> str:
        return str(self.plan["name"])

    @functools.cached_property
    def reading(self) -> StudyReading:
        """Baselines, margins and labels: of the plan, with what its study file says today laid over it."""
        return read_study_reading(self.plan)

    @property
    def paired(self) -> bool:
        """Whether runs are matched by seed: the seed also draws the training groups, the same for all cells."""
        return self.plan.get("design", {}).get("draw_training_cars") is True

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds at which a study that runs until it is decided is looked at; none of a fixed list."""
        return tuple(self.plan.get("design", {}).get("looks", ()))

    @property
    def unit(self) -> str:
        """What a group of images is: "car", "image" where each is its own, else "group"."""
        sets = {*self.finished.data} or {str(self.plan.get("settings", {}).get("data", ""))}
        if sets <= {"carvana", "synthetic"}:
            return "car"
        known = self.plan.get("photographs") or {}
        alone = known.get("photographs") is not None and known.get("photographs") == known.get("groups")
        return "image" if alone else "group"

    @property
    def varied(self) -> dict[str, list[str]]:
        """The factors with several levels."""
        return {factor: levels for factor, levels in self.factors.items() if len(levels) > 1}

    @property
    def cells(self) -> list[dict[str, Any]]:
        return list(self.plan.get("cells", []))

    @property
    def factors(self) -> dict[str, list[str]]:
        return dict(self.plan.get("factors", {}))

    @property
    def finished(self) -> pd.DataFrame:
        return self.runs[self.runs.state == "finished"]

    @property
    def half_size_share(self) -> float:
        """The largest share of the epochs that finished runs trained at half the input size (`progressive`)."""
        shares = pd.to_numeric(self.finished.progressive, errors="coerce")
        return 0.0 if shares.isna().all() else float(shares.max())


def empty(columns: tuple[str, ...]) -> pd.DataFrame:
    """A table without rows."""
    return typed(pd.DataFrame(columns=list(columns)))


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the types that its files have: text ("" where nothing is known), whole numbers, numbers."""
    for name in table:
        if name in WHOLE:
            table[name] = pd.to_numeric(table[name]).astype("Int64")
        elif name not in NUMERIC:
            table[name] = table[name].where(table[name].notna(), "").astype(str)
        else:
            table[name] = pd.to_numeric(table[name]).astype(float).round(DIGITS if name != "rate" else 12)
    return table


def compact(scores: pd.DataFrame) -> pd.DataFrame:
    """A table of scores whose names are kept once each: a million rows take tens of megabytes."""
    return scores.assign(**{name: scores[name].astype(str).astype("category") for name in ("cell", "group", "image")})


def number(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """`runs` with the columns NUMBERS from `scores`; NaN where a run has none.

    Images are averaged within a car, then cars; HD95 by its median over images, with the number of failures
    (one mask empty, the other not: no distance exists).
    """
    by_run = scores.groupby(["cell", "seed"], observed=True)
    by_car = scores.groupby(["cell", "seed", "group"], observed=True)[list(MEANS)].mean()
    found = by_car.groupby(["cell", "seed"], observed=True).mean()
    found["hd95_median"], found["hd95_failures"] = by_run.hd95.median(), by_run.failed.sum()
    found["test_cars"], found["test_images"] = by_car.groupby(["cell", "seed"], observed=True).size(), by_run.size()
    keys = pd.MultiIndex.from_frame(runs[["cell", "seed"]])
    found.index = pd.MultiIndex.from_tuples(
        [(str(cell), int(seed)) for cell, seed in found.index], names=["cell", "seed"]
    )
    found = found.reindex(keys).reset_index(drop=True).set_index(runs.index)
    return typed(runs.assign(**found.to_dict("series")))


def by_car(study: Study, column: str = "dice") -> dict[str, NDArray[np.float64]]:
    """Average over each car's images: of each cell with finished runs (seeds, cars), the cars that all share.

    Empty where there is no car that all share.
    """
    means = study.scores.groupby(["cell", "seed", "group"], observed=True)[column].mean()
    tables = {str(cell): part.droplevel(0).unstack("group") for cell, part in means.groupby(level=0, observed=True)}
    shared = set.intersection(*(set(table.dropna(axis=1).columns) for table in tables.values())) if tables else set()
    cars = sorted(shared)
    order = [cell["cell"] for cell in study.cells if cell["cell"] in tables]
    return {cell: tables[cell][cars].to_numpy(float) for cell in order} if cars else {}


def rise(dice: NDArray[np.float64]) -> float:
    """How much validation Dice (epochs,) rose over the last fifth of the training; NaN with fewer than two epochs.

    Every epoch has the same number of steps; where the last fifth begins within an epoch, Dice is interpolated.
    """
    if len(dice) < 2:
        return float("nan")
    epochs = np.arange(1, len(dice) + 1)
    return float(dice[-1] - np.interp(0.8 * len(dice), epochs, dice))
