"""Architectures and encoders of smp and timm: what they accept, what they refuse, and the weights they carry."""

import os
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch

from models import weights, zoo
from models.weights import WeightsNotFetched
from models.zoo import Size
from tests.conftest import run_folder, small

pytestmark = pytest.mark.usefixtures("one_thread")

# Every architecture once, with light encoders of smp and timm: convolutional, dilated and transformers.
PAIRS = [
    ("Unet", "mobilenet_v2"), ("UnetPlusPlus", "tu-mobilenetv3_small_050"), ("MAnet", "tu-resnet10t"),
    ("Linknet", "resnet18"),
    ("FPN", "efficientnet-b0"), ("PSPNet", "mobileone_s0"), ("DeepLabV3", "tu-mobilenetv3_small_050"),
    ("DeepLabV3Plus", "mobilenet_v2"), ("PAN", "tu-regnetx_002"), ("UPerNet", "tu-convnext_atto"),
    ("Segformer", "mit_b0"),
    ("DPT", "tu-vit_tiny_patch16_224"), ("Unet", "tu-swin_tiny_patch4_window7_224"),
]  # fmt: skip


@pytest.fixture(scope="module")
def mobilenet() -> Path:
    """torchvision's ImageNet weights of MobileNetV2; skipped where WEIGHTS_DIR does not name their folder."""
    place = os.environ.get("WEIGHTS_DIR")
    if not place:
        pytest.skip("WEIGHTS_DIR does not name the folder of mobilenet_v2-b0353104.pth")
    return Path(place) / "mobilenet_v2-b0353104.pth"


def test_the_pairs_hold_every_architecture_of_smp():
    assert {arch for arch, _ in PAIRS} == set(zoo.ARCHITECTURES) and len(zoo.ARCHITECTURES) >= 12


QUICK = ("Unet-mobilenet_v2", "Segformer-mit_b0", "DeepLabV3-tu-mobilenetv3_small_050")  # smp, a transformer, timm
EACH = [
    pytest.param(*pair, id="-".join(pair), marks=() if "-".join(pair) in QUICK else pytest.mark.slow) for pair in PAIRS
]


@pytest.mark.parametrize(("arch", "encoder"), EACH)
def test_every_architecture_trains_a_step_and_takes_any_size(arch, encoder):
    torch.manual_seed(0)
    model = zoo.build(arch, encoder, pretrained=False).train()
    image, mask = torch.rand(2, 3, 33, 50), (torch.rand(2, 1, 33, 50) > 0.5).float()
    before = {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}
    logits = model(image)
    assert logits.shape == mask.shape
    torch.nn.functional.binary_cross_entropy_with_logits(logits, mask).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    changed = [name for name, parameter in model.network.named_parameters() if not torch.equal(before[name], parameter)]
    assert {name.split(".")[0] for name in changed} == {"encoder", "decoder", "segmentation_head"}
    assert changed[0] == next(iter(before))  # the encoder's very first layer has heard of it
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    model = model.eval().to("meta")  # shapes alone: the sizes of real runs
    for height, width in ((32, 32), (97, 131), (572, 572)):
        assert model(torch.empty(1, 3, height, width, device="meta")).shape == (1, 1, height, width)


def test_an_architecture_is_that_of_smp_on_padded_and_normalised_images():
    model, image = zoo.build("FPN", "resnet18", pretrained=False).eval(), torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(zoo.IMAGENET[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model(image), model.network((image - mean) / std))
    assert isinstance(model.network, smp.FPN)


@pytest.mark.parametrize(
    ("arch", "encoder", "size"),
    [
        ("Unet", "tu-convnext_atto", Size(32, 32)),
        ("PAN", "mobilenet_v2", Size(32, 128)),
        ("Unet", "tu-maxvit_rmlp_pico_rw_256", Size(256, 256)),
        ("Unet", "tu-hiera_tiny_224", Size(224, 224, 224)),
    ],
)
def test_what_an_architecture_needs_is_found_out(arch, encoder, size):
    network = zoo.assemble(arch, encoder)
    assert zoo.find_size(network, zoo.native_size(encoder)) == size
    assert network.training and not any(p.is_meta for p in network.parameters())


def test_an_image_larger_than_the_encoder_can_take_is_refused_with_the_size_named():
    model = zoo.build("Unet", "tu-hiera_tiny_224", pretrained=False).to("meta")
    assert model(torch.empty(1, 3, 97, 131, device="meta")).shape == (1, 1, 97, 131)
    with pytest.raises(ValueError, match=r"takes 224x224 pixels at most, not 572x97: type --size 224x224"):
        model(torch.empty(1, 3, 97, 572, device="meta"))


@pytest.mark.parametrize(
    ("arch", "encoder"), [("UPerNet", "mobilenet_v2"), ("DeepLabV3", "resnet18"), ("PAN", "resnet18")]
)
def test_a_batch_of_one_is_refused_in_training_and_taken_afterwards(arch, encoder):
    model = zoo.build(arch, encoder, pretrained=False).to("meta")
    with pytest.raises(ValueError, match=f"{arch} on {encoder} cannot be trained on one image.*--batch-size 2"):
        model(torch.empty(1, 3, 64, 64, device="meta"))
    assert model.eval()(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(
    ("arch", "encoder", "sentence"),
    [
        ("unetplusplus", "resnet18", "Unknown arch 'unetplusplus' .did you mean 'UnetPlusPlus'"),
        ("Segfromer", "resnet18", "did you mean 'Segformer'"),
        ("Unet", "mobilenetv2", "did you mean 'mobilenet_v2'"),
        ("Unet", "convnext_atto", "did you mean 'tu-convnext_atto'"),
        ("Unet", "tu-resnet18.no_such_tag", "no_such_tag.*choose another encoder="),
        ("DPT", "resnet18", "smp has no DPT on resnet18 .*'tu-'.*choose another encoder="),
        ("Linknet", "mit_b0", "smp has no Linknet on mit_b0"),
        ("PAN", "densenet121", "smp has no PAN on densenet121 .*dilated"),
        ("DPT", "tu-vit_small_patch14_dinov2", "does not work on tu-vit_small_patch14_dinov2"),
    ],
)
def test_parts_that_are_unknown_or_do_not_go_together_are_refused_in_a_sentence(arch, encoder, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        zoo.build(arch, encoder, pretrained=False)
    assert "\n" not in str(error.value)


def test_an_option_that_does_not_fit_is_named_as_what_to_correct():
    refused = r"^smp has no Unet on resnet18 with decoder_channels=128,64,32 \(.*\): correct that option\.$"
    with pytest.raises(ValueError, match=refused):
        zoo.assemble("Unet", "resnet18", decoder_channels=[128, 64, 32])
    with pytest.raises(ValueError, match="smp has no PAN on densenet121"):
        zoo.assemble("PAN", "densenet121", decoder_channels=16)


@pytest.mark.parametrize("encoder", ["tu-resnet18", "tu-convnext_atto", "tu-mobilenetv3_small_050"])
def test_weights_as_timm_saves_them_are_loaded_into_its_encoder(encoder, tmp_path):
    torch.manual_seed(3)
    whole = timm.create_model(encoder.removeprefix("tu-"))
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    model = zoo.build("Unet", encoder, pretrained=tmp_path / "weights.pth").eval()
    image = torch.rand(1, 3, 64, 64)
    features = timm.create_model(encoder.removeprefix("tu-"), features_only=True)
    with torch.no_grad():
        theirs = whole.eval().forward_intermediates(image, intermediates_only=True)[-1]
        torch.testing.assert_close(model.network.encoder(image)[-1], theirs)
    torch.save(features.state_dict() | {"more": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"does not hold the weights of {encoder}"):
        zoo.build("Unet", encoder, pretrained=tmp_path / "other.pth")


def test_what_smp_saved_of_a_timm_encoder_is_loaded_again(tmp_path):
    whole = smp.Unet("tu-resnet10t", encoder_weights=None)
    torch.save(whole.state_dict(), tmp_path / "unet.pth")
    model = zoo.build("FPN", "tu-resnet10t", pretrained=tmp_path / "unet.pth")
    state = model.network.encoder.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in whole.encoder.state_dict().items())


def test_the_weights_of_a_timm_encoder_that_cannot_be_fetched_are_a_sentence_as_well(monkeypatch):
    def no_network(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(weights, "get_hf_file_metadata", no_network)
    with pytest.raises(WeightsNotFetched, match=r"weights of tu-convnext_atto could not be fetched.*pretrained=false"):
        zoo.build("Unet", "tu-convnext_atto")


def test_colours_are_normalised_as_each_encoder_was_trained():
    for encoder in ("mobilenet_v2", "tu-vit_tiny_patch16_224", "tu-convnext_atto", "xception", "dpn68"):
        colours = zoo.known_colours(encoder)
        name = {"xception": "legacy_xception"}.get(encoder, encoder.removeprefix("tu-"))
        if timm.is_model(name) and (config := timm.get_pretrained_cfg(name)):
            assert colours["mean"] == pytest.approx(config.mean, abs=1e-3), encoder
            assert colours["std"] == pytest.approx(config.std, abs=1e-3), encoder
    assert zoo.known_colours("tu-vit_tiny_patch16_224")["mean"] == (0.5, 0.5, 0.5)


def test_the_imagenet_weights_of_torchvision_really_are_in_the_encoder(mobilenet):
    saved = torch.load(mobilenet, weights_only=True)
    for arch in ("Unet", "DeepLabV3Plus", "PSPNet"):
        state = zoo.build(arch, "mobilenet_v2", pretrained=mobilenet).network.encoder.state_dict()
        assert state and all(torch.equal(value, saved[key]) for key, value in state.items())


def test_a_run_starts_from_the_weights_of_a_file_and_puts_their_hash_into_its_key(
    mobilenet, command, made_cars, tmp_path
):
    words = small(made_cars, tmp_path, model="smp", epochs=1, learning_rate="1e-9", weight_decay=0)
    at = words.index("--model-kwargs") + 1
    words[at : at + 1] = ["arch=Unet", "encoder=mobilenet_v2", f"pretrained={mobilenet}"]
    code, shown, complaint = command(*words)
    assert code == 0, complaint
    assert "test Dice" in shown
    import json

    config = json.loads((run_folder(tmp_path) / "config.json").read_text())
    config = config.get("config", config)
    assert mobilenet.stem.split("-")[1] == config["weights"][:8]  # torchvision names the file by its SHA-256
    best = torch.load(run_folder(tmp_path) / "best.ckpt", weights_only=True)
    saved = torch.load(mobilenet, weights_only=True)
    first = "features.0.0.weight"
    torch.testing.assert_close(best["model"][f"network.encoder.{first}"], saved[first], rtol=0, atol=1e-6)
