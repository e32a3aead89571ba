"""Training, validation and test: whole cars, decided by the SHA-256 of the car's id and by nothing else.

Sixteen photographs of one car are nearly the same photograph. A split by photograph puts on average 13.5 of a
validation photo's 15 siblings into training (318 cars, 10 % validation): its score mixes memory with generalisation. Here a car is on one
side only, and neither the order of the files nor the platform nor the seed can move it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from experiments.data.samples import Sample
from registry import InputError

PARTS = ("train", "val", "test")
ARMS = ("siblings", "strangers")  # see `arm`
LEAKING = ("image", "siblings")
TEST_SHARE, VAL_SHARE = 0.2, 0.1


@dataclass(frozen=True)
class Split:
    """Three lists of samples, in the order of their groups' ranks (and by name within a group)."""

    train: list[Sample]
    val: list[Sample]
    test: list[Sample]


def split(samples: Sequence[Sample], by: str = "car", seed: int = 0, fold: tuple[int, int] | None = None) -> Split:
    """Divide `samples` by group: the first 20 % of the ranking are test, the next 10 % validation, the rest training.

    `fold=(k, K)`, k from 0, rotates the ranking so that over k = 0 … K-1 every group is tested exactly once.
    `by="image"` divides photographs, drawn by `seed`: it leaks, and exists only to measure the leak.
    Raises InputError for fewer than three groups, an unknown `by` and a fold that does not exist.
    """
    if by not in ("car", "image"):
        raise InputError(f"--split is car or image, not '{by}'; your own division is given with --split-file FILE.")
    unit: Callable[[Sample], str] = (lambda s: s.group) if by == "car" else (lambda s: s.name)
    salt = "" if by == "car" else f"{seed}/"
    units = sorted({unit(s) for s in samples}, key=lambda u: (hashlib.sha256(f"{salt}{u}".encode()).hexdigest(), u))
    if len(units) < 3:
        what = "groups" if by == "car" else "photographs"
        raise InputError(
            f"A split needs at least three {what} (training, validation, test); there are {len(units)} in the data."
        )
    part = dict(zip(units, _parts(len(units), fold), strict=True))
    rank = {u: r for r, u in enumerate(units)}
    ranked = sorted(samples, key=lambda s: (rank[unit(s)], s.name))
    return Split(*([s for s in ranked if part[unit(s)] == name] for name in PARTS))


def _parts(n: int, fold: tuple[int, int] | None) -> list[str]:
    """The part of each rank: test first, then validation, then training, rotated by the fold."""
    start, test = 0, max(1, round(TEST_SHARE * n))
    if fold is not None:
        k, folds = fold
        if not (2 <= folds <= n and 0 <= k < folds):
            raise InputError(
                f"--fold {k}/{folds} does not exist: with {n} groups give K/N with N from 2 to {n} and K from 0 to N-1."
            )
        start, test = round(k * n / folds), round((k + 1) * n / folds) - round(k * n / folds)
    val = max(1, min(round(VAL_SHARE * n), n - test - 1))
    if n - test - val < 1:
        raise InputError(
            f"No group is left for training: {n} groups, {test} for test, {val} for validation. Use more folds."
        )
    order = ["test"] * test + ["val"] * val + ["train"] * (n - test - val)
    return order[-start:] + order[:-start] if start else order


def arm(samples: Sequence[Sample], by: str, cars: int | None = None, fold: tuple[int, int] | None = None) -> Split:
    """One of the two arms that measure the leak: both are tested on the same photographs of the test cars, 20 % of each
    car's, validated on the same cars, and trained on equally many photographs.

    by="strangers": on those of the first `cars` training cars (None: of all), as in an honest split. by="siblings": on the other
    photographs of the test cars, and only then on those training cars: as under a random split by photograph, in which nearly
    all siblings of a test photograph are in training. Raises InputError as `split` and `first_cars` do.
    """
    whole = split(samples, fold=fold)
    train = whole.train if cars is None else first_cars(whole.train, cars)
    tested, siblings = _some_of_each(whole.test)
    if by == "siblings":
        train = [*siblings, *train][: len(train)]
    return Split(train, whole.val, tested)


def _some_of_each(test: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The 20 % of each group's photographs with the smallest SHA-256 (at least one), and the others, group by group in turn."""
    tested, rounds = [], []
    for group in dict.fromkeys(s.group for s in test):
        photographs = sorted(
            (s for s in test if s.group == group), key=lambda s: hashlib.sha256(s.name.encode()).hexdigest()
        )
        count = max(1, round(TEST_SHARE * len(photographs)))
        tested += photographs[:count]
        rounds.append(photographs[count:])
    return tested, [s for turn in zip_longest(*rounds) for s in turn if s is not None]


def first_cars(train: Sequence[Sample], cars: int) -> list[Sample]:
    """The photographs of the first `cars` groups of the ranking. Raises InputError where there are fewer."""
    groups = list(dict.fromkeys(s.group for s in train))
    if not 1 <= cars <= len(groups):
        raise InputError(
            f"--train-cars {cars} is not possible: give a number from 1 to {len(groups)}, the cars in training."
        )
    keep = set(groups[:cars])
    return [s for s in train if s.group in keep]


def manifest(parts: Split) -> str:
    """The division as a CSV of `image,part`, which `read_manifest` reads."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "part"))
    rows.writerows((s.name, name) for name in PARTS for s in getattr(parts, name))
    return text.getvalue()


def read_manifest(path: Path, samples: Sequence[Sample]) -> Split:
    """The division that a CSV of `image,part` (part: train, val or test) describes; photos it does not name are left out.

    Raises InputError for a file that cannot be read so, a photo that is unknown or named twice, an empty part, and
    above all a group on two sides.
    """
    by_name = {s.name: s for s in samples}
    parts: dict[str, list[Sample]] = {name: [] for name in PARTS}
    side: dict[str, str] = {}
    for image, part in _rows(path).items():
        if image not in by_name:
            raise InputError(
                f"The manifest {path} names {image}, which is not in the data. Correct the name or remove the line."
            )
        sample = by_name[image]
        if side.setdefault(sample.group, part) != part:
            raise InputError(
                f"The manifest {path} puts the group {sample.group} into {side[sample.group]} and into {part}: "
                "its photographs would leak. Put each group on one side."
            )
        parts[part].append(sample)
    empty = [name for name in PARTS if not parts[name]]
    if empty:
        raise InputError(
            f"The manifest {path} gives no photograph to '{empty[0]}'. Name some: train, val and test are all needed."
        )
    return Split(**parts)


def _rows(path: Path) -> dict[str, str]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if not {"image", "part"} <= set(table.fieldnames or ()):
                raise InputError(f"The manifest {path} needs a first line with the columns image,part.")
            rows = [(row["image"], (row["part"] or "").strip()) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"The manifest {path} cannot be read ({error}). Give --split-file a CSV of image,part."
        ) from None
    for image, part in rows:
        if part not in PARTS:
            raise InputError(f"The manifest {path} gives {image} the part '{part}'; a part is train, val or test.")
    names = [image for image, _ in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The manifest {path} names {twice} twice. Keep one line a photograph.")
    return dict(rows)
