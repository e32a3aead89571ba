"""Anybody's own pairs: `images/NAME.*` and `masks/NAME.*` (or `NAME_mask.*`), in any common image format."""

from __future__ import annotations

import re
from pathlib import Path

from experiments.data.listing import Listing, Problem, need_folder, need_photographs, no_mask, unpaired, unread
from experiments.data.samples import Sample
from registry import InputError

FORMATS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def build(data_dir: Path | str = "data/folder", group_pattern: str | None = None) -> list[Sample]:
    """The pairs under `data_dir`, sorted by name.

    `group_pattern` is a regular expression searched in the photo's file name: its first group (or the whole match)
    names the group. Without it each photo is a group of its own, so say which photos show the same thing if any do.
    Raises InputError for missing folders, photos without mask, names that collide and a pattern that does not match.
    """
    return listing(data_dir, group_pattern).usable()


def listing(data_dir: Path | str = "data/folder", group_pattern: str | None = None) -> Listing:
    """What lies under `data_dir`. Raises InputError for missing folders, no photographs and a pattern that is none."""
    root, pattern = Path(data_dir), _compiled(group_pattern)
    advice = f"Put the photographs into {root / 'images'} and the masks, under the same names, into {root / 'masks'}."
    images, masks = need_folder(root / "images", advice), need_folder(root / "masks", advice)
    need_photographs(filter(_is_read, images.iterdir()), images, advice)
    photos, problems = _by_stem(images)
    drawn, collisions = _by_stem(masks)
    problems += collisions
    samples, paired = [], set()
    for stem, photo in photos.items():
        mask = drawn.get(stem) or drawn.get(f"{stem}_mask")
        group = _group(photo, pattern)
        if mask is None:
            problems.append(no_mask(photo, masks))
        if group is None:
            problems.append(_no_group(photo, group_pattern))
        if mask is not None:
            paired.add(mask)
            samples += [Sample(photo, mask, group)] if group is not None else []
    strange = [
        p for f in (images, masks) for p in unread(f, _is_read, f"files end in {' '.join(sorted(FORMATS))} here")
    ]
    return Listing(samples, problems, unpaired(set(drawn.values()) - paired) + strange)


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in FORMATS and not path.name.startswith(".")


def _by_stem(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    found: dict[str, Path] = {}
    problems = []
    for path in sorted(filter(_is_read, folder.iterdir())):
        first = found.setdefault(path.stem, path)
        if first is not path:
            text = f"{first} and {path.name} share the name '{path.stem}'. Rename or remove one of them."
            problems.append(Problem(path, "name twice", text))
    return found, problems


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-pattern '{pattern}' is not a regular expression: {error}.") from None


def _group(photo: Path, pattern: re.Pattern[str] | None) -> str | None:
    """The photo's group; None where the pattern does not match its name."""
    if pattern is None:
        return photo.stem
    match = pattern.search(photo.name)
    return ((match.group(1) if pattern.groups else match.group(0)) or photo.stem) if match else None


def _no_group(photo: Path, pattern: str | None) -> Problem:
    where = f"--group-pattern '{pattern}' does not match the photograph {photo.name} of {photo.parent}"
    return Problem(photo, "no group", f"{where}. Write one that matches every name.")
