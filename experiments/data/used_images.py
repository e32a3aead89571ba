"""What a run's `split.csv` says of its images, and those of the runs before it: which of them it has learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.records.files import read_json
from experiments.data.samples import Sample, image_digests
from experiments.data.splits import PARTS, manifest_rows
from registry import InputError

UNKNOWN_BEFORE = (
    "WARNING: there is no readable split.csv beside {}, whose weights the run began with, so nobody knows which images "
    "these learned from"
)


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


def used_before(folder: Path, init_file: Path | str | None) -> tuple[list[UsedImages], str]:
    """The images of the runs before the one in `folder`, which began with the weights in `init_file` (`--init`).

    They are followed back to the first. A run is looked for where its checkpoint was and, since a folder of runs may be
    moved, beside the run that began with it. Where one from a folder of runs is in neither place, the second value is
    the beginning of a warning.
    """
    earlier: list[UsedImages] = []
    followed: set[Path] = set()
    while init_file and folder not in followed:
        followed.add(folder)
        recorded = Path(init_file).parent
        places = [(place, read_used_images(place)) for place in (recorded, folder.parent / recorded.name)]
        place, used = next((known for known in places if known[1].by_name), (None, None))
        if place is None or used is None:
            return earlier, UNKNOWN_BEFORE.format(init_file) if recorded.parent.name == "runs" else ""
        earlier.append(used)
        machine = (read_json(place / "config.json") or {}).get("machine")
        folder, init_file = place, machine.get("init_file") if isinstance(machine, dict) else None
    return earlier, ""
