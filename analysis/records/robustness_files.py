"""The scores that `run.py robustness` leaves under a study's folder, a file for each condition."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.records.study_results import DIGITS
from registry import InputError

PLACE = "robustness"  # the folder of a study's files under outputs/
COLUMNS = ("key", "condition", "group", "image", "dice", "iou")
TYPES = {name: float if name in ("dice", "iou") else str for name in COLUMNS}


def file_name(condition: str) -> str:
    """Name the file of a condition's scores."""
    return re.sub(r"[^\w.-]+", "-", condition) + ".csv"


def read_file(path: Path) -> pd.DataFrame:
    """Read a condition's scores, none where there is no file. Raises InputError for an unreadable file."""
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TYPES.items()})
    try:
        table = pd.read_csv(path, dtype=TYPES, keep_default_na=False)[list(COLUMNS)]
        if not np.isfinite(table[["dice", "iou"]].to_numpy(float)).all():
            raise ValueError("a score is missing")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} cannot be read ({' '.join(str(error).split())}). Delete it, and type the command again."
        ) from None
    return table


def load_robustness(folder: Path, keys: Collection[str]) -> pd.DataFrame:
    """Average the scores of the runs `keys` over each group's images: key, condition, group, dice, iou."""
    tables = [read_file(path) for path in sorted((folder / PLACE).glob("*.csv"))]
    tables = [table[table.key.isin(keys)] for table in tables]
    joined = pd.concat([table for table in tables if len(table)] or [read_file(folder / "none")], ignore_index=True)
    return joined.groupby(["key", "condition", "group"])[["dice", "iou"]].mean().round(DIGITS).reset_index()
