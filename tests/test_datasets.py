"""Data sets in the layouts in which their publishers distribute them: what is read, and what is reported."""

import shutil

import numpy as np
import pytest
from PIL import Image

from experiments.config.schema import RunConfig
from experiments.data.masks import read_mask
from experiments.data.samples import fingerprint
from experiments.inference import evaluate_dataset
from experiments.inference.trained_model import TrainedModel
from registry import DATASETS, InputError
from tests.conftest import run_folder, small
from tests.strangers import scene
from tests.test_data import write_pairs


def write_nuclei(root, count=8, size=(60, 44)):
    """`stage1_train` as distributed: RGBA images, one grey PNG of 0 and 255 per nucleus; return IDs and truths."""
    truths = {}
    for number in range(count):
        name = f"{number:02x}" * 32
        image, _ = scene(*size, number)
        folder = root / "stage1_train" / name
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        Image.fromarray(image).convert("RGBA").save(folder / "images" / f"{name}.png")
        truth = np.zeros(size[::-1], bool)
        for nucleus in range(3):
            mask = np.zeros(size[::-1], bool)
            mask[4 + number : 14 + number, 4 + 18 * nucleus : 16 + 18 * nucleus] = True
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{nucleus}{name[1:]}.png")
            truth |= mask
        truths[name] = truth
    return truths


def write_synthetic(root):
    from experiments.data.synthetic.cars import write_cars

    write_cars(root, 3, 0, (64, 48), lambda done, total: None)


def write_oxford_pets(root, count=8, size=(60, 44)):
    """What torchvision makes in its root: images, lists, trimaps of 1, 2 and 3, and the archives' strange files."""
    images, annotations = root / "oxford-iiit-pet" / "images", root / "oxford-iiit-pet" / "annotations"
    for folder in (images, annotations / "trimaps", annotations / "xmls"):
        folder.mkdir(parents=True)
    trimaps, rows = {}, []
    for number in range(count):
        breed = ("Abyssinian", "great_pyrenees")[number % 2]
        name = f"{breed}_{number}"
        image, mask = scene(*size, number)
        trimap = np.where(np.asarray(mask) > 0, 1, 2).astype(np.uint8)
        trimap[np.roll(trimap, 1, axis=0) != trimap] = 3
        Image.fromarray(image).save(images / f"{name}.jpg")
        Image.fromarray(trimap).save(annotations / "trimaps" / f"{name}.png")
        (annotations / "trimaps" / f"._{name}.png").write_bytes(b"\0\5\x16\7")
        trimaps[f"{name}.jpg"] = trimap
        rows.append(f"{name} {number % 2 + 1} {number % 2 + 1} 1")
    (images / "Abyssinian_100.mat").write_bytes(b"MATLAB")
    for name, part in (("list", rows), ("trainval", rows[:5]), ("test", rows[5:])):
        (annotations / f"{name}.txt").write_text("\n".join(part) + "\n")
    return trimaps


MADE = {
    "carvana": write_synthetic, "synthetic": write_synthetic, "folder": write_pairs, "nuclei": write_nuclei,
    "oxford_pet": write_oxford_pets,
}  # fmt: skip


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_lists_pairs_of_one_size_in_a_fixed_order(name, tmp_path):
    MADE[name](tmp_path)
    samples = DATASETS[name].build(data_dir=tmp_path)
    assert samples == sorted(samples, key=lambda sample: sample.name) and len({s.name for s in samples}) == len(samples)
    for sample in samples:
        mask = sample.read_mask()
        assert sample.group and sample.read_image().shape == (*mask.shape, 3) and 0 < mask.mean() < 1
    before = fingerprint(samples)
    assert before == fingerprint(DATASETS[name].build(data_dir=str(tmp_path)))
    samples[0].files[-1].write_bytes(samples[0].files[-1].read_bytes() + b"\0")
    assert fingerprint(samples) != before


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_to_type_where_there_is_none(name, tmp_path, command):
    if name == "synthetic":  # is made where it is missing
        return
    code, _, complaint = command("data", "verify", "--data", name, "--data-dir", tmp_path / "none")
    assert code == 2 and str(tmp_path / "none") in complaint and len(complaint.strip().splitlines()) == 1


def test_the_masks_of_all_nuclei_become_one(tmp_path):
    truths = write_nuclei(tmp_path)
    samples = DATASETS["nuclei"].build(data_dir=tmp_path)
    assert [s.name for s in samples] == [s.group for s in samples] == sorted(truths)
    assert all(np.array_equal(sample.read_mask(), truths[sample.name]) for sample in samples)


def test_the_fingerprint_of_nuclei_is_that_of_each_mask_file(tmp_path):
    write_nuclei(tmp_path, 3)
    seen = [fingerprint(DATASETS["nuclei"].build(data_dir=tmp_path))]
    folder = tmp_path / "stage1_train" / ("01" * 32) / "masks"
    first, second, _ = sorted(folder.iterdir())
    second.unlink()
    seen.append(fingerprint(DATASETS["nuclei"].build(data_dir=tmp_path)))
    shutil.copy(first, second)  # its pixels add nothing, but it is another file
    seen.append(fingerprint(DATASETS["nuclei"].build(data_dir=tmp_path)))
    assert len(set(seen)) == 3
    (folder / ".DS_Store").write_bytes(b"x")
    assert fingerprint(DATASETS["nuclei"].build(data_dir=tmp_path)) == seen[-1]


def test_nuclei_train_and_are_scored(tmp_path, command):
    truths = write_nuclei(tmp_path / "data")
    code, shown, complaint = command(*small(tmp_path / "data", tmp_path / "out", data="nuclei", epochs=1, batch_size=4))
    assert code == 0, complaint
    assert "--group-pattern" not in shown  # the data set takes none
    rows = (run_folder(tmp_path / "out") / "scores_last.csv").read_text().splitlines()[1:]
    assert len(rows) == 2 and all(row.split(",")[2] in truths for row in rows)


def break_no_masks(folder):
    shutil.rmtree(folder / "masks")
    return "no mask"


def break_empty_folder(folder):
    for path in (folder / "masks").iterdir():
        path.unlink()
    return "no mask"


def break_no_image(folder):
    shutil.rmtree(folder / "images")
    return "no image"


def break_strange_file(folder):
    (folder / "masks" / "notes.txt").write_text("x")
    return "not read"


def break_sub_folder(folder):
    (folder / "masks" / "more").mkdir()
    return "sub-folder"


def break_truncated(folder):
    path = min((folder / "masks").iterdir())
    path.write_bytes(path.read_bytes()[:40])
    return "cannot be used"


def break_size(folder):
    Image.new("L", (7, 7)).save(min((folder / "masks").iterdir()))
    return "cannot be used"


def break_smooth(folder):
    Image.fromarray(np.arange(60 * 44, dtype=np.uint8).reshape(44, 60)).save(max((folder / "masks").iterdir()))
    return "cannot be used"


NUCLEI_FAULTS = [fault for name, fault in list(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("fault", NUCLEI_FAULTS)
def test_nuclei_that_are_not_as_distributed_are_reported(tmp_path, command, fault):
    write_nuclei(tmp_path, 4)
    folder = tmp_path / "stage1_train" / ("02" * 32)
    what = fault(folder)
    code, shown, _ = command("data", "verify", "--data", "nuclei", "--data-dir", tmp_path)
    named = [line for line in shown.splitlines() if line.startswith(f"{what}: ")]
    assert code == 1 and len(named) == 1 and str(folder) in named[0]
    if what == "no mask":
        with pytest.raises(InputError, match="has no mask"):
            DATASETS["nuclei"].build(data_dir=tmp_path)


def test_an_output_among_the_masks_of_nuclei_is_refused(tmp_path, command):
    write_nuclei(tmp_path / "data")
    assert command(*small(tmp_path / "data", tmp_path / "out", data="nuclei", epochs=1, batch_size=4))[0] == 0
    masks = tmp_path / "data" / "stage1_train" / ("03" * 32) / "masks"
    words = ("evaluate", "--run", run_folder(tmp_path / "out").name, "--output-dir", tmp_path / "out")
    where = ("--data", "nuclei", "--data-dir", tmp_path / "data")
    code, _, complaint = command(*words, *where, "--output", masks)
    assert code == 2 and "holds the images or masks" in complaint
    code, _, complaint = command(*words, *where, "--output", tmp_path / "scored")
    assert code == 0, complaint
    with pytest.raises(InputError, match="holds no PNG"):
        read_mask(tmp_path / "scored")


def test_pets_are_what_torchvision_lists_and_the_border_counts_as_pet(tmp_path):
    from torchvision.datasets import OxfordIIITPet

    trimaps = write_oxford_pets(tmp_path)
    samples = DATASETS["oxford_pet"].build(data_dir=tmp_path)
    listed = [OxfordIIITPet(tmp_path, part, target_types="segmentation") for part in ("trainval", "test")]
    pairs = {image: mask for part in listed for image, mask in zip(part._images, part._segs, strict=True)}
    assert {sample.image: sample.mask for sample in samples} == pairs
    for sample in samples:
        assert np.array_equal(sample.read_mask(), trimaps[sample.name] != 2)
    assert samples == DATASETS["oxford_pet"].build(data_dir=tmp_path / "oxford-iiit-pet")


def test_the_border_of_pets_is_background_where_the_pet_alone_is_named(tmp_path, command):
    trimaps = write_oxford_pets(tmp_path / "data")
    where = ("--data", "oxford_pet", "--data-dir", tmp_path / "data")
    means = {values: np.mean([np.isin(t, values).mean() for t in trimaps.values()]) for values in ((1,), (1, 3))}
    assert f"mean {means[1, 3]:.1%}" in command("data", "verify", *where)[1]
    assert f"mean {means[1,]:.1%}" in command("data", "verify", *where, "--foreground", 1)[1]
    words = small(tmp_path / "data", tmp_path / "out", data="oxford_pet", epochs=1, batch_size=4)
    code, shown, complaint = command(*words)
    assert code == 0 and "--group-pattern" not in shown, complaint
    assert command(*words, "--foreground", 1)[0] == 0
    assert len([p for p in (tmp_path / "out" / "runs").iterdir() if p.is_dir()]) == 2  # two keys
    assert len([p for p in (tmp_path / "out" / "cache").iterdir() if p.is_dir()]) == 2  # and no shared pixels


def test_a_run_on_pets_reads_other_masks_by_their_own_rule(tmp_path, command):
    write_oxford_pets(tmp_path / "data")
    write_pairs(tmp_path / "pairs")
    assert command(*small(tmp_path / "data", tmp_path / "out", data="oxford_pet", epochs=1, batch_size=4))[0] == 0
    words = ("evaluate", "--run", run_folder(tmp_path / "out").name, "--output-dir", tmp_path / "out")
    code, _, complaint = command(
        *words, "--data", "folder", "--data-dir", tmp_path / "pairs", "--output", tmp_path / "scored"
    )
    assert code == 0, complaint
    rows = (tmp_path / "scored" / "scores.csv").read_text().splitlines()
    table = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    for row in table:
        mask = read_mask(tmp_path / "pairs" / "masks" / row["image"])
        assert int(row["tp"]) + int(row["fn"]) == mask.sum() > 0


def test_evaluate_reads_the_masks_of_another_data_set_by_its_own_rule_and_names_its_folder_by_what_differs(tmp_path):
    write_oxford_pets(tmp_path / "data")
    write_pairs(tmp_path / "pairs")
    config = RunConfig(data="folder", foreground=(2,), mask_exif="image", intensity=(0.0, 4095.0))
    (tmp_path / "last.ckpt").touch()
    last, best = (TrainedModel(tmp_path / name, config, {}) for name in ("last.ckpt", "best.ckpt"))

    def samples_and_name(data, folder, trained=last, flips=False, **choices):
        args = evaluate_dataset.EvaluateArgs(
            "best", data, folder, None, False, False, flips, None, "cpu", None, tmp_path, reading=choices
        )
        samples, _ = evaluate_dataset._samples(args, trained, folder)
        return samples[0].reading, evaluate_dataset._folder_name(args, trained, samples)

    own, name = samples_and_name("folder", tmp_path / "pairs")
    assert (own.foreground, own.mask_exif) == ((2,), "image")
    pets, _ = samples_and_name("oxford_pet", tmp_path / "data")
    assert (pets.foreground, pets.mask_exif, pets.intensity) == ((1, 3), "own", (0.0, 4095.0))
    assert samples_and_name("oxford_pet", tmp_path / "data", foreground=(1,))[0].foreground == (1,)
    assert samples_and_name("folder", tmp_path / "pairs", best)[1] == f"{name}-best"
    assert samples_and_name("folder", tmp_path / "pairs", flips=True)[1] == f"{name}-tta"
    assert samples_and_name("folder", tmp_path / "pairs", mask_exif="image")[1] == name
    names = {samples_and_name("folder", tmp_path / "pairs", foreground=(value,))[1] for value in (1, 2, 3)}
    assert len(names) == 3 and name in names


def test_pets_without_a_trimap_are_reported(tmp_path, command):
    write_oxford_pets(tmp_path)
    trimap = tmp_path / "oxford-iiit-pet" / "annotations" / "trimaps" / "Abyssinian_2.png"
    trimap.rename(trimap.with_name("Abyssinian_99.png"))
    code, shown, _ = command("data", "verify", "--data", "oxford_pet", "--data-dir", tmp_path)
    lines = [line for line in shown.splitlines() if ": The" in line]
    assert code == 1 and len(lines) == 2 and "Abyssinian_2.jpg has no mask" in shown and "Abyssinian_99.png" in shown
    with pytest.raises(InputError, match=r"Abyssinian_2\.jpg has no mask"):
        DATASETS["oxford_pet"].build(data_dir=tmp_path)
