"""U-Net: context from a contracting encoder, precise localization from skip connections.

The encoder halves the feature maps four times and doubles their channels, until a pixel of the deepest map covers much
of the image and encodes *what* is there. The decoder enlarges them again, and at each level a skip connection supplies
the encoder's map of the same size, which still encodes *where*. The two are concatenated and convolved.

Paper: Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597.

Differences from the paper:
- Convolutions are padded, so logits and image have the same size and skips are not cropped (paper: 572 -> 388).
- Batch normalization after each 3x3 convolution, which therefore has no bias (paper: none); no dropout
  (paper: at the end of the encoder).
- RGB in and one logit per pixel out (paper: grey in, two classes and a softmax); the loss is separate (paper:
  cross-entropy with a weight map that stresses borders between cells).
- Any size: the image is mirrored up to multiples of 16 inside and the logits are cropped (paper: overlapping tiles).
- Colours are shifted from [0, 1] to [-1, 1]: fixed numbers, so that no data set leaks into the model; their exact value
  hardly matters, since a batch normalization follows the first convolution.
- The 3x3 convolutions are initialized as in the paper (Gaussian, standard deviation sqrt(2 / N)); the transposed and
  the 1x1 convolutions as by default in PyTorch.
- `up="bilinear"` enlarges by interpolation and halves the channels by a 1x1 convolution (paper: transposed 2x2).

U-Net：先看清整体，再把每个像素放回原处。

编码器把特征图减半四次，每次通道数加倍，直到最深的特征图中一个像素的感受野已覆盖图像的大部分，知道那里“是什么”。
解码器再逐级放大；
每一级都由跳跃连接送来编码器中同样大小的特征图，它还记得“在哪里”。两者拼接后再做卷积。

论文：Ronneberger、Fischer、Brox，2015，arXiv:1505.04597。

与论文的不同：
- 卷积带填充，logits 与图像一样大，跳跃连接不必裁剪（论文：572 -> 388）。
- 每个 3x3 卷积之后做批归一化，卷积因此不带偏置（论文没有批归一化）；不用 dropout（论文在编码器末端使用）。
- 输入 RGB，每个像素输出一个 logit（论文：输入灰度图，两类加 softmax）；损失函数另行选择（论文：
  用权重图强调细胞边界的交叉熵）。
- 任意大小：在内部用镜像填充到 16 的倍数，再裁剪 logits（论文：重叠分块）。
- 颜色从 [0, 1] 平移缩放到 [-1, 1]：数值固定，模型里不含任何数据集的统计量；第一个卷积之后就是批归一化，
  具体数值影响很小。
- 3x3 卷积按论文初始化（高斯分布，标准差 sqrt(2 / N)）；转置卷积和 1x1 卷积用 PyTorch 的默认初始化。
- `up="bilinear"` 用插值放大，再用 1x1 卷积把通道数减半（论文：2x2 转置卷积）。
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import DoubleConv, Normalize, crop, pad

LEVELS = 4  # halvings
Up = Literal["transpose", "bilinear"]
# (channels of the skip, channels of the gating signal g) -> module(skip, g) -> skip. g is the coarser map or, with a
# true attribute `after_up`, that map enlarged.
Gate = Callable[[int, int], nn.Module]


def unet(width: int = 64, up: Up = "transpose") -> UNet:
    """U-Net from scratch (Ronneberger et al., 2015); `width` 64 is the paper's: 31,037,633 parameters."""
    return UNet(width=width, up=up)


class UNet(nn.Module):
    """U-Net of four halvings: RGB in [0, 1] `(N, 3, H, W)` -> logits `(N, 1, H, W)`, for H and W from 32 up.

    Args:
        width: Channels at full resolution, doubled at each halving.
        up: How the decoder enlarges: "transpose" (2x2 transposed convolution) or "bilinear".
        gate: Module that each skip connection passes through; None for plain skips.

    Raises:
        ValueError: A width below 1, another `up`, or (when called) an image that is too small.
    """

    def __init__(self, width: int = 64, up: Up = "transpose", gate: Gate | None = None) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"The width of a U-Net is its number of channels, 1 or more, not {width}.")
        channels = [width * 2**level for level in range(LEVELS + 1)]  # 64, 128, 256, 512, 1024 for width 64
        self.normalize = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.encoder = nn.ModuleList(DoubleConv(c_in, c_out) for c_in, c_out in pairwise([3, *channels[:-1]]))
        self.bottleneck = DoubleConv(channels[-2], channels[-1])
        self.decoder = nn.ModuleList(DecoderLevel(c, up, gate) for c in reversed(channels[:-1]))
        self.head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        feature = pad(self.normalize(image), multiple=2**LEVELS)  # (N, 3, H, W), both divisible by 16 from here on
        skips = []
        for level in self.encoder:
            skip = level(feature)  # (N, width * 2^i, H / 2^i, W / 2^i), i = 0 ... 3
            skips.append(skip)
            feature = F.max_pool2d(skip, kernel_size=2)
        feature = self.bottleneck(feature)  # (N, 16 width, H/16, W/16)
        for level, skip in zip(self.decoder, reversed(skips), strict=True):
            feature = level(feature, skip)  # (N, width * 2^i, H / 2^i, W / 2^i), i = 3 ... 0
        return crop(self.head(feature), like=image)  # (N, 1, H, W)


class DecoderLevel(nn.Module):
    """One step up: enlarge the coarser map, concatenate the (gated) skip, convolve twice.

    `below` `(N, 2 channels, H/2, W/2)` and `skip` `(N, channels, H, W)` -> `(N, channels, H, W)`.
    """

    def __init__(self, channels: int, up: Up, gate: Gate | None) -> None:
        super().__init__()
        self.up = enlarge(2 * channels, up)
        self.gates_after_up = getattr(gate, "after_up", False)
        self.gate = gate(channels, channels if self.gates_after_up else 2 * channels) if gate else None
        self.conv = DoubleConv(2 * channels, channels)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        above = self.up(below)  # (N, channels, H, W)
        if self.gate is not None:
            skip = self.gate(skip, above if self.gates_after_up else below)
        return self.conv(torch.cat([skip, above], dim=1))  # (N, 2 channels, H, W) into the convolutions


def enlarge(channels: int, up: Up) -> nn.Module:
    """A module that doubles height and width and halves the channels: `(N, C, H, W)` -> `(N, C/2, 2H, 2W)`."""
    if up == "transpose":
        return nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)
    if up == "bilinear":
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        return nn.Sequential(upsample, nn.Conv2d(channels, channels // 2, kernel_size=1))
    raise ValueError(f"The option up={up} of the U-Net should be one of transpose, bilinear.")
