"""A user's own pairs: `images/NAME.*` and `masks/NAME.*`, in any common image format, folders included.

A mask is called like its image, or `NAME_mask`, or as `--mask-pattern` says. Other usual forms (`mask_NAME`,
`NAME_seg`, `NAME.jpg.png`, other case, another Unicode form) are paired where only one mask fits only one image.
"""

from __future__ import annotations

import difflib
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from experiments.data.images import HEIC, NO_HEIC, heic_available
from experiments.data.listing import (
    Listing,
    Problem,
    describe_kinds,
    is_special,
    is_system_file,
    masks_without_image,
    require_folder,
    require_images,
    shown,
    unread_files,
    unusable_names,
    with_usable_names,
)
from experiments.data.samples import Sample
from registry import InputError

FORMATS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


PARTS = ("images", "masks")  # of a data folder
FORMS = ("{name}", "{name}_mask")  # in this order; the others only where nothing else fits
USUAL = (
    "mask_{name}", "{name}-mask", "{name}_masks", "{name}_seg", "seg_{name}", "{name}_segmentation", "{name}_label",
    "{name}_labels", "{name}_gt", "gt_{name}", "{name}_matte",
)  # fmt: skip
WORD = re.compile(r"(?<![a-z])(image|img|photo)(?![a-z])", re.IGNORECASE)  # NAME_image, whose mask is NAME_mask
NEAREST = 20  # missing masks for which the nearest file is looked for


def build(
    data_dir: Path | str = "data/folder", group_pattern: str | None = None, mask_pattern: str | None = None
) -> list[Sample]:
    """The pairs under `data_dir`, sorted by name.

    Args:
        data_dir: The folder that holds `images/` and `masks/`, each with the same sub-folders, if any.
        group_pattern: A regular expression searched in the image's name (with its sub-folder): its first capture group
            (or the whole match) names the group. Without it each image is a group of its own: give it if images show
            the same thing.
        mask_pattern: The name of a mask without suffix, with {name} for that of its image: `mask_{name}`.

    Raises:
        InputError: Missing folders, images without a mask, names that collide, or a pattern that does not match.
    """
    return listing(data_dir, group_pattern, mask_pattern).usable(
        f"--data folder --data-dir {shlex.quote(str(data_dir))}"
    )


def listing(
    data_dir: Path | str = "data/folder", group_pattern: str | None = None, mask_pattern: str | None = None
) -> Listing:
    """List the pairs under `data_dir`. Raises InputError for missing folders, no images and an invalid pattern."""
    root, pattern = Path(data_dir), compile_pattern(group_pattern)
    if mask_pattern is not None and "{name}" not in mask_pattern:
        raise InputError(f"--mask-pattern '{mask_pattern}' lacks the image's name: write mask_{{name}}, for example.")
    advice = _where_to_put(root)
    images, masks = require_folder(root / "images", advice), require_folder(root / "masks", advice)
    require_images(filter(_is_read, images.rglob("*")), images, _unreadable(images) or advice)
    image_by_place, problems = by_place(images)
    mask_by_place, collisions = by_place(masks)
    problems += collisions + unusable_names([*images.rglob("*"), *masks.rglob("*")])
    paired = pair_files(image_by_place, mask_by_place, mask_pattern)
    missing = {place: path for place, path in image_by_place.items() if place not in paired}
    left_out = _without_masks(missing, paired, masks)
    used = set(paired.values())
    unused = {place: path for place, path in mask_by_place.items() if path not in used}
    problems += _missing(missing, left_out, unused, masks, mask_pattern)
    samples = []
    ungrouped = [image for image in missing.values() if group_of(image, pattern) is None]
    for place, mask in paired.items():
        image, nested = image_by_place[place], "/" in place
        name = image.relative_to(images).as_posix() if nested else ""
        group = group_of(image, pattern, name)
        if group is None:
            ungrouped.append(image)
        else:
            samples.append(Sample(image, mask, group, place=name))
    if ungrouped and not samples:
        problems.append(_no_group(min(ungrouped), group_pattern, none=len(ungrouped) > 1))
    else:
        problems += [_no_group(image, group_pattern) for image in sorted(ungrouped)]
    endings = f"files end in {' '.join(sorted(FORMATS))} here"
    unread = [problem for path in (images, masks) for problem in unread_below(path, endings)]
    return Listing(
        with_usable_names(samples), problems, masks_without_image(unused.values()) + list(left_out.values()) + unread
    )


def _where_to_put(root: Path) -> str:
    """The advice for a data folder without images/ or masks/: what to name, or where to put the files."""
    if root.name in PARTS and all((root.parent / part).is_dir() for part in PARTS):
        return f"Name the folder above it, which holds images/ and masks/: --data-dir {shlex.quote(str(root.parent))}"
    inside = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    others = [f"{name}/" for name in inside if name not in PARTS and not is_system_file(root / name)]
    holds = f" ({root} holds {', '.join(others[:4])}{', …' if len(others) > 4 else ''})" if others else ""
    return f"Put the images into {root / 'images'} and the masks, under the same names, into {root / 'masks'}{holds}."


def _unreadable(images: Path) -> str:
    """What images/ holds in place of images, and what to do about it; empty where it holds no files."""
    files = [path for path in images.rglob("*") if path.is_file() and not is_system_file(path)]
    if any(path.suffix.lower() in HEIC for path in files):
        return f"{NO_HEIC}."
    there = describe_kinds(("not read", path) for path in files)
    return f"It holds {there}. Save images as PNG or TIFF, those of NIfTI and DICOM slice by slice." if files else ""


def pair_files(
    images: Mapping[str, Path], masks: Mapping[str, Path], mask_pattern: str | None = None
) -> dict[str, Path]:
    """The mask of each image that has one; both are given by their paths within their folders, without suffix."""
    forms = (mask_pattern,) if mask_pattern else FORMS
    paired: dict[str, Path] = {}
    used: set[Path] = set()  # no mask serves two images: `cat_mask` is that of the image of the same name, not of `cat`
    for form in forms:
        for place in images:
            (name,) = _named(place, (form,))
            if place not in paired and name in masks and masks[name] not in used:
                paired[place] = masks[name]
                used.add(masks[name])
    by_name = dict[str, list[Path]]()
    for place, path in masks.items():
        if path not in used:
            by_name.setdefault(_plain(place), []).append(path)
    fitting = {
        place: {
            path for name in _every_name(place, path, forms, mask_pattern) for path in by_name.get(_plain(name), ())
        }
        for place, path in images.items()
        if place not in paired
    }
    wanted = Counter(path for paths in fitting.values() for path in paths)
    return paired | {
        place: path for place, paths in fitting.items() if len(paths) == 1 for path in paths if wanted[path] == 1
    }


def _named(place: str, forms: Iterable[str]) -> Iterator[str]:
    """The places of a mask of an image at `place`, one for each form of its name."""
    folder, slash, name = place.rpartition("/")
    return (folder + slash + form.replace("{name}", name) for form in forms)


def _every_name(place: str, image: Path, forms: Iterable[str], mask_pattern: str | None) -> Iterator[str]:
    """Every place where the mask of an image may lie."""
    yield from _named(place, forms)
    if mask_pattern is None:
        folder, slash, name = place.rpartition("/")
        yield from _named(place, USUAL)
        yield from _named(folder + slash + image.name, FORMS)
        yield from (
            folder + slash + WORD.sub(word, name) for word in ("mask", "seg", "label", "gt") if WORD.search(name)
        )


def _plain(name: str) -> str:
    """A name without what file systems and unpackers change: case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def _without_masks(missing: Mapping[str, Path], paired: Mapping[str, Path], masks: Path) -> dict[Path, Problem]:
    """The sub-folders of which no image has a mask, where others have: they are left out as a whole."""
    if not paired:
        return {}
    kept = {place.rpartition("/")[0] for place in paired}
    lost: dict[Path, int] = Counter(
        path.parent for place, path in missing.items() if "/" in place and place.rpartition("/")[0] not in kept
    )
    text = "The folder {} is skipped: none of its {} images has a mask in {}. Add the masks or move the folder away."
    return {path: Problem(path, "sub-folder", text.format(path, n, masks)) for path, n in sorted(lost.items())}


def _missing(
    missing: Mapping[str, Path],
    left_out: Mapping[Path, Problem],
    unused: Mapping[str, Path],
    masks: Path,
    mask_pattern: str | None,
) -> list[Problem]:
    """The problems of images without mask: what was looked for, and the nearest file."""
    problems: list[Problem] = []
    for place, image in missing.items():
        if image.parent in left_out:
            continue
        forms = (mask_pattern,) if mask_pattern else (*FORMS, *USUAL)
        names = list(_named(place.rpartition("/")[2], forms))
        near = _nearest(place, unused) if len(problems) < NEAREST else ""
        nearest = f"; the nearest is {unused[near]}" if near else ""
        pattern = _fitting_pattern(place, near, missing, unused) if near and not mask_pattern else ""
        text = (
            f"The image {image} has no mask in {masks}: looked for {', '.join(names[:4])}"
            f"{' and the like' if len(names) > 4 else ''}{nearest}. Add the mask, name the masks with "
            f"--mask-pattern{pattern}, or remove the image."
        )
        problems.append(Problem(image, "no mask", text))
    return problems


def _nearest(place: str, unused: Iterable[str]) -> str:
    """The mask whose name holds that of the image at `place` or, without one, is the most like it; empty if none is."""
    folder, _, name = place.rpartition("/")
    holding = [m for m in unused if m.rpartition("/")[0] == folder and name in m.rpartition("/")[2]]
    alike = difflib.get_close_matches(place, unused, n=1, cutoff=0.4) if not holding else []
    return min(holding, key=len) if holding else "".join(alike)


def _fitting_pattern(place: str, mask: str, missing: Iterable[str], unused: Mapping[str, Path]) -> str:
    """The pattern by which `mask` is that of the image at `place`, for the command line.

    Empty unless it gives each of several missing masks.
    """
    pattern, places = mask.rpartition("/")[2].replace(place.rpartition("/")[2], "{name}"), list(missing)
    fits = all(next(_named(other, [pattern])) in unused for other in places)
    return f" {shlex.quote(pattern)}" if len(places) > 1 and fits and "{name}" in pattern else ""


def unread_below(folder: Path, endings: str) -> list[Problem]:
    """The files under a folder that are not read; its sub-folders are searched, but for linked ones."""
    folders = sorted(path for path in folder.rglob("*") if path.is_dir() and not is_system_file(path))
    linked = [path for path in folders if path.is_symlink()]
    text = "The folder {} is a link and is not searched. Put its files into {}, or remove it."
    problems = [Problem(path, "linked folder", text.format(path, path.parent)) for path in linked]
    searched = [folder, *(path for path in folders if path not in linked)]
    problems += [p for place in searched for p in unread_files(place, _is_read, endings) if p.what != "sub-folder"]
    return [
        replace(p, text=f"The file {shown(p.path)} is skipped: {NO_HEIC}.") if p.path.suffix.lower() in HEIC else p
        for p in problems
    ]


def _is_read(path: Path) -> bool:
    formats = FORMATS | HEIC if heic_available() else FORMATS
    return path.suffix.lower() in formats and not path.name.startswith(".") and not is_special(path)


def by_place(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """The images under a folder by their paths in it without ending, and a problem for each that occurs twice."""
    by_place: dict[str, Path] = {}
    problems = []
    for path in sorted(filter(_is_read, folder.rglob("*"))):
        inner = path.relative_to(folder)
        if shown(path) != str(path) or any(part.startswith(".") for part in inner.parts) or path.is_dir():
            continue
        first = by_place.setdefault((inner.parent / path.stem).as_posix(), path)
        if first is not path:
            text = f"{first} and {path.name} share the name '{path.stem}'. Rename or remove one of them."
            problems.append(Problem(path, "name twice", text))
    return by_place, problems


def compile_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """The regular expression of `--group-pattern`. Raises InputError where it is none."""
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-pattern '{pattern}' is not a regular expression: {error}.") from None


def group_of(image: Path, pattern: re.Pattern[str] | None, place: str = "") -> str | None:
    """The image's group; None if the pattern does not match its name. `place` is its path where folders are nested."""
    own = place.removesuffix(image.suffix) or image.stem
    if pattern is None:
        return own
    match = pattern.search(place or image.name)
    return ((match.group(1) if pattern.groups else match.group(0)) or own) if match else None


def _no_group(image: Path, pattern: str | None, none: bool = False) -> Problem:
    """An image that the pattern does not match; `none`: it matches no other either."""
    mismatch = f"--group-pattern '{pattern}' does not match the image {image.name} of {image.parent}"
    mismatch += ", nor any other" if none else ""
    return Problem(image, "no group", f"{mismatch}. Write one that matches every name.")
