"""Scores into numbers: photographs are averaged within a car, then cars. Nothing is averaged before it gets here."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

MEANS = ("dice", "iou", "precision", "recall", "boundary_iou")


def read_scores(path: Path) -> pd.DataFrame:
    """A run's score table, one row a photograph; ids stay text (a car may be called 00087)."""
    return pd.read_csv(path, dtype={"set": str, "group": str, "image": str}, keep_default_na=False)


def summarise(scores: pd.DataFrame) -> dict[str, float | int]:
    """One table of scores in numbers.

    Means of Dice, IoU, precision, recall and boundary IoU over photographs within a car and then over cars; HD95 by its
    median over photographs and the number of failures (one mask empty, the other not: no distance exists); the pooled
    (data-set-level) IoU of all pixels; how many photographs and cars.
    """
    by_car = scores.groupby("group", sort=True)[list(MEANS)].mean()
    counts = scores[["tp", "fp", "fn"]].sum()
    union = int(counts.sum())
    failed = (scores.tp + scores.fp == 0) != (scores.tp + scores.fn == 0)
    return {
        **{name: float(by_car[name].mean()) for name in MEANS},
        "hd95_median": float(scores.hd95.median()),
        "hd95_failures": int(failed.sum()),
        "pooled_iou": int(counts.tp) / union if union else 1.0,
        "images": len(scores),
        "cars": len(by_car),
    }
