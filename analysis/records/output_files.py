"""Files that a command writes where a user says: no file that this project did not write is replaced or deleted.

Each folder keeps a list, `.written.jsonl`, of what was written into it: a JSON line per file, its name and SHA-256.
A file is the project's own only while it is listed there and unchanged; a mask corrected by hand is the user's. A line
is added before its file is put in place, so an interruption between the two leaves either the old file, whose line is
still there, or the new one. A list cannot turn a foreign file into an own one: only names of its own folder count, and
only with the right hash.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import stat
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO

from analysis.records.files import name_file, sha256_of, write_atomically
from registry import InputError

LIST = ".written.jsonl"
LONGEST_NAME = 255  # bytes of a file's name on all common file systems
_BEGIN = b'{"name"'


class OutputFiles:
    """The files that a command writes into `folder` and the folders below it; `flag` is what named it."""

    def __init__(self, folder: Path, flag: str = "--output", what: str = "folder") -> None:
        self.folder, self.flag, self.what = folder, flag, what
        self._lists: dict[Path, WrittenList] = {}

    @classmethod
    def beside(cls, path: Path, flag: str = "--output") -> OutputFiles:
        """The files of the folder of `path`, a file that a flag names. Raises InputError where it is a folder."""
        if not path.name or path.is_dir():
            raise InputError(f"{path} is a folder. Name a file: {flag} {_typed(path / 'NAME')}")
        return cls(path.parent, flag, path.name)

    def check(self, names: Iterable[str | PurePath], inputs: Iterable[Path] = ()) -> None:
        """Raise InputError, before anything is written, if one of the files may not be written.

        Args:
            names: the files, relative to the folder.
            inputs: the files that the command reads; none may be replaced, not even an own one.
        """
        paths = [self.folder / name for name in names]
        read = (
            {_identity(path) for path in inputs if os.path.exists(path)} if any(map(os.path.lexists, paths)) else set()
        )
        for place in dict.fromkeys(parent for path in paths for parent in (path.parent, *path.parent.parents)):
            if os.path.lexists(place) and not place.is_dir():
                raise InputError(f"{place} is a file, not a folder. {self._instead()}")
        for place in dict.fromkeys(path.parent for path in paths):
            self._list(place)
        refused = [(path, reason) for path in paths if (reason := self._reason(path, read))]
        if refused:
            (path, reason), more = refused[0], len(refused) - 1
            others = f" ({more} more)" if more else ""
            raise InputError(f"{path} {reason} and is not replaced{others}. Nothing was written. {self._instead()}")

    def owns(self, name: str | PurePath) -> bool:
        """Whether the file is the project's own: listed, unchanged and no link."""
        path = self.folder / name
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return False
            listed = self._list(path.parent).hashes(path.name)
            return bool(listed) and sha256_of(path) in listed
        except OSError:
            return False

    def write(self, name: str | PurePath, content: bytes) -> None:
        """Write a file. Raises InputError where a file that is not the project's own is there by now."""
        with self.open(name) as file:
            file.write(content)

    @contextmanager
    def open(self, name: str | PurePath) -> Iterator[BinaryIO]:
        """Open a file for writing that is put in place, complete, when the `with` block ends without an error."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # short: the name itself may be as long as it can
        try:
            with name_file(path), open(temporary, "xb") as file:
                yield file
            self._place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def take(self, source: Path) -> None:
        """Write all files of the folder `source`, under their own names. Raises InputError before the first one."""
        files = sorted(path for path in source.rglob("*") if path.is_file())
        self.check(path.relative_to(source) for path in files)
        for path in files:
            with open(path, "rb") as content, self.open(path.relative_to(source)) as file:
                shutil.copyfileobj(content, file)

    def discard(self, name: str | PurePath) -> None:
        """Delete a file if it is the project's own."""
        if self.owns(name):
            (self.folder / name).unlink()

    def _place(self, temporary: Path, path: Path) -> None:
        digest, there = sha256_of(temporary), os.path.lexists(path)
        if there and not self.owns(path.relative_to(self.folder)):
            raise InputError(f"{path} {self._reason(path, set())} and is not replaced. {self._instead()}")
        self._list(path.parent).add(path.name, digest)
        if there:
            os.replace(temporary, path)
            return
        try:
            _place_new(temporary, path)
        except FileExistsError:
            raise InputError(f"{path} came into being meanwhile and is not replaced. {self._instead()}") from None

    def _list(self, folder: Path) -> WrittenList:
        if folder not in self._lists:
            self._lists[folder] = WrittenList(folder, self._instead())
        return self._lists[folder]

    def _reason(self, path: Path, read: set[tuple[int, int]]) -> str:
        """Why a file may not be written, in words that follow its path; empty if it may be."""
        if path.name.casefold() == LIST:
            return "is the name of the list of what was written there"
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            return f"cannot be written ({error.strerror})"
        if not stat.S_ISREG(status.st_mode):
            return "is a link" if stat.S_ISLNK(status.st_mode) else "is no ordinary file"
        if _identity(path) in read:
            return "is an input of this command"
        if self.owns(path.relative_to(self.folder)):
            return ""
        listed = self._list(path.parent).hashes(path.name)
        return "was changed since this project wrote it" if listed else "was not written by this project"

    def _instead(self) -> str:
        """What to type in place of the folder, or the file, that a flag named."""
        if self.what == "folder":
            return f"Name another folder, such as {self.flag} {_typed(free_name(self.folder))}"
        return f"Name another file, such as {self.flag} {_typed(free_name(self.folder / self.what))}"


class WrittenList:
    """The list of a folder: names and hashes of what was written there. Raises InputError for any other content."""

    def __init__(self, folder: Path, instead: str) -> None:
        self.path, self._instead = folder / LIST, instead
        self._lock = threading.Lock()
        self._hashes: dict[str, set[str]] = {}
        self._torn = False
        self._read()

    def hashes(self, name: str) -> set[str]:
        """The hashes of what was written under a name, by this process or, meanwhile, by another."""
        with self._lock:
            if name not in self._hashes:
                self._read()
            return set(self._hashes.get(name, ()))

    def add(self, name: str, digest: str) -> None:
        """Add a line, unless it is there. Other processes may add theirs at the same time."""
        with self._lock:
            if digest in self._hashes.get(name, ()):
                return
            line = f"{json.dumps({'name': name, 'sha256': digest})}\n".encode()
            with name_file(self.path):
                self._append(b"\n" + line if self._torn else line)
            self._torn = False
            self._hashes.setdefault(name, set()).add(digest)

    def _append(self, line: bytes) -> None:
        if os.path.lexists(self.path) and os.lstat(self.path).st_nlink > 1:
            write_atomically(self.path, self.path.read_bytes())  # the file's other name is the user's: add to a copy
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(self.path, flags, 0o666)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def _read(self) -> None:
        try:
            status = os.lstat(self.path)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError
            content = self.path.read_bytes()
            for line in filter(None, content.split(b"\n")):
                if entry := _entry(line):
                    self._hashes.setdefault(entry[0], set()).add(entry[1])
            self._torn = not content.endswith(b"\n") and bool(content)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}). {self._instead}") from None
        except ValueError:
            raise InputError(
                f"{self.path} is not a list of written files as this project keeps it. Move it away. {self._instead}"
            ) from None


def _entry(line: bytes) -> tuple[str, str] | None:
    """Name and hash in a line; None for a line that a crash cut short. Raises ValueError for any other line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        if line.startswith(_BEGIN[: len(line)]):
            return None
        raise ValueError from None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "sha256")):
        raise ValueError
    return entry["name"], entry["sha256"]


def refuse_shared_names(outputs: Iterable[tuple[Path, Path]], folder: Path, advice: str) -> None:
    """Raise InputError if two inputs would be written to one file, also on a disk that ignores case.

    Args:
        outputs: (input, output relative to `folder`).
        folder: where they are written.
        advice: what to do about it.
    """
    first: dict[str, tuple[Path, Path]] = {}
    for source, output in outputs:
        other, taken = first.setdefault(_folded(output), (source, output))
        if other != source:
            case = "" if taken == output else ", on a disk that ignores case"
            raise InputError(f"{other} and {source} would both be written to {folder / output}{case}. {advice}")
    for source, output in first.values():
        for parent in output.parents:
            if (taken_by := first.get(_folded(parent))) is not None:
                where = f"{folder / parent}, which has to be a folder for {source}"
                raise InputError(f"{taken_by[0]} would be written to {where}. {advice}")


def free_name(path: Path) -> Path:
    """`path` with a number that makes it a name that is not taken."""
    if not path.name:  # the working directory, or the root
        path = path / "written"
    number = 2
    while os.path.lexists(free := path.with_name(f"{path.stem}-{number}{path.suffix}")):
        number += 1
    return free


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _typed(path: Path) -> str:
    """A path as it is typed in a shell."""
    return shlex.quote(str(path))


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _place_new(temporary: Path, path: Path) -> None:
    """Rename to a name that is free. Raises FileExistsError, and replaces nothing, if it is not free any more."""
    try:
        os.link(temporary, path)  # unlike a rename, it never replaces a file
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError from None
        os.rename(temporary, path)
