"""Which images a run has learned from: the same files, wherever they lie now, and others of their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.config.schema import RuntimeConfig
from experiments.data.run_inputs import list_samples
from experiments.data.samples import Sample
from experiments.data.used_images import UsedImages, read_used_images, used_before
from experiments.inference.trained_model import TrainedModel
from experiments.runtime import progress
from registry import InputError

SHOWN = 3  # names in a warning


def parts(trained: TrainedModel, data: str, data_dir: Path, samples: Sequence[Sample]) -> dict[str, str]:
    """The part (train, val or test) that each image had in the run, by name; those that it did not know are left out.

    An image is known by the bytes of its file or, where it lies in the run's own folder, by its name (Carvana's names
    are unique anywhere). What the runs before `--init` learned from counts as well. Where any image of a group was
    learned from, its unknown images count as learned from. Where no image is known, equal names are only warned of:
    `p02` may be another patient there.
    """
    used = read_used_images(trained.path.parent)
    if not used.by_name:
        progress.log(
            f"WARNING: there is no readable split.csv beside {trained.path}, so nobody knows which images the run "
            "learned from: if any is among these, the scores are too high."
        )
    same_data = data == trained.config.data
    same_folder = Path(trained.machine.get("data_dir") or "").resolve() == data_dir.resolve()
    found = used.parts(samples, trust_names=same_data and (same_folder or data == "carvana"))
    earlier, unknown = used_before(trained.path.parent, trained.machine.get("init_file"))
    if unknown:
        progress.log(f"{unknown}: if any is among these, the scores are too high.")
    for name, part in (item for before in earlier for item in before.parts(samples).items()):
        if part != "test":
            found.setdefault(name, part)
            found[name] = part if found[name] == "test" else found[name]
    if not found and same_data:
        _warn_of_names(used, samples)
    return found | _siblings(found, used, samples)


def own_samples(trained: TrainedModel, part: str) -> list[Sample]:
    """The images of a part (train, val or test) of the run's split that are still where they were."""
    data_dir, parts_by_name = Path(trained.machine.get("data_dir") or ""), read_used_images(trained.path.parent).by_name
    if not parts_by_name or not data_dir.is_dir():
        return []
    try:
        machine = RuntimeConfig(data_dir=data_dir, mask_pattern=trained.machine.get("mask_pattern"))
        samples = list_samples(trained.config, machine)
    except (OSError, InputError):
        return []
    return [sample for sample in samples if parts_by_name.get(sample.name) == part]


def _siblings(found: Mapping[str, str], used: UsedImages, samples: Sequence[Sample]) -> dict[str, str]:
    """The parts of unknown images in groups that the run learned from, where any image is known."""
    if not found:
        return {}
    learned = {group: part for group, part in used.by_group.items() if part != "test"}
    learned |= {s.group: found[s.name] for s in samples if found.get(s.name, "test") != "test"}
    return {s.name: learned[s.group] for s in samples if s.name not in found and s.group in learned}


def _warn_of_names(used: UsedImages, samples: Sequence[Sample]) -> None:
    """Say which groups or images are named like those that the run learned from."""
    groups = sorted({s.group for s in samples if used.by_group.get(s.group, "test") != "test"})
    images = [s.name for s in samples if not used.by_digest and used.by_name.get(s.name, "test") != "test"]
    names = groups or images
    if names:
        shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        what = "other images of groups with these names" if groups else "images with these names"
        progress.log(
            f"WARNING: the run learned from {what}: {shown}. If they are the same, these scores are too high: leave "
            "those images out."
        )
