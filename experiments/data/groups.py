"""Images that belong together though nobody said so: file names with shared prefixes, and near-duplicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.data.checks import copies_across_parts, signature
from experiments.data.samples import Sample

FEWEST = 3  # groups, of which a split needs one for each part
LARGEST = 20  # images of a group, on average, where there are fewer groups than usual and not all have a number
USUAL = 5  # groups from which a prefix is taken for one of patients rather than of classes or sites
SHARED = 0.8  # of the images, at least, have a name whose prefix another one has
PREFIXES = (  # coarse ones first: too few groups cost precision, too many leak
    r"^([^/]+)/", r"^([^_]+)_", r"^([^-]+)-", r"^([^ ]+) ", r"^([^.]+)\.(?=.*\.)", r"^(\D*\d+)\D", r"^(.+)_[^_]*$",
    r"^(.+)-[^-]*$", r"^(.+)/[^/]*$", r"^(\D*\d+\D+\d+)\D.*\d",
)  # fmt: skip
MOST = 6000  # images that are compared with each other before training


def suggest_pattern(names: Iterable[str]) -> tuple[str, int] | None:
    """A regular expression for `--group-pattern` that the names suggest, and how many groups it gives; or None."""
    known = list(names)
    found = []
    for pattern in PREFIXES:
        prefixes = [match.group(1) for name in known if (match := re.search(pattern, name))]
        sizes = Counter(prefixes)
        shared = sum(size for size in sizes.values() if size > 1)
        words = not all(re.search(r"\d", prefix) for prefix in sizes)  # of classes or sites; patients have numbers
        few = words and len(sizes) < USUAL and len(known) > LARGEST * len(sizes)
        if not few and len(prefixes) == len(known) and len(sizes) >= FEWEST and shared >= SHARED * len(known):
            found.append((pattern, len(sizes)))
    patients = [row for row in found if row[1] >= USUAL]
    return min(patients or found, key=lambda row: row[1], default=None)


DIVIDED = "views of one patient or scene may be on both sides of the split"


def ungrouped(samples: Sequence[Sample], consequence: str = DIVIDED) -> str:
    """The sentence for names that look like those of patients or scenes, where each image is a group of its own."""
    if len({sample.group for sample in samples}) < len(samples):
        return ""
    suggested = suggest_pattern(sample.name for sample in samples)
    if suggested is None:
        return ""
    pattern, count = suggested
    return (
        f"The names of the {len(samples)} images share prefixes, but each image counts as a group: {consequence}. "
        f"--group-pattern '{pattern}' would make {count} groups."
    )


def near_copies(images: NDArray[np.uint8], rows: Sequence[int], parts: Sequence[str], names: Sequence[str]) -> str:
    """The sentence for images in two parts of the split that are nearly the same; `images` is (N, H, W, 3)."""
    if len(rows) > MOST:
        return ""
    signatures = np.stack([signature(np.asarray(images[row])) for row in rows])
    pairs = [(a, b) for a, b, _ in copies_across_parts(signatures, parts)]
    if not pairs:
        return ""
    a, b = pairs[0]
    return (
        f"WARNING: data leakage - {len(pairs)} pairs of images in two parts of the split are nearly the same, such as "
        f"{names[a]} ({parts[a]}) and {names[b]} ({parts[b]}). List them: python run.py data verify."
    )
