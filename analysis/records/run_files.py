"""The files of a run: its score tables, its JSON lines, and the seal of its result.json.

The scores of many runs are parsed some dozens of files at a time, as one text; where that fails, file by file, so that
a broken file affects its own run only. A thousand runs of a thousand images take seconds.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.files import read_json
from registry import InputError

AT_ONCE = 50  # files that are parsed together
COLUMNS = ("group", "image", "tp", "fp", "fn", "dice", "iou", "boundary_iou", "hd95")
NAMES = {"group": "category", "image": "category"}
NUMBERS = ["tp", "fp", "fn", "dice", "iou", "boundary_iou", "hd95", "dice_best"]
READ = ["group", "image", "dice", "iou", "boundary_iou", "hd95", "failed", "dice_best"]
MEANS = ("dice", "iou", "precision", "recall", "boundary_iou")


def read_all_scores(folders: Sequence[Path]) -> tuple[pd.DataFrame, dict[int, str]]:
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
    last, counts = _table([score_file(folder, "last") for folder in folders], COLUMNS)
    best, _ = _table([score_file(folder, "best") for folder in folders], ("image", "dice"))
    if len(best) != len(last) or not (best.image.astype(str).array == last.image.astype(str).array).all():
        raise ValueError("the last and the best weights were scored on different images")
    last["dice_best"] = best.dice
    if not np.isfinite(last[NUMBERS].to_numpy(float)).all():
        raise ValueError("a score is missing")
    last["failed"] = without_distance(last).astype(np.int8)
    return last[READ].assign(run=np.repeat(np.asarray(places, np.int64), counts))


def score_file(folder: Path, weights: str) -> Path:
    """Return the path of a finished run's scores with its "last" or its "best" weights.

    Runs of early versions, whose result.json names no headline, keep those of the best weights in scores.csv.
    """
    if weights == "best" and "headline" not in (read_json(folder / "result.json") or {}):
        return folder / "scores.csv"
    return folder / f"scores_{weights}.csv"


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


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, in order; of a missing file, none.

    A crash while a line was appended leaves that line without its end: it is left out. Any other line that is no JSON
    object was damaged later, and what it said is lost. Raises InputError with its number for such a one.
    """
    whole = (path.read_bytes() if path.exists() else b"").split(b"\n")[:-1]  # what follows the last end of line is torn
    return [_object(path, number, line) for number, line in enumerate(whole, start=1)]


def discard(folder: Path) -> str:
    """The command that deletes a run, for messages."""
    return f"rm -r {shlex.quote(str(folder))}"


def seal(result: dict[str, Any]) -> str:
    """The SHA-256 of what a result says, but for its seal itself: a number that is changed later does not fit it."""
    content = json.dumps({name: value for name, value in result.items() if name != "seal"}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:  # no JSON, or not even UTF-8
        content = None
    if not isinstance(content, dict):
        raise InputError(
            f"Line {number} of {path} is damaged. Restore the file from a copy, or discard the run and train it again: "
            f"{discard(path.parent)}"
        )
    return content


def read_score_table(path: Path) -> pd.DataFrame:
    """A run's score table, one row a image; ids stay text (a car may be called 00087)."""
    return pd.read_csv(path, dtype={"set": str, "group": str, "image": str}, keep_default_na=False)


def summarise_scores(scores: pd.DataFrame) -> dict[str, float | int]:
    """One table of scores in numbers.

    Means of Dice, IoU, precision, recall and boundary IoU over images within a car and then over cars; HD95 by its
    median over images and the number of failures (one mask empty, the other not: no distance exists); the pooled
    (data-set-level) IoU of all pixels; how many images and cars. Where some images have no object (they score 1 if
    nothing is found in them): how many, and Dice of the others, averaged in the same way.
    """
    by_car = scores.groupby("group", sort=True)[list(MEANS)].mean()
    counts = scores[["tp", "fp", "fn"]].sum()
    union = int(counts.sum())
    return {
        **{name: float(by_car[name].mean()) for name in MEANS},
        "hd95_median": float(scores.hd95.median()),
        "hd95_failures": int(without_distance(scores).sum()),
        "pooled_iou": int(counts.tp) / union if union else 1.0,
        "images": len(scores),
        "cars": len(by_car),
        **_of_objects(scores),
    }


def _of_objects(scores: pd.DataFrame) -> dict[str, float | int]:
    """What images without an object hide; nothing where all images, or none, have one."""
    there = scores.tp + scores.fn > 0
    if there.all() or not there.any():
        return {}
    dice = scores[there].groupby("group", sort=True, observed=True).dice.mean().mean()
    return {"images_without_object": int((~there).sum()), "dice_with_object": float(dice)}


def without_distance(scores: pd.DataFrame) -> pd.Series:
    """Mark the images on which HD95 failed: one mask is empty and the other is not, so that no distance exists."""
    return (scores.tp + scores.fp == 0) != (scores.tp + scores.fn == 0)
