"""Kaggle's Carvana cars: `train/CAR_VIEW.jpg` and `train_masks/CAR_VIEW_mask.gif`, 16 views of each car."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.data.listing import (
    Listing,
    Problem,
    masks_without_image,
    missing_mask,
    require_folder,
    require_images,
    unread_files,
    unusable_names,
    with_usable_names,
)
from experiments.data.samples import Sample

# 23 masks that participants of the competition found to be wrong and that were never replaced; the list circulates
# in public solutions on GitHub (as "corrupted masks").
KNOWN_FAULTY = frozenset({
    "0d1a9caf4350_14", "1e89e1af42e7_07", "2a4a8964ebf3_08", "2ea62c1beee7_03", "2faf504842df_03", "2faf504842df_12",
    "3afec4b5ac07_05", "3afec4b5ac07_12", "3afec4b5ac07_13", "3afec4b5ac07_14", "3bca821c8c41_13", "4a4364d7fc6d_06",
    "4a4364d7fc6d_07", "4a4364d7fc6d_14", "4a4364d7fc6d_15", "4baf50a3d8c2_05", "4e5ac4b9f074_11", "4f1f065d78ac_14",
    "4f0397cf7937_05", "5df60cf7cab2_07", "5df60cf7cab2_15", "6ba36af67cb0_07", "6bff9e10288e_01",
})  # fmt: skip


MASK = re.compile(r"([^.].*)_mask\.(?:gif|png)", re.IGNORECASE)  # GIF is Kaggle's; ._NAME_mask.gif is macOS's


def is_known_faulty(image: str) -> bool:
    """Whether the mask of `image` (a file name, as in scores.csv) is publicly listed as faulty.

    For tables with and without them: `[row for row in rows if not is_known_faulty(row["image"])]`.
    """
    return Path(image).stem.lower() in KNOWN_FAULTY


def build(data_dir: Path | str = "data/carvana") -> list[Sample]:
    """The images under `data_dir` with their masks, sorted by name; the group is the car.

    Raises InputError if the folder, the images or a mask is missing.
    """
    return listing(data_dir).usable(f"--data carvana --data-dir {shlex.quote(str(data_dir))}")


def listing(data_dir: Path | str = "data/carvana", advice: str | None = None) -> Listing:
    """List the pairs under `data_dir`. Raises InputError, with `advice`, if a folder or every image is missing."""
    root = Path(data_dir)
    if advice is None and (root / "images").is_dir() and (root / "masks").is_dir():
        advice = "It holds images/ and masks/, so type --data folder."
    advice = advice or (
        "Get Carvana with: python run.py data download carvana, or name its folder with --data-dir (looked in "
        f"{root}). A single run can do without: --data synthetic."
    )
    images, masks = require_folder(root / "train", advice), require_folder(root / "train_masks", advice)
    by_stem = _masks_by_image(masks)
    samples, problems, unpaired = list[Sample](), list[Problem](), dict(by_stem)
    photos = require_images(filter(_is_photo, images.iterdir()), images, advice)
    stems, other_case = Counter(image.stem for image in photos), _by_other_case(photos, by_stem)
    for image in photos:
        mask = unpaired.pop(other_case.get(image.stem, image.stem), None)
        if stems[image.stem] > 1:
            text = (
                f"{stems[image.stem]} images of {images} share the name '{image.stem}'. Rename or remove one of them."
            )
            problems.append(Problem(image, "name twice", text))
        elif mask is None:
            problems.append(missing_mask(image, masks))
        else:
            samples.append(Sample(image, mask, image.stem.rpartition("_")[0] or image.stem))
    problems += unusable_names([path for folder in (images, masks) for path in folder.iterdir()])
    unread = unread_files(images, _is_photo, "images are NAME.jpg here")
    unread += unread_files(masks, set(by_stem.values()).__contains__, "masks are NAME_mask.gif here, or .png")
    return Listing(with_usable_names(samples), problems, masks_without_image(unpaired.values()) + unread)


def _masks_by_image(masks: Path) -> dict[str, Path]:
    """The masks of a folder by the names of their images without ending; of several, the one that is named as Kaggle's.

    Endings in capitals count as well, as a card or a system that knows no others writes them.
    """
    named = [(match[1], path) for path in masks.iterdir() if (match := MASK.fullmatch(path.name)) and not path.is_dir()]
    named.sort(key=lambda pair: (pair[1].suffix.lower() == ".gif", pair[1].name.endswith(("_mask.gif", "_mask.png"))))
    return dict(named)


def _by_other_case(photos: Sequence[Path], masks: Mapping[str, Path]) -> dict[str, str]:
    """For images whose mask has their name in other case, that name; only where one mask fits one image."""
    images = Counter(image.stem.lower() for image in photos)
    spellings: dict[str, list[str]] = {}
    for name in masks:
        spellings.setdefault(name.lower(), []).append(name)
    unique = {name: same[0] for name, same in spellings.items() if len(same) == 1 and images[name] == 1}
    return {image.stem: unique[name] for image in photos if (name := image.stem.lower()) in unique}


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg") and not path.name.startswith(".") and not path.is_dir()
