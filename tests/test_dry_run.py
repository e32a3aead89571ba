"""What a model or a loss of one's own gets wrong ends in a sentence, before anything is written."""

import pytest
import torch
from torch import nn

from experiments.config import resolve
from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.inference.trained_model import TrainedModel
from experiments.training import checkpoint
from experiments.training.dry_run import dry_run
from experiments.training.runner import build_model
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
class Sigmoid(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 1, 1)
    def forward(self, image): return self.net(image).sigmoid()
class InADict(Sigmoid):
    def forward(self, image): return {"out": self.net(image), "aux": image}
class TwoMaps(Sigmoid):
    def forward(self, image): return {"mask": self.net(image), "edge": image}
class Nothing(Pair):
    def forward(self, image): return image[:, :1]
def double(): return torch.nn.Conv2d(3, 1, 1).double()
def lazy(): return torch.nn.LazyConv2d(1, 1)
def factory(): return torch.nn.BCEWithLogitsLoss()
class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
    def forward(self, logits, mask): return self.weight * (logits - mask).square().mean()
weighted = Weighted()
def per_image(logits, mask): return (logits.float() - mask).square().flatten(1).mean(1)
class Worded(torch.nn.Module):
    def __init__(self, pretrained: str = "imagenet"):
        super().__init__()
        if pretrained != "imagenet": open(pretrained).close()
        self.last = torch.nn.Conv2d(3, 1, 1)
    def forward(self, images): return self.last(images)
def a_float(logits, mask): return 1.0
def three(logits, mask): return torch.nn.functional.conv2d(logits, torch.ones(1, 1, 3, 3)).square().mean()
def too_large(logits, mask): return torch.nn.functional.conv2d(logits, torch.ones(1, 1, 33, 33)).mean()
def asserts(logits, mask): assert logits.shape[-1] > 160, "too narrow"
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
            "makes (16, 2, 32, 48) of images (16, 3, 32, 48)",
        ),
        ({"model": "odd_nets:halves", "model_kwargs": None}, "makes (16, 1, 16, 24)"),
        ({"model": "odd_nets:Pair", "model_kwargs": None}, "returns a tuple; it should return logits, one tensor"),
        ({"model": "odd_nets:Nothing", "model_kwargs": None}, "has no parameters to train"),
        ({"model": "odd_nets:no_module", "model_kwargs": None}, "builds a str; it should build a torch.nn.Module"),
        ({"model": "odd_nets:needs", "model_kwargs": None}, "needs a value for depth"),
        (
            {"model": "odd_nets:TwoMaps", "model_kwargs": None},
            "it returns a dict with mask, edge; it should return logits",
        ),
        ({"model": "odd_nets:double", "model_kwargs": None}, "has weights that are not float32. Return model.float()."),
        ({"model": "odd_nets:lazy", "model_kwargs": None}, "has lazy layers"),
        ({"loss": "odd_nets:factory"}, "cannot be called with logits and mask"),
        ({"loss": "odd_nets:Weighted"}, "has trainable parameters, which nothing would train"),
        ({"loss": "odd_nets:weighted"}, "has trainable parameters, which nothing would train"),
        ({"loss": "odd_nets:per_image"}, "returns (1,) for a batch; it should return one number"),
        ({"loss": "odd_nets:a_float"}, "returns float for a batch"),
        ({"loss": "odd_nets:too_large"}, "fails on one image of 48x32 (RuntimeError: "),
        ({"loss": "odd_nets:asserts"}, "fails on one image of 48x32 (AssertionError: too narrow). Correct it"),
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


def test_a_loss_with_a_window_is_tried_on_images_of_the_size_that_it_will_see(nets, command, made_cars, tmp_path):
    code, _, complaint = command(*small(made_cars, tmp_path / "outputs", loss="odd_nets:three", epochs=1))
    assert code == 0, complaint


@pytest.mark.parametrize("word", ["imagenet", "FILE"])
def test_a_model_that_names_its_pretrained_weights_by_a_word_is_built_and_loaded(nets, tmp_path, monkeypatch, word):
    (tmp_path / "FILE").write_bytes(b"weights")
    options, weights, file = resolve._weights(
        {"pretrained": word if word != "FILE" else str(tmp_path / word)}, own=True
    )
    config = RunConfig(model="odd_nets:Worded", model_kwargs=options, weights=weights)
    model = build_model(config, RuntimeConfig(weights_file=file))
    monkeypatch.setattr(checkpoint, "load", lambda path: {"model": model.state_dict()})
    loaded = TrainedModel(tmp_path / "last.ckpt", config, {"weights_file": str(file)}).model()
    assert torch.equal(loaded.last.weight, model.last.weight)
    assert MODELS["resnet_unet"].without_pretrained({"pretrained": "file"}) == {"pretrained": False}


@pytest.mark.parametrize(
    ("kwargs", "other", "sentence"),
    [
        (["arch=UPerNet", "encoder=resnet18"], {"batch_size": 1}, "Type --batch-size 2 or more"),
        (["arch=Unet", "encoder=tu-hiera_tiny_224"], {"size": "256x64"}, "type --size 224x224"),
        (["arch=Unte", "encoder=resnet18"], {}, "did you mean 'Unet'"),
        (["arch=Unet", "encoder=resnet18", "decoder_chanels=8,8"], {}, "did you mean 'decoder_channels'"),
        (["arch=Unet", "encoder=resnet18", "activation=sigmoid"], {}, "has no option 'activation'"),
        (["arch=Unet", "encoder=resnet18", "decoder_channels=64,32"], {}, "smp has no Unet on resnet18"),
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


def test_the_parts_of_an_accumulated_batch_are_tried_too():
    """Three images in two parts are two and one, and batch normalization refuses the one."""
    model = MODELS["smp"].build(arch="DeepLabV3Plus", encoder="resnet18", pretrained=False)
    config = RunConfig(batch_size=3, accumulate=2, size=(64, 64))
    with pytest.raises(InputError, match=r"in parts, one of them of 1: give a --batch-size that is a multiple of it"):
        dry_run(model, config, photographs=10)
    dry_run(model, RunConfig(batch_size=4, accumulate=2, size=(64, 64)), photographs=10)


def test_the_half_size_of_progressive_training_is_tried_too():
    """32x32 images are 1x1 at the bottom, and batch normalization refuses the only value of a batch of one."""
    model = MODELS["resnet_unet"].build(encoder="resnet18", pretrained=False)
    dry_run(model, RunConfig(batch_size=1, size=(64, 64)), photographs=10)
    with pytest.raises(InputError, match=r"\(--progressive begins at half the size\)"):
        dry_run(model, RunConfig(batch_size=1, size=(64, 64), progressive=0.5), photographs=10)


class OfEvenSides(torch.nn.Conv2d):
    def forward(self, image):
        if image.shape[2] % 16:
            raise RuntimeError("sizes of tensors must match")
        return super().forward(image)


def test_a_model_that_takes_the_size_but_not_half_of_it_is_refused_before_training():
    model, config = OfEvenSides(3, 1, 1), RunConfig(size=(80, 80), progressive=0.5)
    with pytest.raises(InputError, match=r"takes images of 80x80, but not of half that size.* type --progressive 0"):
        dry_run(model, config, photographs=10)
    dry_run(model, RunConfig(size=(80, 80)), photographs=10)
    dry_run(model, RunConfig(size=(72, 72), progressive=0.5), photographs=10)  # fails at full size: training shows it


@pytest.mark.parametrize("name", ["Pair", "no_module", "halves"])
def test_a_study_tries_its_networks_before_it_prints_a_plan(name, nets, command, made_cars, tmp_path):
    code, shown, complaint = command(
        "grid",
        "--name",
        "odd",
        "--models",
        "unet",
        f"odd_nets:{name}",
        "--losses",
        "bce",
        "--seeds",
        "0",
        "--data-dir",
        made_cars,
        "--output-dir",
        tmp_path / "outputs",
        "--size",
        "48x32",
        "--epochs",
        "1",
        "--dry-run",
    )
    assert code == 2 and f"--model odd_nets:{name}" in complaint and "time left" not in shown


def test_a_sigmoid_at_the_end_is_noticed_and_logits_are_not(nets, capsys):
    dry_run(MODELS["odd_nets:Sigmoid"].build(), RunConfig(model="odd_nets:Sigmoid"), photographs=10)
    assert "seems to end in a sigmoid" in capsys.readouterr().out
    for name in ("models.unet:unet", "odd_nets:InADict"):
        dry_run(MODELS[name].build(), RunConfig(model=name), photographs=10)
    assert "sigmoid" not in capsys.readouterr().out


def test_logits_in_a_dict_are_taken_out(nets):
    image = torch.rand(2, 3, 32, 32)
    model = MODELS["odd_nets:InADict"].build()
    assert torch.equal(model(image), model.net(image)) and list(model.state_dict()) == ["net.weight", "net.bias"]


def test_smp_takes_the_options_of_its_class():
    model = MODELS["smp"].build(
        arch="Unet", encoder="resnet18", pretrained=False, encoder_depth=3, decoder_channels=[32, 16, 8]
    )
    assert model(torch.rand(1, 3, 64, 48)).shape == (1, 1, 64, 48)
    usual = MODELS["smp"].build(arch="Unet", encoder="resnet18", pretrained=False)
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in usual.parameters())


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
