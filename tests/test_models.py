"""What every model promises (any size in, logits of the same size out), and what each one is."""

import copy
import functools
import pickle
from itertools import pairwise

import numpy as np
import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from models import weights as weights_module
from models import zoo
from models.attention_unet import AttentionGate, PopularGate, attention_maps, attention_unet
from models.blocks import Normalize, crop, pad
from models.resnet_unet import resnet_unet
from models.unet import UNet, unet
from models.weights import WeightsNotFetched
from tests.conftest import examples

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = {
    "unet": lambda: unet(width=4),
    "unet_bilinear": lambda: unet(width=4, up="bilinear"),
    "attention_unet": lambda: attention_unet(width=4),
    "attention_unet_popular": lambda: attention_unet(width=4, gate="popular"),
    "attention_unet_bilinear": lambda: attention_unet(width=4, up="bilinear"),
    "resnet_unet": lambda: resnet_unet(encoder="resnet18", pretrained=False),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


@functools.cache
def seeded(name: str, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]()


def built(name: str, seed: int = 0) -> torch.nn.Module:
    return copy.deepcopy(seeded(name, seed))


def photo(n: int = 1, height: int = 48, width: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# What every model promises


@EVERY_MODEL
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 32), (97, 131), (64, 96)])
def test_any_size_from_32_up_comes_back_as_logits_of_that_size(name, height, width):
    model = built(name).eval()
    with torch.no_grad():
        logits = model(photo(2, height, width))
    assert logits.shape == (2, 1, height, width)
    assert torch.isfinite(logits).all()


@EVERY_MODEL
@pytest.mark.parametrize(("height", "width"), [(31, 64), (64, 31), (1, 1)])
def test_below_32_pixels_one_sentence_says_so(name, height, width):
    with pytest.raises(ValueError, match=f"{width}x{height} pixels is too small"):
        built(name)(photo(1, height, width))


@EVERY_MODEL
def test_the_border_is_padded_by_mirroring_and_cropped_again(name):
    model, image = built(name).eval(), photo(2, 97, 131)
    multiple = 32 if name == "resnet_unet" else 16
    extra = [(0, 0), (0, 0), (0, -97 % multiple), (0, -131 % multiple)]
    mirrored = torch.from_numpy(np.pad(image.numpy(), extra, mode="reflect"))
    with torch.no_grad():
        torch.testing.assert_close(model(image), model(mirrored)[..., :97, :131], rtol=0, atol=0)


@EVERY_MODEL
def test_a_pixel_of_the_image_affects_the_same_pixel_of_the_logits(name):
    places = [(3, 4), (35, 25), (61, 44)]
    images = photo(1, 65, 49).repeat(len(places) + 1, 1, 1, 1)
    for image, (y, x) in zip(images, places, strict=False):
        image[:, y, x] = 5.0
    with torch.no_grad():
        logits = built(name).eval()(images)
    for changed, (y, x) in zip(logits, places, strict=False):
        row, column = divmod(int((changed - logits[-1]).abs().argmax()), 49)
        assert max(abs(row - y), abs(column - x)) <= (12 if name == "resnet_unet" else 4)


@EVERY_MODEL
def test_gradients_reach_every_parameter(name):
    model = built(name).train()
    model(photo(2, 64, 64)).square().mean().backward()
    silent = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert silent == []


@EVERY_MODEL
def test_in_eval_mode_an_image_does_not_depend_on_its_batch_mates(name):
    model, image = built(name).eval(), photo(1)
    with torch.no_grad():
        beside_noise = model(torch.cat([image, photo(1, seed=1)]))[0]
        beside_white = model(torch.cat([image, torch.ones_like(image)]))[0]
        torch.testing.assert_close(beside_noise, beside_white, rtol=0, atol=0)
        torch.testing.assert_close(beside_noise, model(image)[0], rtol=1e-4, atol=1e-5)


@EVERY_MODEL
def test_a_state_dict_carries_the_whole_model(name):
    model, other = built(name, seed=0), built(name, seed=1)
    model(photo(2))  # moves the running statistics
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(photo()), model.eval()(photo()), rtol=0, atol=0)


@EVERY_MODEL
def test_channels_last_and_bfloat16_give_nearly_the_same(name):
    model, image = built(name).eval(), photo(2, 50, 70)
    with torch.no_grad():
        plain = model(image)
        model = model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(image.to(memory_format=torch.channels_last)), plain, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model(image.to(memory_format=torch.channels_last))
    assert low.dtype == torch.bfloat16
    assert (low.float() - plain).abs().mean() < 0.05 * plain.std() + 0.01


@EVERY_MODEL
def test_no_forward_pass_looks_at_values(name):
    model = built(name).to("meta").eval()  # a meta tensor has no values to look at
    for height, width in [(97, 131), (572, 572), (1280, 1918)]:
        assert model(torch.empty(2, 3, height, width, device="meta")).shape == (2, 1, height, width)


@examples(50)
@given(height=st.integers(32, 150), width=st.integers(32, 150), least=st.integers(32, 300))
def test_a_small_image_is_mirrored_again_and_again_up_to_what_is_needed(height, width, least):
    image = torch.arange(3.0 * height * width).view(1, 3, height, width)
    padded = pad(image, multiple=32, least=least)
    expected = [max(-(-side // 32), -(-least // 32)) * 32 for side in (height, width)]
    extra = [(0, 0), (0, 0), *((0, wanted - side) for wanted, side in zip(expected, (height, width), strict=True))]
    assert torch.equal(padded, torch.from_numpy(np.pad(image.numpy(), extra, mode="reflect")))


@examples(50)
@given(height=st.integers(32, 200), width=st.integers(32, 200), multiple=st.sampled_from([16, 32]))
def test_crop_undoes_pad_and_pad_adds_less_than_one_multiple(height, width, multiple):
    image = torch.arange(3.0 * height * width).view(1, 3, height, width)
    padded = pad(image, multiple)
    assert all(side % multiple == 0 for side in padded.shape[-2:])
    assert padded.shape[-2] - height < multiple
    assert padded.shape[-1] - width < multiple
    assert torch.equal(crop(padded, like=image), image)


def test_normalize_works_channel_by_channel():
    image = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert Normalize(**zoo.IMAGENET)(image).abs().max() == 0
    bright = Normalize(mean=(0.0, 0.0, 0.0), std=(1.0, 0.5, 0.25))(torch.ones(1, 3, 1, 1)).flatten()
    assert bright.tolist() == [1, 2, 4]


# U-Net


def expected_parameters(width: int, up: str) -> int:
    """The closed form of a U-Net's parameter count, level by level."""

    def double(c_in: int, c_out: int) -> int:
        return (
            9 * c_in * c_out + 9 * c_out**2 + 2 * (2 * c_out)
        )  # two convolutions without bias, two batch normalizations

    c = [3] + [width * 2**i for i in range(5)]
    down = sum(double(c_in, c_out) for c_in, c_out in pairwise(c))
    taps = 4 if up == "transpose" else 1
    upward = sum(taps * 2 * k * k + k + double(2 * k, k) for k in c[1:5])
    return down + upward + width + 1


def test_the_64_wide_unet_has_31037633_parameters():
    with torch.device("meta"):
        assert parameters(unet()) == expected_parameters(64, "transpose") == 31_037_633


@pytest.mark.parametrize("width", [1, 3, 16])
@pytest.mark.parametrize("up", ["transpose", "bilinear"])
def test_the_parameters_of_unet_and_its_gates_follow_the_closed_form(width, up):
    gates = sum(4 * k * k + (2 * k * k + k) + (k + 1) for k in (width, 2 * width, 4 * width, 8 * width))
    assert parameters(unet(width=width, up=up)) == expected_parameters(width, up)
    assert parameters(attention_unet(width=width, up=up)) == expected_parameters(width, up) + gates
    halves = [(k, max(1, k // 2)) for k in (width, 2 * width, 4 * width, 8 * width)]
    popular = sum(2 * (k * half + 2 * half) + half + 2 for k, half in halves)  # w_g, w_x and psi, each normalized
    assert parameters(attention_unet(width=width, up=up, gate="popular")) == expected_parameters(width, up) + popular


def test_both_ways_up_have_the_same_feature_maps():
    shapes = {}
    for up in ("transpose", "bilinear"):
        model, seen = unet(width=2, up=up), []
        for level in model.decoder:
            level.up.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(tuple(output.shape)))
        model(photo(1, 64, 32))
        shapes[up] = seen
    assert shapes["transpose"] == shapes["bilinear"] == [(1, 16, 8, 4), (1, 8, 16, 8), (1, 4, 32, 16), (1, 2, 64, 32)]


@pytest.mark.parametrize("build", [unet, attention_unet])
def test_options_that_make_no_unet_are_named(build):
    with pytest.raises(ValueError, match="transpose, bilinear"):
        build(width=2, up="nearest")
    with pytest.raises(ValueError, match="width"):
        build(width=0)


# Attention U-Net


def opened(width: int = 2, up: str = "transpose", gate: str = "paper") -> tuple[UNet, UNet]:
    """A U-Net and an Attention U-Net with its weights and its gates forced open."""
    torch.manual_seed(0)
    plain, gated = unet(width=width, up=up), attention_unet(width=width, up=up, gate=gate)
    missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(".gate." in key for key in missing)
    for module in gated.modules():
        if isinstance(module, AttentionGate):
            torch.nn.init.constant_(module.psi.bias, 1e4)
        if isinstance(module, PopularGate):
            torch.nn.init.constant_(module.psi[1].bias, 1e4)
    return plain, gated


@pytest.mark.parametrize("gate", ["paper", "popular"])
@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_with_its_gates_forced_open_attention_unet_is_unet_bit_for_bit(gate, up, training, bf16, layout):
    outputs, gradients = [], []
    for model in opened(up=up, gate=gate):
        model = model.to(memory_format=layout).train(training)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            outputs.append(model(photo(2, 33, 50).to(memory_format=layout)))
        outputs[-1].float().square().mean().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if ".gate." not in key})
    assert torch.equal(*outputs)
    assert outputs[0].abs().max() > 0
    assert all(torch.equal(gradients[0][key], gradients[1][key]) for key in gradients[0])


def test_with_its_gates_forced_shut_nothing_passes_the_skips():
    gate = AttentionGate(8, 16)
    torch.nn.init.constant_(gate.psi.bias, -1e4)
    assert gate(torch.randn(1, 8, 6, 4), torch.randn(1, 16, 3, 2)).abs().max() == 0


def test_the_gate_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    gate, skip, g = AttentionGate(2, 4), torch.randn(1, 2, 4, 4), torch.randn(1, 4, 2, 2)
    theta, phi, psi = (np.asarray(conv.weight.detach()) for conv in (gate.theta, gate.phi, gate.psi))
    coarse = np.zeros((2, 2))
    for i, j in np.ndindex(2, 2):
        block = skip.numpy()[0, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        q = (
            np.einsum("ocyx,cyx->o", theta, block)
            + phi[:, :, 0, 0] @ g.numpy()[0, :, i, j]
            + gate.phi.bias.detach().numpy()
        )
        coarse[i, j] = 1 / (1 + np.exp(-(psi[0, :, 0, 0] @ np.maximum(q, 0) + gate.psi.bias.item())))
    enlarge = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])  # bilinear, twice the size
    alpha = torch.from_numpy(enlarge @ coarse @ enlarge.T).float()
    torch.testing.assert_close(gate.alpha(skip, g)[0, 0], alpha)
    torch.testing.assert_close(gate(skip, g), skip * alpha)


def test_the_popular_gate_is_the_widely_copied_formula():
    torch.manual_seed(0)
    gate, skip, g = PopularGate(4, 6).eval(), torch.randn(1, 4, 3, 2), torch.randn(1, 6, 3, 2)
    for module in gate.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                torch.nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.bias, module.running_mean):
                torch.nn.init.normal_(values)

    def normalized(layer, value):
        conv, norm = layer[0].weight.detach().numpy()[:, :, 0, 0], layer[1]
        scale = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + norm.eps)
        return (conv @ value - norm.running_mean.numpy()) * scale + norm.bias.detach().numpy()

    alpha = gate.alpha(skip, g).detach().numpy()
    assert gate.w_x[0].weight.shape == (2, 4, 1, 1) and alpha.shape == (1, 1, 3, 2)
    for y, x in np.ndindex(3, 2):
        agreement = np.maximum(
            normalized(gate.w_g, g.numpy()[0, :, y, x]) + normalized(gate.w_x, skip.numpy()[0, :, y, x]), 0
        )
        expected = 1 / (1 + np.exp(-normalized(gate.psi, agreement)[0]))
        assert alpha[0, 0, y, x] == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gate(skip, g), skip * torch.from_numpy(alpha))


@pytest.mark.parametrize(("gate", "scale"), [("paper", 1), ("popular", 2)])
def test_the_popular_gate_takes_the_decoder_map_after_upsampling(gate, scale):
    model, seen = attention_unet(width=2, gate=gate), []
    for level in model.decoder:
        level.gate.register_forward_hook(lambda _, inputs, __: seen.append([tuple(i.shape[1:]) for i in inputs]))
    model(photo(2, 32, 64))
    for skip, g in seen:
        assert g == (skip[0] * 2 // scale, skip[1] * scale // 2, skip[2] * scale // 2)
    assert len(seen) == 4


def test_another_gate_is_refused():
    with pytest.raises(ValueError, match="paper, popular"):
        attention_unet(width=2, gate="open")


def test_gates_start_open():
    model = attention_unet(width=8)
    assert all(alpha.mean() > 0.8 for alpha in attention_maps(model, photo(2, 64, 64)))


@pytest.mark.parametrize("gate", ["paper", "popular"])
def test_attention_maps_lie_on_the_image_and_leave_the_model_as_it_was(gate):
    model = attention_unet(width=2, gate=gate).eval()
    before = model(photo(2, 75, 49))
    maps = attention_maps(model, photo(2, 75, 49))
    assert [tuple(alpha.shape) for alpha in maps] == [(2, 1, 75, 49)] * 4
    assert all(0 <= alpha.min() <= alpha.max() <= 1 for alpha in maps)
    assert torch.equal(model(photo(2, 75, 49)), before)
    assert not any(module._forward_hooks for module in model.modules())
    assert attention_maps(unet(width=2), photo()) == []


# U-Net on a ResNet; what zoo.py does with weights is tested here too


@pytest.fixture(scope="module")
def resnet18_weights() -> dict[str, torch.Tensor]:
    """A state dict as torchvision saves it, classifier included, with numbers of our own."""
    torch.manual_seed(7)
    weights = torchvision.models.resnet18().state_dict()
    return {key: torch.rand_like(value.float()).to(value.dtype) for key, value in weights.items()}


def is_loaded(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    state = model.network.encoder.state_dict()
    return all(torch.equal(value, weights[key]) for key, value in state.items())


@pytest.mark.parametrize("form", ["pth", "safetensors", "state_dict"])
def test_a_file_of_weights_is_loaded_into_the_encoder(form, resnet18_weights, tmp_path):
    path = tmp_path / f"weights.{form}"
    if form == "safetensors":
        safetensors.torch.save_file(resnet18_weights, path)
    else:
        torch.save({"state_dict": resnet18_weights} if form == "state_dict" else resnet18_weights, path)
    assert is_loaded(resnet_unet(encoder="resnet18", pretrained=str(path)), resnet18_weights)
    assert not is_loaded(resnet_unet(encoder="resnet18", pretrained=False), resnet18_weights)


def test_the_encoder_is_taken_out_of_a_whole_smp_model(tmp_path):
    whole = smp.Unet("resnet18", encoder_weights=None)
    torch.save(whole.state_dict(), tmp_path / "unet.pth")
    model = resnet_unet(encoder="resnet18", pretrained=tmp_path / "unet.pth")
    assert is_loaded(model, whole.encoder.state_dict())
    assert not torch.equal(model.network.segmentation_head[0].weight, whole.segmentation_head[0].weight)


def test_resnet_unet_is_the_unet_of_smp_on_normalised_colours():
    model, image = built("resnet_unet").eval(), photo(1, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(image), model.network((image - mean) / std))
    assert isinstance(model.network, smp.Unet)


@pytest.mark.parametrize("encoder", ["resnet34", "resnet50"])
def test_the_weights_of_another_architecture_are_refused(encoder, resnet18_weights, tmp_path):
    torch.save(resnet18_weights, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"does not hold the weights of {encoder}"):
        resnet_unet(encoder=encoder, pretrained=tmp_path / "weights.pth")


def test_weights_that_are_more_than_the_encoder_are_refused(tmp_path):
    torch.save(
        torchvision.models.resnet34().state_dict(), tmp_path / "weights.pth"
    )  # holds all names of resnet18, and more
    with pytest.raises(ValueError, match="does not hold the weights of resnet18"):
        resnet_unet(encoder="resnet18", pretrained=tmp_path / "weights.pth")


class Bomb:
    """A pickle that would call print when loaded."""

    def __reduce__(self):
        return print, ("a pickle was run",)


def test_a_file_that_is_no_plain_state_dict_is_refused_and_never_run(resnet18_weights, tmp_path, capsys):
    torch.save(resnet18_weights, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:100_000])
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    (tmp_path / "text.safetensors").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("cut.pth", "bomb.pth", "pickle.pth", "text.safetensors", "list.pth", "missing.pth", "."):
        with pytest.raises(ValueError, match=r"pretrained=PATH|state dict"):
            resnet_unet(encoder="resnet18", pretrained=tmp_path / name)
    assert capsys.readouterr().out == ""


def test_an_unknown_encoder_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'resnet50'"):
        resnet_unet(encoder="resnet-50", pretrained=False)


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), TimeoutError(), RuntimeError("offline mode"), KeyError("proxy")]
)
def test_weights_that_cannot_be_fetched_are_one_sentence_that_says_what_to_type(error, monkeypatch):
    def no_network(*_, **__):
        raise error

    monkeypatch.setattr(weights_module, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(weights_module, "get_hf_file_metadata", no_network)
    monkeypatch.setattr(weights_module, "hf_hub_download", lambda *_, **__: pytest.fail("the slow way was tried"))
    with pytest.raises(
        WeightsNotFetched, match=r"weights of resnet34 could not be fetched.*pretrained=false.*pretrained=PATH"
    ):
        resnet_unet()


def test_fetched_weights_are_loaded_and_normalised_as_they_expect(resnet18_weights, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(resnet18_weights, path)
    colours = {"input_space": "RGB", "input_range": [0, 1], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    monkeypatch.setattr(weights_module, "try_to_load_from_cache", lambda *_, **__: str(path))
    monkeypatch.setattr(weights_module, "hf_hub_download", lambda *_, **__: str(path))
    monkeypatch.setattr(
        weights_module, "get_hf_file_metadata", lambda *_, **__: pytest.fail("a cached file needs no network")
    )
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda _: colours)
    model = resnet_unet(encoder="resnet18")
    assert is_loaded(model, resnet18_weights)
    assert model.normalize.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    fresh = resnet_unet(encoder="resnet18", pretrained=False)
    fresh.load_state_dict(model.state_dict())  # a checkpoint brings its normalisation along
    assert torch.equal(fresh.normalize.mean, model.normalize.mean)
    monkeypatch.setitem(colours, "input_range", [0, 255])
    with pytest.raises(ValueError, match="do not expect RGB"):
        resnet_unet(encoder="resnet18")
