"""Source of u-net-pytorch.ipynb and u-net-pytorch.zh-CN.ipynb; `make notebook` writes and runs them."""

# %% [markdown] en
# # A U-Net in PyTorch, step by step
#
# [中文](u-net-pytorch.zh-CN.ipynb) · open in
# [Colab](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/reference/u-net-pytorch.ipynb) or
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/reference/u-net-pytorch.ipynb)
# · a few minutes on a CPU, nothing to download but the project
#
# **At the end you will have** trained a U-Net that finds cars in images of cars it has never seen. You will have
# written every part of it yourself: network, loss, training loop, attention gate. And you will have seen why one
# training of each does not tell which of two models is better.
#
# 1. [A result first](#1.-A-result-first)
# 2. [Images and masks](#2.-Images-and-masks)
# 3. [A split without leaks](#3.-A-split-without-leaks)
# 4. [Augmentation](#4.-Augmentation)
# 5. [The network](#5.-The-network)
# 6. [The loss](#6.-The-loss)
# 7. [The training loop](#7.-The-training-loop)
# 8. [Scores](#8.-Scores)
# 9. [Attention gates](#9.-Attention-gates)
# 10. [Is it better?](#10.-Is-it-better?)
# 11. [Exercises](#11.-Exercises)
#
# What you build is compared with the module of this project that does the same. Each `assert` states a claim of the
# text; change the code and see which one fails.

# %% [markdown] zh
# # 用 PyTorch 一步一步搭建 U-Net
#
# [English](u-net-pytorch.ipynb) · 在
# [Colab](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/reference/u-net-pytorch.zh-CN.ipynb) 或
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/reference/u-net-pytorch.zh-CN.ipynb)
# 中打开 · 在 CPU 上只需几分钟，除本项目外无需下载任何东西
#
# **学完之后**，你会训练出一个 U-Net，它能在从未见过的汽车的图像中把汽车分割出来；网络、损失函数、训练循环、注意力门，
# 每一部分都由你亲手写出。你还会看到，为什么每个模型只训练一次，并不能说明哪一个更好。
#
# 1. [先看结果](#1.-先看结果)
# 2. [图像与掩码](#2.-图像与掩码)
# 3. [没有泄漏的划分](#3.-没有泄漏的划分)
# 4. [数据增强](#4.-数据增强)
# 5. [网络](#5.-网络)
# 6. [损失函数](#6.-损失函数)
# 7. [训练循环](#7.-训练循环)
# 8. [评分](#8.-评分)
# 9. [注意力门](#9.-注意力门)
# 10. [真的更好吗？](#10.-真的更好吗？)
# 11. [练习](#11.-练习)
#
# 你写出的每一部分都会与本项目中对应的模块对照。每个 `assert` 都对应文中的一个论断：改一改代码，看看哪一个不再成立。
# 代码、输出和图中的文字用英文，两种语言的笔记本共用同一套代码和输出。

# %% fold
# @title Setup: on Colab and Kaggle this fetches the project and its packages
import os
import subprocess
import sys
import warnings
from pathlib import Path

if not Path("../registry.py").exists():
    address = "https://github.com/OWNER/REPOSITORY.git"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", address], check=True)
    os.chdir("REPOSITORY/reference")
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", "../requirements.txt"], check=True)
sys.path.insert(0, "..")  # the project's own modules lie one folder up

import matplotlib.pyplot as plt
from matplotlib_inline.backend_inline import set_matplotlib_formats

warnings.filterwarnings("ignore", message="IProgress not found")
set_matplotlib_formats("jpeg")
plt.rcParams.update({"figure.dpi": 90, "axes.titlesize": 9, "font.size": 9})

# %% [markdown] en
# ## 1. A result first
#
# Fifteen synthetic cars, sixteen images of each. The network is trained on ten of them and predicts two images of cars
# that it has never seen. In the last column, orange is missed and blue is found where there is no car.

# %% [markdown] zh
# ## 1. 先看结果
#
# 十五辆合成汽车，每辆十六张图像。网络在其中十辆上训练，然后对从未见过的汽车的两张图像作预测。最后一列中，
# 橙色为假阴性（漏掉的汽车像素），蓝色为假阳性（误认为汽车的背景像素）。

# %%
import tempfile

import torch

from experiments.data import split
from reference.lesson_tools import fit, show_predictions, synthetic_cars, tensors
from registry import LOSSES, MODELS

WIDTH, SIZE = 8, (96, 64)  # channels at full resolution; width x height of the input

samples = synthetic_cars(Path(tempfile.mkdtemp()) / "cars")
parts = split(samples, by="car")
torch.manual_seed(0)
first = MODELS["unet"].build(width=WIDTH)
fit(first, LOSSES["bce_dice"].build(), *tensors(parts.train, SIZE))
show_predictions(first, [parts.test[0], parts.test[20]], SIZE)

# %% [markdown] en
# Five steps did this: make images, split, build a network, train it, predict. The rest of this notebook opens each of
# them. The training took 80 steps at 96×64. With Carvana's images at 192×128 and four minutes on two CPU cores, Dice
# reaches 0.989 ([what it costs](../README.md#what-it-costs)).
#
# ## 2. Images and masks
#
# As in Kaggle's Carvana, a car stands on a turntable and is shown from sixteen sides. The mask says for each pixel
# whether it belongs to the car; its rim is drawn in orange.

# %% [markdown] zh
# 五步就够了：生成图像、划分、建立网络、训练、预测。下面逐步拆开来看。这里的输入是 96×64，只训练了 80 步。
# 用 Carvana 的图像、192×128 的输入，在双核 CPU 上训练四分钟，Dice 可达 0.989（[需要多少资源](../README.zh-CN.md#需要多少资源)）。
#
# ## 2. 图像与掩码
#
# 与 Kaggle 的 Carvana 一样，汽车停在转台上，从十六个角度各拍一张。掩码说明每个像素是否属于汽车；图中用橙色画出了它的边界。

# %%
import numpy as np

from experiments.data.samples import read_image, read_mask
from reference.lesson_tools import outlined, show

cars = sorted({sample.group for sample in samples})
one_car = [sample for sample in samples if sample.group == cars[0]][:8]
pictures = [outlined(read_image(s.image), read_mask(s.mask)) for s in one_car]
show(pictures, [f"view {s.image.stem[-2:]}" for s in one_car])
print(len(samples), "images of", len(cars), "cars")

# %% [markdown] en
# **A trap.** Carvana's masks are palette images. Pillow returns the *index* of each colour, 0 or 1, where many expect 0
# or 255. A threshold at 127 then makes every mask empty. Nothing fails: the network learns to find nothing.

# %% [markdown] zh
# **一个陷阱。** Carvana 的掩码是调色板图像。Pillow 返回的是颜色的**索引** 0 或 1，而很多人以为是 0 或 255。
# 这时若以 127 为阈值，所有掩码都会变成空的，而且不会报错：网络只会学着什么都找不到。

# %%
from PIL import Image

mask_file = Image.open(samples[0].mask)
index, grey = np.asarray(mask_file), np.asarray(mask_file.convert("L"))
print(
    "mode", mask_file.mode, "| indices", np.unique(index), "| as grey", np.unique(grey)
)
print(f"car pixels: {read_mask(samples[0].mask).mean():.1%}, ", end="")
print(f"by index > 127: {(index > 127).mean():.1%}")
assert ((grey > 127) == read_mask(samples[0].mask)).all()  # what the project reads

# %% [markdown] en
# **Guess before you run:** a "network" calls every pixel background. What is its accuracy, and what is its Dice?

# %% [markdown] zh
# **运行之前先猜一猜：** 一个“网络”把所有像素都判为背景。它的准确率是多少？Dice 又是多少？

# %%
share = np.mean([read_mask(sample.mask).mean() for sample in samples])
print(f"all background: accuracy {1 - share:.3f}, Dice 0")

# %% [markdown] en
# That is why accuracy is not the score here.
#
# ## 3. A split without leaks
#
# Sixteen images of one car are nearly one image. If they lie on both sides of a split, the score measures memory. So
# whole cars are divided.
#
# **Guess before you run:** split by image instead. For how many validation images was the same car seen in training?

# %% [markdown] zh
# 所以这里不用准确率评分。
#
# ## 3. 没有泄漏的划分
#
# 同一辆车的十六张图像几乎就是同一张。它们若分布在划分的两侧，分数衡量的就是记忆，这就是数据泄漏。所以要以整辆车为单位来划分。
#
# **运行之前先猜一猜：** 如果改为按图像划分，有多少验证图像的车在训练中出现过？

# %%
leaky = split(samples, by="image", seed=0)
for name, divided in (("by car", parts), ("by image", leaky)):
    known = {sample.group for sample in divided.train}
    seen = np.mean([sample.group in known for sample in divided.val])
    sizes = len(divided.train), len(divided.val), len(divided.test)
    print(f"{name:9} train, val, test {sizes}; car seen in training: {seen:.0%}")

# %% [markdown] en
# ## 4. Augmentation
#
# Each draw is an image that could have been taken. What moves the image also moves its mask; what changes its light
# does not. One row per policy (`--augment`); the first column is the image itself.

# %% [markdown] zh
# ## 4. 数据增强
#
# 每次增强都得到一张“本来也可能拍到”的图像。几何变换同时作用于掩码；改变光照的变换不改变掩码。每行是一种策略（`--augment`），
# 第一列是原图。

# %%
from experiments.data import augment
from registry import AUGMENTATIONS

image = read_image(parts.train[0].image)
mask = read_mask(parts.train[0].mask).astype(np.uint8)
pictures, titles = [], []
for name in AUGMENTATIONS:
    policy = AUGMENTATIONS[name].build()
    draws = [augment.draw(policy, image, mask, 0, epoch, 0) for epoch in (1, 2, 3)]
    pictures += [outlined(image, mask)] + [outlined(*draw) for draw in draws]
    titles += [name, "epoch 1", "epoch 2", "epoch 3"]
show(pictures, titles, width=8.0)

# %% [markdown] en
# A draw depends on (seed, epoch, image) and on nothing else. So a repeated run is the same run, whatever the number of
# worker processes.

# %% [markdown] zh
# 一次增强只取决于随机种子、epoch 和图像。所以无论有多少工作进程，重复训练的结果都相同。

# %%
policy = AUGMENTATIONS["geometric"].build()
once, again = (augment.draw(policy, image, mask, 0, 1, 0)[0] for _ in range(2))
later = augment.draw(policy, image, mask, 0, 2, 0)[0]
assert (once == again).all() and (once != later).any()

# %% [markdown] en
# ## 5. The network
#
# Ronneberger, Fischer and Brox 2015, [arXiv:1505.04597](https://arxiv.org/abs/1505.04597). The encoder halves the
# feature maps until one pixel has seen much of the image and encodes *what* is there. The decoder enlarges them again.
# Skip connections supply the maps that still encode *where*. The boxes say channels × height × width.

# %% [markdown] zh
# ## 5. 网络
#
# Ronneberger、Fischer、Brox，2015，[arXiv:1505.04597](https://arxiv.org/abs/1505.04597)。编码器把特征图的边长逐级减半，直到一个
# 像素的感受野覆盖图像的大部分，编码了那里“是什么”。解码器再逐级放大，跳跃连接则送来仍保留着“在哪里”的特征图。框中依次是通道数 × 高 × 宽。

# %%
from reference.lesson_tools import unet_diagram

unet_diagram(WIDTH, SIZE)

# %% [markdown] en
# **The block**: twice a 3×3 convolution, batch normalization and ReLU. Padding by 1 keeps the size. The convolutions
# need no bias: the batch normalization behind them would remove it.

# %% [markdown] zh
# **基本块**：两次 3×3 卷积、批归一化和 ReLU。填充 1 个像素使大小不变。卷积不需要偏置，因为后面的批归一化会把它抵消。

# %%
from torch import nn
from torch.nn import functional as F


def double_conv(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


torch.manual_seed(0)
x = torch.rand(1, 3, SIZE[1], SIZE[0])
print(tuple(x.shape), "->", tuple(double_conv(3, WIDTH)(x).shape))

# %% [markdown] en
# **The encoder**: a block, keep its map for later (the skip), halve it by max pooling; four times. The channels double
# each time.

# %% [markdown] zh
# **编码器**：一个基本块，把它的特征图留下备用（跳跃连接），再用最大池化将边长减半；共四次。通道数每次加倍。

# %%
channels = [WIDTH * 2**level for level in range(5)]  # 8, 16, 32, 64, 128
pairs = zip([3, *channels], channels[:4])
encoder = [double_conv(c_in, c_out) for c_in, c_out in pairs]
bottleneck = double_conv(channels[3], channels[4])
skips = []
for level in encoder:
    skips.append(level(x))
    x = F.max_pool2d(skips[-1], kernel_size=2)
    print("skip", tuple(skips[-1].shape), "-> halved", tuple(x.shape))
x = bottleneck(x)
print("bottleneck", tuple(x.shape))

# %% [markdown] en
# **Guess before you run:** how many pixels of the image, in each direction, does one pixel of the bottleneck see? The
# first way counts: a 3×3 convolution adds 2 steps, pooling adds 1, and after each pooling a step is twice as long. The
# second way asks for the input pixels whose gradient is not 0.

# %% [markdown] zh
# **运行之前先猜一猜：** 瓶颈处的一个像素，在每个方向上能看到图像的多少个像素（感受野有多大）？第一种方法是逐层累加：
# 每个 3×3 卷积增加 2 步，每次池化增加 1 步，池化之后步长加倍。第二种方法是看哪些输入像素的梯度不为 0。

# %%
seen, step = 1, 1
for _ in range(4):
    seen += 2 * 2 * step + step  # two convolutions, one pooling
    step *= 2
seen += 2 * 2 * step  # the bottleneck
probe = torch.rand(1, 3, 320, 320, requires_grad=True)
y = probe
for level in encoder:
    y = F.max_pool2d(level.eval()(y), 2)
bottleneck.eval()(y)[0, :, 10, 10].sum().backward()
rows = probe.grad.abs().sum((0, 1, 3)).nonzero()
print("by counting:", seen, "| by gradient:", int(rows.max() - rows.min()) + 1)

# %% [markdown] en
# **The decoder**: enlarge by a transposed convolution, concatenate the skip, and let a block mix the two.

# %% [markdown] zh
# **解码器**：用转置卷积放大，与跳跃连接拼接，再用一个基本块混合两者。

# %%
for c, skip in zip(reversed(channels[:4]), reversed(skips)):
    above = nn.ConvTranspose2d(2 * c, c, kernel_size=2, stride=2)(x)
    both = torch.cat([skip, above], dim=1)
    x = double_conv(2 * c, c)(both)
    print("with its skip", tuple(both.shape), "->", tuple(x.shape))
logits = nn.Conv2d(WIDTH, 1, kernel_size=1)(x)  # one number per pixel
print("logits", tuple(logits.shape))

# %% [markdown] en
# The same as a class, with what an image needs on its way in. Colours go from [0, 1] to [-1, 1]. Mirroring pads to a
# multiple of 16, because a map of odd size could not be halved and doubled back.

# %% [markdown] zh
# 同样的内容写成一个类，再加上图像进入网络时的两步：颜色从 [0, 1] 变到 [-1, 1]；用镜像填充到 16 的倍数，因为边长为奇数的特征图
# 减半后再加倍，就回不到原来的大小。


# %%
class StepByStep(nn.Module):
    def __init__(self, width):
        super().__init__()
        c = [width * 2**level for level in range(5)]
        pairs = zip([3, *c], c[:4])
        self.encoder = nn.ModuleList(double_conv(a, b) for a, b in pairs)
        self.bottleneck = double_conv(c[3], c[4])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * n, n, 2, 2) for n in c[3::-1])
        self.mixers = nn.ModuleList(double_conv(2 * n, n) for n in c[3::-1])
        self.head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, image):
        height, width = image.shape[-2:]
        image = (image - 0.5) / 0.5
        x = F.pad(image, (0, -width % 16, 0, -height % 16), mode="reflect")
        skips = []
        for level in self.encoder:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for up, mix, skip in zip(self.ups, self.mixers, reversed(skips)):
            x = mix(torch.cat([skip, up(x)], dim=1))
        return self.head(x)[..., :height, :width]


# %% [markdown] en
# Is it the network of section 1? Its weights are copied into yours, and both see an image of an awkward size.

# %% [markdown] zh
# 它就是第 1 节的网络吗？把那里的权重复制过来，再给两者输入同一张尺寸不规整的图像。

# %%
theirs = first.state_dict()
kinds = ("encoder.", "bottleneck.", ".up.", "decoder.", "head.")
ordered = {}
for kind in kinds:  # as StepByStep lists its parts
    ordered |= {
        name: w for name, w in theirs.items() if kind in name and name not in ordered
    }
ours = StepByStep(WIDTH)
ours.load_state_dict(dict(zip(ours.state_dict(), ordered.values(), strict=True)))
awkward = torch.rand(2, 3, 101, 67)
with torch.no_grad():
    assert torch.equal(ours.eval()(awkward), first(awkward))
for width in (WIDTH, 64):
    parameters = sum(p.numel() for p in StepByStep(width).parameters())
    print(f"width {width}: {parameters:,} parameters")

# %% [markdown] en
# The same logits, bit for bit. Width 64 is that of the paper.
#
# ## 6. The loss
#
# The network gives a logit $z$ per pixel; the probability of "car" is $p = \mathrm{sigmoid}(z)$; the mask $m$ is
# 0 or 1.
#
# $$\mathrm{BCE} = -\frac{1}{HW}\sum_i \left[m_i \log p_i + (1 - m_i)\log(1 - p_i)\right] \qquad
# \mathrm{Dice} = 1 - \frac{2\sum_i p_i m_i + 1}{\sum_i p_i + \sum_i m_i + 1}$$
#
# BCE (cross-entropy) scores each pixel by itself. Dice measures overlap, so a small object weighs as much as a large
# one.

# %% [markdown] zh
# 两者的 logits 逐比特一致。论文中的宽度是 64。
#
# ## 6. 损失函数
#
# 网络给每个像素一个 logit $z$；“是汽车”的概率为 $p = \mathrm{sigmoid}(z)$；掩码 $m$ 取 0 或 1。
#
# $$\mathrm{BCE} = -\frac{1}{HW}\sum_i \left[m_i \log p_i + (1 - m_i)\log(1 - p_i)\right] \qquad
# \mathrm{Dice} = 1 - \frac{2\sum_i p_i m_i + 1}{\sum_i p_i + \sum_i m_i + 1}$$
#
# BCE（交叉熵）对每个像素单独计算；Dice 衡量重叠比例，因此大小目标的权重相同。


# %%
def bce(z, m):
    p = z.sigmoid()
    return -(m * p.log() + (1 - m) * (1 - p).log()).mean()


def dice(z, m):
    p, m = z.sigmoid().flatten(1), m.flatten(1)
    return (1 - (2 * (p * m).sum(1) + 1) / (p.sum(1) + m.sum(1) + 1)).mean()


z, m = torch.randn(3, 1, 40, 60), (torch.rand(3, 1, 40, 60) > 0.7).float()
for name, by_hand in (("bce", bce), ("dice", dice)):
    project = LOSSES[name].build()
    print(f"{name:5} by hand {by_hand(z, m):.6f}  project {project(z, m):.6f}")
    assert torch.allclose(by_hand(z, m), project(z, m), atol=1e-6)
sure, background = torch.full((1, 1, 8, 8), 200.0), torch.zeros(1, 1, 8, 8)
print("sure and wrong: by hand", bce(sure, background).item(), end=" | ")
print("project", LOSSES["bce"].build()(sure, background).item())

# %% [markdown] en
# The formula as written becomes infinite where the network is sure and wrong: log 0. The project computes BCE from the
# logits, which stays finite.
#
# **Guess before you run:** the truth is a disc of radius 20 pixels, or one of radius 5. A network misses it altogether.
# How much does the loss fall from the large disc to the small one, with BCE and with Dice?

# %% [markdown] zh
# 网络很有把握却判错时，照公式直接计算会得到无穷大（log 0）。本项目直接由 logits 计算 BCE，结果总是有限的。
#
# **运行之前先猜一猜：** 标注真值是半径 20 像素的圆，或者半径 5 像素的圆，网络把它完全漏掉了。从大圆换成小圆，
# BCE 和 Dice 的损失各会减小多少？

# %%
yy, xx = np.mgrid[-48:48, -48:48]
distance = torch.from_numpy(np.hypot(yy, xx)).float()[None, None]
nothing = torch.full_like(distance, -8.0)  # sure that there is only background
missed = {}
for name in ("bce", "dice"):
    loss = LOSSES[name].build()
    for radius in (20, 5):
        missed[name, radius] = loss(nothing, (distance < radius).float()).item()
    print(f"{name:5} large {missed[name, 20]:.3f}  small {missed[name, 5]:.3f}")
assert missed["dice", 5] > 0.9 * missed["dice", 20]
assert missed["bce", 5] < 0.1 * missed["bce", 20]

# %% [markdown] en
# Missing the small disc costs Dice as much as missing the large one, and BCE next to nothing.
#
# What moves the weights is the gradient, not the loss. Below: the gradient at one pixel of the car, from "sure that it
# is background" (logit −6) to "sure that it is car" (6). That of `focal` decays quickly once the pixel is right. So the
# learning rate that suits BCE need not suit it.

# %% [markdown] zh
# 漏掉小圆时，Dice 的损失与漏掉大圆时几乎相同，BCE 的损失却接近 0。
#
# 决定权重如何更新的不是损失值，而是梯度。下图是汽车上一个像素的梯度，从“肯定是背景”（logit −6）到“肯定是汽车”（6）。
# 像素一旦分类正确，`focal` 的梯度就迅速减小，所以适合 BCE 的学习率未必适合它。

# %%
z = torch.linspace(-6, 6, 121, requires_grad=True)
plt.figure(figsize=(6, 2.2))
for name in ("bce", "focal"):
    loss = LOSSES[name].build()
    value = sum(loss(one.view(1, 1, 1, 1), torch.ones(1, 1, 1, 1)) for one in z)
    (gradient,) = torch.autograd.grad(value, z)
    plt.plot(z.detach(), gradient.abs(), label=name)
plt.xlabel("logit of a pixel of the car")
plt.ylabel("size of the gradient")
plt.legend()
plt.show()

# %% [markdown] en
# ## 7. The training loop
#
# A step: forward, loss, backward, update. An epoch is one pass over the training images. The learning rate rises over
# the first quarter of the steps and then falls (one-cycle).

# %% [markdown] zh
# ## 7. 训练循环
#
# 一步：前向、损失、反向、更新。一个 epoch 就是把训练图像过一遍。学习率在前四分之一的步数里上升，然后下降（one-cycle）。

# %%
train_x, train_m = tensors(parts.train, SIZE)
val_x, val_m = tensors(parts.val, SIZE)


@torch.no_grad()
def mean_dice(model, images, masks):
    found, truth = model.eval()(images) > 0, masks > 0  # logit 0 is probability 0.5
    overlap = (found & truth).flatten(1).sum(1)
    return (2 * overlap / (found.flatten(1).sum(1) + truth.flatten(1).sum(1))).mean()


def train(model, loss, epochs=4, batch=8, rate=1e-2):
    steps = epochs * len(train_x) // batch
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.25, cycle_momentum=False
    )
    curve = []
    for epoch in range(1, epochs + 1):
        model.train()
        losses = []
        for some in torch.randperm(len(train_x)).split(batch):
            value = loss(model(train_x[some]), train_m[some])  # forward, loss
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(value.item())
        curve.append((np.mean(losses), mean_dice(model, val_x, val_m).item()))
        print(f"epoch {epoch}: loss {curve[-1][0]:.3f}, val Dice {curve[-1][1]:.3f}")
    return curve


torch.manual_seed(0)
unet = MODELS["unet"].build(width=WIDTH)
curve = train(unet, LOSSES["bce_dice"].build())

# %% [markdown] en
# This is the loop that stood behind the first prediction: the same seed gives the same weights. The project's loop,
# [`experiments/training/loop.py`](../experiments/training/loop.py), adds what long trainings need: checkpoints, clipped
# gradients, other precisions, and a stop at the first value that is not finite.

# %% [markdown] zh
# 第 1 节的预测用的就是这个循环：种子相同，权重就相同。本项目的训练循环
# [`experiments/training/loop.py`](../experiments/training/loop.py) 还包括长时间训练所需的东西：检查点、梯度裁剪、其他精度，
# 以及遇到第一个非有限值就停止。

# %%
for a, b in zip(unet.parameters(), first.parameters()):
    assert torch.equal(a, b)
_, left = plt.subplots(figsize=(6, 2.4))
right = left.twinx()
left.plot(range(1, 5), [loss for loss, _ in curve], color="#0072B2", marker="o")
right.plot(range(1, 5), [dice for _, dice in curve], color="#D55E00", marker="s")
left.set_xticks(range(1, 5))
left.set_xlabel("epoch")
left.set_ylabel("training loss", color="#0072B2")
right.set_ylabel("validation Dice", color="#D55E00")
plt.show()

# %% [markdown] en
# ## 8. Scores
#
# An image is scored at its own size: the logits are enlarged, thresholded at 0 (probability 0.5) and compared with the
# ground truth. Then come the mean over a car and the mean over cars. Below: the best and the worst test image.

# %% [markdown] zh
# ## 8. 评分
#
# 每张图像都按原始尺寸评分：把 logits 放大，以 0（概率 0.5）为阈值，再与标注真值比较。然后先在一辆车内取平均，再对各车取平均。
# 下面是得分最高和最低的测试图像。

# %%
from experiments.evaluation import score
from reference.lesson_tools import car_means, predict


def scored(model):
    maps = predict(model, parts.test, SIZE)
    return [score(z > 0, read_mask(s.mask)) for z, s in zip(maps, parts.test)]


scores = scored(unet)
dices = np.array([one.dice for one in scores])
show_predictions(unet, [parts.test[dices.argmax()], parts.test[dices.argmin()]], SIZE)
print(f"best image {dices.max():.3f}, worst image {dices.min():.3f}")
for car, value in car_means(dices, parts.test).items():
    print(f"car {car[:8]}: mean Dice {value:.3f}")

# %% [markdown] en
# Dice is kind to large objects, since most of a car's pixels lie far from its rim. Boundary IoU (Cheng et al. 2021)
# looks at a band along the rim only. HD95 says how many pixels the two rims lie apart, except for the worst 5%.

# %% [markdown] zh
# Dice 对大目标比较宽容，因为汽车的大部分像素离边界很远。边界 IoU（Cheng 等，2021）只看沿边界的一条带；HD95 表示两条边界相距
# 多少像素（去掉最差的 5%）。

# %%
print(f"mean boundary IoU {np.mean([one.boundary_iou for one in scores]):.3f}")
print(f"median HD95 {np.median([one.hd95 for one in scores]):.1f} pixels")

# %% [markdown] en
# ## 9. Attention gates
#
# A skip passes everything on, background included. An attention gate (Oktay et al. 2018,
# [arXiv:1804.03999](https://arxiv.org/abs/1804.03999)) compares the skip with the coarser map `g` of the decoder. It
# multiplies the skip by a map α between 0 and 1:
#
# $$\alpha = \mathrm{sigmoid}\left(\psi\left(\mathrm{relu}(\theta(\mathrm{skip}) + \varphi(g))\right)\right)$$

# %% [markdown] zh
# ## 9. 注意力门
#
# 跳跃连接会传递所有信息，连背景也不例外。注意力门（Oktay 等，2018，
# [arXiv:1804.03999](https://arxiv.org/abs/1804.03999)）把跳跃连接与解码器中较粗一级的特征图 `g` 相比较，再将它乘以一张取值
# 在 0 到 1 之间的图 α：
#
# $$\alpha = \mathrm{sigmoid}\left(\psi\left(\mathrm{relu}(\theta(\mathrm{skip}) + \varphi(g))\right)\right)$$


# %%
class Gate(nn.Module):
    def __init__(self, skip_channels, g_channels):
        super().__init__()
        self.theta = nn.Conv2d(skip_channels, skip_channels, 2, stride=2, bias=False)
        self.phi = nn.Conv2d(g_channels, skip_channels, kernel_size=1)
        self.psi = nn.Conv2d(skip_channels, 1, kernel_size=1)

    def forward(self, skip, g):
        alpha = self.psi(F.relu(self.theta(skip) + self.phi(g))).sigmoid()
        size = skip.shape[-2:]  # alpha has the size of g, half of that
        return skip * F.interpolate(alpha, size, mode="bilinear", align_corners=False)


torch.manual_seed(0)
attention = MODELS["attention_unet"].build(width=WIDTH)
theirs, yours = attention.decoder[0].gate, Gate(8 * WIDTH, 16 * WIDTH)
yours.load_state_dict(theirs.state_dict())
skip, g = torch.rand(1, 8 * WIDTH, 12, 18), torch.rand(1, 16 * WIDTH, 6, 9)
assert torch.equal(yours(skip, g), theirs(skip, g))

# %% [markdown] en
# With the gates forced open (α = 1) the Attention U-Net *is* the U-Net. The gate is the whole difference.

# %% [markdown] zh
# 将注意力系数强制设为 1 时，Attention U-Net 的输出与 U-Net 完全一致：两者的区别只在于门。

# %%
opened = MODELS["attention_unet"].build(width=WIDTH).eval()
opened.load_state_dict(unet.state_dict(), strict=False)  # all but the gates
for level in opened.decoder:
    nn.init.zeros_(level.gate.psi.weight)
    nn.init.constant_(level.gate.psi.bias, 100.0)  # sigmoid(100) is 1
with torch.no_grad():
    assert torch.equal(opened(val_x[:4]), unet(val_x[:4]))

attention_curve = train(attention, LOSSES["bce_dice"].build())

# %% [markdown] en
# Where do its gates look? The maps α of one test image, from the coarsest gate to the finest: bright is open.

# %% [markdown] zh
# 注意力门关注哪里？下面是一张测试图像的 α 图，从最粗的门到最细的门，亮处表示打开。

# %%
from models.attention_unet import attention_maps

x = tensors(parts.test[:1], SIZE)[0]
maps = [alpha[0, 0].numpy() for alpha in attention_maps(attention, x)]
figure, axes = plt.subplots(1, 5, figsize=(10, 1.7), layout="constrained")
axes[0].imshow(x[0].permute(1, 2, 0))
for axis, alpha, size in zip(axes[1:], maps, (8, 4, 2, 1)):
    drawn = axis.imshow(alpha, cmap="magma", vmin=0, vmax=1)
    axis.set_title(f"gate at 1/{size}: {alpha.min():.2f} to {alpha.max():.2f}")
for axis in axes:
    axis.axis("off")
figure.colorbar(drawn, ax=axes, label="α")
plt.show()

# %% [markdown] en
# The gates began nearly open (α about 0.95 everywhere); what differs from that was learned. A map shows a factor, it
# does not prove that the gate helps. A skip with α = 0.5 everywhere loses nothing, because the next convolution can be
# twice as large.
#
# ## 10. Is it better?
#
# Both networks are trained and are scored on the same test cars.
#
# **Guess before you run:** can you say from the two scores which network is better? What will `compare` say?

# %% [markdown] zh
# 训练开始时门几乎全开（α 处处约为 0.95），与此不同之处都是训练中学到的。这样的图只画出了一个系数，并不能证明门有用：
# 如果 α 处处都是 0.5，也没有任何损失，因为下一个卷积的权重可以大一倍。
#
# ## 10. 真的更好吗？
#
# 两个网络都训练好了，也都在同样的测试汽车上评了分。
#
# **运行之前先猜一猜：** 从这两个分数，你能说哪个网络更好吗？`compare` 会给出什么结论？

# %%
from analysis.statistics import compare

plain = car_means(dices, parts.test)
gated = car_means([one.dice for one in scored(attention)], parts.test)
for car in plain:
    print(f"car {car[:8]}: U-Net {plain[car]:.3f}, Attention U-Net {gated[car]:.3f}")
one_seed = compare([list(gated.values())], [list(plain.values())])
print(f"difference {one_seed.difference:+.4f}: {one_seed.verdict}")
assert one_seed.verdict == "undecided"

# %% [markdown] en
# **Nobody can tell from this.** Another seed gives other numbers, and nothing here shows how different they would be.
# So the verdict of one seed is `undecided`, whatever the difference.
#
# How different are they? Two tiny networks, two losses, five seeds: twenty trainings, of some seconds each. Each dot is
# one training. The number marks the combination that this seed alone would have crowned.
#
# **Guess before you run:** how many different winners will the five seeds find?

# %% [markdown] zh
# **由此无法判断哪个更好。** 换一个种子，数字就会变，而变多少，这里看不到。所以只有一个种子时，无论差异多大，
# 结论都是 `undecided`（尚无定论）。
#
# 数字会变多少？两个很小的网络、两种损失函数、五个种子：共二十次训练，每次几秒钟。每个点是一次训练，
# 编号标出只看这一个种子时会选出的“冠军”。
#
# **运行之前先猜一猜：** 五个种子会选出几个不同的冠军？

# %%
from reference.lesson_tools import draw_seeds

SMALL = (48, 32)
small_x, small_m = tensors(parts.train, SMALL)
test_x, test_m = tensors(parts.test, SMALL)
models = {"unet": "U-Net", "attention_unet": "Attention U-Net"}
losses = {"bce": "BCE", "bce_dice": "BCE + Dice"}
results = {}
for model in models:
    for loss in losses:
        tries = []
        for seed in range(5):
            torch.manual_seed(seed)
            net = MODELS[model].build(width=4)
            fit(net, LOSSES[loss].build(), small_x, small_m, epochs=5)
            tries.append(mean_dice(net, test_x, test_m).item())
        results[f"{models[model]}, {losses[loss]}"] = tries
draw_seeds(results)

# %% [markdown] en
# The bar is the mean; an arrow at the edge is a training far below all others. Trainings of *one* combination lie as
# far apart as the combinations do. Training each once reports the luck of a seed. Does the gate help, then? With BCE +
# Dice, all five seeds together say:

# %% [markdown] zh
# 竖线是均值；边缘的箭头表示远低于其他的一次训练。**同一种**组合的各次训练之间，差距与不同组合之间一样大。
# 每种只训练一次，报告的就是某个种子的运气。那么注意力门有用吗？损失函数为 BCE + Dice 时，五个种子合在一起的结论是：

# %%
pair = ("Attention U-Net, BCE + Dice", "U-Net, BCE + Dice")
all_seeds = compare(*([[score] for score in results[name]] for name in pair))
print(f"{pair[0]} minus {pair[1]}: {all_seeds.difference:+.3f}")
print(
    f"95% interval {all_seeds.low:+.3f} to {all_seeds.high:+.3f}: {all_seeds.verdict}"
)

# %% [markdown] en
# The interval is over seeds, for these test cars alone, at one learning rate that nobody tuned. A study does more: it
# names its comparisons before the first run, tunes the rate of each combination, and its intervals are over seeds and
# cars. Type `python run.py study two_by_two --dry-run`, and read [how to read an
# interval](../docs/en/notes.md#how-to-read-an-interval-and-a-verdict). The same picture for sixteen real combinations
# opens the [README](../README.md).
#
# ## 11. Exercises
#
# **1.** Replace `torch.cat` in `StepByStep` by a sum, so that a mixer takes `n` channels instead of `2 * n`. How many
# parameters does that save?
#
# <details><summary>Answer</summary>
#
# The first convolution of each mixer loses 9·n·n weights, for n = 8, 16, 32 and 64: 9·(64 + 256 + 1,024 + 4,096) =
# 48,960 of 486,553, a tenth. What it costs in Dice takes several seeds to say.
#
# </details>
#
# **2.** The three losses of section 6 are compared at one learning rate. Why is that unfair to `focal`?
#
# <details><summary>Answer</summary>
#
# Its gradients are smaller, so with plain gradient descent its steps are, too. Adam divides by the size of the
# gradients, which hides most of that, but not how their size changes during training. A fair comparison tunes the rate
# for each loss.
#
# </details>
#
# **3.** Multiply the skips of `StepByStep` by 0 and train again. Which score falls most, and why?
#
# <details><summary>Answer</summary>
#
# Expect boundary IoU: the interior of a car can be found from coarse maps, the position of its rim cannot. Look at the
# errors; they form a band along the outline. Check it with a second seed.
#
# </details>
#
# **4.** Train on `leaky.train` and score on `leaky.test`. Is the higher score a better network?
#
# <details><summary>Answer</summary>
#
# No. The test images show cars from training, so part of the score is memory. On unseen cars the same network has no
# such help. How much it is worth depends on how much of the training set leaks: [measured](../docs/en/studies/leak.md)
# on Carvana.
#
# </details>
#
# **5.** A paper trains each of ten models once and the best one wins by 0.002. What would you ask its authors?
#
# <details><summary>Answer</summary>
#
# How much Dice differs between seeds of one model; whether the learning rate of each was tuned equally; what the unit
# of the split was. With ten models, the best of ten lucky draws wins.
#
# </details>

# %% [markdown] zh
# 这个区间只考虑随机种子，只对这些测试汽车有效，学习率也没有调过。正式的研究做得更多：比较在训练之前就定好，
# 每种组合各自调学习率，区间同时考虑种子和汽车。可以执行 `python run.py study two_by_two --dry-run`，
# 并阅读[如何解读置信区间](../docs/zh/notes.md#如何解读置信区间和结论)。[README](../README.zh-CN.md) 开头就是十六种真实组合的同一种图。
#
# ## 11. 练习
#
# **1.** 把 `StepByStep` 中的 `torch.cat` 换成相加，混合块的输入通道从 `2 * n` 变为 `n`。能省下多少参数？
#
# <details><summary>答案</summary>
#
# 每个混合块的第一个卷积少 9·n·n 个权重，n = 8、16、32、64：9·(64 + 256 + 1,024 + 4,096) = 48,960，总数为 486,553，约占十分之一。
# Dice 会降多少，需要多个种子才能回答。
#
# </details>
#
# **2.** 第 6 节的几种损失函数若用同一个学习率来比较，为什么对 `focal` 不公平？
#
# <details><summary>答案</summary>
#
# 它的梯度较小，用普通的梯度下降时，更新的步幅也就较小。Adam 会除以梯度的大小，抵消大部分影响，但抵消不了梯度大小在训练中的变化。
# 公平的比较要为每种损失函数各自调学习率。
#
# </details>
#
# **3.** 把 `StepByStep` 的跳跃连接乘以 0，重新训练。哪个分数下降最多？为什么？
#
# <details><summary>答案</summary>
#
# 多半是边界 IoU：从粗的特征图就能找到汽车的内部，却找不准边界的位置。看看错误图，错误会沿轮廓形成一条带。请再用一个种子验证。
#
# </details>
#
# **4.** 在 `leaky.train` 上训练，在 `leaky.test` 上评分。分数更高，说明网络更好吗？
#
# <details><summary>答案</summary>
#
# 不说明。测试图像中的车在训练中出现过，分数里有一部分是记忆；换成没见过的汽车，同一个网络就没有这种帮助。泄漏会使分数虚高多少，
# 取决于泄漏的图像在训练集中占多大比例：在 Carvana 上的[测量结果](../docs/zh/studies/leak.md)。
#
# </details>
#
# **5.** 一篇论文把十个模型各训练一次，最好的以 0.002 胜出。你会问作者什么？
#
# <details><summary>答案</summary>
#
# 同一个模型换种子，Dice 会差多少；各模型的学习率是否同样仔细地调过；数据按什么单位划分。十个模型里，胜出的可能只是运气最好的那一个。
#
# </details>
