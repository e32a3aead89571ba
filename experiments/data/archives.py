"""Safe import of Kaggle's zip files: a hostile or damaged one does no harm.

Everything is first unpacked into a hidden folder inside the target, and moved into place only when it is complete
(zipfile checks every CRC). An interruption or a refusal leaves the target as it was. Existing files are never
overwritten: an identical one is fine, a different one is a reason to refuse.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from registry import InputError

PICTURE_NAME = re.compile(r"train/\w[\w.-]*\.jpg|train_masks/\w[\w.-]*_mask\.gif", re.ASCII)
INNER_ZIPS = ("train.zip", "train_masks.zip")  # in the zip of the whole competition; its other parts are not needed
MAX_PICTURE_BYTES = 64 * 2**20  # of one picture; Carvana's largest has less than one MiB
MAX_RATIO = 100  # of unpacked to packed bytes; pictures hardly shrink in a zip, a bomb grows a thousandfold
DISK_RESERVE = 64e6  # bytes that stay free on the disk
CHUNK = 2**20
STAGING = ".importing-"  # followed by the process id
Progress = Callable[[int, int], None]  # (done, total)


@dataclass
class ImportResult:
    """Result of an import: pictures that are new, pictures that existed already, and members that were left out."""

    new: int = 0
    there: int = 0
    left_out: list[str] = field(default_factory=list)


def unpack(archives: Sequence[Path], target: Path, progress: Progress | None = None) -> ImportResult:
    """Unpack `train/` and `train_masks/` of Kaggle's zips into `target`, all or nothing.

    Args:
        archives: The zip files.
        target: The data folder; created if necessary.
        progress: Called with (done, total) after every picture; may raise to stop.

    Raises:
        InputError: An archive is unsafe, incomplete, not Carvana's, or conflicts with existing files.
    """
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    _refuse_links(target)
    _remove_abandoned(target)
    staging = target / f"{STAGING}{os.getpid()}"
    try:
        staging.mkdir(parents=True)
        imported = ImportResult()
        with contextlib.ExitStack() as opened:
            members = [m for path in archives for m in _members(path, staging, imported.left_out, opened)]
            _refuse_collisions(members, target)
            _need_space(sum(m.info.file_size for m in members), target)
            for done, member in enumerate(members, start=1):
                _write(member, staging / "unpacked" / member.info.filename)
                if progress:
                    progress(done, len(members))
        return _publish(members, staging / "unpacked", target, imported)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@dataclass(frozen=True)
class Member:
    """One picture in an open zip file; `shown` is the archive as the user knows it."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    shown: str


def _members(
    path: Path, staging: Path, left_out: list[str], opened: contextlib.ExitStack, within: str = ""
) -> Iterator[Member]:
    """The pictures in a zip file, and in the train zips within it; every member's name is checked."""
    shown = f"{within}/{path.name}" if within else str(path)
    archive = opened.enter_context(_open(path, shown))
    _refuse_dangers(archive, path, shown)
    for info in archive.infolist():
        if PICTURE_NAME.fullmatch(info.filename):
            yield Member(archive, info, shown)
        elif info.filename in INNER_ZIPS and not within:
            inner = staging / info.filename
            _need_space(info.file_size, staging)
            _write(Member(archive, info, shown), inner, limit=info.file_size)
            yield from _members(inner, staging, left_out, opened, within=shown)
        elif not info.is_dir() and not re.search(r"(^|/)(\.|__MACOSX/)", info.filename):
            left_out.append(info.filename)


def _open(path: Path, shown: str) -> zipfile.ZipFile:
    """Open a zip file. Raises InputError for any other file."""
    if not path.is_file():
        raise InputError(f"There is no file {shown}. Give the path of Kaggle's train.zip or train_masks.zip.")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{shown} is not a complete zip file ({error}). Download it again.") from None


def _refuse_dangers(archive: zipfile.ZipFile, path: Path, shown: str) -> None:
    """Raise InputError unless every member is harmless and the sizes are plausible for pictures."""
    infos = archive.infolist()
    for info in infos:
        if reason := _danger(info):
            raise InputError(f"{shown} is refused: its member {info.orig_filename!r} {reason}. Nothing was unpacked.")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_RATIO * path.stat().st_size:
        raise InputError(
            f"{shown} is refused: its {path.stat().st_size:,} bytes claim to hold {unpacked:,}, as a zip bomb does. "
            "Nothing was unpacked."
        )


def _danger(info: zipfile.ZipInfo) -> str | None:
    """Why a member must not be unpacked, or None."""
    name, mode = info.orig_filename, info.external_attr >> 16
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        return "would lie outside the folder"
    if any(ord(letter) < 32 for letter in name):
        return "has control characters in its name"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.flag_bits & 0x60:  # patches of another file, or strong encryption: zipfile cannot read them
        return "is packed in a way that Kaggle does not use"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a way that Kaggle does not use"  # and that zipfile cannot unpack in bounded memory
    if PICTURE_NAME.fullmatch(info.filename) and info.file_size > MAX_PICTURE_BYTES:
        return f"claims {info.file_size:,} bytes, more than an image has"
    return None


def _write(member: Member, path: Path, limit: int = MAX_PICTURE_BYTES) -> None:
    """Unpack one member; its actual size is limited, not only the one that its header claims."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with open(path, "xb") as file:
        for chunk in _unpacked(member):
            size += len(chunk)
            if size > limit:
                raise InputError(f"{member.shown} is refused: {member.info.filename} holds more than it claims.")
            file.write(chunk)


def _unpacked(member: Member) -> Iterator[bytes]:
    """The content of a member, in chunks. Raises InputError if the archive cannot be read; writing errors stay
    OSErrors.
    """
    try:
        with member.archive.open(member.info) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise InputError(
            f"{member.shown} is damaged at {member.info.filename} ({error}). Download it again; nothing was unpacked."
        ) from None


def _remove_abandoned(target: Path) -> None:
    """Remove staging folders of imports that were killed before they could clean up."""
    for path in target.glob(f"{STAGING}*"):
        number = path.name.removeprefix(STAGING)
        if number.isdigit() and not psutil.pid_exists(int(number)) and _is_staging(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_staging(folder: Path) -> bool:
    """Whether a folder holds nothing but what an import unpacks."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    return all(name in INNER_ZIPS or PICTURE_NAME.fullmatch(name.removeprefix("unpacked/")) for name in names)


def _refuse_links(target: Path) -> None:
    for path in (target / "train", target / "train_masks"):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise InputError(f"{path} is a link or a file, not a folder. Name another folder with --data-dir.")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, not a folder. Name another folder with --data-dir.")


def _refuse_collisions(members: Sequence[Member], target: Path) -> None:
    """Refuse names that differ only in case, among the members and from existing files: some disks ignore case."""
    seen = {
        p.relative_to(target).as_posix().lower(): p for f in ("train", "train_masks") for p in (target / f).glob("*")
    }
    first: dict[str, Member] = {}
    for member in members:
        name = member.info.filename
        other = first.setdefault(name.lower(), member)
        if other is not member:
            where = f"{other.shown} holds {other.info.filename} and {member.shown} holds {name}"
            raise InputError(f"{where}: they would be one file. Give one of them. Nothing was unpacked.")
        there = seen.get(name.lower())
        if there is not None and there != target / name:
            raise InputError(
                f"{member.shown} holds {name} where there is {there}, which differs only in case. Remove one."
            )
    if not members:
        raise InputError(
            "These zips hold neither train/NAME.jpg nor train_masks/NAME_mask.gif. "
            "Give Kaggle's train.zip and train_masks.zip."
        )


def _need_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed + DISK_RESERVE > free:
        raise InputError(
            f"Unpacking needs {needed / 1e9:.2f} GB under {folder}, where {free / 1e9:.2f} GB are free. "
            "Free some space or name another folder with --data-dir. Nothing was unpacked."
        )


def _publish(members: Sequence[Member], unpacked: Path, target: Path, imported: ImportResult) -> ImportResult:
    """Move new pictures into place; undo it if interrupted."""
    names = [member.info.filename for member in members]
    there = [name for name in names if os.path.lexists(target / name)]
    for name in there:
        if (target / name).is_symlink() or not filecmp.cmp(unpacked / name, target / name, shallow=False):
            raise InputError(
                f"{target / name} exists already and differs from the zip's. Remove it or name another --data-dir."
            )
    folders = [f for f in (target / "train", target / "train_masks") if not f.exists()]
    moved: list[str] = []
    try:
        for name in sorted(set(names) - set(there)):
            (target / name).parent.mkdir(exist_ok=True)
            os.rename(unpacked / name, target / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            os.unlink(target / name)
        for folder in filter(Path.exists, folders):
            folder.rmdir()
        raise
    imported.new, imported.there = len(moved), len(there)
    return imported
