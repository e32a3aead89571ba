"""A user's own pairs: `images/NAME.*` and `masks/NAME.*` (or `NAME_mask.*`), in any common image format."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from experiments.data.listing import (
    Listing,
    Problem,
    masks_without_image,
    missing_mask,
    require_folder,
    require_images,
    unread_files,
)
from experiments.data.samples import Sample
from registry import InputError

FORMATS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def build(data_dir: Path | str = "data/folder", group_pattern: str | None = None) -> list[Sample]:
    """The pairs under `data_dir`, sorted by name.

    Args:
        data_dir: The folder that holds `images/` and `masks/`.
        group_pattern: A regular expression searched in the image's file name: its first capture group (or the whole
            match) names the group. Without it each image is a group of its own: give it if images show the same thing.

    Raises:
        InputError: Missing folders, images without a mask, names that collide, or a pattern that does not match.
    """
    return listing(data_dir, group_pattern).usable(f"--data folder --data-dir {shlex.quote(str(data_dir))}")


def listing(data_dir: Path | str = "data/folder", group_pattern: str | None = None) -> Listing:
    """List the pairs under `data_dir`. Raises InputError for missing folders, no images and an invalid pattern."""
    root, pattern = Path(data_dir), compile_pattern(group_pattern)
    advice = f"Put the images into {root / 'images'} and the masks, under the same names, into {root / 'masks'}."
    images, masks = require_folder(root / "images", advice), require_folder(root / "masks", advice)
    require_images(filter(_is_read, images.iterdir()), images, advice)
    image_by_stem, problems = files_by_stem(images)
    mask_by_stem, collisions = files_by_stem(masks)
    problems += collisions
    samples, paired = [], set()
    for stem, image in image_by_stem.items():
        mask = mask_by_stem.get(stem) or mask_by_stem.get(f"{stem}_mask")
        group = group_of(image, pattern)
        if mask is None:
            problems.append(missing_mask(image, masks))
        if group is None:
            problems.append(_no_group(image, group_pattern))
        if mask is not None:
            paired.add(mask)
            samples += [Sample(image, mask, group)] if group is not None else []
    endings = f"files end in {' '.join(sorted(FORMATS))} here"
    unread = [problem for path in (images, masks) for problem in unread_files(path, _is_read, endings)]
    return Listing(samples, problems, masks_without_image(set(mask_by_stem.values()) - paired) + unread)


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in FORMATS and not path.name.startswith(".")


def files_by_stem(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """The files of a folder by their names without ending, and a problem for each name that occurs twice."""
    by_stem: dict[str, Path] = {}
    problems = []
    for path in sorted(filter(_is_read, folder.iterdir())):
        first = by_stem.setdefault(path.stem, path)
        if first is not path:
            text = f"{first} and {path.name} share the name '{path.stem}'. Rename or remove one of them."
            problems.append(Problem(path, "name twice", text))
    return by_stem, problems


def compile_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """The regular expression of `--group-pattern`. Raises InputError where it is none."""
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-pattern '{pattern}' is not a regular expression: {error}.") from None


def group_of(image: Path, pattern: re.Pattern[str] | None) -> str | None:
    """The image's group; None if the pattern does not match its name."""
    if pattern is None:
        return image.stem
    match = pattern.search(image.name)
    return ((match.group(1) if pattern.groups else match.group(0)) or image.stem) if match else None


def _no_group(image: Path, pattern: str | None) -> Problem:
    mismatch = f"--group-pattern '{pattern}' does not match the image {image.name} of {image.parent}"
    return Problem(image, "no group", f"{mismatch}. Write one that matches every name.")
