"""Training, validation and test: whole cars, decided by the SHA-256 of the car's id and nothing else.

The sixteen images of a car are nearly the same image. A split by image puts on average 13.5 of a validation image's 15
siblings into training (318 cars, 10 % validation): its score mixes memorization with generalization. Here a car is in
one part only, and neither file order nor platform nor seed can move it.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
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
    """Three lists of samples, ordered by the rank of their groups (and by name within a group)."""

    train: list[Sample]
    val: list[Sample]
    test: list[Sample]


def split(samples: Sequence[Sample], by: str = "car", seed: int = 0, fold: tuple[int, int] | None = None) -> Split:
    """Split `samples` by group: the first 20 % of the ranking are test, the next 10 % validation, the rest training.

    Args:
        samples: The pairs, in any order.
        by: "car" splits by group. "image" splits single images at random: it leaks, and exists to measure the leak.
        seed: Of the random split by image; a split by group does not depend on it.
        fold: (k, K), k from 0, rotates the ranking so that over k = 0 … K-1 every group is tested exactly once.

    Raises:
        InputError: Fewer than three groups, an unknown `by`, or a fold that does not exist.
    """
    if by not in ("car", "image"):
        raise InputError(f"--split is car or image, not '{by}'; give your own split with --split-file FILE.")
    unit: Callable[[Sample], str] = (lambda s: s.group) if by == "car" else (lambda s: s.name)
    salt = "" if by == "car" else f"{seed}/"
    units = sorted({unit(s) for s in samples}, key=lambda u: (hashlib.sha256(f"{salt}{u}".encode()).hexdigest(), u))
    if len(units) < 3:
        what = "groups" if by == "car" else "images"
        raise InputError(
            f"A split needs at least three {what} (training, validation, test); the data have {len(units)}."
        )
    part = dict(zip(units, _parts(len(units), fold), strict=True))
    rank = {u: r for r, u in enumerate(units)}
    ranked = sorted(samples, key=lambda s: (rank[unit(s)], s.name))
    return Split(*([s for s in ranked if part[unit(s)] == name] for name in PARTS))


def divide(
    samples: Sequence[Sample], by: str, seed: int = 0, fold: tuple[int, int] | None = None, cars: int | None = None
) -> Split:
    """The split that --split names: an arm of the leak study, of `cars` training cars, or one by car or image."""
    return arm(samples, by, cars, fold) if by in ARMS else split(samples, by=by, seed=seed, fold=fold)


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
    """One of the two arms that measure data leakage.

    Both are tested on the same 20 % of the images of each test car, validated on the same cars, and trained on equally
    many images. by="strangers": images of the first `cars` training cars (None: of all), as in an honest split.
    by="siblings": first the other images of the test cars, then those training cars, as under a random split by image,
    in which nearly all siblings of a test image are in training. Raises InputError as `split` and `some_cars` do.
    """
    parts = split(samples, fold=fold)
    train = parts.train if cars is None else some_cars(parts.train, cars)
    tested, siblings = _divide_each_group(parts.test)
    if by == "siblings":
        train = [*siblings, *train][: len(train)]
    return Split(train, parts.val, tested)


def _divide_each_group(test: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The 20 % of each group's images with the smallest SHA-256 (at least one); the others, one group after another."""
    tested, others = [], []
    for group in dict.fromkeys(s.group for s in test):
        images = [s for s in test if s.group == group]
        images.sort(key=lambda s: hashlib.sha256(s.name.encode()).hexdigest())
        count = max(1, round(TEST_SHARE * len(images)))
        tested += images[:count]
        others.append(images[count:])
    return tested, [s for turn in zip_longest(*others) for s in turn if s is not None]


def some_cars(train: Sequence[Sample], cars: int, seed: int | None = None) -> list[Sample]:
    """The images of `cars` groups: the first of the ranking, or a draw by the seed, the same for every model.

    Raises InputError where there are fewer groups.
    """
    groups = list(dict.fromkeys(s.group for s in train))
    if not 1 <= cars <= len(groups):
        raise InputError(
            f"--train-cars {cars} is not possible: give a number from 1 to {len(groups)}, the number of training "
            "groups."
        )
    if seed is not None:
        groups.sort(key=lambda group: hashlib.sha256(f"train/{seed}/{group}".encode()).hexdigest())
    keep = set(groups[:cars])
    return [s for s in train if s.group in keep]


def some_views(test: Sequence[Sample], views: int) -> list[Sample]:
    """At most `views` images of each group, those whose names have the smallest SHA-256; the order stays."""
    ranked = sorted(test, key=lambda s: hashlib.sha256(s.name.encode()).hexdigest())
    taken: dict[str, list[Sample]] = {}
    for sample in ranked:
        taken.setdefault(sample.group, []).append(sample)
    keep = {sample for group in taken.values() for sample in group[:views]}
    return [sample for sample in test if sample in keep]


def manifest(parts: Split, digests: Mapping[Sample, str] | None = None) -> str:
    """The split as a CSV of `image,part`, which `read_manifest` reads; with `digests` also `group,sha256`."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "part") if digests is None else ("image", "part", "group", "sha256"))
    for name in PARTS:
        for s in getattr(parts, name):
            rows.writerow((s.name, name) if digests is None else (s.name, name, s.group, digests[s]))
    return text.getvalue()


def read_manifest(path: Path, samples: Sequence[Sample]) -> Split:
    """Read a split from a CSV of `image,part` (part: train, val or test); images that it does not name are left out.

    Raises InputError for a file that cannot be read, an image that is unknown or named twice, an empty part, and above
    all a group in two parts.
    """
    by_name = {s.name: s for s in samples}
    parts: dict[str, list[Sample]] = {name: [] for name in PARTS}
    part_of: dict[str, str] = {}
    for row in manifest_rows(path):
        image, part = row["image"], row["part"]
        if image not in by_name:
            raise InputError(
                f"The manifest {path} names {image}, which is not in the data. Correct the name or remove the line."
            )
        sample = by_name[image]
        if part_of.setdefault(sample.group, part) != part:
            raise InputError(
                f"The manifest {path} puts the group {sample.group} into {part_of[sample.group]} and into {part}: "
                "its images would leak. Put each group into one part."
            )
        parts[part].append(sample)
    empty = [name for name in PARTS if not parts[name]]
    if empty:
        raise InputError(
            f"The manifest {path} assigns no image to '{empty[0]}'. Name some: train, val and test are all needed."
        )
    return Split(**parts)


def manifest_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a manifest, each with its image and part."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if not {"image", "part"} <= set(table.fieldnames or ()):
                raise InputError(f"The manifest {path} needs a first line with the columns image,part.")
            rows = [{**row, "part": (row["part"] or "").strip()} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"The manifest {path} cannot be read ({error}). Give --split-file a CSV of image,part."
        ) from None
    for row in rows:
        if row["part"] not in PARTS:
            raise InputError(
                f"The manifest {path} assigns {row['image']} to '{row['part']}'; a part is train, val or test."
            )
    names = [row["image"] for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The manifest {path} names {twice} twice. Keep one line per image.")
    return rows
