"""Safe import of the archives of data sets, zip and tar.gz: a hostile or damaged one does no harm.

Everything is first unpacked into a hidden folder inside the target, and moved into place only when it is complete
(zipfile checks every CRC). An interruption or a refusal leaves the target as it was. Existing files are never
overwritten: an identical one is fine, a different one is a reason to refuse.
"""

from __future__ import annotations

import contextlib
import filecmp
import functools
import gzip
import os
import platform
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from registry import InputError

INNER_ZIPS = ("train.zip", "train_masks.zip")  # in the zip of the whole competition; its other parts are not needed
MAX_PICTURE_BYTES = 64 * 2**20  # of one picture; Carvana's largest has less than one MiB
MAX_RATIO = 100  # of unpacked to packed bytes; pictures hardly shrink in a zip, a bomb grows a thousandfold
MAX_MEMBERS = 500_000  # of a tar, which has no list of them
MAX_HEADER = 2**20  # bytes of one header of a tar, which tarfile reads into memory
DISK_RESERVE = 64e6  # bytes that stay free on the disk
CHUNK = 2**20
HIDDEN = re.compile(r"(^|/)(\.|__MACOSX/)")
ENDING = re.compile(r"((?i:_mask))?\.[^.]*$")  # written as Kaggle does, in small letters
STAGING = ".importing-"  # followed by the process id
LONGEST_PID = 10  # digits: a longer one is of no process
OWNER = ".of-an-import"  # in it: the name of the machine
Progress = Callable[[int, int], None]  # (done, total)


class DamagedArchive(InputError):
    """An archive that is not complete, or whose bytes are not those that were packed."""


@dataclass(frozen=True)
class Layout:
    """What is unpacked of a data set's archives: names of members that fit, and where they are put."""

    wanted: re.Pattern[str]
    folders: tuple[str, ...]  # of the target that are written to
    expected: str  # what the archives should hold, as a sentence
    prefix: str = ""  # put before the names of members that lack it

    def place(self, name: str) -> str:
        """The path of a member below the target, whatever visible folders it lies in; empty where it is not wanted."""
        parts = name.split("/")
        for number in range(len(parts)):
            inner = "/".join(parts[number:])
            if number and (not parts[number - 1] or parts[number - 1].startswith((".", "__"))):
                return ""
            if number and not inner.startswith(self.prefix):
                continue
            if self.wanted.fullmatch(inner := inner.removeprefix(self.prefix)):
                inner = ENDING.sub(lambda ending: ending[0].lower(), inner)
                return self.prefix + inner
        return ""


CARVANA = Layout(
    re.compile(r"train/\w[\w.-]*\.(?i:jpe?g)|train_masks/\w[\w.-]*(?i:_mask\.(?:gif|png))", re.ASCII),
    ("train", "train_masks"),
    "These zips hold neither train/NAME.jpg nor train_masks/NAME_mask.gif. "
    "Give Kaggle's train.zip and train_masks.zip.",
)
NUCLEI = Layout(
    re.compile(r"\w+/(images|masks)/\w[\w-]*\.png", re.ASCII),
    ("stage1_train",),
    "The archive holds no ID/images/ID.png. Give stage1_train.zip of BBBC038v1.",
    "stage1_train/",
)
OXFORD_PET = Layout(
    re.compile(
        r"images/\w[\w.-]*\.jpg|annotations/(README|\w+\.txt|trimaps/\w[\w.-]*\.png|xmls/\w[\w.-]*\.xml)", re.ASCII
    ),
    ("oxford-iiit-pet",),
    "The archives hold no images/NAME.jpg. Give images.tar.gz and annotations.tar.gz of the Oxford-IIIT pets.",
    "oxford-iiit-pet/",
)
LAYOUTS = (CARVANA, NUCLEI, OXFORD_PET)


@dataclass
class ImportResult:
    """Result of an import: pictures that are new, pictures that existed already, and members that were left out."""

    new: int = 0
    there: int = 0
    left_out: list[str] = field(default_factory=list)


def unpack(
    archives: Sequence[Path], target: Path, progress: Progress | None = None, layout: Layout = CARVANA
) -> ImportResult:
    """Unpack what `layout` names of the archives into `target`, all or nothing.

    Args:
        archives: Zip or tar.gz files.
        target: The data folder; created if necessary.
        progress: Called with (done, total) after every picture; may raise to stop.
        layout: The data set's.

    Raises:
        InputError: An archive is unsafe, incomplete, not of this data set, or conflicts with existing files.
    """
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    _refuse_links(target, layout.folders)
    _remove_abandoned(target)
    staging = target / f"{STAGING}{os.getpid()}"
    try:
        staging.mkdir(parents=True)
        (staging / OWNER).write_text(platform.node(), encoding="utf-8")
        imported = ImportResult()
        with contextlib.ExitStack() as opened:
            members = [m for path in archives for m in _members(path, layout, staging, imported.left_out, opened)]
            if not members:
                raise InputError(f"{layout.expected}{_holding(imported.left_out)}")
            _refuse_collisions(members, target, layout)
            _need_space(sum(m.size for m in members), target)
            for done, member in enumerate(members, start=1):
                _write(member, staging / "unpacked" / member.place)
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
    """One file in an open archive; `shown` is the archive as the user knows it."""

    name: str
    size: int  # that its header claims
    place: str  # below the target
    open: Callable[[], IO[bytes] | None]
    shown: str


def _members(
    path: Path, layout: Layout, staging: Path, left_out: list[str], opened: contextlib.ExitStack, within: str = ""
) -> Iterator[Member]:
    """What is wanted of an archive, and of Kaggle's zips within it; every member's name is checked."""
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        yield from _tar_members(path, layout, left_out, opened)
        return
    shown = f"{within}/{path.name}" if within else str(path)
    archive = opened.enter_context(_open(path, shown))
    _refuse_dangers(archive, path, shown, layout)
    for info in archive.infolist():
        name, opening = info.filename, functools.partial(archive.open, info)
        if place := layout.place(name):
            yield Member(name, info.file_size, place, opening, shown)
        elif layout is CARVANA and name in INNER_ZIPS and not within:
            inner = staging / name
            _need_space(info.file_size, staging)
            _write(Member(name, info.file_size, name, opening, shown), inner, limit=info.file_size)
            yield from _members(inner, layout, staging, left_out, opened, within=shown)
        elif not info.is_dir() and not HIDDEN.search(name):
            left_out.append(name)


class _Bounded:
    """A file of a tar for tarfile, which reads headers of any claimed size into memory at once."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError("a header of more bytes than any has")
        return self._file.read(size)


def _tar_members(path: Path, layout: Layout, left_out: list[str], opened: contextlib.ExitStack) -> Iterator[Member]:
    """What is wanted of a tar, compressed with gzip or not; every header is checked before the next is read."""
    if not path.is_file():
        raise InputError(f"There is no file {path}. Give the path of the archive.")
    limit, claimed = MAX_RATIO * path.stat().st_size, 0
    with _damage(str(path)):
        file = opened.enter_context(path.open("rb"))
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        source: Any = _Bounded(gzip.GzipFile(fileobj=file) if packed else file)
        archive = opened.enter_context(tarfile.TarFile(fileobj=source))
    for number in range(MAX_MEMBERS + 1):
        with _damage(str(path)):
            info = archive.next()
        if info is None:
            with _damage(str(path)):
                _require_end(source, archive.offset, limit)
            return
        name, claimed = info.name.removeprefix("./"), claimed + info.size
        place = layout.place(name)
        reason = _tar_danger(info, bool(place))
        if number == MAX_MEMBERS or claimed > limit:
            reason = "is one of more than such an archive holds, as in an archive bomb"
        if reason:
            raise InputError(f"{path} is refused: its member {info.name!r} {reason}. Nothing was unpacked.")
        if place:
            yield Member(name, info.size, place, functools.partial(archive.extractfile, info), str(path))
        elif info.isreg() and not HIDDEN.search(name):
            left_out.append(name)


def _require_end(source: Any, offset: int, limit: int) -> None:
    """Raise ReadError unless zeros alone follow: tarfile takes a damaged header for the end. Checks gzip's CRC, too."""
    source.seek(offset)
    read = 0
    while chunk := source.read(MAX_HEADER):
        read += len(chunk)
        if chunk.strip(b"\0") or read > limit:
            raise tarfile.ReadError("a damaged header")
    if read < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")


def _tar_danger(info: tarfile.TarInfo, wanted: bool) -> str | None:
    """Why a member of a tar must not be unpacked, or None."""
    if reason := _name_danger(info.name.removeprefix("./")):
        return reason
    if not (info.isreg() or info.isdir()) or info.issparse():
        return "is a link or a device, not a file"
    if info.size < 0 or (wanted and not info.isreg()):
        return "is no file of a known size"
    return _size_danger(info.size) if wanted else None


@contextlib.contextmanager
def _damage(shown: str, at: str = "") -> Iterator[None]:
    """Raise DamagedArchive for whatever a library raises that reads an archive."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        NotImplementedError,
        ValueError,
        OSError,
    ) as error:
        if isinstance(error, InputError):
            raise
        where = f"is damaged at {at}" if at else "is not a complete archive"
        raise DamagedArchive(f"{shown} {where} ({error}). Download it again; nothing was unpacked.") from None


def _open(path: Path, shown: str) -> zipfile.ZipFile:
    """Open a zip file. Raises InputError for any other file."""
    if path.is_dir():
        raise InputError(f"{shown} is a folder. Name the zips in it, such as {path / 'train.zip'}.")
    if not path.is_file():
        raise InputError(f"There is no file {shown}. Give the path of Kaggle's train.zip or train_masks.zip.")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DamagedArchive(f"{shown} is not a complete zip file ({error}). Download it again.") from None


def _refuse_dangers(archive: zipfile.ZipFile, path: Path, shown: str, layout: Layout) -> None:
    """Raise InputError unless every member is harmless and the sizes are plausible for pictures."""
    infos = archive.infolist()
    for info in infos:
        if reason := _danger(info, bool(layout.place(info.filename))):
            raise InputError(f"{shown} is refused: its member {info.orig_filename!r} {reason}. Nothing was unpacked.")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_RATIO * path.stat().st_size:
        raise InputError(
            f"{shown} is refused: its {path.stat().st_size:,} bytes claim to hold {unpacked:,}, as a zip bomb does. "
            "Nothing was unpacked."
        )


def _name_danger(name: str) -> str | None:
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        return "would lie outside the folder"
    return "has control characters in its name" if any(ord(letter) < 32 for letter in name) else None


def _size_danger(size: int) -> str | None:
    return f"claims {size:,} bytes, more than an image has" if size > MAX_PICTURE_BYTES else None


def _danger(info: zipfile.ZipInfo, wanted: bool) -> str | None:
    """Why a member must not be unpacked, or None."""
    mode = info.external_attr >> 16
    if reason := _name_danger(info.orig_filename):
        return reason
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.flag_bits & 0x60:  # patches of another file, or strong encryption: zipfile cannot read them
        return "is packed in a way that Kaggle does not use"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a way that Kaggle does not use"  # and that zipfile cannot unpack in bounded memory
    return _size_danger(info.file_size) if wanted else None


def _write(member: Member, path: Path, limit: int = MAX_PICTURE_BYTES) -> None:
    """Unpack one member; its actual size is limited, not only the one that its header claims."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with open(path, "xb") as file:
        for chunk in _unpacked(member):
            size += len(chunk)
            if size > limit:
                raise InputError(f"{member.shown} is refused: {member.name} holds more than it claims.")
            file.write(chunk)


def _unpacked(member: Member) -> Iterator[bytes]:
    """Yield a member in chunks. Raises InputError if the archive cannot be read; errors of writing stay OSErrors."""
    with contextlib.ExitStack() as stack:
        with _damage(member.shown, member.name):
            packed = member.open()
            assert packed is not None  # a regular file
            stack.enter_context(packed)
        while True:
            with _damage(member.shown, member.name):
                chunk = packed.read(CHUNK)
            if not chunk:
                return
            yield chunk


def _remove_abandoned(target: Path) -> None:
    """Remove staging folders of imports that were killed before they could clean up."""
    for path in target.glob(f"{STAGING}*"):
        number = path.name.removeprefix(STAGING)
        if number.isdigit() and len(number) < LONGEST_PID and not psutil.pid_exists(int(number)) and _is_staging(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_staging(folder: Path) -> bool:
    """Whether a folder is of an import on this machine and holds nothing but what that unpacks, or holds no file."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    if names and (OWNER not in names or (folder / OWNER).read_text("utf-8", "replace") != platform.node()):
        return False
    names = [name for name in names if name != OWNER]
    inner = [name.removeprefix("unpacked/") for name in names if name not in INNER_ZIPS]
    return all(any(layout.place(name) == name for layout in LAYOUTS) for name in inner)


def _refuse_links(target: Path, folders: Iterable[str]) -> None:
    for path in (target / folder for folder in folders):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise InputError(f"{path} is a link or a file, not a folder. Name another folder with --data-dir.")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, not a folder. Name another folder with --data-dir.")


def _refuse_collisions(members: Sequence[Member], target: Path, layout: Layout) -> None:
    """Refuse names that differ only in case, among the members and from existing files: some disks ignore case."""
    _refuse_links(target, {parent.as_posix() for member in members for parent in Path(member.place).parents[:-1]})
    seen = {p.relative_to(target).as_posix().lower(): p for f in layout.folders for p in (target / f).rglob("*")}
    first: dict[str, Member] = {}
    for member in members:
        name = member.place
        other = first.setdefault(name.lower(), member)
        if other is not member:
            where = f"{other.shown} holds {other.name} and {member.shown} holds {member.name}"
            raise InputError(f"{where}: they would be one file. Give one of them. Nothing was unpacked.")
        there = seen.get(name.lower())
        if there is not None and there != target / name:
            raise InputError(
                f"{member.shown} holds {name} where there is {there}, which differs only in case. Remove one."
            )


def _holding(names: Sequence[str]) -> str:
    """What archives hold of which nothing is wanted, as the end of a sentence."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f" They hold {', '.join(names[:2])}{more}." if names else ""


def _need_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed + DISK_RESERVE > free:
        raise InputError(
            f"Unpacking needs {needed / 1e9:.2f} GB under {folder}, where {free / 1e9:.2f} GB are free. "
            "Free some space or name another folder with --data-dir. Nothing was unpacked."
        )


def _publish(members: Sequence[Member], unpacked: Path, target: Path, imported: ImportResult) -> ImportResult:
    """Move new pictures into place; undo it if interrupted."""
    names = [member.place for member in members]
    there = [name for name in names if os.path.lexists(target / name)]
    for name in there:
        if (target / name).is_symlink() or not filecmp.cmp(unpacked / name, target / name, shallow=False):
            raise InputError(
                f"{target / name} exists already and differs from the archive's. Remove it or name another --data-dir."
            )
    parents = {target / parent for name in names for parent in Path(name).parents[:-1]}
    folders = sorted((folder for folder in parents if not folder.exists()), reverse=True)  # the inner ones first
    moved: list[str] = []
    try:
        for name in sorted(set(names) - set(there)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
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
