"""Loss functions of logits and mask, written out: one score per image, then the mean (`per=batch` apart).

`logits` and `mask` are `(N, 1, H, W)`, the mask 0 or 1; whatever comes in (bfloat16, boolean, under autocast), the loss
is computed and returned in float32. Options are checked as plain numbers, so that no step waits for the device.

损失函数：输入 logits 和掩码，每张图像先得一个值，再取平均；一律用 float32 计算。
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy: -log of the probability given to the truth, averaged over the pixels of each image.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, eq. 1, for one class and without the weight map.
    二元交叉熵：标注真值所得概率的负对数，对每张图像的像素取平均。
    """
    logits, mask = _flatten(logits, mask)
    return F.binary_cross_entropy_with_logits(logits, mask, reduction="none").mean(1).mean()


def dice_loss(logits: Tensor, mask: Tensor, smooth: float = 1.0, per: Literal["image", "batch"] = "image") -> Tensor:
    """1 - soft Dice: the lack of overlap between prediction and mask, whatever the object's size; between 0 and 1.

    `smooth` (in pixels, above 0) keeps the loss defined when mask and prediction are empty. `per="batch"` treats the
    batch as one large image: small objects then count less than large ones, and the loss depends on the batch size; see
    docs/en/notes.md.
    Source: Milletari et al. 2016, arXiv:1606.04797, section 3, with plain sums in place of squares, and `smooth`.
    1 减去软 Dice：预测与掩码的重叠有多少，与物体大小无关。per="batch" 把整批当作一张大图像，见 docs/zh/notes.md。
    """
    if not 0 < smooth < math.inf:
        raise ValueError(f"The option smooth={smooth} of the Dice loss should be above 0.")
    if per not in ("image", "batch"):
        raise ValueError(f"The option per={per} of the Dice loss should be one of image, batch.")
    logits, mask = _flatten(logits, mask)
    if per == "batch":
        logits, mask = logits.reshape(1, -1), mask.reshape(1, -1)  # (1, N*H*W)
    probability = logits.sigmoid()  # (N, H*W)
    overlap = (probability * mask).sum(1)  # (N,)
    total = probability.sum(1) + mask.sum(1)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def tversky_loss(logits: Tensor, mask: Tensor, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0) -> Tensor:
    """1 - soft Tversky index: Dice with weight `alpha` on false positives and `beta` on false negatives.

    alpha = beta = 0.5 equals `dice_loss` with twice the `smooth` (in pixels, above 0). `beta` above 0.5 favours recall.
    Source: Salehi et al. 2017, arXiv:1706.05721 (no `smooth`; alpha 0.3 and beta 0.7 were best in its experiments).
    Tversky 损失：对两种错误分别加权，alpha 对应假阳性，beta 对应假阴性；都取 0.5 就是 Dice。
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        if not 0 < value < math.inf:
            raise ValueError(f"The option {name}={value} of the Tversky loss should be above 0.")
    logits, mask = _flatten(logits, mask)
    probability = logits.sigmoid()  # (N, H*W)
    overlap = (probability * mask).sum(1)  # (N,)
    false = (probability * (1 - mask)).sum(1)
    missed = (logits.neg().sigmoid() * mask).sum(1)  # 1 - p without cancellation
    return (1 - (overlap + smooth) / (overlap + alpha * false + beta * missed + smooth)).mean()


def lovasz_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Lovasz hinge of each image: a convex surrogate of the Jaccard loss (1 - IoU) of the thresholded prediction.

    Hinge errors are sorted, largest first; each is weighted by the increase of the Jaccard loss when that pixel also
    becomes wrong. Unbounded above; a pixel that is right by a margin of 1 costs nothing.
    Source: Berman et al. 2018, arXiv:1705.08790, section 3 and algorithm 1. The differences of its Jaccard column are
    in closed form: subtracting neighbours in float32 would lose half of the digits on a large image.
    Lovász 铰链损失：把阈值化预测的 Jaccard 损失（1 - IoU）变成 logits 的凸函数；误差从大到小排序后加权求和。
    """
    logits, mask = _flatten(logits, mask)
    errors = 1 - logits * (2 * mask - 1)  # (N, H*W); hinge: 0 and below is right by the margin
    errors, order = errors.sort(dim=1, descending=True, stable=True)
    truth = (mask > 0.5).long().gather(1, order)  # integers: cumulative sums are exact and repeatable on a GPU
    weight = _jaccard_steps(truth).to(errors.dtype)
    return (F.relu(errors) * weight).sum(1).mean()


def _jaccard_steps(truth: Tensor) -> Tensor:
    """Increase of 1 - IoU as the pixels turn wrong one by one: `truth` `(N, P)` of 0 and 1 -> `(N, P)`."""
    foreground = truth.sum(1, keepdim=True)  # (N, 1)
    union = foreground + (1 - truth).cumsum(1)
    overlap = foreground - truth.cumsum(1)
    of_background = overlap / (union * (union - 1).clamp(min=1))  # overlap / (union - 1) - overlap / union
    steps = torch.where(truth == 1, 1 / union, of_background)
    first = torch.where(foreground == 0, 1.0, steps[:, :1])  # no foreground: one false pixel takes IoU from 1 to 0
    return torch.cat([first, steps[:, 1:]], dim=1)


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the probability given to the truth: easy pixels count less.

    `gamma` 0 is `bce_loss`. `alpha` weights the foreground and 1 - alpha the background; none weights both with 1.
    Source: Lin et al. 2017, arXiv:1708.02002, eq. 4 and 5; averaged over pixels (paper: over anchors with an object).
    focal loss：交叉熵乘以 (1 - p)^gamma，p 是标注真值所得的概率；易分的像素权重变小。
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(f"The option gamma={gamma} of the focal loss should be 0 or above.")
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"The option alpha={alpha} of the focal loss should lie between 0 and 1.")
    logits, mask = _flatten(logits, mask)
    foreground, background = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)  # log p and log (1 - p), p of the foreground
    # (1 - p)^gamma as exp(gamma log(1 - p)): the gradient of a power is infinite at 0 for gamma below 1
    of_foreground = -foreground * mask * (gamma * log_q).exp() * log_p
    of_background = -background * (1 - mask) * (gamma * log_p).exp() * log_q
    return (of_foreground + of_background).mean(1).mean()


def bce_dice_loss(logits: Tensor, mask: Tensor, weight: float = 1.0, smooth: float = 1.0) -> Tensor:
    """`bce_loss` + `weight` x `dice_loss`: smooth gradients from the one, robustness to object size from the other.

    Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net), with sigmoid for softmax.
    二元交叉熵与 Dice 损失之和，Dice 一项乘以 weight。
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"The option weight={weight} of the BCE + Dice loss should be 0 or above.")
    return bce_loss(logits, mask) + weight * dice_loss(logits, mask, smooth)


def dice_focal_loss(
    logits: Tensor,
    mask: Tensor,
    weight: float = 1.0,
    gamma: float = 2.0,
    alpha: float | None = None,
    smooth: float = 1.0,
) -> Tensor:
    """`dice_loss` + `weight` x `focal_loss`: overlap from the one, emphasis on hard pixels from the other.

    Source: Zhu et al. 2019, doi:10.1002/mp.13300 (AnatomyNet), with `dice_loss` for its Tversky index over classes.
    Dice 损失与 focal loss 之和，focal loss 一项乘以 weight。
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"The option weight={weight} of the Dice + focal loss should be 0 or above.")
    return dice_loss(logits, mask, smooth) + weight * focal_loss(logits, mask, gamma, alpha)


def _flatten(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 `(N, H*W)`. Raises ValueError when the shapes differ, which would broadcast silently."""
    if logits.shape != mask.shape:
        raise ValueError(
            f"Logits {tuple(logits.shape)} and mask {tuple(mask.shape)} should have the same shape (N, 1, H, W)."
        )
    return logits.float().flatten(1), mask.float().flatten(1)
