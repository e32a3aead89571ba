"""Attention U-Net: the decoder, which has more context, weights every position of a skip connection.

A skip connection of the U-Net passes everything on, background included. An attention gate compares the skip with the
coarser map of the decoder (the gating signal g) and multiplies the skip by a map alpha between 0 and 1:

    alpha = sigmoid(psi(relu(theta(skip) + phi(g)))), enlarged to the size of the skip        gated = alpha * skip

That is the one difference from `unet`: what its skips pass through. With alpha at 1 the two are equal bit for bit.

Paper: Oktay et al. 2018, "Attention U-Net: Learning Where to Look for the Pancreas", arXiv:1804.03999.
Code of its authors: github.com/ozan-oktay/Attention-Gated-Networks.

Differences from the paper:
- 2D and bilinear enlargement of alpha (paper: 3D CT and trilinear); U-Net as in `unet.py`, with its 64 channels at
  full resolution, 2x2 pooling and transposed convolutions (authors' code: 16 channels; trilinear enlargement).
- No output transform: the paper also multiplies by alpha only, but the authors' code adds a 1x1 convolution with batch
  normalization (W) after the product, and a second one with ReLU. Without them an open gate is the plain skip.
- All four skips are gated (paper: not the finest, whose features it holds to be too low-level).
- g is the decoder's coarser map as it is (authors' code: at the deepest level a 1x1 convolution, batch normalization
  and ReLU first).
- theta is a 2x2 convolution of stride 2, as in the authors' code (the paper's text: 1x1x1 and downsampling).
- The intermediate channels are those of the skip, as in the authors' U-Nets (its layer's own default: half of them).
- Gates start open, as the paper asks without giving a number: the bias of psi starts at 3, alpha at about 0.95
  (authors' code: PyTorch's default biases, alpha around 0.5).
- No deep supervision: one output, at full resolution (paper: at every level; the authors' code merges them by a last
  1x1 convolution).

`gate="popular"` is the gate that most public "Attention U-Nets" in PyTorch have, copied from one widely read repository
(github.com/LeeJunHyun/Image_Segmentation). How it differs from `gate="paper"`, the one above:
- g is taken after the decoder has enlarged it: it has the size and the channels of the skip (paper: the coarser map
  itself, half the size and twice the channels).
- So alpha is computed at the skip's own resolution, one value per pixel (paper: at half of it, then enlarged).
- W_x, the theta of the formula, is a 1x1 convolution of stride 1 (paper: 2x2, stride 2): a pixel's alpha depends on
  that pixel only.
- The intermediate channels are half of the skip's (paper: those of the skip).
- Batch normalization follows W_g, W_x and psi (paper: none), so alpha depends on the batch in training.
- Gates start half open: the batch normalization before the sigmoid centres alpha at about 0.5 (paper: open, here 0.95).
- Here as there: no output transform, all four skips, no deep supervision. Unlike there, the U-Net around it is that of
  `unet.py`, and the convolutions have no bias that the batch normalization after them would remove.

Attention U-Net：由拥有更多上下文的解码器，为跳跃连接的每个位置加权。

U-Net 的跳跃连接把一切都送过去，背景也不例外。注意力门把跳跃连接与解码器中较粗一级的特征图（门控信号 g）相比较，
再用一张取值在 0 到 1 之间的图 alpha 去乘跳跃连接（公式见上）。
与 `unet` 的区别只此一处：跳跃连接要经过注意力门；alpha 为 1 时两者逐比特相等。

论文：Oktay 等，2018，arXiv:1804.03999；作者的代码：github.com/ozan-oktay/Attention-Gated-Networks。

与论文的不同：
- 二维，alpha 用双线性插值放大（论文：三维 CT，三线性插值）；其余就是 `unet.py` 里的 U-Net：全分辨率处 64 个通道、
  2x2 池化、转置卷积（作者的代码：16 个通道，三线性放大）。
- 没有输出变换：论文也只是乘以 alpha，但作者的代码在乘积之后加了 1x1 卷积和批归一化（W），其后又有一层带 ReLU 的。
  去掉它们，打开的门就等于普通的跳跃连接。
- 四个跳跃连接都加门（论文不给最精细的一个加门，认为那里的特征过于低级）。
- g 直接取解码器中较粗一级的特征图（作者的代码在最深一级先做 1x1 卷积、批归一化和 ReLU）。
- theta 是步长为 2 的 2x2 卷积，与作者的代码一致（论文正文：1x1x1 卷积加下采样）。
- 中间通道数等于跳跃连接的通道数，与作者的 U-Net 一致（其网络层自身的默认值是一半）。
- 门在开始时是打开的，这是论文的要求，但论文没有给出数值：psi 的偏置从 3 开始，alpha 约为 0.95
  （作者的代码用 PyTorch 的默认偏置，alpha 在 0.5 左右）。
- 没有深度监督：只在全分辨率处有一个输出（论文每一级都有；作者的代码最后用一个 1x1 卷积把它们合并）。

`gate="popular"` 是网上大多数 PyTorch 版 Attention U-Net 所用的门，出自一个流传很广的仓库
（github.com/LeeJunHyun/Image_Segmentation）。它与上面的 `gate="paper"` 的不同：
- g 取自解码器放大之后：大小和通道数都与跳跃连接相同（论文：直接取较粗一级的特征图，大小是一半，通道数是两倍）。
- 因此 alpha 就在跳跃连接自己的分辨率上计算，每个像素一个值（论文：在一半的分辨率上计算，再用双线性插值放大）。
- W_x（公式中的 theta）是步长为 1 的 1x1 卷积（论文：步长为 2 的 2x2 卷积），一个像素的 alpha 只看这个像素。
- 中间通道数是跳跃连接的一半（论文：与跳跃连接相等）。
- W_g、W_x 和 psi 之后都有批归一化（论文没有），所以训练时 alpha 与同一批的其他图像有关。
- 门在开始时半开：sigmoid 之前的批归一化使 alpha 以 0.5 左右为中心（论文：打开，这里是 0.95）。
- 与该仓库相同：没有输出变换，四个跳跃连接都加门，没有深度监督。与该仓库不同：其余部分就是 `unet.py` 里的 U-Net；
  后面有批归一化的卷积不带偏置，因为偏置会被归一化抵消。
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import crop
from models.unet import UNet, Up

OPEN = 3.0  # the bias that psi starts with; sigmoid(3) = 0.95
GateName = Literal["paper", "popular"]


def attention_unet(width: int = 64, up: Up = "transpose", gate: GateName = "paper") -> UNet:
    """U-Net whose skips pass an additive attention gate (Oktay et al., 2018), as in the paper or as widely copied.

    Raises ValueError for another `gate`, and as `UNet` does.
    """
    gates: dict[str, Callable[[int, int], Gate]] = {"paper": AttentionGate, "popular": PopularGate}
    if gate not in gates:
        raise ValueError(f"The option gate={gate} of the Attention U-Net should be one of {', '.join(gates)}.")
    return UNet(width=width, up=up, gate=gates[gate])


class Gate(nn.Module):
    """Multiply a skip connection `(N, C, H, W)` by `alpha`, which a subclass computes from it and the gating signal."""

    def alpha(self, skip: Tensor, g: Tensor) -> Tensor:
        """Attention map `(N, 1, H, W)`, from 0 (closed) to 1 (open)."""
        raise NotImplementedError

    def forward(self, skip: Tensor, g: Tensor) -> Tensor:
        return skip * self.alpha(skip, g).to(skip.dtype)  # autocast on the CPU interpolates in float32


class AttentionGate(Gate):
    """alpha from the skip and the decoder's coarser map g, at the size of g (Oktay et al. 2018, eq. 1-2).

    `skip` `(N, C, H, W)` and `g` `(N, G, H/2, W/2)` -> `(N, C, H, W)`, for even H and W.
    """

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(skip_channels, skip_channels, kernel_size=2, stride=2, bias=False)  # phi has the bias
        self.phi = nn.Conv2d(gating_channels, skip_channels, kernel_size=1)
        self.psi = nn.Conv2d(skip_channels, 1, kernel_size=1)
        nn.init.constant_(self.psi.bias, OPEN)  # type: ignore[arg-type]

    def alpha(self, skip: Tensor, g: Tensor) -> Tensor:
        """Attention map `(N, 1, H, W)`, from 0 (closed) to 1 (open)."""
        agreement = F.relu(self.theta(skip) + self.phi(g))  # (N, C, H/2, W/2)
        alpha = self.psi(agreement).sigmoid()  # (N, 1, H/2, W/2)
        return F.interpolate(alpha, size=skip.shape[-2:], mode="bilinear", align_corners=False)


class PopularGate(Gate):
    """alpha from the skip and the decoder's map after its enlargement, pixel by pixel, as in widely copied public code.

    `skip` and `g` `(N, C, H, W)` -> `(N, C, H, W)`. In training alpha depends on the whole batch.
    """

    after_up = True

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        between = max(1, skip_channels // 2)
        self.w_g = normalized1x1(gating_channels, between)
        self.w_x = normalized1x1(skip_channels, between)
        self.psi = normalized1x1(between, 1)

    def alpha(self, skip: Tensor, g: Tensor) -> Tensor:
        agreement = F.relu(self.w_g(g) + self.w_x(skip))  # (N, C/2, H, W)
        return self.psi(agreement).sigmoid()  # (N, 1, H, W)


def normalized1x1(channels_in: int, channels_out: int) -> nn.Sequential:
    """1x1 convolution and batch normalization: `(N, channels_in, H, W)` -> `(N, channels_out, H, W)`."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, kernel_size=1, bias=False), nn.BatchNorm2d(channels_out))


@torch.no_grad()
def attention_maps(model: UNet, image: Tensor) -> list[Tensor]:
    """The alpha of each gate for `image` `(N, 3, H, W)`, coarsest first, each enlarged to `(N, 1, H, W)`: for drawing.

    Call it in eval mode: in training, batch normalization would learn from `image`.
    """
    maps: list[Tensor] = []
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    hooks = [gate.register_forward_hook(lambda gate, inputs, _: maps.append(gate.alpha(*inputs))) for gate in gates]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    padded = maps[-1].shape[-2:] if maps else image.shape[-2:]  # the finest gate works at full resolution
    return [
        crop(F.interpolate(alpha.float(), size=padded, mode="bilinear", align_corners=False), like=image)
        for alpha in maps
    ]
