"""Input images named by files, folders and patterns, the name of each image's output, and what was left out."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.records.output_files import LIST, OutputFiles
from experiments.data.folder import FORMATS
from experiments.data.listing import PHRASES, describe_kinds, is_system_file, looks_like_image
from experiments.runtime.progress import log_to_stderr
from registry import InputError

READ = FORMATS | {".avif", ".jp2", ".jfif", ".tga"}  # whatever else looks like an image is tried as well


@dataclass
class InputFiles:
    """What the arguments name."""

    names: dict[Path, Path] = field(default_factory=dict)  # image: its name under the output folder, without a suffix
    left_out: list[tuple[str, Path]] = field(default_factory=list)  # (reason, file)
    errors: list[InputError] = field(default_factory=list)


def gather_images(arguments: Sequence[str], output: Path) -> InputFiles:
    """The images that files, folders and patterns in quotes name, each once; folders are searched recursively.

    A folder's images keep their place in it. An output folder inside it is left out, as is what this project wrote.
    Raises InputError for an argument that names no image.
    """
    gathered, seen = InputFiles(), set()
    for argument in arguments:
        found = InputFiles(left_out=gathered.left_out, errors=gathered.errors)
        before, known = len(found.left_out), len(found.errors)
        for path, name in _matches(argument, output, found):
            found.names.setdefault(path, name)
        if not found.names:
            raise next(iter(found.errors[known:]), InputError(_no_image(argument, found.left_out[before:])))
        for path, name in found.names.items():
            if (place := (path.resolve(), name)) not in seen:
                seen.add(place)
                gathered.names.setdefault(path, name)
    left_out = [pair for pair in sorted(set(gathered.left_out)) if pair[1] not in gathered.names]
    errors = {str(error): error for error in gathered.errors}  # each once
    return InputFiles(dict(sorted(gathered.names.items())), left_out, list(errors.values()))


def report_skipped(
    skipped: Sequence[InputError], left_out: Sequence[tuple[str, Path]] = (), show_all: bool = False
) -> int:
    """Print why images were skipped and what else was left out. Returns the exit code: 1 if an image was skipped."""
    for reason in skipped:
        log_to_stderr(f"Skipped: {reason}")
    report_left_out(left_out, show_all)
    return 1 if skipped else 0


def report_left_out(left_out: Sequence[tuple[str, Path]], show_all: bool) -> None:
    """Print how many files were left out, and of which kinds; or, with `show_all`, each of them."""
    if show_all:
        for reason, path in left_out:
            log_to_stderr(f"Left out: {path} ({PHRASES[reason][0]})")
    elif left_out:
        log_to_stderr(f"Left out: {describe_kinds(left_out)}. List them: add --list-skipped")


def _matches(argument: str, output: Path, found: InputFiles) -> Iterator[tuple[Path, Path]]:
    """(image, its name under the output folder) for each image that an argument names; adds to what was left out."""
    literal = Path(argument)
    if os.path.lexists(literal):
        if literal.is_dir():
            yield from _within(literal, output, found)
        elif _is_file(literal, found):
            yield literal, Path(literal.stem)
        return
    for path in map(Path, sorted(glob.glob(argument, recursive=True))):
        if is_system_file(path):
            continue
        if path.is_dir():
            yield from _within(path, output, found)
        elif _is_image(path):
            if _is_file(path, found):
                yield path, Path(path.stem)
        else:
            found.left_out.append(("not an image", path))


def _within(folder: Path, output: Path, found: InputFiles) -> Iterator[tuple[Path, Path]]:
    """(image, its name under the output folder) for each image in a folder and its sub-folders."""
    root, written = folder.resolve(), output.resolve()
    if root == written:
        raise InputError(
            f"The output folder is the input folder {folder}: masks would lie among the images. Name another --output."
        )

    def unreadable(error: OSError) -> None:
        found.errors.append(InputError(f"The folder {error.filename} cannot be read ({error.strerror})."))

    for place, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(place)
        visible = sorted(name for name in folders if not is_system_file(here / name))
        linked = [name for name in visible if (here / name).is_symlink()]
        found.left_out += [("linked folder", here / name) for name in linked]
        folders[:] = [name for name in visible if name not in linked]
        inside = written.is_relative_to(root) and here.resolve().is_relative_to(written)
        own = _own(here, files)
        for path in (here / name for name in sorted(files) if not is_system_file(here / name)):
            reason = "" if _is_image(path) else "not an image"
            reason = reason or ("output" if inside else "own" if path.name in own else "")
            if reason:
                found.left_out.append((reason, path))
            elif _is_file(path, found):
                yield path, path.relative_to(folder).with_suffix("")


def _is_file(path: Path, found: InputFiles) -> bool:
    """Whether a path is an ordinary file; adds an error if not: to open anything else might never end."""
    if not path.is_file():
        found.errors.append(InputError(f"{path} is a broken link or no ordinary file. Leave it out."))
    return path.is_file()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in READ or looks_like_image(path)


def _own(folder: Path, files: Sequence[str]) -> set[str]:
    """The files of a folder that this project wrote there."""
    outputs = OutputFiles(folder)
    try:
        return {name for name in files if outputs.owns(name)} if LIST in files else set()
    except InputError:  # a list of somebody else's
        return set()


def _no_image(argument: str, left_out: Sequence[tuple[str, Path]]) -> str:
    holds = f"; left out: {describe_kinds(left_out)}" if left_out else ""
    here = glob.has_magic(argument) or os.path.lexists(argument)
    missing = "" if here else ", since there is no file or folder of that name"
    return f"'{argument}' names no image{missing}{holds}. Give files, folders or patterns such as 'photos/*.jpg'."
