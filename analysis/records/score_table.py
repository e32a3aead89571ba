"""Read a CSV of scores of any origin into cells of (seed, group) means, or say in one sentence what is wrong."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from registry import InputError, did_you_mean

JOIN = " + "  # between the values of several --cell columns
CELL, ROW, TEXT, COLUMN, VALUE, UNIT = "\0cell", "\0row", "\0text", "\0column", "\0value", "\0unit"  # never a file's
SUFFIX = r"\.[^./]*$"  # of a file's name
WHOLE = r"^([+-]?\d+)\.0*$"  # a whole number with a decimal point
LARGEST = 1e100  # above it means and variances overflow


@dataclass(frozen=True)
class Columns:
    """Which column holds what. `wide`: columns that hold one method's scores each, in place of `cells` and `score`."""

    score: str = "score"
    cells: tuple[str, ...] = ()
    seed: str | None = None
    group: str | None = None
    image: str | None = None
    dataset: str | None = None
    wide: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise InputError for a column that is named for two things; an image may be its own group."""
        named = [name for name in self.named if name != self.image or self.image != self.group]
        if twice := [name for name in named if named.count(name) > 1]:
            raise InputError(f"The column '{twice[0]}' is named twice. Name one column for each flag.")

    @property
    def named(self) -> list[str]:
        """Every column of the file that is read."""
        one = [name for name in (self.seed, self.group, self.image, self.dataset) if name is not None]
        return [*(self.wide or (*self.cells, self.score)), *one]


Tables = dict[str, dict[str, pd.DataFrame]]


def read_score_tables(path: Path, columns: Columns) -> Tables:
    """The scores by data set and cell: a row per seed and a column per group (an image where there are no groups).

    Raises:
        InputError: for a file that cannot be read, a missing column, a score that is not a number, duplicate rows, or
            cells that were not scored on the same images.
    """
    frame = _long(_named(_read(path, columns), columns, path), columns)
    frame = _numbers(frame, path)
    _refuse_duplicates(frame, columns, path)
    unit = columns.group or columns.image
    frame[UNIT] = frame[unit] if unit else ""
    names = frame[columns.dataset] if columns.dataset else pd.Series("", index=frame.index)
    tables: Tables = {}
    for name, part in frame.groupby(names, sort=False):
        _refuse_unlike(part, columns, str(name))
        tables[str(name)] = {
            str(cell): _by_seed_and_group(rows, columns) for cell, rows in part.groupby(CELL, sort=False)
        }
    return tables


def groups_are_images(path: Path, columns: Columns) -> bool:
    """Whether the column of groups only repeats the images' names, as `score` and runs on images without known groups
    write it. Raises InputError for a file that cannot be read, or a missing column.
    """
    if columns.group is None or columns.image is None or columns.group == columns.image:
        return False
    pairs = _read(path, columns)[[columns.group, columns.image]].drop_duplicates()
    groups, names = pairs[columns.group], pairs[columns.image]
    repeated = (groups == names) | (groups == names.str.replace(SUFFIX, "", regex=True))
    return bool(groups.is_unique and names.is_unique and repeated.all())


def _read(path: Path, columns: Columns) -> pd.DataFrame:
    try:
        with open(path, encoding="utf-8-sig") as file:
            heading = file.readline()
            separator = max(",;\t", key=re.sub(r'"[^"]*"', "", heading).count)
            file.seek(0)
            numbers = _row_numbers(csv.reader(file, delimiter=separator), path, columns)
        frame = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", compression=None
        )
    except InputError:
        raise
    except UnicodeError:
        raise InputError(f"{path} is no CSV in UTF-8. Save the table again as CSV (UTF-8).") from None
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"The table {path} cannot be read: {reason}.") from None
    known = list(frame.columns)
    for name in columns.named:
        if name not in known:
            raise InputError(
                f"{path} has no column '{name}'{did_you_mean(name, known)}. Its columns: {', '.join(known)}."
            )
    if not len(frame):
        raise InputError(f"{path} holds no rows, only a heading.")
    return frame.assign(**{ROW: numbers if len(numbers) == len(frame) else np.arange(2, len(frame) + 2)})


def _row_numbers(rows: Iterator[list[str]], path: Path, columns: Columns) -> list[int]:
    """The number in the file of each row that is not empty; the heading is row 1.

    Raises InputError for a row with more or fewer fields than the heading, whose columns would be shifted, and for a
    column that is read and occurs twice.
    """
    numbers = []
    with contextlib.suppress(csv.Error):  # an open quote, say, of which pandas speaks
        heading = next(rows, [])
        if twice := [name for name in columns.named if heading.count(name) > 1]:
            raise InputError(f"{path} has {heading.count(twice[0])} columns '{twice[0]}'. Rename all but one.")
        for number, row in enumerate(rows, 2):
            if row and len(row) != len(heading):
                raise InputError(
                    f"{path}, row {number}: {len(row)} fields, and the heading has {len(heading)}. Correct it."
                )
            numbers += [number] if row else []
    return numbers


def _named(frame: pd.DataFrame, columns: Columns, path: Path) -> pd.DataFrame:
    """The rows with seeds by one name each (1.0 is 1). Raises InputError for a row that lacks a name."""
    flags = {"--seed": columns.seed, "--group": columns.group, "--image": columns.image, "--dataset": columns.dataset}
    blank = {name: frame[name].str.strip() == "" for name in (*columns.cells, *flags.values()) if name is not None}
    for flag, name in flags.items():
        if name is not None and blank[name].any():
            advice = f"leave out {flag}" if blank[name].all() else "fill it in, or leave the row out"
            raise InputError(f"{path}, row {frame[ROW][blank[name]].iloc[0]}: the column '{name}' is empty: {advice}.")
    if columns.cells and (nameless := np.logical_and.reduce([blank[name] for name in columns.cells])).any():
        row = frame[ROW][nameless].iloc[0]
        raise InputError(f"{path}, row {row}: the column '{columns.cells[0]}' is empty: fill it in.")
    frame = frame.assign(**{name: frame[name].str.strip() for name in blank})
    if columns.seed is None:
        return frame
    return frame.assign(**{columns.seed: frame[columns.seed].str.replace(WHOLE, r"\1", regex=True)})


def _long(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """One row per score: its cell's name in `CELL`, its text in `TEXT`; the file's row number is kept."""
    if not columns.wide:
        cell = frame[list(columns.cells)].agg(JOIN.join, axis=1)
        known = frame.assign(**{CELL: cell})[[CELL, *columns.cells]].drop_duplicates()
        if (alike := known[known[CELL].duplicated()][CELL]).size:
            raise InputError(
                f"Different values of --cell are joined to one name, '{alike.iloc[0]}'. Rename one of them."
            )
        return frame.assign(**{CELL: cell, TEXT: frame[columns.score], COLUMN: columns.score})
    parts = [frame.assign(**{CELL: name, TEXT: frame[name], COLUMN: name}) for name in columns.wide]
    return pd.concat(parts, ignore_index=True)


def _numbers(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    scores = pd.to_numeric(frame[TEXT], errors="coerce").astype(float)
    wrong = frame[~(scores.abs() <= LARGEST)]
    if len(wrong):
        first = wrong.iloc[0]
        what = "no finite number" if not np.isfinite(scores[wrong.index[0]]) else "too large"
        comma = re.fullmatch(r"\s*([+-]?\d*),(\d+)\s*", first[TEXT])
        decimal = f": numbers take a decimal point, {comma[1]}.{comma[2]}, not a comma" if comma else ""
        raise InputError(
            f"{path}, row {first[ROW]}: the {first[COLUMN]} '{first[TEXT]}' is {what}. "
            f"Correct it, or leave the row out{decimal}."
        )
    return frame.assign(**{VALUE: scores})


def _refuse_duplicates(frame: pd.DataFrame, columns: Columns, path: Path) -> None:
    keys = [name for name in (columns.dataset, CELL, columns.seed, columns.group, columns.image) if name]
    again = frame[frame.duplicated(keys)]
    if not len(again):
        return
    second = again.iloc[0]
    first = frame[(frame[keys] == second[keys]).all(axis=1)].iloc[0]
    missing = [flag for flag, name in (("--seed", columns.seed), ("--image", columns.image)) if name is None]
    advice = (
        f"Name the column that tells them apart with {' or '.join(missing)}" if missing else "Leave one of them out"
    )
    told = ", ".join(str(second[key]) for key in keys)
    raise InputError(
        f"{path}: rows {first[ROW]} and {second[ROW]} hold two scores of the same thing ({told}). {advice}."
    )


def _refuse_unlike(part: pd.DataFrame, columns: Columns, name: str) -> None:
    """Every cell and seed is scored on the same images of the same groups."""
    keys = [key for key in (columns.group, columns.image) if key]
    if not keys:
        return
    whole = part.drop_duplicates(keys).set_index(keys).index
    for label, rows in part.groupby([CELL, *([columns.seed] if columns.seed else [])], sort=False):
        lacks = whole.difference(rows.set_index(keys).index)
        if len(lacks):
            who = f"{label[0]}, seed {label[1]}" if columns.seed else label[0]
            what = lacks[0] if isinstance(lacks[0], str) else " / ".join(lacks[0])
            where = f" in the data set {name}" if name else ""
            raise InputError(
                f"{who} has no score of {what}{where}, but others do ({len(lacks)} such). "
                "Cells are compared on the same images: add the missing rows, or leave these images out everywhere."
            )


def _by_seed_and_group(rows: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    seed = rows[columns.seed] if columns.seed else pd.Series("", index=rows.index)
    table = rows.groupby([seed, UNIT], sort=False)[VALUE].mean().unstack()
    return table[sorted(table.columns)]
