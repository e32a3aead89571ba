"""Anybody's own pairs: `images/NAME.*` and `masks/NAME.*` (or `NAME_mask.*`), in any common image format."""

from __future__ import annotations

import re
from pathlib import Path

from experiments.data.samples import Sample, need_folder, need_samples
from experiments.errors import InputError

FORMATS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def build(data_dir: Path | str = "data/folder", group_pattern: str | None = None) -> list[Sample]:
    """The pairs under `data_dir`, sorted by name.

    `group_pattern` is a regular expression searched in the photo's file name: its first group (or the whole match)
    names the group. Without it each photo is a group of its own, so say which photos show the same thing if any do.
    Raises InputError for missing folders, photos without mask, names that collide and a pattern that does not match.
    """
    root = Path(data_dir)
    advice = "Put the photographs into images/ and the masks, under the same names, into masks/ of --data-dir."
    photos = _by_stem(need_folder(root / "images", advice))
    masks = _by_stem(need_folder(root / "masks", advice))
    pairs = {stem: masks.get(stem) or masks.get(f"{stem}_mask") for stem in photos}
    missing = [str(photos[stem]) for stem, mask in pairs.items() if mask is None]
    samples = [Sample(photos[s], mask, _group(photos[s], group_pattern)) for s, mask in pairs.items() if mask is not None]
    return need_samples(samples, missing, root / ("masks" if missing else "images"), advice)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in FORMATS or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(f"{found[path.stem]} and {path.name} share the name '{path.stem}'. Rename or remove one of them.")
        found[path.stem] = path
    return found


def _group(photo: Path, pattern: str | None) -> str:
    if pattern is None:
        return photo.stem
    try:
        match = re.search(pattern, photo.name)
    except re.error as error:
        raise InputError(f"--group-pattern '{pattern}' is not a regular expression: {error}.") from None
    if match is None:
        raise InputError(
            f"--group-pattern '{pattern}' does not match the photograph {photo.name}. Write one that matches every name."
        )
    return (match.group(1) if match.re.groups else match.group(0)) or photo.stem
