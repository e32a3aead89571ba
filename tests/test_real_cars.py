"""Real Carvana photographs, where CARVANA_DIR names them."""

import numpy as np
from PIL import Image

from experiments.data import cache, splits
from experiments.data.samples import read_mask
from tests.conftest import run_folder, small


def test_real_images_and_palette_masks_are_read(carvana):
    from experiments.data.carvana import build

    samples = build(carvana)
    assert len(samples) % 16 == 0 and len({s.group for s in samples}) == len(samples) // 16
    for sample in samples[:: len(samples) // 12]:
        truth = read_mask(sample.mask)
        assert np.array_equal(truth, np.asarray(Image.open(sample.mask)) > 0)
        assert truth.shape == (1280, 1918) and 0.05 < truth.mean() < 0.5
        image, mask = cache.decode(sample, (192, 128))
        assert abs(mask.mean() - truth.mean()) < 0.005 and 20 < image.mean() < 240


def test_a_short_run_on_real_cars_learns_something(carvana, command, tmp_path):
    words = small(carvana, tmp_path, size="96x64", epochs=4, train_cars=6, model_kwargs="width=8")
    code, _, complaint = command(*words)
    assert code == 0, complaint
    import json

    result = json.loads((run_folder(tmp_path) / "result.json").read_text())
    assert result["test"]["last"]["dice"] > 0.7 and result["ceiling"] > 0.99


def test_no_real_car_is_on_two_sides(carvana):
    from experiments.data.carvana import build

    parts = splits.split(build(carvana))
    sides = [{s.group for s in getattr(parts, name)} for name in splits.PARTS]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
