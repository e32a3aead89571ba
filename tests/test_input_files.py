"""What was left out of a folder is said: how many files, of which kinds, why, and how to list them."""

import json
import os
import shutil

import pytest
from PIL import Image

from experiments.data import folder
from experiments.inference.input_files import gather_images
from registry import InputError
from tests.strangers import scene
from tests.test_output_files import write_untrained_run


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two images in a folder, one below it, and what lies among the files of a camera or a colleague."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/deep", "photos/.cache", "photos/__MACOSX"):
        (tmp_path / name).mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.JPG", "deep/c.tif", ".cache/d.png", "__MACOSX/e.png")):
        Image.fromarray(scene(60, 40, number)[0]).save(tmp_path / "photos" / name)
    for name in ("notes.txt", "table.csv", "desktop.ini", "Thumbs.db", ".DS_Store", "deep/more.txt"):
        (tmp_path / "photos" / name).write_text(name)
    return tmp_path


@pytest.fixture
def predict(photos, command):
    write_untrained_run(photos / "outputs")
    return lambda *words: command("predict", *words, "--run", "aaaa")


def test_a_folder_of_images_and_other_files_is_read_and_the_others_are_counted(predict, photos):
    code, shown, complaint = predict("photos")
    assert code == 0 and "3 masks in outputs/predictions" in shown
    assert complaint.strip() == "Left out: 3 files that are not images (2 .txt, 1 .csv). List them: add --list-skipped"
    code, _, complaint = predict("photos", "--list-skipped")
    assert code == 0 and [line.split()[2] for line in complaint.splitlines()] == [
        f"photos/{name}" for name in ("deep/more.txt", "notes.txt", "table.csv")
    ]


def test_what_looks_like_an_image_and_cannot_be_read_is_named_and_the_exit_code_is_1(predict, photos):
    (photos / "photos" / "IMG_1.heic").write_bytes(b"\0\0\0\x18ftypheic and no image")
    (photos / "photos" / "raw.CR2").write_bytes(b"II*\0 no image")
    (photos / "photos" / "without_suffix").write_bytes(b"\xff\xd8\xff and no image")
    os.symlink("nowhere.png", photos / "photos" / "link.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(photos / "photos" / "pipe.png")  # opening it would block for ever
    code, shown, complaint = predict("photos", "photos/*")  # each image once
    assert code == 1 and "3 masks in" in shown
    for name in ("IMG_1.heic", "raw.CR2", "without_suffix", "link.png"):
        assert sum(f"photos/{name}" in line and line.startswith("Skipped: ") for line in complaint.splitlines()) == 1


def test_an_output_folder_within_the_input_folder_is_left_out_and_so_is_what_was_written_elsewhere_in_it(
    predict, photos
):
    assert predict("photos", "--output", "photos/masks")[0] == 0
    code, shown, complaint = predict("photos", "--output", "photos/masks")
    assert code == 0 and "3 masks in" in shown and "3 images in the output folder (3 .png)" in complaint
    code, shown, complaint = predict("photos", "--output", "other")
    assert code == 0 and "3 masks in" in shown and "3 images that this project wrote (3 .png)" in complaint
    code, _, complaint = predict("photos", "--output", "photos")
    assert code == 2 and "output folder is the input folder" in complaint
    code, _, complaint = predict("photos/masks", "--output", "other2")
    assert code == 2 and "3 images that this project wrote" in complaint and "patterns" in complaint
    assert predict("photos/masks/*.png", "--output", "other2")[0] == 0


def test_a_name_too_long_for_one_of_the_outputs_is_skipped_alone(predict, photos):
    shutil.copy(photos / "photos" / "a.png", photos / "photos" / f"{'n' * 247}.png")
    assert predict("photos", "--output", "plain")[0] == 0
    code, shown, complaint = predict("photos", "--cutout")
    assert code == 1 and "3 masks in" in shown and "nnn.png has a name that is too long for _cutout.png" in complaint


def test_an_overlay_that_is_too_large_for_a_jpeg_leaves_out_its_image_alone(predict, photos):
    Image.new("RGB", (65_501, 32)).save(photos / "photos" / "wide.png")
    code, shown, complaint = predict("photos", "--overlay", "--output", "out")
    assert code == 1 and "3 masks in" in shown and "photos/wide.png" in complaint and "without --overlay" in complaint
    assert sorted(path.name for path in (photos / "out").glob("*.jpg")) == ["a_overlay.jpg", "b_overlay.jpg"]
    assert not (photos / "out" / "wide.png").exists()
    assert predict("photos", "--output", "plain")[0] == 0 and (photos / "plain" / "wide.png").exists()


def test_the_same_file_by_two_names_of_its_folder_is_one_image(photos):
    names = gather_images(["photos/a.png", "photos/../photos/a.png", str(photos / "photos" / "a.png")], photos / "o")
    assert len(names.names) == 1
    os.symlink("nowhere", photos / "link.png")
    with pytest.raises(InputError, match=r"link.png is a broken link"):
        gather_images(["link.png"], photos / "o")
    with pytest.raises(InputError, match=r"names no image; left out: 1 file that is not an image \(1 .txt\)"):
        gather_images(["photos/*.txt"], photos / "o")


def test_linked_folders_and_those_that_may_not_be_read_are_said(photos):
    os.symlink(photos / "photos" / "deep", photos / "photos" / "linked")
    found = gather_images(["photos"], photos / "o")
    assert ("linked folder", photos.joinpath("photos/linked").relative_to(photos)) in found.left_out
    assert len(found.names) == 3


@pytest.fixture
def pairs(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "my pairs" / part / "more").mkdir(parents=True)
    for number in range(4):
        for part, picture in zip(("images", "masks"), scene(60, 40, number), strict=True):
            Image.fromarray(picture).save(tmp_path / "my pairs" / part / f"p{number}.png")
    for name in ("images/x.heic", "images/y.HEIC", "images/desktop.ini", "masks/Thumbs.db", "masks/.DS_Store"):
        (tmp_path / "my pairs" / name).write_text(name)
    Image.new("1", (60, 40)).save(tmp_path / "my pairs" / "masks" / "lonely.png")
    return tmp_path / "my pairs"


LEFT_OUT = "1 mask without an image (1 .png), 2 files of formats that are not read (2 .heic)"


def kinds(text):
    line = next(line for line in text.splitlines() if line.startswith("Left out: "))
    return sorted(line.removeprefix("Left out: ").partition(". List them")[0].split(", "))


def test_every_command_that_reads_pairs_says_what_it_left_out_and_how_to_list_it(pairs, command, capsys, tmp_path):
    assert len(folder.build(pairs)) == 4
    complaint = capsys.readouterr().err
    assert kinds(complaint) == sorted(LEFT_OUT.split(", "))
    assert f"List them: python run.py data verify --data folder --data-dir '{pairs}'" in complaint
    write_untrained_run(tmp_path / "outputs")
    words = ("--run", "aaaa", "--output-dir", tmp_path / "outputs", "--data-dir", pairs)
    code, _, complaint = command("evaluate", *words)
    assert code == 0 and kinds(complaint) == sorted(LEFT_OUT.split(", "))


def test_verify_lists_each_file_that_was_left_out_and_no_system_file(pairs, command):
    code, shown, _ = command("data", "verify", "--data", "folder", "--data-dir", pairs)
    assert code == 1 and all(name in shown for name in ("x.heic", "y.HEIC", "lonely.png"))
    assert not any(name in shown for name in ("desktop.ini", "Thumbs.db", ".DS_Store"))
    for path in (*pairs.rglob("*.[hH][eE]*"), pairs / "masks" / "lonely.png"):
        path.unlink()
    for part in ("images", "masks"):
        (pairs / part / "more").rmdir()
    assert command("data", "verify", "--data", "folder", "--data-dir", pairs)[0] == 0


def test_a_linked_folder_of_pairs_is_said_to_be_left_out(pairs, tmp_path, capsys):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        shutil.copy(pairs / part / "p0.png", tmp_path / part / "q0.png")
        (pairs / part / "linked").symlink_to(tmp_path / part, target_is_directory=True)
    found = folder.listing(pairs)
    linked = [problem for problem in found.left_out if problem.what == "linked folder"]
    assert len(found.samples) == 4 and [p.path for p in linked] == [
        pairs / part / "linked" for part in ("images", "masks")
    ]
    folder.build(pairs)
    assert "2 linked folders that are not searched" in capsys.readouterr().err


def test_score_and_submit_count_what_they_left_out_and_list_it_when_asked(pairs, command, tmp_path):
    shutil.rmtree(pairs / "images" / "more")
    words = ("score", pairs / "masks", pairs / "masks", "--output", tmp_path / "s.csv")
    code, shown, complaint = command(*words, "--list-skipped")
    assert code == 0 and "5 masks" in shown and complaint.count("Left out: ") == 1 and "masks/more" in complaint
    write_untrained_run(tmp_path / "outputs")
    (tmp_path / "test").mkdir()
    for name in ("a.jpg", "b.JPG", "c.png"):
        Image.fromarray(scene(60, 40, 0)[0]).save(tmp_path / "test" / name)
    words = ("--run", "aaaa", "--output-dir", tmp_path / "outputs", "--output", tmp_path / "s2.csv")
    code, _, complaint = command("submit", "--test-dir", tmp_path / "test", *words)
    assert code == 0 and "2 files of formats that are not read (1 .jpg, 1 .png)" in complaint


def test_submit_reads_upper_case_suffixes_and_writes_kaggles_names(tmp_path, command):
    write_untrained_run(tmp_path / "outputs")
    (tmp_path / "test").mkdir()
    for number, name in enumerate(("a.JPG", "b.JPG")):
        Image.fromarray(scene(60, 40, number)[0]).save(tmp_path / "test" / name, "JPEG")
    words = ("submit", "--test-dir", tmp_path / "test", "--run", "aaaa", "--output-dir", tmp_path / "outputs")
    assert command(*words, "--output", tmp_path / "s.csv")[0] == 0
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["img", "a.jpg", "b.jpg"]


def test_the_list_of_what_was_written_is_readable(predict, photos):
    assert predict("photos/a.png")[0] == 0
    (line,) = (photos / "outputs" / "predictions" / ".written.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"name", "sha256"}
