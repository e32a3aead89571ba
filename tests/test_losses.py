"""Each loss against an independent oracle, and at the edges where losses usually break."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from experiments.losses import bce_dice_loss, bce_loss, dice_loss, focal_loss

LOSSES = {"bce": bce_loss, "dice": dice_loss, "focal": focal_loss, "bce_dice": bce_dice_loss}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
GAMMAS = [0.0, 1e-3, 0.3, 0.5, 0.99, 1.0, 2.0, 5.0, 50.0]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny tensors: several threads would wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch(n: int = 3, height: int = 9, width: int = 7, seed: int = 0, scale: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, 1, height, width, generator=generator)
    mask = (torch.rand(n, 1, height, width, generator=generator) < 0.3).float()
    return logits, mask


def slow_loss(name: str, logits, mask, gamma=2.0, alpha=None, weight=1.0, smooth=1.0) -> float:
    """The same losses in float64, pixel by pixel, in Python: the twin to compare with."""
    if name == "bce_dice":
        return slow_loss("bce", logits, mask) + weight * slow_loss("dice", logits, mask, smooth=smooth)
    scores = []
    for x_image, y_image in zip(np.asarray(logits, np.float64), np.asarray(mask, np.float64), strict=True):
        pixels = [(1 / (1 + math.exp(-x)), y) for x, y in zip(x_image.ravel(), y_image.ravel(), strict=True)]
        if name == "dice":
            overlap, total = sum(p * y for p, y in pixels), sum(p + y for p, y in pixels)
            scores.append(1 - (2 * overlap + smooth) / (total + smooth))
            continue
        gamma = 0 if name == "bce" else gamma
        on, off = (1, 1) if alpha is None else (alpha, 1 - alpha)
        terms = [-on * (1 - p) ** gamma * math.log(p) if y else -off * p**gamma * math.log(1 - p) for p, y in pixels]
        scores.append(sum(terms) / len(terms))
    return sum(scores) / len(scores)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(LOSSES)), seed=st.integers(0, 10**6), n=st.integers(1, 4), scale=st.floats(0, 8))
def test_each_loss_equals_its_slow_twin_in_float64(name, seed, n, scale):
    logits, mask = batch(n=n, seed=seed, scale=scale)
    assert LOSSES[name](logits, mask).item() == pytest.approx(slow_loss(name, logits, mask), rel=2e-5, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(gamma=st.floats(0, 6), alpha=st.none() | st.floats(0, 1), weight=st.floats(0, 5), smooth=st.floats(0.01, 100))
def test_each_option_does_what_the_slow_twin_does(gamma, alpha, weight, smooth):
    logits, mask = batch(seed=1)
    close = {"rel": 2e-5, "abs": 1e-6}
    assert dice_loss(logits, mask, smooth=smooth).item() == pytest.approx(slow_loss("dice", logits, mask, smooth=smooth), **close)
    focal = slow_loss("focal", logits, mask, gamma=gamma, alpha=alpha)
    assert focal_loss(logits, mask, gamma=gamma, alpha=alpha).item() == pytest.approx(focal, **close)
    both = slow_loss("bce_dice", logits, mask, weight=weight, smooth=smooth)
    assert bce_dice_loss(logits, mask, weight=weight, smooth=smooth).item() == pytest.approx(both, **close)


@EVERY_LOSS
def test_the_gradient_is_the_slope_of_the_slow_twin(loss):
    name = next(key for key, value in LOSSES.items() if value is loss)
    logits, mask = batch(n=2, height=2, width=3, scale=2.0)
    gradient = torch.autograd.grad(loss(leaf := logits.clone().requires_grad_(), mask), leaf)[0]
    exact = logits.double().numpy()
    for index in np.ndindex(*exact.shape):
        step = np.zeros_like(exact)
        step[index] = 1e-6
        slope = (slow_loss(name, exact + step, mask) - slow_loss(name, exact - step, mask)) / 2e-6
        assert gradient[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("smooth", [1e-3, 1.0, 20.0])
def test_dice_equals_that_of_monai(smooth):
    logits, mask = batch()
    monai = DiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth, reduction="mean")
    torch.testing.assert_close(dice_loss(logits, mask, smooth=smooth), monai(logits, mask))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
def test_focal_equals_that_of_torchvision(gamma, alpha):
    logits, mask = batch()
    other = sigmoid_focal_loss(logits, mask, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean")
    torch.testing.assert_close(focal_loss(logits, mask, gamma=gamma, alpha=alpha), other)


def test_bce_equals_that_of_torch():
    logits, mask = batch()
    torch.testing.assert_close(bce_loss(logits, mask), F.binary_cross_entropy(logits.double().sigmoid(), mask.double()).float())


def test_focal_with_gamma_0_is_bce():
    logits, mask = batch(scale=20)
    torch.testing.assert_close(focal_loss(logits, mask, gamma=0), bce_loss(logits, mask))


def test_alpha_weights_the_foreground_and_1_minus_alpha_the_background():
    logits, mask = batch()
    on_foreground, on_background = focal_loss(logits, mask, alpha=1.0), focal_loss(logits, mask, alpha=0.0)
    torch.testing.assert_close(focal_loss(logits, mask, alpha=0.2), 0.2 * on_foreground + 0.8 * on_background)
    assert focal_loss(logits.abs(), torch.ones_like(mask), alpha=0.0) == 0


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_bce_dice_is_the_sum_of_its_parts(weight):
    logits, mask = batch()
    parts = bce_loss(logits, mask) + weight * dice_loss(logits, mask, smooth=2.0)
    torch.testing.assert_close(bce_dice_loss(logits, mask, weight=weight, smooth=2.0), parts)


@EVERY_LOSS
def test_a_batch_scores_the_mean_of_its_images_alone(loss):
    logits, mask = batch(n=3)
    mask[1] = 0  # where a loss over the whole batch would differ most
    alone = torch.stack([loss(logits[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(loss(logits, mask), alone.mean())
    torch.testing.assert_close(loss(logits[[2, 0, 1]], mask[[2, 0, 1]]), loss(logits, mask))


@EVERY_LOSS
def test_the_order_of_the_pixels_does_not_matter(loss):
    logits, mask = batch()
    order = torch.randperm(logits.shape[-1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(logits[..., order], mask[..., order]), loss(logits, mask))
    torch.testing.assert_close(loss(logits.mT, mask.mT), loss(logits, mask))


@EVERY_LOSS
@pytest.mark.parametrize("value", [0.0, 0.1, 20.0, 50.0, 90.0, 1000.0])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_values_and_gradients_are_finite_at_extreme_logits(loss, value, truth):
    options = [{"gamma": gamma} for gamma in GAMMAS] if loss is focal_loss else [{}]
    for sign, option in [(sign, option) for sign in (-1, 1) for option in options]:
        logits = torch.full((2, 1, 4, 5), sign * value, requires_grad=True)
        score = loss(logits, torch.full_like(logits, truth), **option)
        score.backward()
        assert torch.isfinite(score), (sign, option)
        assert torch.isfinite(logits.grad).all(), (sign, option)


@settings(max_examples=60, deadline=None)
@given(gamma=st.floats(0, 100), values=st.lists(st.floats(-1000, 1000, width=32), min_size=6, max_size=6))
def test_the_gradient_of_focal_is_finite_for_any_gamma(gamma, values):
    logits = torch.tensor(values * 2).view(1, 1, 4, 3).requires_grad_()
    mask = torch.tensor([0, 1]).repeat_interleave(6).view(1, 1, 4, 3)  # each value before either truth
    gradient = torch.autograd.grad(focal_loss(logits, mask, gamma=gamma), logits)[0]
    assert torch.isfinite(gradient).all()


@EVERY_LOSS
@pytest.mark.parametrize("value", [0.5, 3.0, 15.0, 50.0])
def test_a_net_that_shouts_at_an_empty_mask_is_punished_more_than_a_silent_one(loss, value):
    mask = torch.zeros(2, 1, 8, 8)
    shouting, silent = torch.full_like(mask, value), torch.full_like(mask, -value)
    assert loss(shouting, mask) > loss(silent, mask) + 0.01
    assert loss(silent, 1 - mask) > loss(shouting, 1 - mask)  # and the reverse for a full one


@EVERY_LOSS
def test_a_perfect_prediction_costs_nothing(loss):
    _, mask = batch()
    assert loss(100 * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)


@EVERY_LOSS
def test_the_loss_is_computed_in_float32_whatever_comes_in(loss):
    logits, mask = batch()
    low = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(low, mask.bool())
    assert inside.dtype == loss(logits.half(), mask.byte()).dtype == loss(logits.double(), mask.double()).dtype == torch.float32
    torch.testing.assert_close(inside, loss(low.float(), mask), rtol=0, atol=0)


@EVERY_LOSS
def test_no_step_waits_for_the_device(loss):
    logits = torch.empty(2, 1, 8, 8, device="meta", requires_grad=True)  # a meta tensor has no values to look at
    score = loss(logits, torch.empty(2, 1, 8, 8, device="meta"))
    score.backward()
    assert score.shape == ()


@pytest.mark.parametrize(
    ("loss", "option"),
    [
        (dice_loss, {"smooth": 0.0}),
        (dice_loss, {"smooth": -1.0}),
        (dice_loss, {"smooth": math.nan}),
        (focal_loss, {"gamma": -0.1}),
        (focal_loss, {"gamma": math.inf}),
        (focal_loss, {"alpha": 1.1}),
        (focal_loss, {"alpha": -0.1}),
        (bce_dice_loss, {"weight": -1.0}),
        (bce_dice_loss, {"smooth": 0.0}),
    ],
)
def test_an_option_out_of_range_is_named(loss, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        loss(*batch(), **option)


@EVERY_LOSS
def test_shapes_that_would_broadcast_are_refused(loss):
    logits, mask = batch(n=2)
    with pytest.raises(ValueError, match="same shape"):
        loss(logits, mask[:1])
