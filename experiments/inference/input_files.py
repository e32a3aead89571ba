"""From what is typed (files, folders, patterns) to photographs, and the name under which each one's mask is written."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from experiments.data.folder import FORMATS
from registry import InputError

READ = FORMATS | {".avif", ".jp2", ".jfif", ".tga"}  # of a folder; a file that is named is read whatever its name


def gather_images(words: Sequence[str], output: Path) -> dict[Path, Path]:
    """Each photograph once, with its name under `output` without an ending; folders are searched with all that is in them.

    A folder's photographs keep their place in it. What lies under `output` is no photograph: it was written there before.
    Raises InputError for a word that names nothing, and for two photographs that would be written to one file.
    """
    found: dict[Path, Path] = {}
    for word in words:
        several = dict(_named(word, output))
        if not several:
            raise InputError(f"'{word}' names no photograph: give files, folders or patterns such as 'photos/*.jpg'.")
        found = {**several, **found}
    taken: dict[Path, Path] = {}
    for path, stem in sorted(found.items()):
        if (other := taken.setdefault(stem, path)) != path:
            raise InputError(
                f"{other} and {path} would both be written to {output / stem}.png. "
                "Rename one, or type two commands with two --output folders."
            )
    return dict(sorted(found.items()))


def _named(word: str, output: Path) -> Iterator[tuple[Path, Path]]:
    """What one word names: (photograph, its name under the output folder)."""
    paths = [Path(word)] if Path(word).exists() else [Path(path) for path in sorted(glob.glob(word, recursive=True))]
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in READ and _visible(p.relative_to(path).parts))
            yield from (
                (p, p.relative_to(path).with_suffix("")) for p in inside if p.is_file() and not _under(p, output)
            )
        else:
            yield path, Path(path.stem)


def _visible(parts: Iterable[str]) -> bool:
    return not any(part.startswith(".") for part in parts)


def _under(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
