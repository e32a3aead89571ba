"""The nuclei of the 2018 Data Science Bowl (BBBC038v1): `stage1_train/ID/images/ID.png`, `ID/masks/*.png`.

One mask file per nucleus; they are merged into one mask. Nothing in the data says which images are of one slide or
experiment: each image is its own group, so images of one slide may be in two parts of the split.

Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7; image set BBBC038v1 of the Broad Bioimage Benchmark Collection,
CC0: bbbc.broadinstitute.org/BBBC038.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from experiments.data.listing import (
    Listing,
    Problem,
    is_system_file,
    masks_without_image,
    missing_mask,
    require_folder,
    require_images,
    unread_files,
    unusable_names,
    with_usable_names,
)
from experiments.data.masks import mask_files
from experiments.data.samples import Sample

IMAGES = "images are ID/images/ID.png here"


def build(data_dir: Path | str = "data/nuclei") -> list[Sample]:
    """The images under `data_dir`, the folder that holds `stage1_train`, named and grouped by their ID.

    Raises InputError if the folder, the images or the masks of an image are missing.
    """
    return listing(data_dir).usable(f"--data nuclei --data-dir {shlex.quote(str(data_dir))}")


def listing(data_dir: Path | str = "data/nuclei") -> Listing:
    """List the images under `data_dir` with their masks. Raises InputError if the folder or every image is missing."""
    root = Path(data_dir) / "stage1_train"
    advice = (
        "Get the nuclei with: python run.py data download nuclei, or name the folder that holds stage1_train with "
        "--data-dir."
    )
    require_folder(root, advice)
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not is_system_file(path))
    require_images((image for folder in folders if (image := _image(folder)).is_file()), root, advice)
    samples, problems = [], []
    left_out = [p for p in unread_files(root, Path.is_dir, IMAGES) if p.path not in folders]
    for folder in folders:
        image, masks = _image(folder), folder / "masks"
        left_out += _unread(folder)
        if not image.is_file():
            left_out += masks_without_image([masks] if masks.is_dir() else [folder])
        elif masks.is_dir() and mask_files(masks):
            samples.append(Sample(image, masks, folder.name, place=folder.name))
        else:
            problems.append(missing_mask(image, masks))
    problems += unusable_names(path for sample in samples for path in sample.files)
    return Listing(with_usable_names(samples), problems, left_out)


def _image(folder: Path) -> Path:
    return folder / "images" / f"{folder.name}.png"


def _unread(folder: Path) -> list[Problem]:
    """The files in the folder of an image that are not read."""
    image, masks = _image(folder), folder / "masks"
    problems = [p for p in unread_files(folder, Path.is_dir, IMAGES) if p.path not in (image.parent, masks)]
    if image.parent.is_dir():
        problems += unread_files(image.parent, image.__eq__, IMAGES)
    if masks.is_dir():
        read = set(mask_files(masks))
        problems += unread_files(masks, read.__contains__, "masks are ID/masks/*.png here")
    return problems
