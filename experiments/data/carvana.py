"""Kaggle's Carvana cars: `train/CAR_VIEW.jpg` and `train_masks/CAR_VIEW_mask.gif`, 16 views of each car."""

from __future__ import annotations

from pathlib import Path

from experiments.data.samples import Sample, need_folder, need_samples


def build(data_dir: Path | str = "data/carvana") -> list[Sample]:
    """The photographs under `data_dir` with their masks, sorted by name; the group is the car.

    Raises InputError where the folder, the photographs or a mask is missing.
    """
    root = Path(data_dir)
    advice = f"Put Kaggle's train/ and train_masks/ there, name another place with --data-dir, or try --data synthetic (looked in {root})."
    photos, masks = need_folder(root / "train", advice), need_folder(root / "train_masks", advice)
    pairs = [(photo, masks / f"{photo.stem}_mask.gif") for photo in photos.glob("*.jpg")]
    there = {path.name for path in masks.glob("*_mask.gif")}
    missing = [str(photo) for photo, mask in pairs if mask.name not in there]
    samples = [Sample(photo, mask, photo.stem.rpartition("_")[0] or photo.stem) for photo, mask in pairs]
    return need_samples(samples, missing, photos if not missing else masks, advice)
