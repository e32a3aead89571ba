"""What lies in a data folder: the pairs, and whatever is wrong before a single file is opened.

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
    """Something wrong with a file: where, what in two words, and one sentence that names the file and what to do."""

    path: Path
    what: str
    text: str


@dataclass(frozen=True)
class Listing:
    """The pairs of a folder, the problems for which a run refuses it, and the files that a run passes over in silence."""

    samples: list[Sample]
    problems: list[Problem] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)

    def usable(self) -> list[Sample]:
        """The pairs, sorted by name. Raises InputError with the first problem, if there is one."""
        if self.problems:
            more = len(self.problems) - 1
            hint = f" ({more} more like it: python run.py data verify lists them.)" if more else ""
            raise InputError(min(self.problems).text + hint)
        return sorted(self.samples, key=lambda sample: sample.name)


def need_folder(path: Path, advice: str) -> Path:
    """`path`, if it is a folder; else InputError with what to type."""
    if not path.is_dir():
        raise InputError(f"There is no folder {path}. {advice}")
    return path


def need_photographs(photographs: Iterable[Path], folder: Path, advice: str) -> list[Path]:
    """The photographs, sorted by name, if there are any; else InputError with what to type."""
    found = sorted(photographs)
    if not found:
        raise InputError(f"No photographs under {folder}. {advice}")
    return found


def no_mask(photograph: Path, masks: Path) -> Problem:
    """A photograph whose mask is not among the masks."""
    text = f"The photograph {photograph} has no mask in {masks}. Add the mask or remove the photograph."
    return Problem(photograph, "no mask", text)


def unpaired(paths: Iterable[Path]) -> list[Problem]:
    """Masks to which there is no photograph: a run does without them."""
    text = "The mask {} has no photograph. Add the photograph or remove the mask."
    return [Problem(path, "no photograph", text.format(path)) for path in sorted(paths)]


def unread(folder: Path, is_read: Callable[[Path], bool], names: str) -> list[Problem]:
    """What lies in `folder` without being read; hidden files and Windows' thumbnails do not count."""
    text = "The file {} is passed over: {}. Convert it, rename it or remove it."
    strange = [p for p in sorted(folder.iterdir()) if not is_read(p) and not p.name.startswith(".")]
    return [Problem(p, "not read", text.format(p, names)) for p in strange if p.name.lower() != "thumbs.db"]
