"""Shared by the models: normalization, padding and cropping, and the double convolution.

A network halves its input several times, so it needs sizes divisible by 16 or 32, but images have any size. Each model
therefore begins and ends with the same three steps: normalize the colours, pad the right and lower border by mirroring,
and crop the logits. Mirroring is how the U-Net paper extrapolates beyond the border (Ronneberger et al. 2015,
section 2); padding on one side only keeps pixel (0, 0) of logits and image the same pixel.

各模型共用的部分：图像如何进出网络，以及双层卷积。

网络要把输入多次减半，因此边长须能被 16 或 32 整除，而图像的大小是任意的。所以每个模型的首尾都是同样的三步，
只在这里写一遍：
归一化颜色；用镜像填充右边和下边；最后把 logits 裁回原来的大小。镜像正是 U-Net 论文向图像边缘之外外推的办法
（Ronneberger 等，2015，第 2 节）；只填充一侧，logits 与图像的 (0, 0) 就始终是同一个像素。
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 32  # pixels: below it the deepest feature maps would be a single pixel, or nothing


class Normalize(nn.Module):
    """(image - mean) / std, channel by channel: RGB `(N, 3, H, W)` in, the same shape out.

    Mean and std are buffers that are saved with the weights: a checkpoint carries the normalization of its training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


def pad(image: Tensor, multiple: int, least: int = SMALLEST) -> Tensor:
    """Pad `(N, C, H, W)` to multiples of `multiple` of at least `least`, by mirroring the right and lower border.

    Raises ValueError when a side is shorter than 32 pixels.
    """
    height, width = image.shape[-2:]
    if height < SMALLEST or width < SMALLEST:
        raise ValueError(
            f"An image of {width}x{height} pixels is too small: both sides need at least {SMALLEST} pixels."
        )
    if torch.compiler.is_exporting():
        return _mirrored(_mirrored(image, -2, multiple, least), -1, multiple, least)
    height, width = (-(-max(side, least) // multiple) * multiple for side in (height, width))
    while (missing := (height - image.shape[-2], width - image.shape[-1])) != (0, 0):
        rows, columns = (min(n, side - 1) for n, side in zip(missing, image.shape[-2:], strict=True))
        image = F.pad(image, (0, columns, 0, rows), mode="reflect")  # one mirror adds less than the image has
    return image


def _mirrored(image: Tensor, axis: int, multiple: int, least: int) -> Tensor:
    """Pad along one axis, pixel for pixel as `pad` does, without a loop: an exported graph does not know its sides."""
    side = image.shape[axis]
    at = torch.arange((torch.sym_max(side, least) + multiple - 1) // multiple * multiple, device=image.device)
    period = torch.full_like(at, 2 * (side - 1))
    return image.index_select(axis, torch.minimum(at % period, period - at % period))


def crop(logits: Tensor, like: Tensor) -> Tensor:
    """Crop `logits` to the height and width of `like`, from the upper left: the inverse of `pad`."""
    return logits[..., : like.shape[-2], : like.shape[-1]]


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, with He initialization (2015, arXiv:1502.01852) for a following ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)  # BatchNorm has the bias
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


class DoubleConv(nn.Sequential):
    """Twice: 3x3 convolution, batch normalization, ReLU. `(N, channels_in, H, W)` -> `(N, channels_out, H, W)`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            conv3x3(channels_in, channels_out),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            conv3x3(channels_out, channels_out),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )
