"""Reading photographs and masks, other people's folders, and the cache."""

import json
import os
import re
import shutil
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from experiments.data import cache, carvana, folder, nuclei
from experiments.data.run_inputs import as_samples
from experiments.data.samples import Sample, fingerprint, read_image, read_mask
from registry import InputError

BLOB = np.zeros((40, 60), bool)
BLOB[10:30, 15:50] = True
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def write_pairs(root, names=("a1", "a2", "b1", "b2", "c1"), photo=".png", mask=".png", mask_name="{}"):
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(np.roll(PHOTO, 7 * number, axis=1)).save(root / "images" / f"{name}{photo}")
        Image.fromarray(BLOB.astype(np.uint8) * 255).save(root / "masks" / f"{mask_name.format(name)}{mask}")
    return root


def palette(values, colours):
    picture = Image.fromarray(values.astype(np.uint8), "P")
    picture.putpalette([level for colour in colours for level in (colour,) * 3])
    return picture


@pytest.mark.parametrize(
    ("picture", "ending"),
    [
        (Image.fromarray(BLOB.astype(np.uint8)), "png"),
        (Image.fromarray(BLOB.astype(np.uint8) * 255), "png"),
        (Image.fromarray(BLOB.astype(np.uint8) * 255), "bmp"),
        (Image.fromarray(BLOB.astype(np.uint8) * 255).convert("RGB"), "png"),
        (Image.fromarray(BLOB.astype(np.uint8) * 255).convert("RGBA"), "png"),
        (Image.fromarray(BLOB.astype(np.uint8) * 255).convert("1"), "png"),
        (Image.fromarray(BLOB.astype(np.uint16) * 65535), "png"),
        (palette(BLOB, [0, 255]), "gif"),
        (palette(BLOB, [0, 38]), "png"),
        (palette(~BLOB, [255, 0]), "png"),
    ],
    ids=["01", "0-255", "bmp", "rgb", "rgba", "1bit", "16bit", "gif", "coloured-palette", "turned-palette"],
)
@pytest.mark.fault(9)
def test_a_mask_is_read_the_same_in_every_common_form(tmp_path, picture, ending):
    path = tmp_path / f"mask.{ending}"
    picture.save(path)
    assert np.array_equal(read_mask(path), BLOB)


@pytest.mark.parametrize("levels", [[0, 100], [0, 1, 255], [0, 254, 255], [3, 3]])
@pytest.mark.fault(9)
def test_a_mask_that_is_not_binary_is_refused(tmp_path, levels):
    values = np.random.default_rng(0).choice(levels, (20, 30)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="not binary"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.fault(9)
def test_empty_and_full_masks_are_masks(tmp_path):
    for level in (0, 1, 255):
        Image.fromarray(np.full((5, 6), level, np.uint8)).save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png").all() == (level > 0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA", "1"])
@pytest.mark.fault(9)
def test_images_of_every_mode_come_as_rgb(tmp_path, mode):
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    Image.fromarray(PHOTO).convert(mode).save(path)
    assert read_image(path).shape == (40, 60, 3) and read_image(path).dtype == np.uint8


@pytest.mark.fault(9)
def test_an_image_of_16_bit_grey_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 60).astype(np.uint16)[None].repeat(40, 0)
    Image.fromarray(ramp).save(tmp_path / "photo.png")
    read = read_image(tmp_path / "photo.png")
    assert read[0, 0, 0] == 0 and read[0, -1, 0] == 255 and abs(int(read[0, 30, 0]) - 129) < 3


@pytest.mark.fault(9)
def test_an_image_on_its_side_is_turned_as_its_exif_says(tmp_path):
    picture = Image.fromarray(PHOTO)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "photo.jpg", exif=exif)
    assert read_image(tmp_path / "photo.jpg").shape == (60, 40, 3)
    assert read_image(tmp_path / "photo.jpg", at_least=(20, 30)).shape[0] >= 30


def test_a_jpeg_is_decoded_smaller_but_never_below_what_is_asked(tmp_path):
    Image.fromarray(np.zeros((1280, 1918, 3), np.uint8)).save(tmp_path / "photo.jpg")
    height, width = read_image(tmp_path / "photo.jpg", at_least=(192, 128)).shape[:2]
    assert 192 <= width < 400 and 128 <= height < 300


def spoil_truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_text(path):
    path.write_text("this is no photograph")


def spoil_missing(path):
    path.unlink()


@pytest.mark.parametrize("spoil", [spoil_truncated, spoil_empty, spoil_text, spoil_missing])
@pytest.mark.fault(9)
def test_an_unreadable_image_is_named_with_what_to_do(tmp_path, spoil):
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    spoil(path)
    for at_least in (None, (32, 32)):
        with pytest.raises(InputError, match=r"photo\.jpg"):
            read_image(path, at_least)


def test_a_missing_image_has_no_partner_to_remove(tmp_path):
    with pytest.raises(InputError, match=r"photo\.jpg is missing\. Restore it, or leave it out\.$"):
        read_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("spoil", [spoil_truncated, spoil_empty, spoil_text, spoil_missing])
@pytest.mark.fault(9)
def test_an_unreadable_mask_is_named_with_what_to_do(tmp_path, spoil):
    path = tmp_path / "mask.gif"
    palette(np.random.default_rng(0).integers(0, 2, (100, 150)), [0, 255]).save(path)
    spoil(path)
    with pytest.raises(InputError, match=r"mask\.gif"):
        read_mask(path)


def test_the_fingerprint_follows_the_bytes_and_not_the_place_or_the_order(made_cars, cars):
    samples, copies = carvana.build(made_cars), carvana.build(cars)
    assert fingerprint(samples) == fingerprint(copies) == fingerprint(copies[::-1])
    mask = copies[5].mask
    mask.write_bytes(copies[6].mask.read_bytes())
    assert fingerprint(copies) != fingerprint(samples)


def test_carvana_pairs_each_image_with_its_mask_and_car(made_cars):
    samples = carvana.build(made_cars)
    assert samples == sorted(samples, key=lambda s: s.name) and len(samples) == 8 * 16
    assert all(s.mask.name == f"{s.image.stem}_mask.gif" and s.name.startswith(f"{s.group}_") for s in samples)


@pytest.mark.fault(9)
def test_an_image_without_mask_is_named(cars):
    victim = carvana.build(cars)[3]
    victim.mask.unlink()
    with pytest.raises(InputError, match=victim.name):
        carvana.build(cars)


def test_a_missing_folder_says_what_to_type(tmp_path):
    with pytest.raises(InputError, match="--data synthetic"):
        carvana.build(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    (tmp_path / "train_masks").mkdir()
    with pytest.raises(InputError, match="No images"):
        carvana.build(tmp_path)
    with pytest.raises(InputError, match="images"):
        folder.build(tmp_path)


@pytest.mark.parametrize(
    ("photo", "mask", "mask_name"), [(".jpg", ".png", "{}"), (".png", ".gif", "{}_mask"), (".webp", ".bmp", "{}")]
)
def test_a_folder_of_your_own_is_read_in_any_format(tmp_path, photo, mask, mask_name):
    samples = folder.build(write_pairs(tmp_path, photo=photo, mask=mask, mask_name=mask_name))
    assert [s.group for s in samples] == ["a1", "a2", "b1", "b2", "c1"]
    assert all(np.array_equal(read_mask(s.mask), BLOB) for s in samples)


def test_a_pattern_names_the_groups(tmp_path):
    write_pairs(tmp_path)
    assert [s.group for s in folder.build(tmp_path, group_pattern=r"^([a-z])\d")] == ["a", "a", "b", "b", "c"]
    assert [s.group for s in folder.build(tmp_path, group_pattern=r"\d")] == ["1", "2", "1", "2", "1"]
    for pattern, complaint in (("(", "regular expression"), ("x", "does not match"), ("^a", "does not match")):
        with pytest.raises(InputError, match=complaint):
            folder.build(tmp_path, group_pattern=pattern)


@pytest.mark.fault(9)
def test_two_images_of_one_name_are_refused(tmp_path):
    write_pairs(tmp_path)
    shutil.copy(tmp_path / "images" / "a1.png", tmp_path / "images" / "a1.bmp")
    with pytest.raises(InputError, match="share the name"):
        folder.build(tmp_path)


def test_the_cache_holds_what_decoding_gives_and_is_built_once(made_cars, tmp_path):
    samples = carvana.build(made_cars)
    seen = []
    for _ in range(2):
        pixels = cache.open_cache(samples, (48, 32), tmp_path, "f00", lambda done, total: seen.append(done))
    assert seen == list(range(1, len(samples) + 1))
    for row in (0, 17, 127):
        image, mask = cache.decode(samples[row], (48, 32))
        assert np.array_equal(pixels.images[row], image) and np.array_equal(pixels.masks[row], mask)
    assert set(np.unique(pixels.masks)) == {0, 1}
    with pytest.raises(ValueError, match="read-only"):
        pixels.images[0] = 0


@pytest.mark.parametrize("spoil", ["truncated", "other data", "no description"])
@pytest.mark.fault(12)
def test_an_incomplete_cache_is_rebuilt(made_cars, tmp_path, spoil):
    samples = carvana.build(made_cars)
    before = np.array(cache.open_cache(samples, (48, 32), tmp_path, "f00").images)
    place = tmp_path / "f00-48x32"
    if spoil == "truncated":
        with open(place / "images.u8", "r+b") as file:
            file.truncate(1000)
    elif spoil == "other data":
        (place / "cache.json").write_text(
            json.dumps({**json.loads((place / "cache.json").read_text()), "name": "f11-48x32"})
        )
    else:
        (place / "cache.json").unlink()
    assert np.array_equal(cache.open_cache(samples, (48, 32), tmp_path, "f00").images, before)


@pytest.mark.fault(12)
def test_a_broken_image_stops_the_cache_and_leaves_nothing(cars, tmp_path):
    samples = carvana.build(cars)
    spoil_truncated(samples[70].image)
    with pytest.raises(InputError, match=samples[70].name):
        cache.open_cache(samples, (48, 32), tmp_path / "cache", "f00")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["f00-48x32.lock"]


@pytest.mark.fault(9)
def test_a_mask_of_another_size_is_refused(tmp_path):
    write_pairs(tmp_path)
    Image.fromarray(np.zeros((41, 60), np.uint8)).save(tmp_path / "masks" / "b1.png")
    with pytest.raises(InputError, match="differ in size"):
        cache.decode(folder.build(tmp_path)[2], (32, 32))


@pytest.mark.parametrize(("height", "width"), [(240, 320), (239, 319), (60, 80), (480, 639)])
def test_a_jpeg_decoded_at_a_fraction_of_its_size_is_still_compared_at_its_own(tmp_path, height, width):
    photo, mask = tmp_path / "a.jpg", tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((640, 480, 3), np.uint8)).rotate(90, expand=True).save(photo, exif=exif)
    Image.fromarray(np.zeros((640, 480), np.uint8)).save(mask)
    cache.decode(Sample(photo, mask, "a"), (48, 64))
    Image.fromarray(np.zeros((width, height), np.uint8)).save(mask)
    with pytest.raises(InputError, match=f"480x640 and its mask .* is {height}x{width}: they differ in size"):
        cache.decode(Sample(photo, mask, "a"), (48, 64))


@pytest.mark.fault(6)
def test_too_little_disk_is_reported_before_the_work(made_cars, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    monkeypatch.setattr(cache, "decode", lambda *given: decoded.append(given))
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path))}, where .*Free some space"):
        cache.open_cache(carvana.build(made_cars), (48, 32), tmp_path, "f00")
    assert not decoded and [path.name for path in tmp_path.iterdir()] == ["f00-48x32.lock"]


def test_a_mask_pixel_is_true_where_the_object_covers_more_than_half():
    mask = np.zeros((4, 8), bool)
    mask[:, :3] = True  # whole, half and nothing of pixels that are 2 wide
    assert (
        cache.resize_mask(mask, (4, 2)).tolist() == [[1, 0, 0, 0]] * 2
        or cache.resize_mask(mask, (4, 2)).tolist() == [[1, 1, 0, 0]] * 2
    )


def test_samples_sort_by_name():
    from pathlib import Path

    assert Sample(Path("x/a.jpg"), Path("m"), "g").name == "a.jpg"


def test_carvana_files_unpacked_by_hand_may_end_in_capitals_and_masks_be_png(tmp_path):
    for part in ("train", "train_masks"):
        (tmp_path / part).mkdir()
    for name in ("train/a_01.JPG", "train/b_01.jpeg", "train/c_01.jpg", "train/._c_01.jpg"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("a_01_mask.png", "b_01_mask.gif", "c_01_mask.gif", "c_01_mask.png", "._c_01_mask.gif"):
        (tmp_path / "train_masks" / name).write_bytes(b"x")
    found = carvana.listing(tmp_path)
    assert [(s.image.name, s.mask.name, s.group) for s in found.samples] == [
        ("a_01.JPG", "a_01_mask.png", "a"),
        ("b_01.jpeg", "b_01_mask.gif", "b"),
        ("c_01.jpg", "c_01_mask.gif", "c"),
    ]
    assert not found.problems and [problem.path.name for problem in found.left_out] == ["c_01_mask.png"]
    (tmp_path / "train" / "a_01.jpg").write_bytes(b"x")
    assert {problem.what for problem in carvana.listing(tmp_path).problems} == {"name twice"}


def test_carvana_in_capitals_is_read_where_one_mask_fits_one_image(tmp_path):
    names = ("A_01.JPG", "b_01.JPG", "C_01.jpg", "c_01.jpg", "e_01.jpg")
    masks = ("A_01_MASK.GIF", "B_01_MASK.PNG", "C_01_mask.gif", "c_01_mask.gif", "e_01_mask.gif", "e_01_MASK.GIF")
    for name in (*(f"train/{name}" for name in names), *(f"train_masks/{name}" for name in masks)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = carvana.listing(tmp_path)
    assert [(s.image.name, s.mask.name, s.group) for s in found.samples] == [
        ("A_01.JPG", "A_01_MASK.GIF", "A"),
        ("C_01.jpg", "C_01_mask.gif", "C"),
        ("b_01.JPG", "B_01_MASK.PNG", "b"),
        ("c_01.jpg", "c_01_mask.gif", "c"),
        ("e_01.jpg", "e_01_mask.gif", "e"),
    ]
    assert not found.problems and [problem.path.name for problem in found.left_out] == ["e_01_MASK.GIF"]
    (tmp_path / "train_masks" / "c_01_mask.gif").unlink()
    assert [problem.path.name for problem in carvana.listing(tmp_path).problems] == ["c_01.jpg"], "C_01 has its own"


def test_a_data_function_may_return_pairs_or_triples_and_nothing_else(tmp_path):
    pair, triple = (tmp_path / "a.png", str(tmp_path / "a_mask.png")), ("b.png", "c.png", "g")
    assert [(s.image.name, s.mask.name, s.group) for s in as_samples("mine:pets", (x for x in (pair, triple)))] == [
        ("a.png", "a_mask.png", "a"),
        ("b.png", "c.png", "g"),
    ]
    (number,) = as_samples("mine:pets", [("a.png", "b.png", 7)])
    assert number.group == "7" and as_samples("mine:pets", [Sample("a.png", "b.png", 7)]) == [number]
    for found in (None, 3, "ab", ["a"], [("a",)], [(1, 2)], {"a": "b"}, [("a", "b", None)], []):
        with pytest.raises(InputError, match="mine:pets"):
            as_samples("mine:pets", found)


def test_equal_file_names_of_a_data_function_become_paths_and_an_image_is_there_once(tmp_path):
    one, two = ((tmp_path / part / "001.jpg", tmp_path / part / "m.png") for part in ("p1", "p2"))
    samples = as_samples("mine:pets", [two, one])
    assert [(s.name, s.group) for s in samples] == [("p1/001.jpg", "p1/001"), ("p2/001.jpg", "p2/001")]
    (grouped, _) = as_samples("mine:pets", [Sample(*one, "a"), Sample(*two, "b")])
    assert (grouped.name, grouped.group) == ("p1/001.jpg", "a")
    with pytest.raises(InputError, match=r"returns the image .*001\.jpg twice"):
        as_samples("mine:pets", [one, two, one])


def test_names_that_are_not_utf_8_are_left_out_of_every_listing(tmp_path, made_cars):
    odd = os.fsdecode(b"caf\xe9")
    cars = shutil.copytree(made_cars, tmp_path / "cars")
    photo = sorted((cars / "train").iterdir())[0]
    shutil.copy(photo, photo.with_name(f"{odd}_01.jpg"))
    shutil.copy(cars / "train_masks" / f"{photo.stem}_mask.gif", cars / "train_masks" / f"{odd}_01_mask.gif")
    for name in ("ab", odd):
        for file in (f"images/{name}.png", "masks/1.png"):
            (tmp_path / "stage1_train" / name / file).parent.mkdir(parents=True)
            Image.fromarray(BLOB).save(tmp_path / "stage1_train" / name / file)
    Image.fromarray(BLOB).save(tmp_path / "stage1_train" / "ab" / "masks" / f"{odd}.png")
    assert fingerprint(carvana.listing(cars).samples) == fingerprint(carvana.build(made_cars))
    for found in (carvana.listing(cars), nuclei.listing(tmp_path)):
        assert {problem.what for problem in found.problems} == {"unusable name"}
    assert not nuclei.listing(tmp_path).samples
    with pytest.raises(InputError, match="not UTF-8"):
        as_samples("mine:pets", [(tmp_path / f"{odd}.png", tmp_path / "m.png")])


def test_the_order_in_which_a_data_function_returns_its_pairs_does_not_matter(tmp_path):
    samples = folder.build(write_pairs(tmp_path / "pairs"))
    shuffled = [samples[row] for row in (3, 0, 4, 2, 1)]
    assert as_samples("mine:pets", shuffled) == as_samples("mine:pets", samples) == samples
    pixels = [
        cache.open_cache(as_samples("mine:pets", found), (30, 20), tmp_path / "cache", "f00")
        for found in (samples, shuffled)
    ]
    assert np.array_equal(pixels[1].images[3], cache.decode(as_samples("mine:pets", shuffled)[3], (30, 20))[0])


def test_a_link_that_leads_nowhere_and_a_file_that_may_not_be_read_are_refused_in_a_sentence(tmp_path, monkeypatch):
    write_pairs(tmp_path)
    samples = folder.build(tmp_path)
    samples[0].image.unlink()
    samples[0].image.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="is missing, or a link that leads nowhere"):
        fingerprint(samples)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("experiments.data.samples.sha256_of", denied)
    with pytest.raises(InputError, match="may not be read by this user"):
        fingerprint(samples[1:])


def test_a_dicom_file_is_called_one(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(128) + b"DICM" + bytes(64))
    with pytest.raises(InputError, match="is a DICOM file"):
        read_image(tmp_path / "a.png")


def test_a_warning_before_training_is_printed_in_a_study_too(capsys):
    from experiments.data import run_inputs
    from experiments.runtime import progress

    with progress.quiet():
        run_inputs._log_once("WARNING: said once")
        run_inputs._log_once("WARNING: said once")
    assert capsys.readouterr().out == "WARNING: said once\n"


def test_a_folder_that_is_not_the_one_above_images_and_masks_is_answered_with_the_right_one(tmp_path):
    root = write_pairs(tmp_path / "my pairs")
    for part in ("images", "masks"):
        with pytest.raises(InputError, match=f"Name the folder above it, .*: --data-dir '{root}'"):
            folder.build(root / part)
    (root / "images").rename(root / "Photos")
    with pytest.raises(InputError, match=f"There is no folder {root}/images. .*{root} holds Photos/"):
        folder.build(root)


def test_masks_of_a_form_of_their_own_are_answered_with_the_pattern_that_pairs_them_all(tmp_path):
    root = write_pairs(tmp_path)
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"ann_{path.stem.removesuffix('_mask')}_x{path.suffix}"))
    problems = folder.listing(root).problems
    assert problems and "name the masks with --mask-pattern 'ann_{name}_x'" in min(problems).text
    assert not folder.listing(root, mask_pattern="ann_{name}_x").problems
    next((root / "masks").iterdir()).rename(root / "masks" / "other.png")
    assert "--mask-pattern," in min(folder.listing(root).problems).text, "it would not pair them all"


def test_no_mask_serves_two_images(tmp_path):
    """`cat_mask` is the mask of the image of the same name; that of `cat` is missing."""
    write_pairs(tmp_path, ("cat", "cat_mask", "dog", "eel"))
    (tmp_path / "masks" / "cat.png").unlink()
    listing = folder.listing(tmp_path)
    assert {s.image.name: s.mask.name for s in listing.samples} == {
        name: name for name in ("cat_mask.png", "dog.png", "eel.png")
    }
    assert [(problem.path.name, problem.what) for problem in listing.problems] == [("cat.png", "no mask")]


@pytest.mark.parametrize("letter", ["\n", "\r"])
def test_a_name_with_a_line_break_is_refused_before_anything_is_trained(tmp_path, letter):
    write_pairs(tmp_path, ("a1", f"b{letter}2", "c3", "d4"))
    listing = folder.listing(tmp_path)
    assert [s.image.name for s in listing.samples] == ["a1.png", "c3.png", "d4.png"]
    assert {problem.what for problem in listing.problems} == {"unusable name"}
    assert all("line break" in problem.text and letter not in problem.text for problem in listing.problems)


def test_files_of_the_user_in_a_cache_folder_are_kept(tmp_path):
    samples = folder.listing(write_pairs(tmp_path / "pairs")).samples
    theirs = tmp_path / "cache" / cache.cache_name("f00", (48, 32), samples[0].reading) / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    with pytest.raises(InputError, match="holds files that are not its own"):
        cache.open_cache(samples, (48, 32), tmp_path / "cache", "f00")
    assert theirs.read_text() == "precious" and len(list(theirs.parent.parent.glob("*.building-*"))) == 0
    theirs.unlink()
    assert len(cache.open_cache(samples, (48, 32), tmp_path / "cache", "f00").images) == len(samples)
