"""What the notebook leaves out of its pages: pictures, and the training loop that its section 7 writes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.data import ImageDataset, Sample, carvana
from experiments.data.samples import read_image, read_mask
from experiments.data.synthetic.cars import write_cars
from experiments.evaluation.evaluator import enlarge

BLUE, ORANGE = "#0072B2", "#D55E00"
MISSED, FALSE, RIGHT = (230, 120, 0), (0, 114, 178), (200, 200, 200)


def synthetic_cars(folder: Path, cars: int = 15) -> list[Sample]:
    """Sixteen images with exact masks of each of `cars` synthetic cars, written into `folder`."""
    write_cars(folder, cars=cars, seed=0, size=(288, 192))
    return carvana.build(folder)


def tensors(samples: Sequence[Sample], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) in [0, 1] and masks (N, 1, H, W) of 0 and 1, at `size` = (width, height)."""
    dataset = ImageDataset(samples, size)
    images, masks = zip(*[dataset[row] for row in range(len(dataset))])
    return torch.stack(images), torch.stack(masks)


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    masks: Tensor,
    epochs: int = 4,
    batch: int = 8,
    rate: float = 1e-2,
) -> nn.Module:
    """Train with Adam and a one-cycle schedule; the order of the images is drawn from torch's seed."""
    steps = epochs * -(-len(images) // batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.25, cycle_momentum=False
    )
    for _ in range(epochs):
        for some in torch.randperm(len(images)).split(batch):
            value = loss(model(images[some]), masks[some])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def predict(
    model: nn.Module, samples: Sequence[Sample], size: tuple[int, int]
) -> list[NDArray[np.float32]]:
    """Logits of each image at the image's own size."""
    maps = model.eval()(tensors(samples, size)[0])[:, 0].numpy()
    return [
        enlarge(one, read_mask(sample.mask).shape[::-1])
        for one, sample in zip(maps, samples)
    ]


def car_means(values: Sequence[float], samples: Sequence[Sample]) -> dict[str, float]:
    """The mean of each car's images, by car."""
    cars = dict.fromkeys(sample.group for sample in samples)
    return {
        car: float(np.mean([v for v, s in zip(values, samples) if s.group == car]))
        for car in cars
    }


def show(
    pictures: Sequence, titles: Sequence[str] = (), columns: int = 4, width: float = 9.0
) -> None:
    """Draw pictures (H, W) or (H, W, 3) in rows, without axes."""
    rows = -(-len(pictures) // columns)
    height, side = np.shape(pictures[0])[:2]
    high = width / columns * height / side * rows + 0.25 * rows
    _, axes = plt.subplots(
        rows, columns, figsize=(width, high), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture in zip(axes.flat, pictures):
        axis.imshow(picture, cmap="gray")
    for axis, title in zip(axes.flat, titles):
        axis.set_title(title)
    plt.show()


def outlined(image: NDArray[np.uint8], mask: NDArray) -> NDArray[np.uint8]:
    """The image with the object's rim in orange: pixels of the mask next to one that is not."""
    mask = np.asarray(mask, bool)
    inside = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inside &= np.roll(mask, step, axis)
    picture = image.copy()
    picture[mask & ~inside] = (255, 130, 0)
    return picture


def errors(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Grey where both agree on the object, orange for false negatives, blue for false positives."""
    picture = np.full((*truth.shape, 3), 255, np.uint8)
    picture[truth & found], picture[truth & ~found], picture[~truth & found] = (
        RIGHT,
        MISSED,
        FALSE,
    )
    return picture


def show_predictions(
    model: nn.Module, samples: Sequence[Sample], size: tuple[int, int]
) -> None:
    """One row an image: image, ground truth, probability, errors."""
    pictures, titles = [], []
    for sample, logits in zip(samples, predict(model, samples, size)):
        truth = read_mask(sample.mask)
        probability = 1 / (1 + np.exp(-logits))
        pictures += [
            read_image(sample.image),
            truth,
            probability,
            errors(logits > 0, truth),
        ]
        titles += ["image", "ground truth", "probability", "errors"]
    show(pictures, titles)


def unet_diagram(width: int, size: tuple[int, int]) -> None:
    """Draw a U-Net of four halvings with the shapes of its feature maps, for an input of `size` = (width, height)."""
    _, axis = plt.subplots(figsize=(9, 4.2), layout="constrained")
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "linewidth": 1.4}
    skip = {"color": "#999999", "linestyle": "--", "shrinkA": 42, "shrinkB": 42}

    def level(x: float, depth: int, colour: str) -> None:
        shape = f"{width * 2**depth} × {size[1] // 2**depth} × {size[0] // 2**depth}"
        axis.text(
            x, -depth, shape, ha="center", va="center", bbox=box | {"edgecolor": colour}
        )

    def arrow(start: tuple, end: tuple, text: str = "", **style) -> None:
        axis.annotate(
            "",
            end,
            start,
            arrowprops={"arrowstyle": "-|>", "shrinkA": 12, "shrinkB": 12} | style,
        )
        if text:
            middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.1)
            axis.text(*middle, text, ha="center", va="bottom", color="#555555")

    for depth in range(4):
        level(depth, depth, BLUE)
        level(8 - depth, depth, ORANGE)
        arrow((depth, -depth), (depth + 1, -depth - 1), color=BLUE)
        arrow((7 - depth, -depth - 1), (8 - depth, -depth), color=ORANGE)
        arrow((depth, -depth), (8 - depth, -depth), f"skip {depth + 1}", **skip)
    level(4, 4, "black")
    axis.text(0, 0.55, f"image 3 × {size[1]} × {size[0]}", ha="center")
    axis.text(8, 0.55, f"logits 1 × {size[1]} × {size[0]}", ha="center")
    axis.text(0.1, -2.6, "encoder:\nblock, then halve", ha="center", color=BLUE)
    axis.text(
        7.9, -2.6, "decoder: enlarge,\nconcatenate, block", ha="center", color=ORANGE
    )
    axis.text(4, -4.55, "bottleneck", ha="center")
    axis.set(xlim=(-1.1, 9.1), ylim=(-4.7, 0.9))
    axis.axis("off")
    plt.show()


def draw_seeds(scores: Mapping[str, Sequence[float]]) -> None:
    """Every training as a dot, one line a combination; the bar is the mean, and seeds number their winner.

    A training far below all others is an arrow at the edge, with its score.
    """
    names = sorted(scores, key=lambda name: np.mean(scores[name]), reverse=True)
    high = max(max(tries) for tries in scores.values())
    middle = min(np.median(tries) for tries in scores.values())
    lowest = min(min(tries) for tries in scores.values())
    low = max(lowest - 0.05 * (high - lowest), middle - 1.5 * (high - middle))
    _, axis = plt.subplots(figsize=(8, 0.55 * len(names) + 0.9), layout="constrained")
    for y, name in enumerate(names):
        inside = [score for score in scores[name] if score >= low]
        axis.plot(inside, [y] * len(inside), "o", color=BLUE, alpha=0.5)
        for score in set(scores[name]) - set(inside):
            axis.plot(low, y, "<", color=BLUE)
            axis.annotate(
                f"{score:.2f}",
                (low, y),
                (8, 0),
                textcoords="offset points",
                va="center",
            )
        if np.mean(scores[name]) >= low:
            axis.plot([np.mean(scores[name])] * 2, [y - 0.35, y + 0.35], color=BLUE)
    won: dict[str, list[int]] = {}
    for seed in range(len(scores[names[0]])):
        won.setdefault(max(names, key=lambda name: scores[name][seed]), []).append(seed)
    for name, tries in won.items():
        best = [scores[name][seed] for seed in tries]
        axis.plot(best, [names.index(name)] * len(best), "o", color=ORANGE)
        text, place = (
            ", ".join(str(seed + 1) for seed in tries),
            (max(best), names.index(name)),
        )
        axis.annotate(
            text, place, (8, 0), textcoords="offset points", va="center", color=ORANGE
        )
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="test Dice of one training", ylim=(len(names) - 0.4, -0.6))
    axis.set_xlim(low - 0.01 * (high - low), high + 0.14 * (high - low))
    plt.show()
