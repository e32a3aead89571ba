"""What a run's `split.csv` says of its images: which of them it has learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.data.samples import Sample, image_digests
from experiments.data.splits import PARTS, manifest_rows
from registry import InputError


@dataclass(frozen=True)
class UsedImages:
    """The part (train, val or test) of a run's images by name, by SHA-256 and by group; all empty if it is not known.

    Runs of earlier versions recorded names only. A group of which any image was trained on counts as train.
    """

    by_name: Mapping[str, str]
    by_digest: Mapping[str, str]
    by_group: Mapping[str, str]

    def parts(self, samples: Sequence[Sample], trust_names: bool = False) -> dict[str, str]:
        """The parts of the samples that the run knew, by name: same bytes or, with `trust_names`, the same name."""
        digests = image_digests(samples) if self.by_digest else [""] * len(samples)
        names = self.by_name if trust_names else {}
        found = {s.name: self.by_digest.get(d) or names.get(s.name) for s, d in zip(samples, digests, strict=True)}
        return {name: part for name, part in found.items() if part}


def read_used_images(folder: Path) -> UsedImages:
    """Read the `split.csv` of a run's folder; empty if there is none that can be read."""
    try:
        rows = manifest_rows(folder / "split.csv")
    except InputError:
        rows = []
    rows.sort(key=lambda row: PARTS.index(row["part"]), reverse=True)  # train is last, so that it wins
    return UsedImages(
        {row["image"]: row["part"] for row in rows},
        {row["sha256"]: row["part"] for row in rows if row.get("sha256")},
        {row["group"]: row["part"] for row in rows if row.get("group")},
    )
