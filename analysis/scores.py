"""The photographs' scores of many runs, read together: a thousand runs of a thousand photographs in seconds.

Files are parsed some dozens at a time, as one text; where that fails, one by one, so that a broken file costs its own run only.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

AT_ONCE = 50
COLUMNS = ("group", "image", "tp", "fp", "fn", "dice", "iou", "boundary_iou", "hd95")
NAMES = {"group": "category", "image": "category"}
NUMBERS = ["tp", "fp", "fn", "dice", "iou", "boundary_iou", "hd95", "dice_best"]
READ = ["group", "image", "dice", "iou", "boundary_iou", "hd95", "failed", "dice_best"]


def read_scores(folders: Sequence[Path]) -> tuple[pd.DataFrame, dict[int, str]]:
    """The last weights' scores of finished runs, with the best weights' Dice beside them: (READ and `run`, broken).

    `run` is the place of the run's folder in `folders`; `broken` says of runs whose scores cannot be used why.
    """
    parts: list[pd.DataFrame] = []
    broken: dict[int, str] = {}
    for start in range(0, len(folders), AT_ONCE):
        places = range(start, min(start + AT_ONCE, len(folders)))
        try:
            parts.append(_read([folders[place] for place in places], places))
        except (OSError, ValueError, KeyError):
            for place in places:
                try:
                    parts.append(_read([folders[place]], [place]))
                except (OSError, ValueError, KeyError) as error:
                    broken[place] = f"its scores cannot be read ({' '.join(str(error).split())[:120]})"
    return _joined(parts), broken


def _read(folders: Sequence[Path], places: Sequence[int]) -> pd.DataFrame:
    """The scores of some runs. Raises ValueError where a file of any of them is not as it should be."""
    last, counts = _table([folder / "scores_last.csv" for folder in folders], COLUMNS)
    best, _ = _table([folder / "scores.csv" for folder in folders], ("image", "dice"))
    if len(best) != len(last) or not (best.image.astype(str).array == last.image.astype(str).array).all():
        raise ValueError("scores.csv and scores_last.csv are of different photographs")
    last["dice_best"] = best.dice
    if not np.isfinite(last[NUMBERS].to_numpy(float)).all():
        raise ValueError("a score is missing")
    last["failed"] = ((last.tp + last.fp == 0) != (last.tp + last.fn == 0)).astype(np.int8)
    return last[READ].assign(run=np.repeat(np.asarray(places, np.int64), counts))


def _table(paths: Sequence[Path], columns: Sequence[str]) -> tuple[pd.DataFrame, list[int]]:
    """Files with the same heading as one table, and how many rows each has."""
    texts = [path.read_bytes() for path in paths]
    heading = texts[0].partition(b"\n")[0]
    bodies = [text.partition(b"\n")[2] for text in texts]
    if any(text.partition(b"\n")[0] != heading for text in texts) or not all(body.endswith(b"\n") for body in bodies):
        raise ValueError(f"{paths[0].name} is cut short, or its heading is not the usual one")
    counts = [body.count(b"\n") for body in bodies]
    text = io.BytesIO(b"\n".join([heading, *(body[:-1] for body in bodies)]))
    types = {name: NAMES[name] for name in columns if name in NAMES}
    table = pd.read_csv(text, usecols=list(columns), dtype=types, keep_default_na=False)
    if len(table) != sum(counts):
        raise ValueError("a name holds a line break")
    return table, counts


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table; names are kept once each."""
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype="category" if name in NAMES else float) for name in [*READ, "run"]})
    for name in NAMES:
        every = pd.api.types.union_categoricals([part[name] for part in parts]).categories
        parts = [part.assign(**{name: part[name].cat.set_categories(every)}) for part in parts]
    return pd.concat(parts, ignore_index=True)
