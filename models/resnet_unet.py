"""U-Net on a ResNet that has seen ImageNet: borrow the encoder, learn the decoder.

Edges, textures and parts of things are much the same in all photographs. An encoder that learned them on 1.2 million
labelled photographs needs far fewer masks than one that starts from noise. The network is `Unet` of
segmentation_models_pytorch (smp), which this file alone imports.

Papers: He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385 (the encoder); Ronneberger et al.
2015, arXiv:1505.04597 (the U-Net). Code: github.com/qubvel-org/segmentation_models.pytorch.

Differences from the papers:
- The classifier (average pooling and the last linear layer) of the ResNet is left out.
- The encoder halves five times; its own feature maps at 1/2, 1/4, 1/8 and 1/16 are the skips. Its first convolution has
  stride 2, so the finest skip has half the resolution and the last decoder level has none (U-Net: four halvings, the
  finest skip at full resolution).
- The decoder has 256, 128, 64, 32 and 16 channels, enlarges by nearest neighbour and uses batch normalization
  (U-Net: 512 to 64 channels, transposed convolutions, none); the head is a 3x3 convolution (U-Net: 1x1).
- Any size: the image is mirrored up to multiples of 32 inside and the logits are cropped.
- Colours are normalised as the encoder was trained; the whole network is trained further, encoder included.

以见过 ImageNet 的 ResNet 为编码器的 U-Net：编码器借来，解码器自己学。

边缘、纹理、物体的部件，在各种照片里大同小异。编码器若已在 120 万张带标签的照片上学过这些，所需的掩码就比从随机权重开始少得多。
网络采用 segmentation_models_pytorch（smp）的 `Unet`，只有本文件导入它。

论文：He 等，2016，arXiv:1512.03385（编码器）；Ronneberger 等，2015，arXiv:1505.04597（U-Net）。

与论文的不同：
- 去掉 ResNet 的分类部分（平均池化和最后的全连接层）。
- 编码器减半五次，它在 1/2、1/4、1/8、1/16 分辨率处的特征图就是跳跃连接；第一个卷积的步长为 2，
  所以最精细的跳跃连接只有一半分辨率，解码器的最后一级没有跳跃连接（U-Net：减半四次，最精细的跳跃连接是全分辨率）。
- 解码器的通道数为 256、128、64、32、16，用最近邻插值放大，并使用批归一化（U-Net：512 到 64 个通道，转置卷积，没有批归一化）；
  输出层是 3x3 卷积（U-Net：1x1）。
- 任意大小：在内部用镜像填充到 32 的倍数，再裁剪 logits。
- 颜色按编码器训练时的方式归一化；训练时整个网络一起更新，包括编码器。
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor, nn

from models.blocks import Normalize, crop, pad

STRIDE = 32  # five halvings
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # of RGB in [0, 1]; torchvision's and smp's ResNets
PATIENCE = 5.0  # seconds for the server's first answer


class WeightsNotFetched(OSError):
    """Pretrained weights are neither in the local cache nor to be had; the text says what to type instead."""


def resnet_unet(encoder: str = "resnet34", pretrained: bool | str | Path = True) -> ResNetUNet:
    """smp's U-Net on a ResNet encoder (He et al., 2016).

    `encoder`: resnet18, resnet34, resnet50, resnet101, resnet152, or any other encoder that smp lists. `pretrained`: true
    for ImageNet weights (fetched once, then cached), false for none, or the path of a state dict of that encoder as
    torchvision, timm or smp save it (.pth or .safetensors; of a whole smp model the encoder is taken).
    Raises WeightsNotFetched without a network, ValueError for an unknown encoder or a file that does not fit.
    """
    known = smp.encoders.get_encoder_names()
    if encoder not in known:
        nearest = difflib.get_close_matches(encoder, known, n=1, cutoff=0)[0]
        raise ValueError(f"Unknown encoder '{encoder}' (did you mean '{nearest}'?). The usual ones: resnet18, 34, 50, 101, 152.")
    network = smp.Unet(encoder_name=encoder, encoder_weights=None, in_channels=3, classes=1)
    colours: Mapping[str, Any] = IMAGENET
    if pretrained is True:
        path, colours = fetch(encoder)
        load_encoder(network.encoder, encoder, path)
    elif pretrained is not False:
        load_encoder(network.encoder, encoder, Path(pretrained))
    return ResNetUNet(network, colours["mean"], colours["std"])


class ResNetUNet(nn.Module):
    """A network of stride 32 that takes any size from 32 up: RGB in [0, 1] `(N, 3, H, W)` -> logits `(N, 1, H, W)`."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        padded = pad(self.normalize(image), multiple=STRIDE)  # (N, 3, H', W'), both divisible by 32
        return crop(self.network(padded), like=image)  # (N, 1, H, W)


def fetch(encoder: str) -> tuple[Path, dict[str, Any]]:
    """The file of the encoder's ImageNet weights, from the cache or the Hugging Face hub, and the mean and std they expect."""
    settings = smp.encoders.encoders[encoder]["pretrained_settings"].get("imagenet")
    if settings is None:
        raise ValueError(f"smp has no ImageNet weights for {encoder}; choose another encoder or --model-kwargs pretrained=false.")
    try:
        path = cached_or_downloaded(settings["repo_id"], "model.safetensors", settings["revision"])
        colours = smp.encoders.get_preprocessing_params(encoder)
    except Exception as error:  # no name service, refused, timed out, offline mode, proxy: the hub has an error for each
        raise WeightsNotFetched(
            f"The ImageNet weights of {encoder} could not be fetched (no network?). Train from scratch with "
            "--model-kwargs pretrained=false, or give a file you have: --model-kwargs pretrained=PATH."
        ) from error
    if colours["input_space"] != "RGB" or list(colours["input_range"]) != [0, 1]:
        raise ValueError(f"The ImageNet weights of {encoder} do not expect RGB in [0, 1]; choose another encoder.")
    return path, colours


def cached_or_downloaded(repo_id: str, filename: str, revision: str) -> Path:
    """A file of the hub. One quick question comes first: without a network hf_hub_download alone retries for 23 seconds."""
    if not isinstance(try_to_load_from_cache(repo_id, filename, revision=revision), str):
        get_hf_file_metadata(hf_hub_url(repo_id, filename, revision=revision), timeout=PATIENCE)
    return Path(hf_hub_download(repo_id, filename, revision=revision))


def load_encoder(encoder: nn.Module, name: str, path: Path) -> None:
    """Copy the weights of a file into smp's encoder `name`. Raises ValueError unless they fit it to the last tensor."""
    state = read_weights(path)
    if any("encoder." in key for key in state):  # a whole segmentation model: its decoder is left behind
        state = {key.split("encoder.", 1)[1]: value for key, value in state.items() if "encoder." in key}
    try:
        encoder.load_state_dict(state)  # smp drops the classifier; everything else has to match
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{path} does not hold the weights of {name}; give the file that fits, or another encoder=.") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file or in one of torch.save, which is never allowed to run code."""
    if not path.is_file():
        raise ValueError(
            f"There is no weights file {path}. Give another one: --model-kwargs pretrained=PATH, or pretrained=false."
        )
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # cut short, another format, a pickle with code in it: each has its own exception
        raise ValueError(f"{path} cannot be read as weights: it should be a plain state dict (.pth or .safetensors).") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict; save one with torch.save(encoder.state_dict(), PATH).")
    return dict(state)
