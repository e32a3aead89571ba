"""What a model or a loss of one's own gets wrong ends in a sentence, before anything is written."""

import pytest
import torch
from torch import nn

from experiments.config.schema import RunConfig
from experiments.training.dry_run import dry_run
from models.unet import unet
from registry import LOSSES, MODELS, InputError, OptionError
from tests.conftest import small

NETS = """
import torch
def two_classes(): return torch.nn.Conv2d(3, 2, 1)
def halves(): return torch.nn.Conv2d(3, 1, 2, stride=2)
def no_module(): return "unet"
def needs(depth: int): return torch.nn.Conv2d(3, 1, depth)
class Pair(torch.nn.Module):
    def forward(self, image): return image, image
def per_image(logits, mask): return (logits.float() - mask).square().flatten(1).mean(1)
def a_float(logits, mask): return 1.0
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "odd_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"model": "odd_nets:two_classes", "model_kwargs": None},
            "makes (16, 2, 32, 48) of photographs (16, 3, 32, 48)",
        ),
        ({"model": "odd_nets:halves", "model_kwargs": None}, "makes (16, 1, 16, 24)"),
        ({"model": "odd_nets:Pair", "model_kwargs": None}, "makes something that is no tensor"),
        ({"model": "odd_nets:no_module", "model_kwargs": None}, "builds a str; it should build a torch.nn.Module"),
        ({"model": "odd_nets:needs", "model_kwargs": None}, "needs a value for depth"),
        ({"loss": "odd_nets:per_image"}, "returns (1,) for a batch; it should return one number"),
        ({"loss": "odd_nets:a_float"}, "returns float for a batch"),
        ({"loss": "tversky", "loss_kwargs": "alpha=-1"}, "alpha=-1 of the Tversky loss should be above 0"),
        ({"loss": "dice", "loss_kwargs": "per=volume"}, "should be one of image, batch"),
        ({"model": "attention_unet", "model_kwargs": "gate=open"}, "should be one of paper, popular"),
    ],
)
def test_bad_targets_and_options_exit_with_2_and_leave_nothing(changed, sentence, nets, command, made_cars, tmp_path):
    given = small(made_cars, tmp_path / "outputs", **changed)
    words = [word for at, word in enumerate(given) if word != "None" and given[min(at + 1, len(given) - 1)] != "None"]
    code, _, complaint = command(*words)
    assert code == 2 and sentence in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.parametrize(
    ("kwargs", "other", "sentence"),
    [
        (["arch=UPerNet", "encoder=resnet18"], {"batch_size": 1}, "Type --batch-size 2 or more"),
        (["arch=Unet", "encoder=tu-hiera_tiny_224"], {"size": "256x64"}, "type --size 224x224"),
        (["arch=Unte", "encoder=resnet18"], {}, "did you mean 'Unet'"),
    ],
)
def test_a_size_or_a_batch_that_an_architecture_cannot_take_is_refused(
    kwargs, other, sentence, command, made_cars, tmp_path
):
    words = small(made_cars, tmp_path / "outputs", model="smp", **other)
    at = words.index("--model-kwargs") + 1
    words[at : at + 1] = [*kwargs, "pretrained=false"]
    code, _, complaint = command(*words)
    assert code == 2 and sentence in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "outputs" / "runs").exists()


def test_an_invalid_option_of_the_model_is_found_before_cars_are_made(command, tmp_path):
    words = small(tmp_path / "none", tmp_path / "outputs", model_kwargs="width=0")
    words[words.index("--data") + 1] = "synthetic"
    code, _, complaint = command(*words)
    assert code == 2 and "width of a U-Net" in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_a_dry_run_leaves_the_model_and_the_random_numbers_as_they_were():
    config = RunConfig(size=(48, 33), batch_size=4)
    torch.manual_seed(0)
    model = nn.Sequential(unet(width=2), nn.Dropout()).eval()
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    dry_run(model, config, photographs=10)
    assert torch.equal(torch.get_rng_state(), random) and not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_model_that_reads_pixel_values_passes_the_dry_run():
    class ReadsValues(nn.Module):
        calls = 0

        def forward(self, image):
            self.calls += 1
            return image[:, :1] * float(image.mean())  # the meta device has no values: this raises

    model = ReadsValues()
    dry_run(model, RunConfig(), photographs=10)
    assert model.calls == 2 and model(torch.ones(1, 3, 4, 4)).shape == (1, 1, 4, 4)


def test_the_batch_that_is_tried_is_not_larger_than_the_images():
    model = MODELS["smp"].build(arch="UPerNet", encoder="resnet18", pretrained=False)
    dry_run(model, RunConfig(batch_size=8), photographs=2)
    with pytest.raises(InputError, match="--batch-size 2"):
        dry_run(model, RunConfig(batch_size=8), photographs=1)


def test_an_option_without_a_default_is_asked_for(nets):
    with pytest.raises(OptionError, match="needs a value for depth"):
        MODELS["odd_nets:needs"].build()
    assert LOSSES["dice"].build(per="batch")(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)) > 0
