"""Content of a data folder: the pairs, and whatever is wrong before a single file is opened.

A run refuses the first problem; `data verify` lists them all. Both read the same listing, so they cannot disagree.
"""

from __future__ import annotations

import mimetypes
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from experiments.data.samples import Sample
from experiments.runtime.progress import note
from registry import InputError

SYSTEM_FILES = {"desktop.ini", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "__macosx", "icon\r"}
# what mimetypes does not know on every machine: newer formats, cameras' raw files, medical images
_IMAGE_SUFFIXES = {
    ".heic", ".heif", ".avif", ".jxl", ".webp", ".jp2", ".j2k", ".jfif", ".tga", ".dds", ".psd", ".exr", ".hdr", ".xcf",
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw", ".3fr", ".x3f",
    ".raw", ".dcm", ".nii", ".mha", ".svs", ".ndpi", ".czi", ".lif", ".nd2",
}  # fmt: skip
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x0a", b"8BPS")


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

    def usable(self, verify: str = "") -> list[Sample]:
        """The pairs, sorted by name. Prints how many files were left out, and of which kinds.

        Args:
            verify: flags with which `data verify` lists this folder.

        Raises:
            InputError: with the first problem, if there is one.
        """
        if self.problems:
            more = len(self.problems) - 1
            hint = f" ({more} more: python run.py data verify lists them.)" if more else ""
            raise InputError(min(self.problems).text + hint)
        if self.left_out:
            kinds = describe_kinds((problem.what, problem.path) for problem in self.left_out)
            note(f"Left out: {kinds}. List them: python run.py data verify {verify}".rstrip())
        return sorted(self.samples, key=lambda sample: sample.name)


def without_doubles(samples: Iterable[Sample], problems: Iterable[Problem]) -> list[Sample]:
    """The samples of which no file shares its name with another, so that it is clear which one is meant."""
    twice = {problem.path.with_suffix("") for problem in problems if problem.what == "name twice"}
    return [s for s in samples if s.image.with_suffix("") not in twice and s.mask.with_suffix("") not in twice]


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


def shown(path: Path) -> str:
    """A path as text that can be printed: bytes that are no UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def unusable_names(paths: Iterable[Path]) -> list[Problem]:
    """The problems of files whose names are no UTF-8: they could stand in no table and no manifest."""
    foreign = "The file {} has a name that is not UTF-8, as from a zip made on Windows. Rename it, or unpack it again."
    broken = "The file {} has a line break in its name. Rename it."
    return [
        Problem(path, "unusable name", (broken if shown(path) == str(path) else foreign).format(_on_one_line(path)))
        for path in sorted(path for path in paths if not _usable(path))
    ]


def _on_one_line(path: Path) -> str:
    return shown(path).replace("\n", "\\n").replace("\r", "\\r")


def with_usable_names(samples: Iterable[Sample]) -> list[Sample]:
    """The samples of which no file is among `unusable_names`: a fingerprint and a split could not be taken of them."""
    return [s for s in samples if all(map(_usable, (s.mask, *s.files)))]


def _usable(path: Path) -> bool:
    return shown(path) == str(path) and not {"\n", "\r"} & set(path.name)


def missing_mask(image: Path, masks: Path) -> Problem:
    """The problem of an image whose mask is not in the folder `masks`."""
    return Problem(
        image, "no mask", f"The image {shown(image)} has no mask in {shown(masks)}. Add the mask or remove the image."
    )


def masks_without_image(masks: Iterable[Path]) -> list[Problem]:
    """The problems of masks that have no image; a run ignores them."""
    text = "The mask {} has no image. Add the image or remove the mask."
    return [Problem(path, "no image", text.format(shown(path))) for path in sorted(masks)]


def pair_up(
    images: Iterable[Path],
    masks: Iterable[Path],
    mask_name: Callable[[Path], str],
    make: Callable[[Path, Path], Sample],
    folders: tuple[Path, Path],
) -> Listing:
    """Pair images with masks by name; without a mask, an image is a problem, and without an image, a mask is left out.

    Args:
        images: The images.
        masks: The masks.
        mask_name: The name of the mask of an image.
        make: The sample of an image and its mask.
        folders: Of the images and of the masks; whatever lies in them should have a name that can be used.
    """
    unpaired = {path.name: path for path in masks}
    samples, problems = [], []
    for image in images:
        mask = unpaired.pop(mask_name(image), None)
        if mask is None:
            problems.append(missing_mask(image, folders[1]))
        else:
            samples.append(make(image, mask))
    problems += unusable_names([path for folder in folders for path in folder.iterdir()])
    return Listing(with_usable_names(samples), problems, masks_without_image(unpaired.values()))


def unread_files(folder: Path, is_read: Callable[[Path], bool], names: str) -> list[Problem]:
    """The files and sub-folders in `folder` that are not read; system files do not count."""
    problems = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not is_system_file(path):
            text = f"The folder {path} is not searched. Move its files into {folder}, or remove it."
            problems.append(Problem(path, "sub-folder", text))
        elif not is_read(path) and not is_system_file(path):
            text = f"The file {shown(path)} is skipped: {names}. Convert it, rename it or remove it."
            problems.append(Problem(path, "not read", text))
    return problems


def is_system_file(path: Path) -> bool:
    """Whether a file or folder is the system's own, such as .DS_Store or desktop.ini; hidden ones count as such."""
    return path.name.startswith(".") or path.name.lower() in SYSTEM_FILES


def is_special(path: Path) -> bool:
    """Whether a path is a pipe, a socket or a device, which would be waited for."""
    return path.exists() and not path.is_file() and not path.is_dir()


def looks_like_image(path: Path) -> bool:
    """Whether a file's suffix or its first bytes are those of an image, of any format."""
    kind = mimetypes.guess_type(path.name, strict=False)[0] or ""
    if kind.startswith("image/") or path.suffix.lower() in _IMAGE_SUFFIXES:
        return True
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            begin = file.read(16)
    except OSError:
        return False
    return (
        begin.startswith(_SIGNATURES) or begin[8:12] == b"WEBP" or begin[4:11] in (b"ftyphei", b"ftypavi", b"ftypmif")
    )


PHRASES = {  # of what was left out: one, several
    "not read": ("file of a format that is not read", "files of formats that are not read"),
    "no image": ("mask without an image", "masks without an image"),
    "no mask": ("prediction without a true mask", "predictions without a true mask"),
    "sub-folder": ("sub-folder that is not searched", "sub-folders that are not searched"),
    "linked folder": ("linked folder that is not searched", "linked folders that are not searched"),
    "not an image": ("file that is not an image", "files that are not images"),
    "output": ("image in the output folder", "images in the output folder"),
    "own": ("image that this project wrote", "images that this project wrote"),
}


def describe_kinds(files: Iterable[tuple[str, Path]]) -> str:
    """(reason, file) counted by reason and suffix, such as "2 files that are not images (1 .csv, 1 .txt)"."""
    by_reason: dict[str, list[Path]] = {}
    for reason, path in files:
        by_reason.setdefault(reason, []).append(path)
    parts = []
    for reason, paths in by_reason.items():
        one, several = PHRASES[reason]
        suffixes = "" if reason.endswith("folder") else f" ({_suffixes(paths)})"
        parts.append(f"{len(paths)} {one if len(paths) == 1 else several}{suffixes}")
    return ", ".join(parts)


def _suffixes(paths: Iterable[Path]) -> str:
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths)
    named = [f"{count} {suffix}" for suffix, count in counts.most_common(5)]
    return ", ".join(named + ["…"] * (len(counts) > 5))
