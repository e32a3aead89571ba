"""The tables of choices: every entry is walked, so a new one brings its own tests."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, OptionError, UnknownName
from tests.conftest import ROOT

TABLES = {"MODELS": MODELS, "LOSSES": LOSSES, "AUGMENTATIONS": AUGMENTATIONS, "DATASETS": DATASETS}
ENTRIES = [pytest.param(entry, id=f"{name}-{entry.name}") for name, table in TABLES.items() for entry in table.values()]
SMALL = {"width": 4, "encoder": "resnet18", "pretrained": False, "arch": "Linknet"}


def small_model(entry):
    return entry.build(**{name: value for name, value in SMALL.items() if name in entry.options()})


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_is_described_in_both_languages_and_names_its_source(entry):
    assert entry.summary.isascii() and any("\u4e00" <= letter <= "\u9fff" for letter in entry.summary_zh)
    assert entry.source and callable(entry.load())


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_option_that_is_not_taken_is_refused_with_those_that_are(entry):
    with pytest.raises(OptionError) as error:
        entry.check({"no_such_option": 1})
    assert all(name in str(error.value) for name in entry.options())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (97, 131), (64, 96)])
def test_every_model_takes_any_size_from_32_up(name, height, width):
    model = small_model(MODELS[name]).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, 3, height, width))
    assert logits.shape == (2, 1, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_from_a_step(name):
    torch.manual_seed(0)
    model = small_model(MODELS[name])
    images, masks = torch.rand(4, 3, 64, 64), (torch.rand(4, 1, 64, 64) > 0.5).float()
    loss = LOSSES["bce"].build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = loss(model(images), masks)
    for _ in range(3):
        loss(model(images), masks).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss(model(images), masks) < before


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_scores_each_image_alone_and_then_averages(name):
    loss = LOSSES[name].build()
    logits, masks = torch.randn(3, 1, 8, 9), (torch.rand(3, 1, 8, 9) > 0.5).float()
    alone = torch.stack([loss(logits[i : i + 1], masks[i : i + 1]) for i in range(3)])
    assert torch.allclose(loss(logits, masks), alone.mean(), atol=1e-6)
    assert loss(logits.bfloat16(), masks).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_prefers_the_truth(name):
    loss, masks = LOSSES[name].build(), (torch.rand(2, 1, 16, 16) > 0.5).float()
    right = 8 * (2 * masks - 1)
    assert loss(right, masks) < loss(0 * right, masks) < loss(-right, masks)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_sizes_types_and_a_binary_mask(name):
    from experiments.data.augment import draw

    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:50, 30:70] = 1
    for epoch in range(20):
        drawn, drawn_mask = draw(AUGMENTATIONS[name].build(), image, mask, seed=0, epoch=epoch, row=3)
        assert drawn.shape == image.shape and drawn.dtype == np.uint8
        assert drawn_mask.shape == mask.shape and set(np.unique(drawn_mask)) <= {0, 1} and drawn_mask.any()


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(KeyError) as error:
        MODELS["atention_unet"]
    assert "did you mean 'attention_unet'?" in str(error.value)
    assert "resnet_unet" not in MODELS.get("nothing", ())


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(OptionError, match="whole number"):
        MODELS["unet"].build(width="wide")
    with pytest.raises(OptionError, match="transpose, bilinear"):
        MODELS["unet"].build(width=4, up="nearest")


def test_pretrained_is_answered_with_init_where_a_model_has_no_such_option():
    with pytest.raises(OptionError, match=r"has no option 'pretrained'.* type --init FILE or KEY\.$"):
        MODELS["unet"].build(pretrained=True)


def test_a_value_that_the_target_refuses_is_an_option_error_as_well():
    with pytest.raises(OptionError):
        MODELS["unet"].build(width=-3)


def test_a_dotted_target_is_taken_wherever_a_name_is(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "import torch\n"
        "def tiny(depth: int = 1):\n    return torch.nn.Conv2d(3, 1, 1)\n"
        "def l1(logits, mask, weight: float = 1.0):\n"
        "    return weight * (logits.float().sigmoid() - mask).abs().mean()\n"
        "class Module(torch.nn.Module):\n"
        "    def __init__(self, scale: float = 1.0):\n        super().__init__(); self.scale = scale\n"
        "    def forward(self, logits, mask):\n        return self.scale * logits.mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert MODELS["my_nets:tiny"].build(depth=2)(torch.rand(1, 3, 8, 8)).shape == (1, 1, 8, 8)
    zeros = torch.zeros(1, 1, 4, 4)
    assert LOSSES["my_nets:l1"].build(weight=2.0)(zeros, zeros) == 1.0
    assert LOSSES["my_nets:Module"].build(scale=3.0)(zeros + 1, zeros) == 3.0
    with pytest.raises(OptionError, match="weight"):
        LOSSES["my_nets:l1"].build(wieght=2.0)
    for wrong in ("my_nets:nothing", "no_such_package.nets:Net"):
        with pytest.raises(UnknownName):
            MODELS[wrong].build()


def test_annotations_that_are_no_types_here_accept_anything(tmp_path, monkeypatch):
    (tmp_path / "hinted.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nimport torch\n"
        "if TYPE_CHECKING:\n    from torch import Tensor\n"
        "def l1(logits: Tensor, mask: Tensor, weight: float = 1.0) -> Tensor:\n"
        "    return weight * (logits.float().sigmoid() - mask).abs().mean()\n"
        "def net(width: 'in channels' = 2): return torch.nn.Conv2d(3, 1, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    zeros = torch.zeros(1, 1, 4, 4)
    assert LOSSES["hinted:l1"].build(weight=2.0)(zeros, zeros) == 1.0 and list(LOSSES["hinted:l1"].options()) == [
        "weight"
    ]
    assert MODELS["hinted:net"].build(width=4)(torch.rand(1, 3, 8, 8)).shape == (1, 1, 8, 8)


def test_the_registry_needs_the_standard_library_alone():
    code = (
        "import sys, registry; "
        "print({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - {'registry'})"
    )
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert all(name.startswith("_") for name in eval(shown)), shown


@pytest.mark.parametrize(("model", "options"), [("resnet_unet", {"pretrained": 1}), ("smp", {"encoder": 50})])
def test_an_option_of_another_type_is_refused_before_anything_is_built(model, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        MODELS[model].build(**options)
