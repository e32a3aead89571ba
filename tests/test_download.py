"""`data download nuclei` and `oxford_pet`, from a server on this machine that has, loses and damages the archives."""

import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import tarfile
import threading
import zipfile

import pytest
from filelock import FileLock

from experiments.data import archives, download
from experiments.data.archives import DamagedArchive, unpack
from registry import DATASETS, InputError
from tests.test_archives import contents
from tests.test_datasets import write_nuclei, write_oxford_pets


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by name. `ranges`: it resumes; `cut`: bytes after which it once hangs up; `status`: instead."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.cut, self.status, self.etag = {}, True, 0, 0, '"1"'
        self.length, self.asked, self.sent = True, [], []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        data = server.files.get(self.path.strip("/"))
        if server.status or data is None:
            self.send_error(server.status or 404)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        server.sent.append(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        end = start + server.cut if server.cut else len(data)
        server.cut = 0
        self.wfile.write(data[start:end])


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server of `serving`."""
    with serving(tmp_path, monkeypatch) as running:
        yield running


@contextlib.contextmanager
def serving(tmp_path, monkeypatch):
    """A server with the archives of both data sets in their true layout; SOURCES name it."""
    monkeypatch.setenv("no_proxy", "*")
    write_nuclei(tmp_path / "made")
    write_oxford_pets(tmp_path / "made")
    pets = tmp_path / "made" / "oxford-iiit-pet"
    (pets / "annotations" / "README").write_text("how it was made")
    with Server() as running:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted((tmp_path / "made" / "stage1_train").rglob("*")):
                archive.write(path, path.relative_to(tmp_path / "made" / "stage1_train"))  # IDs at the top
        running.files["stage1_train.zip"] = packed.getvalue()
        for name in ("images", "annotations"):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                archive.add(pets / name, name)
            running.files[f"{name}.tar.gz"] = packed.getvalue()
        sources = {}
        for name, source in download.SOURCES.items():
            remotes = tuple(
                dataclasses.replace(
                    remote,
                    url=f"{running.address}/{remote.name}",
                    size=len(running.files[remote.name]),
                    md5=hashlib.md5(running.files[remote.name]).hexdigest() if remote.md5 else "",
                )
                for remote in source.remotes
            )
            sources[name] = dataclasses.replace(source, remotes=remotes)
        monkeypatch.setattr(download, "SOURCES", sources)
        monkeypatch.setattr(download, "CHUNK", 1000)
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.mark.parametrize("name", download.SOURCES)
def test_what_is_downloaded_is_what_was_packed(server, command, tmp_path, name):
    target = tmp_path / "data" / name
    code, shown, complaint = command("data", "download", name, "--data-dir", target)
    assert code == 0, complaint
    source = download.SOURCES[name]
    assert source.page in shown and source.licence in shown and " MB from " in shown
    folder = archives.LAYOUTS[1 + list(download.SOURCES).index(name)].folders[0]
    made = {path: data for path, data in contents(tmp_path / "made" / folder).items() if "._" not in path}
    made.pop("images/Abyssinian_100.mat", None)
    assert contents(target) == {f"{folder}/{path}": data for path, data in made.items()}  # and no archive is left
    assert len(DATASETS[name].build(data_dir=target)) == 8
    assert command("data", "verify", "--data", name, "--data-dir", target)[0] == 0
    code, shown, _ = command("data", "download", name, "--data-dir", target)
    assert code == 0 and "0 new files" in shown and f"{len(made)} more were already there" in shown


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_is_cut_off_resumes_or_starts_over(server, command, tmp_path, ranges):
    server.ranges, server.cut = ranges, 4500
    words = ("data", "download", "nuclei", "--data-dir", tmp_path / "data")
    code, _, complaint = command(*words)
    assert code == 1 and "cut off after 4,500 of" in complaint and len(complaint.strip().splitlines()) == 1
    assert (tmp_path / "data" / ".downloading-stage1_train.zip").stat().st_size == 4500
    assert command(*words)[0] == 0
    assert server.asked[-1] == ("/stage1_train.zip", "bytes=4500-") and server.sent == [200, 206 if ranges else 200]
    assert len(DATASETS["nuclei"].build(data_dir=tmp_path / "data")) == 8


def test_another_version_at_the_address_is_fetched_from_its_beginning(server, command, tmp_path):
    server.cut = 4500
    words = ("data", "download", "nuclei", "--data-dir", tmp_path / "data")
    assert command(*words)[0] == 1
    server.etag = '"2"'
    assert command(*words)[0] == 0


def test_a_signal_stops_a_download_which_resumes(server, command, tmp_path, monkeypatch):
    receive, words = download._receive, ("data", "download", "oxford_pet", "--data-dir", tmp_path / "data")

    def interrupted(response, partial, show):
        def shown(done, total):
            if done >= 5:  # kilobytes
                os.kill(os.getpid(), 2)
            show(done, total)

        receive(response, partial, shown)

    monkeypatch.setattr(download, "_receive", interrupted)
    code, _, complaint = command(*words)
    assert code == 130 and "resumes" in complaint
    size = (tmp_path / "data" / ".downloading-images.tar.gz").stat().st_size
    assert size > 0
    monkeypatch.setattr(download, "_receive", receive)
    assert command(*words)[0] == 0 and ("/images.tar.gz", f"bytes={size}-") in server.asked


def test_archives_that_are_complete_are_not_fetched_again(server, command, tmp_path, monkeypatch):
    words = ("data", "download", "nuclei", "--data-dir", tmp_path / "data")
    monkeypatch.setattr(archives, "_publish", lambda *_: (_ for _ in ()).throw(InputError("stopped here.")))
    assert command(*words)[0] == 2
    monkeypatch.undo()
    source = download.SOURCES["nuclei"]
    remote = dataclasses.replace(source.remotes[0], url=f"{server.address}/stage1_train.zip")
    monkeypatch.setitem(download.SOURCES, "nuclei", dataclasses.replace(source, remotes=(remote,)))
    monkeypatch.setenv("no_proxy", "*")
    size = len(server.files["stage1_train.zip"])
    assert command(*words)[0] == 0 and server.asked[-1] == ("/stage1_train.zip", f"bytes={size}-")


def test_a_wrong_checksum_is_reported_and_the_bytes_are_discarded(server, command, tmp_path):
    server.files["annotations.tar.gz"] = server.files["annotations.tar.gz"][:-1] + b"\1"
    code, _, complaint = command("data", "download", "oxford_pet", "--data-dir", tmp_path / "data")
    assert code == 1 and "has the MD5" in complaint and len(complaint.strip().splitlines()) == 1
    assert {path.name for path in (tmp_path / "data").iterdir()} == {  # the other archive was right
        ".downloading-images.tar.gz",
        ".downloading-images.tar.gz.json",
    }


def test_a_damaged_archive_without_a_checksum_is_reported_and_discarded(server, command, tmp_path):
    data = server.files["stage1_train.zip"]
    for wrong in (b"<html>Log in to the network</html>", data[:2000] + b"\0" * 99 + data[2099:]):
        server.files["stage1_train.zip"] = wrong
        code, _, complaint = command("data", "download", "nuclei", "--data-dir", tmp_path / "data")
        assert code == 2 and "ownload it again" in complaint and not list(tmp_path.glob("data/*"))


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_a_refusal_names_the_page_and_leaves_nothing(server, command, tmp_path, status):
    server.status = status
    code, _, complaint = command("data", "download", "nuclei", "--data-dir", tmp_path / "in" / "data")
    assert code == 1 and f"answers {status}" in complaint and "https://bbbc.broadinstitute.org/BBBC038" in complaint
    assert len(complaint.strip().splitlines()) == 1 and not list((tmp_path).glob("in/data/*"))


def test_a_server_that_is_away_is_reported_in_a_sentence(server, command, tmp_path):
    server.shutdown()
    server.server_close()
    code, _, complaint = command("data", "download", "nuclei", "--data-dir", tmp_path / "data")
    assert code == 1 and "cannot be fetched" in complaint and len(complaint.strip().splitlines()) == 1


def test_a_server_without_a_length_cannot_fill_the_disk(server, command, tmp_path):
    server.length = False
    server.files["stage1_train.zip"] += b"\0" * 10 * len(server.files["stage1_train.zip"])
    code, _, complaint = command("data", "download", "nuclei", "--data-dir", tmp_path / "data")
    assert code == 1 and "sends more than" in complaint


def test_files_of_the_user_are_never_overwritten(server, command, tmp_path):
    words = ("data", "download", "nuclei", "--data-dir", tmp_path / "data")
    (tmp_path / "data").mkdir()
    mine = tmp_path / "data" / ".downloading-stage1_train.zip"
    mine.write_bytes(b"mine")
    code, _, complaint = command(*words)
    assert code == 2 and "Move it away" in complaint and mine.read_bytes() == b"mine" and not server.asked
    mine.unlink()
    mine = tmp_path / "data" / "stage1_train" / ("00" * 32) / "masks" / f"0{'00' * 32}"[:-1]
    mine = mine.with_name(f"0{('00' * 32)[1:]}.png")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    code, _, complaint = command(*words)
    assert (
        code == 2
        and "exists already and differs" in complaint
        and contents(tmp_path / "data" / "stage1_train")
        == {mine.relative_to(tmp_path / "data" / "stage1_train").as_posix(): b"mine"}
    )
    shutil.rmtree(mine.parent)
    (tmp_path / "elsewhere").mkdir()
    mine.parent.symlink_to(tmp_path / "elsewhere")
    code, _, complaint = command(*words)
    assert code == 2 and "is a link" in complaint and not list((tmp_path / "elsewhere").iterdir())


def test_two_processes_do_not_download_into_one_folder(server, command, tmp_path):
    (tmp_path / "data").mkdir()
    for _ in range(2):  # the refused one does not break the lock
        with FileLock(tmp_path / "data" / ".downloading.lock"):
            code, _, complaint = command("data", "download", "nuclei", "--data-dir", tmp_path / "data")
        assert code == 2 and "Another process" in complaint and not server.asked
    assert command("data", "download", "nuclei", "--data-dir", tmp_path / "data")[0] == 0


def tar_of(path, *infos, mode="w:gz", good=True):
    with tarfile.open(path, mode) as archive:
        if good:
            info = tarfile.TarInfo("images/good_1.jpg")
            info.size = 4
            archive.addfile(info, io.BytesIO(b"good"))
        for info in infos:
            archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return path


def tar_member(name, kind=tarfile.REGTYPE, size=0, link="", **pax):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.pax_headers = kind, size, link, pax
    return info


HOSTILE_TARS = {
    "parent": (tar_member("../evil.jpg"), "outside the folder"),
    "parent within": (tar_member("images/../../evil.jpg"), "outside the folder"),
    "absolute": (tar_member("/tmp/evil.jpg"), "outside the folder"),
    "pax path": (tar_member("images/a.jpg", path="../../evil.jpg"), "outside the folder"),
    "link": (tar_member("images/a.jpg", tarfile.SYMTYPE, link="/etc/passwd"), "link or a device"),
    "linked folder": (tar_member("annotations", tarfile.SYMTYPE, link="/tmp"), "link or a device"),
    "hard link": (tar_member("images/a.jpg", tarfile.LNKTYPE, link="images/good_1.jpg"), "link or a device"),
    "device": (tar_member("images/a.jpg", tarfile.CHRTYPE), "link or a device"),
    "pipe": (tar_member("images/a.jpg", tarfile.FIFOTYPE), "link or a device"),
    "folder": (tar_member("images/a.jpg", tarfile.DIRTYPE), "no file of"),
    "control": (tar_member("images/a\n.jpg"), "control characters"),
    "bomb": (tar_member("images/a.jpg", size=5_000_000), "bomb"),
    "bomb beside": (tar_member("more/a.bin", size=5_000_000), "bomb"),
    "long header": (tar_member("images/a.jpg", comment="x" * 2_000_000), "not a complete archive"),
    "case": (tar_member("images/GOOD_1.jpg"), "would be one file"),
    "twice": (tar_member("images/good_1.jpg"), "would be one file"),
}


@pytest.mark.fault(24)
@pytest.mark.parametrize("name", HOSTILE_TARS)
def test_a_hostile_tar_is_refused_and_leaves_nothing(tmp_path, name):
    info, sentence = HOSTILE_TARS[name]
    path = tar_of(tmp_path / "images.tar.gz", info)
    with pytest.raises(InputError, match=sentence):
        unpack([path], tmp_path / "in" / "pets", layout=archives.OXFORD_PET)
    assert [found.name for found in tmp_path.iterdir()] == ["images.tar.gz"]


@pytest.mark.fault(24)
def test_a_tar_that_is_cut_or_damaged_anywhere_is_refused_or_whole(tmp_path):
    whole = tar_of(tmp_path / "images.tar.gz", tar_member("images/b.jpg", size=3000)).read_bytes()
    folder = "oxford-iiit-pet/images"
    expected = {f"{folder}/good_1.jpg": b"good", f"{folder}/b.jpg": b"\0" * 3000}
    for place in range(0, len(whole), 3):
        for wrong in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            (tmp_path / "images.tar.gz").write_bytes(wrong)
            with contextlib.suppress(InputError):
                unpack([tmp_path / "images.tar.gz"], tmp_path / "pets", layout=archives.OXFORD_PET)
                assert contents(tmp_path / "pets") == expected  # as with other bytes in gzip's header
                shutil.rmtree(tmp_path / "pets")
            assert not (tmp_path / "pets").exists()


@pytest.mark.fault(24)
def test_a_damaged_header_is_not_taken_for_the_end_of_a_tar(tmp_path):
    path = tar_of(tmp_path / "images.tar", tar_member("images/b.jpg", size=3000), mode="w")
    whole = path.read_bytes()
    for offset in (1024, 1024 + 124, 1024 + 148):  # of the second header: its name, its size, its checksum
        path.write_bytes(whole[:offset] + b"\xff" + whole[offset + 1 :])
        with pytest.raises(DamagedArchive):
            unpack([path], tmp_path / "pets", layout=archives.OXFORD_PET)
    path.write_bytes(whole[: len(whole) // 512 * 512 - 9 * 512].rstrip(b"\0"))
    with pytest.raises(DamagedArchive):
        unpack([path], tmp_path / "pets", layout=archives.OXFORD_PET)


def test_a_tar_that_is_not_compressed_will_do(tmp_path):
    path = tar_of(tmp_path / "images.tar.gz", tar_member("./images/b.jpg", size=10), mode="w")
    assert unpack([path], tmp_path / "pets", layout=archives.OXFORD_PET).new == 2
    path.write_bytes(b"no tar at all")
    with pytest.raises(DamagedArchive, match="not a complete archive"):
        unpack([path], tmp_path / "other", layout=archives.OXFORD_PET)


def test_the_note_of_a_download_names_its_address(server, command, tmp_path):
    server.cut = 100
    command("data", "download", "nuclei", "--data-dir", tmp_path / "data")
    note = json.loads((tmp_path / "data" / ".downloading-stage1_train.zip.json").read_text())
    assert note == {"url": f"{server.address}/stage1_train.zip", "validator": '"1"'}
