"""`run.py predict`, as who has photographs and a trained run uses it."""

import csv
import shutil
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data import carvana
from experiments.data.samples import read_image, read_mask
from experiments.evaluation.evaluator import COLUMNS
from experiments.evaluation.metrics import score
from experiments.inference import predictor
from experiments.inference import trained_model as runs
from tests.conftest import ROOT, run_folder, small
from tests.strangers import scene, write_strangers_folder


@pytest.fixture
def predict(command, trained, tmp_path):
    """Predicts with the trained run into tmp_path/masks."""

    def type_it(*words):
        return command("predict", *words, "--output", tmp_path / "masks", "--output-dir", trained.parent.parent)

    return type_it


def mask(path):
    with Image.open(path) as picture:
        assert picture.mode == "L" and set(np.unique(np.asarray(picture))) <= {0, 255}
        return np.asarray(picture) > 0


def test_masks_of_the_test_images_score_exactly_what_the_run_scored(predict, trained, made_cars, tmp_path):
    with open(trained / "scores_last.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    samples = {sample.name: sample for sample in carvana.build(made_cars)}
    code, shown, _ = predict(*(samples[row["image"]].image for row in rows), "--run", trained.name)
    assert code == 0 and f"{len(rows)} masks in" in shown and "images per second" in shown
    assert any(0.1 < float(row["dice"]) < 1 for row in rows)  # the comparison is not of empty masks
    for row in rows:
        found = score(mask(tmp_path / "masks" / f"{row['image'][:-4]}.png"), read_mask(samples[row["image"]].mask))
        values = {name: getattr(found, name) for name in COLUMNS[3:]}
        assert {name: float(row[name]) for name in values} == {name: round(value, 7) for name, value in values.items()}


def test_every_common_format_gets_a_mask_of_its_own_size_as_it_is_seen(predict, tmp_path):
    folder = write_strangers_folder(tmp_path / "pairs") / "images"
    code, _, complaint = predict(folder)
    assert code == 0, complaint
    for path in folder.iterdir():
        assert mask(tmp_path / "masks" / f"{path.stem}.png").shape == read_image(path).shape[:2]  # which honours EXIF


def test_an_image_on_its_side_is_predicted_as_the_upright_one(predict, tmp_path):
    picture = Image.fromarray(scene(96, 64, 3)[0])
    picture.save(tmp_path / "upright.png")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert predict(tmp_path / "upright.png", tmp_path / "turned.png")[0] == 0
    upright, turned = (mask(tmp_path / "masks" / f"{name}.png") for name in ("upright", "turned"))
    assert upright.shape == (64, 96) and np.array_equal(upright, turned)


def test_what_cannot_be_read_is_named_and_skipped_and_the_exit_code_says_so(predict, cars, tmp_path):
    photographs = sorted((cars / "train").glob("*.jpg"))[:3]
    photographs[1].write_bytes(photographs[1].read_bytes()[:900])
    code, shown, complaint = predict(*photographs)
    assert code == 1 and str(photographs[1]) in complaint and "truncated" in complaint and "2 masks in" in shown
    assert sorted(p.stem for p in (tmp_path / "masks").glob("*.png")) == [photographs[0].stem, photographs[2].stem]


def test_folders_are_searched_through_and_patterns_are_followed_and_masks_are_no_images(
    predict, made_cars, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for place in ("shots", "shots/deep", "shots/.hidden"):
        (tmp_path / place).mkdir()
    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    for name in ("shots/a.jpg", "shots/deep/a.jpg", "shots/.hidden/c.jpg"):
        shutil.copy(source, tmp_path / name)
    (tmp_path / "shots" / "notes.txt").write_text("no photograph")
    for words, expected in (
        (["."], ["shots/a.png", "shots/deep/a.png"]),
        (["."], ["shots/a.png", "shots/deep/a.png"]),  # with masks there already
        (["shots/*.jpg", "shots"], ["a.png", "deep/a.png", "shots/a.png", "shots/deep/a.png"]),
    ):
        assert predict(*words)[0] == 0
        assert sorted(str(p.relative_to(tmp_path / "masks")) for p in (tmp_path / "masks").rglob("*.png")) == expected


def test_two_images_are_never_written_to_one_mask(predict, made_cars, tmp_path):
    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    (tmp_path / "other").mkdir()
    shutil.copy(source, tmp_path / "other")
    code, _, complaint = predict(source, tmp_path / "other")
    assert code == 2 and "would both be written" in complaint and not (tmp_path / "masks").exists()


def test_overlay_and_cutout_are_the_image_with_its_mask(predict, made_cars, tmp_path):
    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    assert predict(source, "--overlay", "--cutout")[0] == 0
    found, photo = mask(tmp_path / "masks" / f"{source.stem}.png"), read_image(source)
    cutout = np.asarray(Image.open(tmp_path / "masks" / f"{source.stem}_cutout.png"))
    assert np.array_equal(cutout[..., 3] > 0, found) and np.array_equal(cutout[..., :3], photo)
    overlay = np.asarray(Image.open(tmp_path / "masks" / f"{source.stem}_overlay.jpg")).astype(int)
    assert overlay.shape == photo.shape
    difference = np.abs(overlay - photo).mean(2)
    assert difference[found].mean() > 20 > difference[~found].mean()


class Says(torch.nn.Module):
    """A network that gives the same logits in every place, or on its left half others."""

    def __init__(self, right, left=None):
        super().__init__()
        self.right, self.left = right, right if left is None else left

    def forward(self, image):
        logits = torch.full_like(image[:, :1], self.right)
        logits[..., : image.shape[-1] // 2] = self.left
        return logits


def of(*models, size=(64, 48), **options):
    found = predictor.Predictor([], "cpu", **options)
    found.members = [(model.eval(), size) for model in models]
    return found


def probability(found, path):
    maps = found.logits(found.read(path).views)
    return 1 / (1 + np.exp(-predictor.merge_logits(maps, (96, 64))))


def test_several_runs_are_averaged_as_probabilities(made_cars):
    path = sorted((made_cars / "train").glob("*.jpg"))[0]
    expected = (
        1 / (1 + np.exp(3)) + 1 / (1 + np.exp(-1)) + 1
    ) / 3  # a logit of 200: where a mean of logits would be 66
    assert np.allclose(probability(of(Says(-3.0), Says(1.0), Says(200.0)), path), expected, atol=1e-6)


def test_flips_are_averaged_as_probabilities_each_turned_back(made_cars):
    path = sorted((made_cars / "train").glob("*.jpg"))[0]
    plain, mirrored = (predictor.FlipEnsemble(Says(2.0, left)).eval() for left in (2.0, -4.0))
    assert np.allclose(probability(of(plain), path), 1 / (1 + np.exp(-2)), atol=1e-6)
    expected = (1 / (1 + np.exp(-2)) + 1 / (1 + np.exp(4))) / 2
    assert np.allclose(probability(of(mirrored), path), expected, atol=1e-6)


def test_an_ensemble_of_runs_of_two_input_sizes_works_from_the_command_line(
    predict, command, made_cars, trained, tmp_path
):
    other = tmp_path / "outputs"
    assert command(*small(made_cars, other, epochs=1, size="64x48"))[0] == 0
    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    code, shown, complaint = predict(source, "--ensemble", trained.name, run_folder(other), "--tta")
    assert code == 0, complaint
    assert trained.name in shown and run_folder(other).name in shown
    assert "names a run twice" in predict(source, "--ensemble", trained.name, trained.name[:5])[2]


class Bright(torch.nn.Module):
    """A network for which every pixel is alone: what it says of a tile is what it says of the whole."""

    def forward(self, image):
        return 9 * image.mean(1, keepdim=True) - 4


def test_tiles_of_a_network_without_surroundings_give_the_untiled_prediction(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (150, 211, 3), dtype=np.uint8)
    seen = []

    def look(rows, columns):
        seen.append((rows, columns))
        return photo[rows, columns].mean(2).astype(np.float32)

    bands = list(predictor.blend((150, 211), (64, 48), look))
    assert np.allclose(np.concatenate([band for _, band in bands]), photo.mean(2), atol=1e-3)
    assert [top for top, _ in bands] == list(np.cumsum([0, *(len(band) for _, band in bands)])[:-1])
    overlaps = [b.start < a.stop for (_, a), (_, b) in pairwise(seen) if b.start > a.start]
    assert len(seen) > 9 and all(overlaps) and len(overlaps) > 9

    Image.fromarray(photo).save(tmp_path / "large.png")
    tiled = of(Bright(), size=(64, 48), tile=(64, 48))
    expected = 9 * photo.mean(2) / 255 - 4
    found = tiled.mask(tiled.read(tmp_path / "large.png"))()
    assert np.array_equal(found[np.abs(expected) > 1e-4], (expected > 0)[np.abs(expected) > 1e-4])


def test_one_row_of_tiles_is_held_in_memory_however_tall_the_image():
    import tracemalloc

    def peak(height):
        tracemalloc.start()
        for _ in predictor.blend((height, 200), (64, 64), lambda rows, columns: np.zeros((64, 64), np.float32)):
            pass
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak(300)  # what is made once, such as caches
    assert peak(12_000) < 12_000 * 200 * 4 / 4  # far from the whole map, 9.6 MB


def test_the_rim_of_a_tile_counts_least_and_the_weights_sum_to_one():
    for length, tile in ((211, 64), (64, 64), (65, 64), (30, 64)):
        total = np.zeros(length)
        for place, weights in predictor.tile_slices(length, tile):
            total[place] += weights
            assert len(weights) == min(tile, length)
        assert np.allclose(total, 1, atol=1e-6)
    (_, first), (place, second), *_ = predictor.tile_slices(211, 64)
    assert second[0] < 0.05 < 0.9 < first[place.start]


def test_tiles_are_asked_for_in_pixels_of_the_image_and_small_ones_are_left_whole(predict, made_cars, tmp_path):
    source = sorted((made_cars / "train").glob("*.jpg"))[0]  # 96x64
    assert predict(source)[0] == 0
    whole = mask(tmp_path / "masks" / f"{source.stem}.png")
    assert predict(source, "--tile", "96x64")[0] == 0
    assert np.array_equal(mask(tmp_path / "masks" / f"{source.stem}.png"), whole)
    assert predict(source, "--tile", "40x40")[0] == 0
    assert not np.array_equal(mask(tmp_path / "masks" / f"{source.stem}.png"), whole)


def test_the_threshold_is_a_probability(predict, made_cars, tmp_path):
    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    areas = []
    for share in ("0.05", "0.5", "0.95"):
        assert predict(source, "--threshold", share)[0] == 0
        areas.append(mask(tmp_path / "masks" / f"{source.stem}.png").sum())
    assert areas[0] > areas[1] > areas[2]
    single = of(Says(0.0)), of(Says(0.001))
    assert [one.mask(one.read(source))().all() for one in single] == [
        False,
        True,
    ]  # 0.5 itself is background, as in scoring


def write_run(folder, dice, **config):
    """A finished run's folder as far as `best` reads it."""
    import json

    folder.mkdir(parents=True)
    settings = {"model": "unet", "loss": "bce", "data": "carvana", "split": "car", "size": [48, 32], **config}
    (folder / "config.json").write_text(json.dumps({"config": settings}))
    (folder / "result.json").write_text(json.dumps({"validation_dice": dice, "test": {"last": {"dice": 1 - dice}}}))
    (folder / "last.ckpt").write_bytes(b"")


def test_best_is_the_best_finished_run_by_validation_dice_on_carvana_else_on_what_there_is(tmp_path, capsys):
    write_run(tmp_path / "runs" / "aaa", 0.99, data="synthetic")
    assert runs.best_run(tmp_path).key == "aaa" and "no run on Carvana" in capsys.readouterr().out
    write_run(tmp_path / "runs" / "bbb", 0.95)
    write_run(tmp_path / "runs" / "ccc", 0.97)  # the lower test Dice
    write_run(tmp_path / "runs" / "ddd", 0.999, split="image")  # leaks
    write_run(tmp_path / "runs" / "eee", 0.999)
    (tmp_path / "runs" / "eee" / "result.json").unlink()  # not finished
    assert runs.best_run(tmp_path).key == "ccc"
    shown = capsys.readouterr()
    assert "0.9700, of 2 finished" in shown.out and not shown.err
    write_run(tmp_path / "runs" / "fff", 0.5, data_fingerprint="other cars")
    assert runs.best_run(tmp_path).key == "ccc" and "different images" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["KEY", "KEY[:6]", "FILE", "FOLDER", "best.ckpt"])
def test_a_run_is_named_by_its_key_the_first_digits_a_file_or_a_folder(predict, trained, made_cars, words):
    names = {"KEY": trained.name, "KEY[:6]": trained.name[:6], "FILE": trained / "last.ckpt", "FOLDER": trained}
    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    code, shown, complaint = predict(source, "--run", names.get(words, trained / words))
    assert code == 0 and trained.name in shown, complaint


def test_invalid_arguments_are_refused_in_one_sentence(predict, command, trained, made_cars, tmp_path):
    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    (tmp_path / "lost.ckpt").write_bytes((trained / "best.ckpt").read_bytes())
    spoilt = shutil.copytree(trained, tmp_path / "spoilt") / "best.ckpt"
    spoilt.write_bytes(spoilt.read_bytes()[:-200] + b"x" + spoilt.read_bytes()[-199:])
    for words, sentence in (
        ([], "Name images"),
        (["/no/such/*.jpg"], "names no image"),
        ([source, "--run", "nosuchrun"], "There is no run 'nosuchrun'"),
        ([source, "--run", f"x{trained.name[1:]}"], f"did you mean '{trained.name}'"),
        ([source, "--run", tmp_path / "lost.ckpt"], "no config.json"),
        ([source, "--run", spoilt], "damaged"),
        ([source, "--tile", "100"], 'for --tile: "100" is not WIDTHxHEIGHT'),
        ([source, "--threshold", "50"], "Must be < 1"),
        ([source, "--workers", "0"], "--workers"),
        ([source, "--device", "gpu"], 'Choose from: "auto", "cuda"'),
    ):
        code, _, complaint = predict(*words)
        assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1, complaint
    code, _, complaint = command("predict", source, "--output-dir", tmp_path / "empty")
    assert code == 2 and "No finished run" in complaint


def test_a_checkpoint_is_loaded_in_a_line_without_the_training_code(trained):
    import subprocess
    import sys

    code = (
        "import sys\nfrom experiments.inference.trained_model import load\n"
        f"model = load({str(trained / 'best.ckpt')!r})\n"
        "assert not model.training\n"
        "wanted = {'experiments.training.loop', 'experiments.training.losses', 'experiments.data.augment', "
        "'lightning_fabric', 'albumentations', 'mlflow'}\n"
        "print(*wanted & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_checkpoint_is_plain_torch_as_well(trained):
    from registry import MODELS

    model = MODELS["unet"].build(width=4)
    model.load_state_dict(torch.load(trained / "best.ckpt", weights_only=True)["model"])
    from experiments.inference.trained_model import load

    image = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        assert torch.equal(model.eval()(image), load(trained / "best.ckpt")(image))


def test_pretrained_weights_are_not_fetched_for_a_checkpoint_that_holds_all(tmp_path, monkeypatch):
    from experiments.training import checkpoint
    from models import zoo
    from registry import MODELS

    def refuse(*_):
        raise AssertionError("fetched")

    monkeypatch.setattr(zoo, "fetch", refuse)
    write_run(tmp_path / "aaa", 0.9, model="smp", model_kwargs={"encoder": "mobilenet_v2"})
    model = MODELS["smp"].build(encoder="mobilenet_v2", pretrained=False)
    model.normalize.mean += 0.1  # what the weights were trained with comes with them
    checkpoint.save(tmp_path / "aaa" / "last.ckpt", {"model": model.state_dict()})
    assert torch.equal(runs.load(tmp_path / "aaa").normalize.mean, model.normalize.mean)


def test_what_large_images_need_together_is_bounded_whatever_the_number_of_workers(monkeypatch, trained, tmp_path):
    for number in range(6):
        Image.fromarray(scene(400, 300, number)[0]).save(tmp_path / f"{number}.jpg")
    model = predictor.Predictor([runs.from_path(trained)], "cpu")
    monkeypatch.setattr(predictor, "MEMORY", 2 * 400 * 300 * predictor.WRITING)
    working, most = [], []

    def finish(image, mask):
        working.append(image.path)
        most.append(len(working))
        time.sleep(0.05)
        working.remove(image.path)
        return mask.shape

    found = list(predictor.predict_each(sorted(tmp_path.glob("*.jpg")), model, finish, workers=6))
    assert [shape for _, shape in found] == [(300, 400)] * 6 and max(most) == 2
    monkeypatch.setattr(predictor, "MEMORY", 1)  # a single image is not kept waiting
    assert len(list(predictor.predict_each(sorted(tmp_path.glob("*.jpg")), model, finish, workers=6))) == 6
