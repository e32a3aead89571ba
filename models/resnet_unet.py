"""U-Net on a ResNet encoder pretrained on ImageNet: the encoder is reused, the decoder trained from scratch.

Edges, textures and object parts are much the same in all images. An encoder that learned them on 1.2 million labelled
images needs far fewer masks than one that starts from random weights. The network is `Unet` of
segmentation_models_pytorch (smp), as built by `zoo.py`, which also handles padding and weights.

Papers: He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385 (the encoder); Ronneberger et
al. 2015, arXiv:1505.04597 (the U-Net). Code: github.com/qubvel-org/segmentation_models.pytorch.

Differences from the papers:
- The classifier (average pooling and the last linear layer) of the ResNet is left out.
- The encoder halves five times; its own feature maps at 1/2, 1/4, 1/8 and 1/16 are the skips. Its first convolution has
  stride 2, so the finest skip has half the resolution and the last decoder level has none (U-Net: four halvings, the
  finest skip at full resolution).
- The decoder has 256, 128, 64, 32 and 16 channels, enlarges by nearest neighbour and uses batch normalization
  (U-Net: 512 to 64 channels, transposed convolutions, none); the head is a 3x3 convolution (U-Net: 1x1).
- Any size: the image is mirrored up to multiples of 32 inside and the logits are cropped.
- Colours are normalised as the encoder was trained; the whole network is trained further, encoder included.

以 ImageNet 预训练的 ResNet 为编码器的 U-Net：编码器取自现成的网络，解码器从头训练。

边缘、纹理、物体的部件，在各种图像里大同小异。编码器若已在 120 万张带标签的图像上学过这些，
所需的掩码就比从头训练少得多。
网络采用 segmentation_models_pytorch（smp）的 `Unet`，由 `zoo.py` 建立，填充和权重也在那里。

论文：He 等，2016，arXiv:1512.03385（编码器）；Ronneberger 等，2015，arXiv:1505.04597（U-Net）。

与论文的不同：
- 去掉 ResNet 的分类部分（平均池化和最后的全连接层）。
- 编码器减半五次，它在 1/2、1/4、1/8、1/16 分辨率处的特征图就是跳跃连接；第一个卷积的步长为 2，
  所以最精细的跳跃连接只有一半分辨率，解码器的最后一级没有跳跃连接（U-Net：减半四次，最精细的跳跃连接是全分辨率）。
- 解码器的通道数为 256、128、64、32、16，用最近邻插值放大，并使用批归一化（U-Net：512 到 64 个通道，转置卷积，
  没有批归一化）；
  输出层是 3x3 卷积（U-Net：1x1）。
- 任意大小：在内部用镜像填充到 32 的倍数，再裁剪 logits。
- 颜色按编码器训练时的方式归一化；训练时整个网络一起更新，包括编码器。
"""

from __future__ import annotations

from pathlib import Path

from models import zoo


def resnet_unet(encoder: str = "resnet34", pretrained: bool | str | Path = True) -> zoo.EncoderDecoder:
    """smp's U-Net on a ResNet encoder (He et al., 2016).

    Args:
        encoder: resnet18, resnet34, resnet50, resnet101, resnet152, or any other encoder of smp.
        pretrained: True for ImageNet weights (downloaded once, then cached), False for random ones, or the path of a
            state dict of that encoder as saved by torchvision, timm or smp (.pth or .safetensors; of a complete smp
            model the encoder is used).

    Raises:
        WeightsNotFetched: The weights are not cached and cannot be downloaded.
        ValueError: An unknown encoder, or a file that does not fit.
    """
    return zoo.build("Unet", encoder, pretrained)
