"""Input images named by files, folders and patterns, and the name under which each mask is written."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from experiments.data.folder import FORMATS
from experiments.runtime.progress import log_to_stderr
from registry import InputError

READ = FORMATS | {".avif", ".jp2", ".jfif", ".tga"}  # in a folder; a file that is named is read whatever its suffix


def gather_images(arguments: Sequence[str], output: Path) -> dict[Path, Path]:
    """Each image once, with its name under `output` without a suffix; folders are searched recursively.

    A folder's images keep their place in it. Files under `output` are skipped: they were written there before.
    Raises InputError for an argument that names no image, and for two images that would be written to one file.
    """
    names: dict[Path, Path] = {}
    for argument in arguments:
        matches = dict(_matches(argument, output))
        if not matches:
            raise InputError(f"'{argument}' names no image: give files, folders or patterns such as 'photos/*.jpg'.")
        names = {**matches, **names}
    taken: dict[Path, Path] = {}
    for path, stem in sorted(names.items()):
        if (other := taken.setdefault(stem, path)) != path:
            raise InputError(
                f"{other} and {path} would both be written to {output / stem}.png. "
                "Rename one, or use two commands with two --output folders."
            )
    return dict(sorted(names.items()))


def report_skipped(skipped: Sequence[InputError]) -> int:
    """Print why images were skipped. Returns the exit code: 1 if there are any."""
    for reason in skipped:
        log_to_stderr(f"Skipped: {reason}")
    return 1 if skipped else 0


def _matches(argument: str, output: Path) -> Iterator[tuple[Path, Path]]:
    """(image, its name under the output folder) for each image that an argument names."""
    literal = Path(argument)
    for path in [literal] if literal.exists() else map(Path, sorted(glob.glob(argument, recursive=True))):
        if path.is_dir():
            for file in path.rglob("*"):
                relative = file.relative_to(path)
                readable = file.suffix.lower() in READ and _visible(relative.parts) and file.is_file()
                if readable and not _under(file, output):
                    yield file, relative.with_suffix("")
        else:
            yield path, Path(path.stem)


def _visible(parts: Iterable[str]) -> bool:
    return not any(part.startswith(".") for part in parts)


def _under(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
