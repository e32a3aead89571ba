"""Content of a data folder: the pairs, and whatever is wrong before a single file is opened.

A run refuses the first problem; `data verify` lists them all. Both read the same listing, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from experiments.data.samples import Sample
from registry import InputError


@dataclass(frozen=True, order=True)
class Problem:
    """A problem with a file: the path, its kind in two words, and a sentence that names the file and what to do."""

    path: Path
    what: str
    text: str


@dataclass(frozen=True)
class Listing:
    """The pairs of a folder, the problems for which a run refuses it, and the files that a run ignores."""

    samples: list[Sample]
    problems: list[Problem] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)

    def usable(self) -> list[Sample]:
        """The pairs, sorted by name. Raises InputError with the first problem, if there is one."""
        if self.problems:
            more = len(self.problems) - 1
            hint = f" ({more} more: python run.py data verify lists them.)" if more else ""
            raise InputError(min(self.problems).text + hint)
        return sorted(self.samples, key=lambda sample: sample.name)


def require_folder(path: Path, advice: str) -> Path:
    """Return `path` if it is a folder; otherwise raise InputError with `advice`."""
    if not path.is_dir():
        raise InputError(f"There is no folder {path}. {advice}")
    return path


def require_images(images: Iterable[Path], folder: Path, advice: str) -> list[Path]:
    """Return the images, sorted by name; raise InputError with `advice` if there are none."""
    paths = sorted(images)
    if not paths:
        raise InputError(f"No images under {folder}. {advice}")
    return paths


def missing_mask(image: Path, masks: Path) -> Problem:
    """The problem of an image whose mask is not in the folder `masks`."""
    return Problem(image, "no mask", f"The image {image} has no mask in {masks}. Add the mask or remove the image.")


def masks_without_image(masks: Iterable[Path]) -> list[Problem]:
    """The problems of masks that have no image; a run ignores them."""
    text = "The mask {} has no image. Add the image or remove the mask."
    return [Problem(path, "no image", text.format(path)) for path in sorted(masks)]


def unread_files(folder: Path, is_read: Callable[[Path], bool], names: str) -> list[Problem]:
    """The files in `folder` that are not read; hidden files and Windows' thumbnails do not count."""
    text = "The file {} is skipped: {}. Convert it, rename it or remove it."
    unread = [p for p in sorted(folder.iterdir()) if not is_read(p) and not p.name.startswith(".")]
    return [Problem(p, "not read", text.format(p, names)) for p in unread if p.name.lower() != "thumbs.db"]
