"""The split: whole cars, moved by nothing."""

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data.samples import Sample
from experiments.data.splits import PARTS, arm, manifest, read_manifest, some_cars, split
from registry import InputError
from tests.conftest import examples


def cars(n, views=16):
    return [
        Sample(Path(f"{c:04}_{v:02}.jpg"), Path(f"{c:04}_{v:02}_mask.gif"), f"{c:04}")
        for c in range(n)
        for v in range(views)
    ]


def groups(samples):
    return list(dict.fromkeys(s.group for s in samples))


@examples(100)
@given(st.integers(3, 120), st.integers(1, 3))
def test_a_car_is_never_in_two_parts_of_the_split(n, views):
    parts = split(cars(n, views))
    sides = [set(groups(getattr(parts, name))) for name in PARTS]
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides)) == n
    assert len(sides[2]) == max(1, round(0.2 * n)) and len(sides[1]) == max(1, round(0.1 * n))


def test_the_some_cars_by_sha256_are_test_the_next_validation():
    parts = split(cars(40))
    ranking = sorted(groups(cars(40)), key=lambda g: hashlib.sha256(g.encode()).hexdigest())
    assert (groups(parts.test), groups(parts.val), groups(parts.train)) == (ranking[:8], ranking[8:12], ranking[12:])


def test_neither_the_order_of_the_files_nor_the_seed_moves_a_car():
    samples = cars(30)
    shuffled = random.Random(1).sample(samples, len(samples))
    assert split(samples) == split(shuffled, seed=7)


def test_the_split_is_the_one_that_it_has_always_been():
    parts = split(cars(10))
    assert (groups(parts.test), groups(parts.val)) == (["0004", "0008"], ["0005"])


@examples(100)
@given(st.integers(6, 60), st.integers(2, 6))
def test_over_all_folds_every_car_is_tested_exactly_once(n, folds):
    tested = [g for k in range(folds) for g in groups(split(cars(n, 1), fold=(k, folds)).test)]
    assert sorted(tested) == sorted(groups(cars(n, 1)))
    for k in range(folds):
        parts = split(cars(n, 1), fold=(k, folds))
        assert not set(groups(parts.test)) & (set(groups(parts.val)) | set(groups(parts.train)))


def test_the_first_of_five_folds_is_the_split_without_folds():
    assert split(cars(50), fold=(0, 5)) == split(cars(50))


@pytest.mark.parametrize("fold", [(5, 5), (-1, 5), (0, 1), (0, 31)])
def test_a_fold_that_does_not_exist_is_refused(fold):
    with pytest.raises(InputError, match="fold"):
        split(cars(30), fold=fold)


def test_fewer_than_three_cars_are_refused():
    with pytest.raises(InputError, match="three groups"):
        split(cars(2))


def test_a_split_by_image_leaks_and_follows_the_seed():
    samples = cars(20)
    parts = split(samples, by="image", seed=1)
    assert set(groups(parts.train)) & set(groups(parts.test))
    assert len(parts.test) == 64 and parts == split(samples, by="image", seed=1) != split(samples, by="image", seed=2)


def test_the_first_training_cars_are_the_first_of_the_ranking():
    train = split(cars(30)).train
    assert groups(some_cars(train, 3)) == groups(train)[:3]
    assert some_cars(train, 21) == train
    for wrong in (0, 22):
        with pytest.raises(InputError, match="from 1 to 21, the number of training groups"):
            some_cars(train, wrong)


def test_a_manifest_gives_back_the_split_that_wrote_it(tmp_path):
    parts = split(cars(12))
    (tmp_path / "split.csv").write_text(manifest(parts))
    assert (tmp_path / "split.csv").read_text().startswith("image,part\n")
    assert read_manifest(tmp_path / "split.csv", cars(12)) == parts


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("0000_01.jpg,train\n0000_02.jpg,test\n0001_01.jpg,val", "group 0000 into train and into test"),
        ("0000_01.jpg,train\n0001_01.jpg,val", "no image to 'test'"),
        ("0000_01.jpg,train\n0000_01.jpg,train\n0001_01.jpg,val\n0002_01.jpg,test", "twice"),
        ("nobody.jpg,train", "not in the data"),
        ("0000_01.jpg,training", "train, val or test"),
    ],
)
@pytest.mark.fault(13)
def test_a_manifest_that_leaks_or_is_wrong_is_refused(tmp_path, lines, complaint):
    path = tmp_path / "mine.csv"
    path.write_text(f"image,part\n{lines}\n")
    with pytest.raises(InputError, match=complaint):
        read_manifest(path, cars(4))


def test_a_file_that_is_no_manifest_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_bytes(b"\xff\xfe\x00binary")
    (tmp_path / "columns.csv").write_text("photo,side\n")
    for name in ("mine.csv", "columns.csv", "missing.csv"):
        with pytest.raises(InputError, match="manifest"):
            read_manifest(tmp_path / name, cars(4))


@pytest.mark.parametrize("trained", [None, 3, 12])
def test_the_two_arms_of_the_leak_differ_only_in_whether_siblings_of_the_test_images_are_in_training(trained):
    samples = cars(30)
    honest, leaking = (arm(samples, by, trained) for by in ("strangers", "siblings"))
    whole = split(samples)
    assert honest.test == leaking.test and honest.val == leaking.val == whole.val
    assert len(honest.train) == len(leaking.train) == 16 * (trained or 21)
    assert {s.group for s in honest.test} == {s.group for s in whole.test} and len(honest.test) == 6 * 3
    assert not {s.group for s in honest.train} & {s.group for s in honest.test}
    siblings = [s for s in leaking.train if s.group in {t.group for t in leaking.test}]
    assert len(siblings) == min(6 * 13, len(leaking.train)) and not set(siblings) & set(leaking.test)
    counts = [sum(s.group == g for s in siblings) for g in groups(whole.test)]
    assert max(counts) - min(counts) <= 1


def test_an_arm_of_the_leak_does_not_depend_on_the_order_of_the_files():
    samples = cars(12)
    assert arm(samples, "siblings", 2) == arm(samples[::-1], "siblings", 2)
