"""Which images a run has learned from: the same files, wherever they lie now, and others of their groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.data.samples import Sample, image_digests
from experiments.data.splits import read_used_images
from experiments.inference.trained_model import TrainedModel
from experiments.runtime import progress

SHOWN = 3  # names in a warning


def parts(trained: TrainedModel, data: str, data_dir: Path, samples: Sequence[Sample]) -> dict[str, str]:
    """The part (train, val or test) that each image had in the run, by name; those that it did not know are left out.

    An image is known by the bytes of its file or, where it lies in the run's own folder, by its name (Carvana's names
    are unique anywhere). An unknown image among known ones has the part of its group. Where no image is known, groups
    of the same name are only warned of: `p02` may be another patient there.
    """
    used = read_used_images(trained.path.parent)
    same_folder = Path(trained.machine.get("data_dir") or "").resolve() == data_dir.resolve()
    by_name = used.by_name if data == trained.config.data and (same_folder or data == "carvana") else {}
    digests = image_digests(samples) if used.by_digest else [""] * len(samples)
    found = {
        sample.name: part
        for sample, digest in zip(samples, digests, strict=True)
        if (part := used.by_digest.get(digest) or by_name.get(sample.name))
    }
    learned = {group for group, part in used.by_group.items() if part != "test"}
    if found:
        siblings = [s for s in samples if s.name not in found and s.group in learned]
        return found | {s.name: used.by_group[s.group] for s in siblings}
    _warn_of_names(sorted({s.group for s in samples} & learned), "" if data == trained.config.data else data)
    return found


def _warn_of_names(groups: Sequence[str], other_data: str) -> None:
    """Say which groups are named like groups that the run learned from."""
    if groups and not other_data:
        names = ", ".join(groups[:SHOWN]) + (", …" if len(groups) > SHOWN else "")
        progress.log(
            f"The run learned from other images of groups with these names: {names}. If they are the same, these "
            "scores are too high: leave those images out."
        )
