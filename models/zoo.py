"""Any architecture of segmentation_models_pytorch (smp) on any encoder of smp or timm.

Twelve decoders and several hundred encoders pretrained on ImageNet. This file adds what a fair comparison needs:
colours normalized as in the encoder's training, any image size, weights from a file, and a clear error for an encoder
and a decoder that do not fit together. It is the only module that imports smp and timm.

Accepted image sizes are tried out, not listed: a new network is run on PyTorch's meta device, which computes only
shapes, with multiples of 32 first. Most accept those. PAN halves the map at 1/16 three times more, so it
needs 128 pixels per side; MaxViT needs multiples of its training size; Hiera accepts that one size only. Smaller images
are padded by mirroring and the logits cropped; images that are too large are refused with a message that names the
size. ViTs (for DPT) and Swins are built so that they interpolate their position embeddings to any size. PSPNet uses the
first three stages of its encoder; with smp's own encoders the later ones remain, unused and untrained.

Code: github.com/qubvel-org/segmentation_models.pytorch; github.com/huggingface/pytorch-image-models.
Papers, by `arch`: Unet 1505.04597, UnetPlusPlus 1807.10165, MAnet 10.1109/ACCESS.2020.3025372, Linknet 1707.03718,
FPN 1901.02446, PSPNet 1612.01105, DeepLabV3 1706.05587, DeepLabV3Plus 1802.02611, PAN 1805.10180, UPerNet 1807.10221,
Segformer 2105.15203, DPT 2103.13413 (arXiv, MAnet: doi).

smp 的任意架构，配 smp 或 timm 的任意编码器。

十二种解码器，几百种见过 ImageNet 的编码器。本文件补上公平比较所需的部分：颜色按编码器训练时的方式归一化，接受任意尺寸，
可从文件读取权重；两部分不能搭配时，用一句话说明。只有本文件导入 smp 和 timm。

架构接受什么尺寸不靠列表，而是试出来的：新建的网络先在 PyTorch 的 meta 设备上试跑（只算形状，不算数值），
从 32 的倍数试起，多数架构
都接受。PAN 把 1/16 的特征图再减半三次，所以边长至少 128 像素；MaxViT 需要其训练尺寸的倍数；Hiera 只接受训练尺寸本身。
图像较小时用镜像
填充，之后裁回；过大时拒绝，并指出所需的尺寸。ViT（用于 DPT）和 Swin 会把位置编码插值到任意尺寸。PSPNet 只用
编码器的前三次减半；使用 smp 自己的编码器时，后面几级仍留在网络中，但不参与计算，也不更新。
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from models.blocks import SMALLEST, Normalize, crop, pad
from models.weights import WeightsNotFetched, cached_or_downloaded, read_weights
from registry import did_you_mean

ARCHITECTURES = {architecture.__name__: architecture for architecture in smp.MODEL_ARCHITECTURES_MAPPING.values()}
STRIDE = 32  # of nearly every encoder: five halvings
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # of RGB in [0, 1]; nearly every encoder's
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # the Inception family's
DPN = {"mean": (124 / 255, 117 / 255, 104 / 255), "std": (1 / (0.0167 * 255),) * 3}
DECIDED = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params")  # not the user's
# options of timm that allow any size, tried in this order
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


@dataclass(frozen=True)
class Size:
    """Sizes that a network accepts: sides in multiples of `multiple`, from `least` to `most` (None: any) pixels."""

    multiple: int = STRIDE
    least: int = SMALLEST
    most: int | None = None


def build(
    arch: str = "Unet", encoder: str = "resnet34", pretrained: bool | str | Path = True, **options: Any
) -> EncoderDecoder:
    """smp's `arch` on `encoder`, any of smp's names or `tu-` and a name of timm's (`tu-convnext_atto`).

    Args:
        arch: An architecture of smp.
        encoder: An encoder of smp, or `tu-` and the name of a timm model.
        pretrained: True for ImageNet weights (downloaded once, then cached), False for random ones, or the path of a
            state dict of that encoder as saved by torchvision, timm or smp (.pth or .safetensors; of a complete smp
            model the encoder is used).
        options: What else the class of smp takes, such as encoder_depth=4 decoder_channels=128,64,32,16.

    Raises:
        WeightsNotFetched: The weights are not cached and cannot be downloaded.
        ValueError: An unknown name, two parts that do not fit together, or a file that does not fit.
    """
    network = assemble(arch, encoder, **options)
    size = find_size(network, native_size(encoder))
    if size is None:
        raise ValueError(
            f"{arch} of smp does not work on {encoder} at any size that was tried; choose another encoder=."
        )
    path, colours = (fetch(encoder), fetched_colours(encoder)) if pretrained is True else (None, known_colours(encoder))
    if isinstance(pretrained, (str, Path)):
        path = Path(pretrained)
    if path is not None:
        load_encoder(network.get_submodule("encoder"), encoder, path)
    return EncoderDecoder(network, colours["mean"], colours["std"], size, f"{arch} on {encoder}")


def _signature() -> inspect.Signature:
    """The signature of `build` with every option that a class of smp takes, so that a wrong name is known early."""
    own = [p for p in inspect.signature(build, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = dict.fromkeys(name for arch in ARCHITECTURES for name in _options_of(arch))
    return inspect.Signature(
        [*own, *(inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in names)]
    )


def _options_of(arch: str) -> list[str]:
    """Options of smp's class, except those that are fixed here."""
    return [name for name in inspect.signature(ARCHITECTURES[arch]).parameters if name not in (*DECIDED, "kwargs")]


class EncoderDecoder(nn.Module):
    """A network with normalization and padding built in: RGB in [0, 1] `(N, 3, H, W)` -> logits `(N, 1, H, W)`.

    H and W from 32 up. Raises ValueError for a size that the network cannot take, and in training for a batch of one
    that leaves a batch normalization with a single value.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], size: Size, name: str) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network
        self.size, self.name = size, name

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        most = self.size.most
        if most is not None and max(height, width) > most:
            raise ValueError(
                f"{self.name} takes {most}x{most} pixels at most, not {width}x{height}: type --size {most}x{most}."
            )
        padded = pad(self.normalize(image), self.size.multiple, self.size.least)  # (N, 3, H', W')
        try:
            return crop(self.network(padded), like=image)  # (N, 1, H, W)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"{self.name} cannot be trained on one image of {width}x{height} pixels at a time: "
                "batch normalization is left with a single value. Type --batch-size 2 or more."
            ) from error


def assemble(arch: str, encoder: str, **given: Any) -> nn.Module:
    """Build the network with random weights and one logit per pixel. Raises ValueError for parts that do not fit."""
    if arch not in ARCHITECTURES:
        raise ValueError(
            f"Unknown arch '{arch}'{did_you_mean(arch, ARCHITECTURES)}. smp has: {', '.join(ARCHITECTURES)}."
        )
    ours = smp.encoders.get_encoder_names()
    if encoder not in ours and not (encoder.startswith("tu-") and timm.is_model(_timm_name(encoder).split(".")[0])):
        nearest = did_you_mean(encoder, [*ours, *(f"tu-{name}" for name in timm.list_models())])
        raise ValueError(
            f"Unknown encoder '{encoder}'{nearest}. The usual ones: resnet18, 34, 50, 101, 152, mobilenet_v2."
        )
    _check_options(arch, given)
    refusal: Exception | None = None
    for options in ANY_SIZE if encoder.startswith("tu-") else ({},):
        try:
            return ARCHITECTURES[arch](
                encoder_name=encoder, encoder_weights=None, in_channels=3, classes=1, **options, **given
            )
        except TypeError as error:  # an option of ViTs, or of Swins, that this encoder does not have
            refusal = error
        except (ValueError, AssertionError, RuntimeError, KeyError, NotImplementedError, AttributeError) as error:
            refusal = error
            break
    reason = str(refusal).splitlines()[0].rstrip(".! ") if str(refusal) else "it cannot be dilated"
    if given:
        assemble(arch, encoder)  # where these two alone do not fit, this raises
        refused = " ".join(f"{name}={_typed(value)}" for name, value in given.items())
        correct = "that option" if len(given) == 1 else "these options"
        raise ValueError(f"smp has no {arch} on {encoder} with {refused} ({reason}): correct {correct}.") from refusal
    raise ValueError(f"smp has no {arch} on {encoder} ({reason}); choose another encoder=.") from refusal


def _typed(value: Any) -> str:
    """A value as it is typed: lists without brackets."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _check_options(arch: str, given: dict[str, Any]) -> None:
    """Raise ValueError for an option that smp's class does not take, or that is decided here."""
    known = _options_of(arch)
    for name in given:
        if name not in known:
            raise ValueError(f"{arch} has no option '{name}'{did_you_mean(name, known)}. It takes: {', '.join(known)}.")


def find_size(network: nn.Module, native: int | None) -> Size | None:
    """The least restrictive Size that `network` accepts, or None; `native` is the side of its training images."""
    candidates = [Size(), Size(least=4 * STRIDE)]
    if native is not None:
        candidates += [Size(multiple=native, least=native), Size(multiple=native, least=native, most=native)]
    return next((size for size in candidates if _takes(network, size)), None)


@torch.no_grad()
def _takes(network: nn.Module, size: Size) -> bool:
    """Whether an oblong image of that Size comes back as logits of its height and width."""
    height, width = size.least, size.most or size.least + size.multiple
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    image = torch.empty(1, 3, height, width, device="meta")
    training = network.training
    network.eval()
    try:
        logits = torch.func.functional_call(network, {key: value.to("meta") for key, value in state.items()}, (image,))
    except (RuntimeError, AssertionError, ValueError, TypeError):  # each network has its own way to refuse a shape
        return False
    finally:
        network.train(training)
    return tuple(logits.shape) == (1, 1, height, width)


def native_size(encoder: str) -> int | None:
    """Side of the square images that timm's weights were trained on; None if unknown."""
    config = timm.get_pretrained_cfg(_timm_name(encoder)) if encoder.startswith("tu-") else None
    return config.input_size[-1] if config else None


def fetch(encoder: str) -> Path:
    """The file of the encoder's ImageNet weights, from the cache or the Hugging Face hub."""
    try:
        if encoder.startswith("tu-"):
            config = timm.get_pretrained_cfg(_timm_name(encoder))
            place = (config.hf_hub_id, "model.safetensors", None) if config and config.hf_hub_id else None
        else:
            settings = smp.encoders.encoders[encoder]["pretrained_settings"].get("imagenet")
            place = (settings["repo_id"], "model.safetensors", settings["revision"]) if settings else None
        if place is not None:
            return cached_or_downloaded(*place)
    except Exception as error:  # no DNS, refused, timeout, offline mode, proxy: the hub has an error for each
        raise _not_fetched(encoder) from error
    raise ValueError(
        f"There are no ImageNet weights for {encoder}; choose another encoder or --model-kwargs pretrained=false."
    )


def fetched_colours(encoder: str) -> dict[str, Any]:
    """Mean and std that the downloaded weights expect. Raises ValueError unless they are of RGB in [0, 1]."""
    try:
        colours = smp.encoders.get_preprocessing_params(encoder)
    except Exception as error:  # the same hub, the same errors
        raise _not_fetched(encoder) from error
    if colours["input_space"] != "RGB" or list(colours["input_range"]) != [0, 1]:
        raise ValueError(f"The ImageNet weights of {encoder} do not expect RGB in [0, 1]; choose another encoder.")
    return colours


def known_colours(encoder: str) -> dict[str, Any]:
    """Mean and std that the encoder's usual weights expect, as far as known offline."""
    if encoder.startswith("tu-"):
        config = timm.get_pretrained_cfg(_timm_name(encoder))
        return {"mean": config.mean, "std": config.std} if config else IMAGENET
    if encoder.startswith(("inception", "xception")):
        return HALF
    return DPN if encoder.startswith("dpn") else IMAGENET


def load_encoder(encoder: nn.Module, name: str, path: Path) -> None:
    """Load the weights of a file into smp's encoder `name`. Raises ValueError unless every tensor fits."""
    state = read_weights(path)
    if any("encoder." in key for key in state):  # a whole segmentation model: its decoder is left behind
        state = {key.split("encoder.", 1)[1]: value for key, value in state.items() if "encoder." in key}
    try:
        if name.startswith("tu-") and not all(key.startswith("model.") for key in state):
            state = from_timm(encoder, _timm_name(name), state)
        encoder.load_state_dict(state)  # smp drops the classifier; everything else has to match
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"{path} does not hold the weights of {name}; give the file that fits, or another encoder=."
        ) from error


def from_timm(encoder: nn.Module, name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's weights of the complete network `name` for smp's encoder, which lacks the classifier.

    Raises KeyError for a tensor that the network does not have, or that the encoder is missing.
    """
    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    if unknown := set(state) - set(expected):
        raise KeyError(sorted(unknown)[0])
    renamed = {}
    for key in encoder.state_dict():
        plain = key.removeprefix("model.")
        dotted = re.sub(r"_(\d+)\.", r".\1.", plain, count=1)  # timm's feature extractors rename stages.0 to stages_0
        renamed[key] = state[plain if plain in state else dotted]
    return renamed


def _timm_name(encoder: str) -> str:
    return encoder.removeprefix("tu-")


def _not_fetched(encoder: str) -> WeightsNotFetched:
    return WeightsNotFetched(
        f"The ImageNet weights of {encoder} could not be fetched (no network?). Train from scratch with "
        "--model-kwargs pretrained=false, or give a local file: --model-kwargs pretrained=PATH."
    )


build.__signature__ = _signature()  # type: ignore[attr-defined]
