"""Batches: decided by (seed, epoch, photograph) alone."""

import numpy as np
import pytest
import torch

from experiments.data import cache, carvana
from experiments.data.augment import draw
from experiments.data.dataset import Batches, ImageDataset
from registry import AUGMENTATIONS


@pytest.fixture(scope="module")
def photographs(made_cars, tmp_path_factory):
    samples = carvana.build(made_cars)
    pixels = cache.open_cache(samples, (48, 32), tmp_path_factory.mktemp("cache"), "f00")

    def make(augment="strong", seed=0, count=40):
        rows = list(range(3, 3 + count))
        return ImageDataset([samples[r] for r in rows], (48, 32), AUGMENTATIONS[augment].build(), seed, pixels, rows)

    return make


def seen(batches, epoch, start=0):
    return [(images.numpy().copy(), masks.numpy().copy()) for images, masks in batches.epoch(epoch, start)]


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, c) and np.array_equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_two_workers_or_none_give_the_same_batches(photographs):
    alone, helped = Batches(photographs(), 8), Batches(photographs(), 8, workers=2)
    for epoch in (1, 2):
        assert same(seen(alone, epoch), seen(helped, epoch))


def test_no_epoch_repeats_another_and_no_seed_another(photographs):
    first = seen(Batches(photographs(), 8), 1)
    assert same(first, seen(Batches(photographs(), 8), 1))
    assert not same(first, seen(Batches(photographs(), 8), 2))
    assert not same(first, seen(Batches(photographs(seed=1), 8), 1))


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_no_two_images_share_draws_and_no_epoch_repeats_them(name):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:40, 10:60] = 1

    def drawn(photograph, epoch, seed=0):
        return draw(AUGMENTATIONS[name].build(), image, mask, seed, epoch, photograph)[0].tobytes()

    ways = 2 if name == "flip" else 12
    assert len({drawn(p, 1) for p in range(12)}) >= ways
    assert len({drawn(1, e) for e in range(12)}) >= ways
    assert len({drawn(1, 1, seed) for seed in range(12)}) >= ways
    assert drawn(4, 2) == drawn(4, 2)


def test_an_epoch_resumed_in_its_middle_continues_with_the_same_batches(photographs):
    batches = Batches(photographs(), 8)
    assert same(seen(batches, 3)[2:], seen(batches, 3, start=2))


def test_an_epoch_uses_each_image_at_most_once_and_leaves_out_only_the_rest(photographs):
    batches = Batches(photographs("none", count=21), 8)
    shown = [image.tobytes() for images, _ in batches.epoch(1) for image in images.numpy()]
    assert len(batches) == 2 and len(set(shown)) == len(shown) == 16
    assert len(Batches(photographs(count=5), 8)) == 1


def test_drawing_batches_leaves_torchs_own_generator_alone(photographs):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    seen(Batches(photographs(), 8), 1)
    assert torch.equal(before, torch.get_rng_state())


def test_the_dataset_is_usable_in_your_own_script(made_cars):
    photographs = ImageDataset(carvana.build(made_cars), size=(64, 48))
    image, mask = photographs[0]
    assert image.shape == (3, 48, 64) and image.dtype == torch.float32 and 0 <= image.min() < image.max() <= 1
    assert mask.shape == (1, 48, 64) and set(mask.unique().tolist()) == {0.0, 1.0}
    images, masks = next(iter(torch.utils.data.DataLoader(photographs, batch_size=4)))
    assert images.shape == (4, 3, 48, 64) and masks.shape == (4, 1, 48, 64)
    assert len(list(photographs)) == len(photographs) == 128
