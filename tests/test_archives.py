"""`data import` and `data download`: complete zips are unpacked; hostile, broken or conflicting ones change nothing."""

import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import types
import zipfile
from collections import namedtuple

import pytest

from experiments.data import archives, carvana
from experiments.data.archives import unpack
from registry import InputError
from tests.conftest import ROOT


@pytest.fixture
def zips(made_cars, tmp_path):
    """Kaggle's train.zip and train_masks.zip, of the synthetic cars."""
    for name in ("train", "train_masks"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir(name)
            for path in sorted((made_cars / name).iterdir()):
                archive.write(path, f"{name}/{path.name}")
    return [tmp_path / "train.zip", tmp_path / "train_masks.zip"]


def zip_of(path, members, **options):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content, **options)
    return path


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_kaggles_zips_become_the_cars_that_they_hold(command, zips, made_cars, tmp_path):
    code, shown, _ = command("data", "import", *zips, "--data-dir", tmp_path / "data" / "carvana")
    assert code == 0 and "256 new images and masks" in shown
    expected = {name: data for name, data in contents(made_cars).items() if name.startswith("train")}
    assert contents(tmp_path / "data" / "carvana") == expected
    code, shown, _ = command("data", "import", *zips, "--data-dir", tmp_path / "data" / "carvana")
    assert code == 0 and "0 new images and masks" in shown and "256 more were already there" in shown
    assert command("data", "verify", "--data-dir", tmp_path / "data" / "carvana")[0] == 0


def test_the_zip_of_the_whole_competition_will_do(command, zips, tmp_path):
    whole = zip_of(
        tmp_path / "carvana-image-masking-challenge.zip", [("test.zip", b"x" * 99), ("metadata.csv.zip", b"y")]
    )
    with zipfile.ZipFile(whole, "a") as archive:
        for path in zips:
            archive.write(path, path.name)
    code, shown, complaint = command("data", "import", whole, "--data-dir", tmp_path / "cars")
    assert code == 0, complaint
    assert "test.zip, metadata.csv.zip" in shown and len(carvana.build(tmp_path / "cars")) == 128
    assert {path.name for path in (tmp_path / "cars").iterdir()} == {"train", "train_masks"}


def member(name, mode=0, flags=0, compression=zipfile.ZIP_STORED):
    info = zipfile.ZipInfo(name)
    info.external_attr, info.flag_bits, info.compress_type = mode << 16, flags, compression
    return info


HOSTILE = {
    "parent": ([("../evil.jpg", b"x")], "outside the folder"),
    "parent within": ([("train/../../evil.jpg", b"x")], "outside the folder"),
    "absolute": ([("/tmp/evil.jpg", b"x")], "outside the folder"),
    "drive": ([("C:/evil.jpg", b"x")], "outside the folder"),
    "backslash": ([("train\\..\\..\\evil.jpg", b"x")], "outside the folder"),
    "link": ([(member("train/a_01.jpg", stat.S_IFLNK | 0o777), b"/etc/passwd")], "link or a device"),
    "device": ([(member("train/a_01.jpg", stat.S_IFCHR | 0o666), b"")], "link or a device"),
    "control": ([("train/a\n.jpg", b"x")], "control characters"),
    "bzip2": ([(member("train/a_01.jpg", compression=zipfile.ZIP_BZIP2), b"x")], "packed in a way"),
    "bomb": ([(member("train/a_01.jpg", compression=zipfile.ZIP_DEFLATED), b"\0" * 2_000_000)], "bomb"),
    "bomb beside": ([(member("test/a.bin", compression=zipfile.ZIP_DEFLATED), b"\0" * 2_000_000)], "bomb"),
    "case": ([("train/a_01.jpg", b"x"), ("train/A_01.jpg", b"y")], "would be one file"),
    "nothing": ([("photos/a_01.jpg", b"x")], "hold neither"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.fault(24)
def test_a_hostile_zip_is_refused_and_leaves_nothing(command, tmp_path, name):
    members, sentence = HOSTILE[name]
    path = zip_of(tmp_path / "bad.zip", [("train/good_01.jpg", b"good"), *members] if name != "nothing" else members)
    code, _, complaint = command("data", "import", path, "--data-dir", tmp_path / "in" / "cars")
    assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "in" / "cars").exists() and not list(tmp_path.rglob("*.jpg"))


@pytest.mark.fault(24)
def test_one_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zip_of(tmp_path / "bad.zip", [("train/a_01.jpg", b"x"), ("train/a_01.jpg", b"y")])
    with pytest.raises(InputError, match="would be one file"):
        unpack([path], tmp_path / "cars")


@pytest.mark.fault(24)
@pytest.mark.parametrize(("flag", "why"), [(0x1, "encrypted"), (0x20, "packed in a way"), (0x40, "packed in a way")])
def test_a_zip_that_is_encrypted_or_that_zipfile_cannot_unpack_is_refused(command, tmp_path, flag, why):
    path = zip_of(tmp_path / "secret.zip", [("train/a_01.jpg", b"x" * 50)])
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= flag
    path.write_bytes(data)
    code, _, complaint = command("data", "import", path, "--data-dir", tmp_path / "cars")
    assert code == 2 and why in complaint and not (tmp_path / "cars").exists()


@pytest.mark.fault(24)
def test_a_zip_whose_bytes_were_changed_is_refused_and_leaves_nothing(command, tmp_path):
    path = zip_of(tmp_path / "train.zip", [("train/a_01.jpg", b"first" * 20), ("train/b_01.jpg", b"second" * 20)])
    path.write_bytes(path.read_bytes().replace(b"secondsecond", b"secOndsecond", 1))
    code, _, complaint = command("data", "import", path, "--data-dir", tmp_path / "cars")
    assert code == 2 and "damaged at train/b_01.jpg" in complaint and not (tmp_path / "cars").exists()


def refusal(path, target):
    """Why a zip is refused; empty where it is unpacked, and then what was unpacked is taken away again."""
    try:
        unpack([path], target)
    except InputError as refused:
        return str(refused)
    shutil.rmtree(target)
    return ""


@pytest.mark.fault(24)
def test_whatever_byte_of_its_last_record_was_changed_a_zip_is_refused_by_name_or_whole(tmp_path):
    """With a wrong offset of its member list, zipfile seeks to before the beginning of the file: an OSError."""
    path = zip_of(tmp_path / "train.zip", [("train/a_01.jpg", b"first" * 20)])
    whole = path.read_bytes()
    said = []
    for place in range(whole.rindex(b"PK\x05\x06"), len(whole)):
        for bit in (0x01, 0x10, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            said.append(refusal(path, tmp_path / "cars"))
            assert not (tmp_path / "cars").exists()
    assert all("train.zip" in refused for refused in filter(None, said))
    assert "" in said and any("damaged at train/a_01.jpg" in refused for refused in said)


@pytest.mark.fault(24)
def test_a_header_that_claims_too_little_does_not_fill_the_disk(tmp_path):
    path = tmp_path / "train.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a_01.jpg", os.urandom(1000) + b"\0" * 5_000_000)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(mark) + offset, 2000)
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged at train/a_01"):
        unpack([path], tmp_path / "cars")
    assert not (tmp_path / "cars").exists()


@pytest.mark.parametrize("content", [b"", b"no zip at all", None], ids=["empty", "text", "cut"])
def test_an_incomplete_zip_is_named(command, zips, tmp_path, content):
    zips[0].write_bytes(zips[0].read_bytes()[:-500] if content is None else content)
    code, _, complaint = command("data", "import", *zips, "--data-dir", tmp_path / "cars")
    assert (
        code == 2
        and str(zips[0]) in complaint
        and "is not a complete zip file" in complaint
        and not (tmp_path / "cars").exists()
    )


def test_what_is_there_already_is_never_overwritten(command, zips, tmp_path):
    target = tmp_path / "cars"
    (target / "train").mkdir(parents=True)
    name = zipfile.ZipFile(zips[0]).namelist()[-1]
    for path in (target / name, target / name.upper().replace("TRAIN/", "train/")):
        path.write_bytes(b"mine")
        before = contents(target)
        code, _, complaint = command("data", "import", *zips, "--data-dir", target)
        assert code == 2 and str(path) in complaint and contents(target) == before
        path.unlink()
    assert [path.name for path in target.iterdir()] == ["train"]


@pytest.mark.fault(24)
def test_a_link_in_the_target_is_not_followed(command, zips, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cars").mkdir()
    (tmp_path / "cars" / "train").symlink_to(tmp_path / "elsewhere")
    code, _, complaint = command("data", "import", *zips, "--data-dir", tmp_path / "cars")
    assert code == 2 and "is a link" in complaint and not list((tmp_path / "elsewhere").iterdir())


def test_too_little_disk_is_reported_before_the_work(command, zips, tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(64_000_100))
    code, _, complaint = command("data", "import", *zips, "--data-dir", tmp_path / "cars")
    assert code == 2 and "Free some space" in complaint and not (tmp_path / "cars").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_the_target_as_it_was(command, zips, tmp_path, monkeypatch, number):
    write, calls = archives._write, []

    def interrupted(*given):
        calls.append(write(*given))
        if len(calls) == 100:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(archives, "_write", interrupted)
    code, _, complaint = command("data", "import", *zips, "--data-dir", tmp_path / "cars")
    assert code == 128 + number and "Nothing was changed" in complaint and not (tmp_path / "cars").exists()


@pytest.mark.fault(24)
def test_what_a_killed_import_left_is_removed_by_the_next(zips, tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    mine = tmp_path / "cars" / ".importing-by-hand"
    users = [tmp_path / "cars" / f".importing-{n}" / "train" / "mine.jpg" for n in (99999999, 10**30)]  # of no process
    for path in users:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"precious")
    for left in (tmp_path / "cars" / f".importing-{gone.pid}" / "unpacked", mine, tmp_path / "cars" / ".importing-1"):
        left.mkdir(parents=True)
    unpack(zips, tmp_path / "cars")
    kept = {".importing-by-hand", ".importing-1", *(path.parent.parent.name for path in users)}
    assert {path.name for path in (tmp_path / "cars").glob(".*")} == kept
    assert all(path.read_bytes() == b"precious" for path in users)


def test_a_move_that_fails_half_way_is_undone(zips, tmp_path, monkeypatch):
    rename, calls = os.rename, []

    def full(old, new):
        calls.append(new)
        if len(calls) == 50:
            raise OSError(28, "No space left on device")
        rename(old, new)

    monkeypatch.setattr(archives.os, "rename", full)
    with pytest.raises(OSError, match="space"):
        unpack(zips, tmp_path / "cars")
    assert len(calls) == 50 and not (tmp_path / "cars").exists()


def test_without_kagglehub_a_sentence_says_how_to_get_it(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    code, _, complaint = command("data", "download", "carvana", "--data-dir", tmp_path / "cars")
    assert code == 2 and "pip install kagglehub" in complaint and "data import train.zip" in complaint


class KaggleApiHTTPError(Exception):
    """As kagglehub raises it: with the response."""

    def __init__(self, status):
        super().__init__(f"{status} Client Error.\n\nYou don't have permission")
        self.response = types.SimpleNamespace(status_code=status)


class UnauthenticatedError(Exception):
    pass


class DataCorruptionError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KaggleApiHTTPError(403), 2, "https://www.kaggle.com/c/carvana-image-masking-challenge/rules"),
        (KaggleApiHTTPError(401), 2, "https://www.kaggle.com/settings/api"),
        (UnauthenticatedError("User is not authenticated"), 2, "KAGGLE_API_TOKEN"),
        (ConnectionError("no route"), 1, "cannot be reached"),
        (TimeoutError("read timed out"), 1, "cannot be reached"),
        (DataCorruptionError("The X-Goog-Hash\n\nheader"), 1, "X-Goog-Hash header"),
        (KaggleApiHTTPError(500), 1, "500 Client Error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_refusal_by_kaggle_is_reported_in_a_sentence(command, tmp_path, monkeypatch, error, code, sentence):
    def competition_download(handle, path):
        raise error

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(competition_download=competition_download))
    ended, _, complaint = command("data", "download", "carvana", "--data-dir", tmp_path / "cars")
    assert ended == code and sentence in complaint and len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "cars").exists()


def test_what_kaggle_gives_is_unpacked(command, zips, tmp_path, monkeypatch):
    def competition_download(handle, path):
        assert handle == "carvana-image-masking-challenge"
        return str(tmp_path / path)

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(competition_download=competition_download))
    code, shown, _ = command("data", "download", "carvana", "--data-dir", tmp_path / "cars")
    assert code == 0 and "256 new images and masks" in shown and len(carvana.build(tmp_path / "cars")) == 128


def test_the_data_tools_do_not_import_torch(zips, tmp_path):
    code = (
        "import sys, run\n"
        f"run.main(['data', 'import', {str(zips[0])!r}, '--data-dir', {str(tmp_path / 'cars')!r}])\n"
        f"run.main(['data', 'verify', '--data-dir', {str(tmp_path / 'cars')!r}])\n"
        f"run.main(['runs', '--output-dir', {str(tmp_path)!r}])\n"
        "print(sorted({'torch', 'mlflow', 'albumentations', 'kagglehub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]" and (tmp_path / "cars" / "train").is_dir()


def test_zips_packed_again_are_read_where_nothing_is_ambiguous(command, tmp_path):
    """A wrapping folder, capital endings, masks as PNG; what the system added is left out."""
    wrapped = [("my cars/v2/train/a_01.JPG", b"x"), ("my cars/v2/train_masks/a_01_mask.PNG", b"y")]
    wrapped += [("my cars/v2/train/B_01.JPG", b"x"), ("my cars/v2/train_masks/B_01_MASK.GIF", b"y")]
    path = zip_of(
        tmp_path / "again.zip", [*wrapped, ("__MACOSX/my cars/train/b_01.jpg", b"z"), ("notes/read.me", b"n")]
    )
    code, shown, complaint = command("data", "import", path, "--data-dir", tmp_path / "cars")
    assert code == 0 and "4 new images and masks" in shown, complaint
    names = {p.relative_to(tmp_path / "cars").as_posix() for p in (tmp_path / "cars").rglob("*.*")}
    expected = {"train/a_01.jpg", "train_masks/a_01_mask.png", "train/B_01.jpg", "train_masks/B_01_mask.gif"}
    assert names == expected
    both = zip_of(tmp_path / "both.zip", [("one/train/a_01.jpg", b"x"), ("two/train/a_01.JPG", b"y")])
    code, _, complaint = command("data", "import", both, "--data-dir", tmp_path / "other")
    assert code == 2 and "would be one file" in complaint and not (tmp_path / "other").exists()
    none = zip_of(tmp_path / "none.zip", [(f"pics/{n}.bmp", b"x") for n in range(4)])
    code, _, complaint = command("data", "import", none, "--data-dir", tmp_path / "other")
    assert code == 2 and "They hold pics/0.bmp, pics/1.bmp and 2 more." in complaint
    code, _, complaint = command("data", "import", tmp_path, "--data-dir", tmp_path / "other")
    assert code == 2 and "is a folder. Name the zips in it" in complaint
