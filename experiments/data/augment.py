"""Augmentations of the training images: albumentations pipelines, and the one way to draw from them.

By default albumentations repeats itself: with DataLoader workers every worker draws the same numbers, and every epoch
those of the last. So the pipeline is seeded before each image, from (seed, epoch, row) alone: the batches do not depend
on the number of workers, no two images share draws, no epoch repeats another, and there is no random state to save.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise it contacts a server at import

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]
Pipeline = A.Compose


def none() -> A.Compose:
    """No augmentation."""
    return A.Compose([])


def flip(p: float = 0.5) -> A.Compose:
    """Horizontal flip with probability `p`: a car's other side is a car. Never upside down."""
    return _pipeline(lambda: [A.HorizontalFlip(p=p)])


def geometric(shift: float = 0.05, scale: float = 0.1, rotate: float = 10.0) -> A.Compose:
    """Flip, then shift (fraction of the size), scale (1 ± `scale`) and rotate (degrees) in every draw."""
    return _pipeline(lambda: [A.HorizontalFlip(p=0.5), _affine(shift, scale, rotate)])


def photometric(strength: float = 0.2) -> A.Compose:
    """Flip, then brightness, contrast, colour and gamma, each up to `strength` of its range."""
    return _pipeline(lambda: [A.HorizontalFlip(p=0.5), *_light(strength)])


def strong(shift: float = 0.1, scale: float = 0.25, rotate: float = 20.0, strength: float = 0.3) -> A.Compose:
    """Geometric and photometric with wider ranges, noise or blur in half of the draws, holes in a quarter.

    The holes hide the image but not the mask: what is behind them has to be inferred.
    """
    return _pipeline(
        lambda: [
            A.HorizontalFlip(p=0.5),
            _affine(shift, scale, rotate),
            *_light(strength),
            A.OneOf([A.GaussNoise(std_range=(0.02, 0.1)), A.GaussianBlur(blur_limit=(3, 5))], p=0.5),
            A.CoarseDropout(
                num_holes_range=(1, 4), hole_height_range=(0.05, 0.2), hole_width_range=(0.05, 0.2), p=0.25
            ),
        ]
    )


def draw(pipeline: A.Compose, image: Array, mask: Array, seed: int, epoch: int, row: int) -> tuple[Array, Array]:
    """Augment an image (H, W, 3) and its mask (H, W); the draw is decided by (seed, epoch, row) alone."""
    if not pipeline.transforms:
        return image, mask
    pipeline.set_random_seed(int(np.random.SeedSequence((seed, epoch, row)).generate_state(1)[0]))
    augmented = pipeline(image=image, mask=mask)
    return augmented["image"], augmented["mask"]


def _affine(shift: float, scale: float, rotate: float) -> A.Affine:
    return A.Affine(
        translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
        scale=(1 - scale, 1 + scale),
        rotate=(-rotate, rotate),
        border_mode=cv2.BORDER_REFLECT_101,  # a black frame would be a hint that no test image has
        p=1.0,
    )


def _light(strength: float) -> list[A.BasicTransform]:
    gamma = (round(100 * (1 - strength)), round(100 * (1 + strength)))
    return [
        A.RandomBrightnessContrast(brightness_limit=strength, contrast_limit=strength, p=1.0),
        A.HueSaturationValue(hue_shift_limit=100 * strength, sat_shift_limit=100 * strength, val_shift_limit=0, p=0.5),
        A.RandomGamma(gamma_limit=gamma, p=0.5),
    ]


def _pipeline(transforms: Callable[[], list[A.BasicTransform]]) -> A.Compose:
    """Compose the transforms; an unknown or impossible argument, which only warns in albumentations, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return A.Compose(transforms())
        except UserWarning as warning:
            raise ValueError(str(warning)) from None
