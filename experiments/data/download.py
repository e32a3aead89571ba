"""Download of data sets: of Kaggle's zips with kagglehub, an optional dependency, and of others by HTTP.

Of Kaggle only train.zip and train_masks.zip are fetched (0.4 GB of the competition's 24), into kagglehub's cache. Other
archives go to a hidden file in the data folder, with a note of where it is from. An interrupted download resumes. All
are unpacked by `archives`, like those that were downloaded by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from analysis.records.files import write_atomically
from experiments.data import archives
from experiments.data.archives import Layout
from experiments.runtime.errors import FULL, RunFailed
from registry import InputError

COMPETITION = "carvana-image-masking-challenge"
PAGE = f"https://www.kaggle.com/c/{COMPETITION}"
CHUNK = 2**18
TIMEOUT = 60  # seconds without a byte
Show = Callable[[int, int], None]  # (done, total)
BY_HAND = (
    f"or download train.zip and train_masks.zip from {PAGE}/data "
    "and type: python run.py data import train.zip train_masks.zip"
)


def fetch() -> list[Path]:
    """Download Kaggle's train.zip and train_masks.zip if necessary; return their paths.

    Raises InputError without kagglehub, a token or accepted rules, RunFailed if Kaggle cannot be reached.
    """
    try:
        from kagglehub import competition_download
    except ImportError:
        raise InputError(f"The download needs kagglehub. Type: pip install kagglehub, {BY_HAND}") from None
    return [_fetch(competition_download, name) for name in ("train.zip", "train_masks.zip")]


def _fetch(competition_download: Callable[..., str], name: str) -> Path:
    try:
        return Path(competition_download(COMPETITION, path=name))
    except Exception as error:  # kagglehub raises its own, kagglesdk's, requests' and the system's errors
        raise _explained(error, name) from error


def _explained(error: Exception, name: str) -> InputError | RunFailed:
    """The error as a sentence that says what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if status == 403:
        return InputError(f"Kaggle refuses {name}: accept the rules at {PAGE}/rules, then repeat the command.")
    if status == 401 or kind in ("UnauthenticatedError", "CredentialError"):
        return InputError(
            "Kaggle needs authentication. Create an API token at https://www.kaggle.com/settings/api, put it into the "
            f"variable KAGGLE_API_TOKEN, and accept the rules at {PAGE}/rules; {BY_HAND}"
        )
    if "Connection" in kind or "Timeout" in kind:
        return RunFailed(f"Kaggle cannot be reached ({kind}). Check the network and repeat the command, {BY_HAND}")
    text = " ".join(str(error).split())[:200]
    return RunFailed(f"Kaggle's {name} could not be downloaded ({kind}: {text}). Repeat the command, {BY_HAND}")


@dataclass(frozen=True)
class Remote:
    """An archive at its publisher's."""

    url: str
    size: int  # bytes, about; the server's own number is shown before the download
    md5: str = ""  # where one is published

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """Where a data set is published."""

    remotes: tuple[Remote, ...]
    layout: Layout
    page: str
    licence: str


_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets"
SOURCES = {
    "nuclei": Source(
        (Remote("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip", 83_000_000),),
        archives.NUCLEI,
        "https://bbbc.broadinstitute.org/BBBC038",
        "CC0",
    ),
    "oxford_pet": Source(
        (
            Remote(f"{_PETS}/data/images.tar.gz", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            Remote(f"{_PETS}/data/annotations.tar.gz", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        archives.OXFORD_PET,
        f"{_PETS}/",
        "CC BY-SA 4.0",
    ),
}


def describe(name: str) -> str:
    """What is downloaded, from where, how much of it, and under which licence: printed before anything is fetched."""
    source = SOURCES[name]
    size = sum(remote.size for remote in source.remotes)
    files = " and ".join(remote.url for remote in source.remotes)
    return f"{name}: {size / 1e6:,.0f} MB from {files} ({source.licence}; {source.page})."


@dataclass(frozen=True)
class Partial:
    """The hidden file of a download, and beside it the note that says whose beginning it is."""

    remote: Remote
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / f".downloading-{self.remote.name}"

    @property
    def note(self) -> Path:
        return self.folder / f".downloading-{self.remote.name}.json"

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def validator(self) -> str:
        """What identifies the version that was begun; empty where nothing was. Raises InputError for another's file."""
        if not os.path.lexists(self.file):
            return ""
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self.note.read_text())
            if not self.file.is_symlink() and self.file.is_file() and known["url"] == self.remote.url:
                return str(known["validator"])
        raise InputError(
            f"{self.file} is not a download of {self.remote.url}. Move it away or name another --data-dir."
        )

    def begin(self, validator: str) -> None:
        """Start over with the version that `validator` identifies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.note, json.dumps({"url": self.remote.url, "validator": validator}).encode())
        self.file.write_bytes(b"")

    def discard(self) -> None:
        """Remove both files."""
        for path in (self.file, self.note):
            path.unlink(missing_ok=True)


def download_archive(remote: Remote, folder: Path, page: str, show: Show) -> Partial:
    """Fetch `remote` into a hidden file of `folder`, from where an earlier call stopped; check its MD5.

    Args:
        remote: The archive.
        folder: The data folder; created if necessary.
        page: Where a person finds the archive if its address has moved.
        show: Called with (done, total) in kilobytes; may raise to stop, and what was fetched stays.

    Raises:
        InputError: Too little disk space, or a file of the same name that is not this download.
        RunFailed: The server cannot be reached, refuses, or sends less or other bytes than it should.
    """
    partial = Partial(remote, folder)
    begun = partial.validator()
    headers = {"User-Agent": "Mozilla/5.0 (compatible; urllib)", "Accept-Encoding": "identity"}
    if begun and partial.size:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": begun}
    try:
        with urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT) as response:
            _receive(response, partial, show)
    except urllib.error.HTTPError as error:
        if error.code != 416 or _total(error.headers) != partial.size:  # 416: there is nothing beyond what was fetched
            if error.code == 416:
                partial.discard()
            raise RunFailed(
                f"{remote.url} answers {error.code} {error.reason}. Repeat the command later, or look for "
                f"{remote.name} at {page}"
            ) from None
    except (OSError, http.client.HTTPException) as error:
        if (isinstance(error, OSError) and error.filename is not None) or getattr(error, "errno", None) in FULL:
            raise  # the disk's
        reason = getattr(error, "reason", None) or error
        raise RunFailed(
            f"{remote.url} cannot be fetched ({reason}). {_kept(partial)}Check the network and repeat the command."
        ) from None
    _check(partial)
    return partial


def _receive(response: Any, partial: Partial, show: Show) -> None:
    """Append what a server sends to the partial file, or start over where it sends the whole."""
    headers, url = response.headers, partial.remote.url
    if response.status != 206:
        etag = str(headers.get("ETag", ""))  # a weak one is of no use for a range
        partial.begin("" if etag.startswith("W/") else etag or headers.get("Last-Modified", ""))
    elif not str(headers.get("Content-Range", "")).startswith(f"bytes {partial.size}-"):
        partial.discard()
        raise RunFailed(f"{url} sent another part than the one that is missing. Repeat the command to start over.")
    length = headers.get("Content-Length")
    total = partial.size + int(length) if length else None
    most = total or 4 * partial.remote.size
    _need_space(most - partial.size, partial.folder)
    with open(partial.file, "ab") as file:
        while chunk := response.read(CHUNK):
            if file.tell() + len(chunk) > most:
                raise RunFailed(f"{url} sends more than {most:,} bytes, far more than the data set has.")
            file.write(chunk)
            show(file.tell() // 1000, most // 1000)
    if total is not None and partial.size < total:
        raise RunFailed(f"{url} was cut off after {partial.size:,} of {total:,} bytes. Repeat the command to resume.")


def _total(headers: Any) -> int:
    """The size of the whole that a refusal of a range names; -1 where it names none."""
    size = str(headers.get("Content-Range", "")).rpartition("/")[2]
    return int(size) if size.isdigit() else -1


def _kept(partial: Partial) -> str:
    return f"The {partial.size:,} bytes so far are kept. " if partial.size else ""


def _check(partial: Partial) -> None:
    """Raise RunFailed, and discard the file, unless its MD5 is the published one."""
    if not partial.remote.md5:
        return
    with open(partial.file, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != partial.remote.md5:
        size = partial.size
        partial.discard()
        raise RunFailed(
            f"{partial.remote.url} has the MD5 {found} and should have {partial.remote.md5}: its {size:,} bytes were "
            "discarded. Repeat the command."
        )


def _need_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if 2 * needed + archives.DISK_RESERVE > free:
        raise InputError(
            f"Downloading and unpacking need {2 * needed / 1e9:.2f} GB under {folder}, where {free / 1e9:.2f} GB are "
            "free. Free some space or name another folder with --data-dir."
        )


def download(name: str, folder: Path, show: Show) -> archives.ImportResult:
    """Download and unpack a data set of SOURCES into `folder`; the archives are removed when they are unpacked.

    Raises InputError and RunFailed as `download_archive` and `archives.unpack` do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".downloading.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"Another process is downloading into {folder}. Wait for it, or stop it.") from None
    try:
        return _download(SOURCES[name], folder, show)
    finally:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()  # if nothing was written


def _download(source: Source, folder: Path, show: Show) -> archives.ImportResult:
    partials = [download_archive(remote, folder, source.page, show) for remote in source.remotes]
    try:
        imported = archives.unpack([partial.file for partial in partials], folder, show, source.layout)
    except archives.DamagedArchive:
        for partial in partials:
            partial.discard()
        raise
    for partial in partials:
        partial.discard()
    return imported
