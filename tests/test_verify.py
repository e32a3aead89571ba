"""`data verify` and `data make`: what is wrong is found, all of it, and nothing else is."""

import csv
import io
import itertools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.data import carvana, checks
from experiments.data.carvana import KNOWN_FAULTY, is_known_faulty
from experiments.data.samples import read_image, read_mask
from experiments.data.splits import split
from registry import InputError
from tests.conftest import run_folder, small
from tests.strangers import NAMES, scene, write_strangers_folder


def rewrite(path, picture, **options):
    with Image.open(path) as old:
        kind = old.format
    picture.save(path, kind, **options)


def samples_by_part(folder):
    parts = split(carvana.build(folder))
    return parts.train, parts.val, parts.test


def truncated(sample):
    sample.image.write_bytes(sample.image.read_bytes()[:900])
    return sample.image, "truncated"


def empty_file(sample):
    sample.mask.write_bytes(b"")
    return sample.mask, "0 bytes"


def no_mask(sample):
    sample.mask.unlink()
    return sample.image, "has no mask"


def no_image(sample):
    sample.image.unlink()
    return sample.mask, "has no image"


def other_size(sample):
    rewrite(sample.mask, Image.fromarray(read_mask(sample.mask)[:, 1:].astype(np.uint8)))
    return sample.image, "96x64 and its mask"


def grey_mask(sample):
    sample.mask.unlink()
    Image.fromarray(np.arange(96 * 64, dtype=np.uint8).reshape(64, 96)).save(sample.mask)
    return sample.mask, "not binary"


def empty_mask(sample):
    rewrite(sample.mask, Image.fromarray(np.zeros((64, 96), np.uint8)))
    return sample.mask, "marks nothing"


def full_mask(sample):
    rewrite(sample.mask, Image.fromarray(np.full((64, 96), 255, np.uint8)))
    return sample.mask, "marks the whole"


def other_format(sample):
    path = sample.image.with_name("car_99.png")
    Image.fromarray(read_image(sample.image)).save(path)
    return path, "is skipped"


def giant_header(sample):
    Image.new("1", (20000, 20000)).save(sample.mask, "PNG")  # a few kilobytes that claim 400 million pixels
    return sample.mask, "larger than 268 million pixels"


FAULTS = [
    truncated, empty_file, no_mask, no_image, other_size, grey_mask, empty_mask, full_mask, other_format, giant_header,
]  # fmt: skip


def test_cars_with_nothing_wrong_end_with_zero_and_are_counted(command, made_cars):
    code, shown, _ = command("data", "verify", "--data-dir", made_cars)
    shares = [read_mask(sample.mask).mean() for sample in carvana.build(made_cars)]
    assert code == 0 and "Nothing is wrong" in shown
    assert "128 images with masks in 8 groups, 96x64;" in shown and "; 80 train; 16 val; 32 test." in shown
    assert f"foreground {min(shares):.1%} to {max(shares):.1%}, mean {np.mean(shares):.1%}" in shown


def test_images_of_other_shapes_are_told_that_they_will_be_stretched(command, cars):
    words = ("data", "verify", "--data-dir", cars)
    assert "stretches every image" not in command(*words)[1]
    sample = carvana.build(cars)[37]
    for path in sample.files:
        Image.open(path).rotate(90, expand=True).save(path)
    assert "Width / height goes from 0.67 to 1.50: a run stretches every image" in command(*words)[1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.fault(9)
def test_a_fault_is_named_with_its_file_and_what_to_do(command, cars, fault):
    path, words = fault(carvana.build(cars)[37])
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    (line,) = [line for line in shown.splitlines() if str(path) in line and words in line]
    assert code == 1 and "1 problem in" in shown
    assert any(verb in line for verb in ("emove", "Add", "Fetch", "again"))


def test_a_mask_that_cannot_be_used_and_has_another_size_is_named_with_both(command, cars):
    sample = carvana.build(cars)[37]
    Image.fromarray(np.arange(50 * 64, dtype=np.uint8).reshape(64, 50)).save(sample.mask)
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    assert code == 1 and "2 problems in" in shown and "not binary" in shown
    assert f"{sample.image} is 96x64 and its mask {sample.mask} is 50x64" in shown


def test_masks_that_are_all_empty_are_one_problem_beside_the_others(command, cars):
    for sample in carvana.build(cars):
        empty_mask(sample)
    path, words = truncated(carvana.build(cars)[5])
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    assert code == 1 and "2 problems in" in shown and f"The image {path} is {words}" in shown
    assert shown.count("marks nothing") == 1 and "All 128 masks are empty" in shown


def test_all_faults_are_listed_in_one_walk(command, cars):
    listed = [fault(sample) for fault, sample in zip(FAULTS, carvana.build(cars)[::12], strict=False)]
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    assert code == 1 and f"{len(listed)} problems in" in shown
    for path, words in listed:
        assert any(str(path) in line and words in line for line in shown.splitlines()), path


def test_the_same_pixels_twice_are_found_under_any_name_and_in_any_file(command, cars):
    one, other = carvana.build(cars)[3:5]
    jpeg = one.image.read_bytes()
    other.image.write_bytes(jpeg[:2] + b"\xff\xfe\x00\x09comment" + jpeg[2:])
    shutil.copy(one.mask, other.mask)
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    assert code == 1 and f"{one.image} (" in shown and "show the same pixels" in shown and "1 problem in" in shown


def copied(photo, how):
    """A photograph as another site would show it again."""
    picture, (height, width) = Image.fromarray(photo), photo.shape[:2]
    if how == "recoded":
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=40)
        return np.asarray(Image.open(file))
    if how == "smaller":
        return np.asarray(picture.resize((round(width * 0.9), round(height * 0.9))))
    if how == "larger":
        return np.asarray(picture.resize((round(width * 1.3), round(height * 1.3))))
    return (photo * 1.15 + 10).clip(0, 255).astype(np.uint8) if how == "brighter" else (photo * 0.6).astype(np.uint8)


@pytest.mark.parametrize("how", ["recoded", "smaller", "larger", "brighter", "darker"])
def test_a_copy_on_the_other_side_of_the_split_is_found(command, cars, how):
    train, _, test = samples_by_part(cars)
    photo = copied(read_image(train[5].image), how)
    Image.fromarray(photo).save(test[7].image, quality=90)
    mask = Image.fromarray(read_mask(train[5].mask).astype(np.uint8))
    mask.resize(photo.shape[1::-1], Image.Resampling.NEAREST).save(test[7].mask)
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    (line,) = [line for line in shown.splitlines() if line.startswith("near-duplicate: ")]
    assert (
        code == 1
        and f"{train[5].image} (train)" in line
        and f"{test[7].image} (test)" in line
        and "1 problem in" in shown
    )


def test_a_copy_on_the_same_side_is_no_leak(command, cars, tmp_path):
    train, _, test = samples_by_part(cars)
    Image.fromarray(copied(read_image(train[5].image), "darker")).save(test[7].image, quality=90)
    sides = {s.group: "train" for s in train} | {test[-1].group: "val"} | {s.group: "test" for s in train[:16]}
    sides[test[7].group] = sides[train[5].group]
    with open(tmp_path / "mine.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "part"))
        rows.writerows((s.name, sides[s.group]) for s in carvana.build(cars) if s.group in sides)
    assert command("data", "verify", "--data-dir", cars)[0] == 1
    code, shown, _ = command("data", "verify", "--data-dir", cars, "--split-file", tmp_path / "mine.csv")
    assert code == 0 and "near-duplicate" not in shown


def test_signatures_agree_with_a_slow_correlation_and_flat_images_match_nothing():
    from scipy.ndimage import gaussian_filter

    studio = 128 + 90 * np.sin(np.arange(64) / 5)[:, None, None]  # the coarse shades that all photographs share
    noise = [np.random.default_rng(n).normal(0, 12, (64, 64, 3)) for n in range(3)]
    photos = [(studio + detail).clip(0, 255).astype(np.uint8) for detail in noise]
    photos.append((photos[0] * 0.5).astype(np.uint8))
    signs = np.stack([checks.signature(photo) for photo in photos])
    fine = []
    for photo in photos:
        grey = photo @ np.array([0.299, 0.587, 0.114])
        fine.append((grey - gaussian_filter(grey, 1.0, mode="mirror", radius=4)).ravel())
    assert np.allclose(signs @ signs.T, np.corrcoef(fine), atol=0.02)
    assert [pair[:2] for pair in checks.copies_across_parts(signs, ["a", "a", "a", "b"])] == [(0, 3)]
    assert not checks.signature(np.full((50, 70, 3), 255, np.uint8)).any()


def test_real_cars_are_not_taken_for_each_other(carvana):
    from experiments.data.carvana import build

    samples = build(carvana)[:64]
    signs = np.stack([checks.signature(read_image(s.image, at_least=(192, 128))) for s in samples])
    assert not list(checks.copies_across_parts(signs, [s.name for s in samples]))


def test_known_faulty_masks_are_named_and_are_no_fault_of_the_copy(command, cars):
    sample = carvana.build(cars)[0]
    name = min(KNOWN_FAULTY)
    sample.image.rename(sample.image.with_name(f"{name}.jpg"))
    sample.mask.rename(sample.mask.with_name(f"{name}_mask.gif"))
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    assert code == 0 and f"(1): {name}" in shown
    assert len(KNOWN_FAULTY) == 23 and is_known_faulty(f"{name}.jpg") and not is_known_faulty(sample.name)


def test_a_folder_that_cannot_be_divided_is_a_problem_and_the_walk_goes_on(command, cars):
    keep = {s.group for s in carvana.build(cars)[:32]}
    for sample in carvana.build(cars):
        if sample.group not in keep:
            sample.image.unlink()
            sample.mask.unlink()
    empty_mask(carvana.build(cars)[0])
    code, shown, _ = command("data", "verify", "--data-dir", cars)
    assert code == 1 and "at least three groups" in shown and "marks nothing" in shown


def test_a_mask_that_was_not_turned_with_its_image_is_explained(tmp_path):
    folder = write_strangers_folder(tmp_path / "pairs")
    mask = folder / "masks" / "turned.png"
    Image.open(mask).transpose(Image.Transpose.ROTATE_90).save(mask)
    from experiments.data.folder import listing

    report = checks.check_dataset(listing(folder), {})
    assert ["rotated by its EXIF data" in problem.text for problem in report.problems] == [True]


def test_floating_point_images_are_refused_and_not_shown_black(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((40, 50), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match="8 or 16 bits"):
        read_image(tmp_path / "x.tif")


def test_a_folder_of_other_formats_says_which_and_what_to_save(command, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "case.nii.gz").write_bytes(b"\x1f\x8b")
    code, _, complaint = command("data", "verify", "--data", "folder", "--data-dir", tmp_path)
    assert code == 2 and "1 file of a format that is not read (1 .gz). Save images as PNG or TIFF" in complaint


def test_groups_that_may_be_divided_are_named_in_the_last_line(command, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for patient, view in itertools.product("abcdef", "12"):
        photo, mask = scene(64, 48, 2 * ord(patient) + int(view))
        Image.fromarray(photo).save(tmp_path / "images" / f"p{patient}_{view}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / f"p{patient}_{view}.png")
    words = ["data", "verify", "--data", "folder", "--data-dir", tmp_path]
    code, shown, _ = command(*words)
    assert code == 0 and shown.strip().endswith("except that groups may be divided: see above.")
    code, shown, _ = command(*words, "--group-pattern", "^([^_]+)_")
    assert code == 0 and shown.strip().endswith(f"Nothing is wrong with {tmp_path}.")


def test_a_user_folder_of_mixed_formats_passes_verify_training_and_scoring(command, tmp_path):
    folder = write_strangers_folder(tmp_path / "pairs")
    code, shown, complaint = command("data", "verify", "--data", "folder", "--data-dir", folder)
    assert code == 0, shown + complaint
    assert f"{len(NAMES)} images" in shown and "(12 sizes)" in shown
    words = small(folder, tmp_path / "out", epochs=1)
    words[words.index("carvana")] = "folder"
    code, _, complaint = command(*words)
    assert code == 0, complaint
    with open(run_folder(tmp_path / "out") / "scores_last.csv") as file:
        for row in csv.DictReader(file):
            (path,) = (folder / "masks").glob(f"{row['image'].split('.')[0]}*")
            assert sum(int(row[name]) for name in ("tp", "fp", "fn", "tn")) == read_mask(path).size
            assert int(row["tp"]) + int(row["fn"]) == read_mask(path).sum()


def test_cars_that_were_made_are_the_ones_that_a_run_reads(command, tmp_path):
    folder = tmp_path / "cars"
    words = ["data", "make", "--data-dir", folder, "--cars", 3, "--seed", 5, "--size", "64x48"]
    assert command(*words)[0] == 0 == command(*words)[0]
    assert json.loads((folder / "synthetic.json").read_text())["seed"] == 5
    from experiments.data.synthetic.cars import build

    assert len(build(folder)) == 48 and Image.open(build(folder)[0].image).size == (64, 48)
    assert command("data", "verify", "--data", "synthetic", "--data-dir", folder)[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["verify", "--data-dir", "nowhere"], "data download carvana"),
        (["verify", "--data", "synthetic", "--data-dir", "nowhere"], "data make --data-dir nowhere"),
        (["verify", "--data", "foldr"], "did you mean 'folder'?"),
        (["verify", "--group-pattern", "x"], "for --data folder"),
        (["verify", "--data", "folder", "--data-dir", "pairs", "--group-pattern", "("], "regular expression"),
        (["verify", "--data", "folder", "--data-dir", "pairs", "--split-file", "no.csv"], "no.csv"),
        (["verify", "--fold", "5/5"], "counted from 0"),
        (["verify", "--split-file", "x.csv", "--fold", "0/5"], "leave out --split"),
        (["verfy"], "did you mean 'verify'?"),
        (["verify", "--dta", "x"], "did you mean '--data'?"),
        (["make", "--cars", "0"], "Must be >= 1"),
        (["make", "--cars", "many"], '"many" is not a whole number'),
        (["make", "--seed", "-1"], "Must be >= 0"),
        (["make", "--size", "10x10"], "32x32"),
        (["make", "--data-dir", "pairs"], "other things"),
        (["make", "--data-dir", "pairs/images/a1.png"], "a1.png"),
        (["download", "carvanna"], 'Did you mean "carvana"?'),
        (["download"], "NAME"),
        (["import"], "FILES"),
        (["import", "no.zip"], "no.zip"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_argument_of_the_data_tools_is_refused_in_one_sentence(
    command, tmp_path, monkeypatch, words, sentence
):
    from tests.test_data import write_pairs

    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs")
    code, shown, complaint = command("data", *words)
    assert code == 2 and sentence in complaint and not shown
    assert len(complaint.strip().splitlines()) == 1 and "Traceback" not in complaint
    assert {path.name for path in tmp_path.iterdir()} == {"pairs"}


@pytest.mark.parametrize("arm", ["siblings", "strangers"])
def test_the_arms_of_the_leak_study_are_no_fault_of_the_data(arm, made_cars, command):
    code, shown, complaint = command("data", "verify", "--data", "carvana", "--data-dir", made_cars, "--split", arm)
    assert code == 0 and "no split" not in shown + complaint


def test_a_pattern_that_matches_no_image_is_one_problem(tmp_path, command):
    write_strangers_folder(tmp_path)
    code, shown, complaint = command(
        "data", "verify", "--data", "folder", "--data-dir", tmp_path, "--group-pattern", "^nothing_(.)"
    )
    assert code == 1 and (shown + complaint).count("no group:") == 1 and "nor any other" in shown + complaint
