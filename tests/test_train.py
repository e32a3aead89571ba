"""The loop: its schedule, its one flag, and that it can be stopped and taken up between any two steps."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.config.schema import RunConfig
from experiments.data import cache, carvana
from experiments.data.dataset import Batches, ImageDataset
from experiments.runtime import environment
from experiments.runtime.errors import Diverged, RunFailed
from experiments.runtime.interrupts import Interrupted
from experiments.training.loop import learning_rate, network, start, train, validate
from registry import AUGMENTATIONS, LOSSES, MODELS
from tests.conftest import ROOT

CONFIG = RunConfig(device="cpu", precision="fp32", epochs=3, batch_size=8, size=(48, 32), learning_rate=3e-3)


@pytest.fixture(scope="module")
def photographs(made_cars, tmp_path_factory):
    samples = carvana.build(made_cars)
    pixels = cache.open_cache(samples, (48, 32), tmp_path_factory.mktemp("cache"), "f00")

    def make(first, last, augment=None, seed=0):
        rows = list(range(first, last))
        return ImageDataset([samples[r] for r in rows], (48, 32), augment, seed, pixels, rows)

    return make


@pytest.fixture
def parts(photographs):
    """A new state, batches of 32 photographs (4 steps) and 8 to validate, for a config."""

    def make(config=CONFIG):
        torch.manual_seed(config.seed)
        state = start(MODELS["unet"].build(width=4), config)
        training = photographs(0, 32, AUGMENTATIONS["flip"].build(), config.seed)
        return state, Batches(training, config.batch_size), photographs(64, 72), LOSSES["bce_dice"].build()

    return make


def weights(state):
    return torch.cat(
        [p.detach().flatten() for p in network(state.model).state_dict().values() if p.is_floating_point()]
    )


def finish(config, state, *rest, **options):
    return [(e.number, e.train_loss, e.val_loss, e.val_dice, e.is_best) for e in train(state, *rest, config, **options)]


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_every_schedule_stays_positive_and_below_its_peak_and_reaches_it(schedule, steps):
    config = replace(CONFIG, schedule=schedule)
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert all(0 < rate <= config.learning_rate for rate in rates)
    if steps == 1000:
        assert max(rates) == pytest.approx(config.learning_rate, rel=1e-3)
        assert rates[0] < 0.1 * max(rates)
        assert (rates[-1] < 0.01 * max(rates)) == (schedule != "constant")


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_the_rate_rises_for_the_given_share_of_the_steps(schedule, warmup):
    config = replace(CONFIG, schedule=schedule, warmup=warmup)
    rates = [learning_rate(config, step, 1000) for step in range(1000)]
    assert all(0 < rate <= config.learning_rate for rate in rates)
    rises = sum(later > earlier for earlier, later in itertools.pairwise(rates))
    assert abs(rises - 1000 * warmup) <= 1


@pytest.mark.parametrize(("schedule", "share"), [("one-cycle", 0.25), ("cosine", 0.05), ("constant", 0.05)])
def test_a_schedule_has_its_own_warm_up_where_none_is_given(schedule, share):
    own, given = replace(CONFIG, schedule=schedule), replace(CONFIG, schedule=schedule, warmup=share)
    assert [learning_rate(own, step, 400) for step in range(400)] == [
        learning_rate(given, step, 400) for step in range(400)
    ]


def test_training_learns(parts):
    config = replace(CONFIG, epochs=8, learning_rate=1e-2)
    epochs = finish(config, *parts(config))
    assert [e[0] for e in epochs] == list(range(1, 9)) and epochs[-1][1] < 0.8 * epochs[0][1]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(parts):
    one, two, other = parts(), parts(), parts(replace(CONFIG, seed=1))
    assert finish(CONFIG, *one) == finish(CONFIG, *two)
    finish(replace(CONFIG, seed=1), *other)
    assert torch.equal(weights(one[0]), weights(two[0])) and not torch.equal(weights(one[0]), weights(other[0]))


@pytest.mark.parametrize("stopped_after", range(1, 12))
def test_stopped_after_any_step_and_resumed_it_ends_with_the_same_weights(parts, stopped_after):
    whole = parts()
    expected = finish(CONFIG, *whole)
    stopped, seen = parts(), []
    steps = itertools.count(1)
    try:
        for epoch in train(*stopped, CONFIG, stop=lambda: next(steps) >= stopped_after):
            seen.append((epoch.number, epoch.train_loss, epoch.val_loss, epoch.val_dice, epoch.is_best))
    except Interrupted:
        pass
    saved = stopped[0].to_dict()
    again = parts(
        replace(CONFIG, seed=5)
    )  # other weights and another generator state: all must come from what was saved
    again[1].dataset.seed = CONFIG.seed
    again[0].load(saved)
    seen += finish(CONFIG, *again)
    assert seen == expected
    assert torch.equal(weights(again[0]), weights(whole[0]))


def test_a_checkpoint_holds_the_random_state_of_its_own_gpu_alone(parts, monkeypatch):
    """And one of an earlier version, made where two GPUs were visible, is resumed where there is one."""
    state, restored = parts()[0], []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: f"of {device}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *given: restored.append(given))
    saved = state.to_dict()
    assert saved["cuda_random"] == []
    assert replace(state, device=torch.device("cuda")).to_dict()["cuda_random"] == ["of cuda"]
    for states in (["of cuda"], ["of cuda", "of another"]):
        state.load({**saved, "cuda_random": states})
    assert restored == 2 * [("of cuda", state.device)]


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.fault(8)
def test_a_value_that_is_not_finite_stops_the_run_and_never_reaches_the_weights(parts, where):
    state, batches, validation, _ = parts()
    calls, before = itertools.count(), {}

    def broken(logits, masks):
        value = LOSSES["bce"].build()(logits, masks)
        if next(calls) < 2:
            return value
        before.setdefault("weights", [p.detach().clone() for p in network(state.model).parameters()])
        return value * torch.nan if where == "loss" else value + (logits.mean() - logits.mean().detach()).sqrt()

    with pytest.raises(RunFailed, match="lower --learning-rate"):
        list(train(state, batches, validation, broken, CONFIG))
    now = list(network(state.model).parameters())
    assert all(torch.equal(a, b) for a, b in zip(before["weights"], now, strict=True))


@pytest.mark.fault(8)
def test_a_gradient_that_is_never_finite_in_fp16_stops_the_run_and_an_occasional_one_does_not(parts):
    config = replace(CONFIG, precision="fp16", epochs=6)
    bce, calls = LOSSES["bce"].build(), itertools.count()

    def never(logits, masks):
        value = bce(logits, masks)
        return value + (logits.mean() - logits.mean().detach()).sqrt() if value.requires_grad else value

    def thrice(logits, masks):
        return never(logits, masks) if next(calls) < 3 else bce(logits, masks)

    assert len(list(train(*parts(config)[:3], thrice, config))) == 6
    with pytest.raises(Diverged, match="not finite at any scale"):
        list(train(*parts(config)[:3], never, config))


@pytest.mark.parametrize("kept", [True, False], ids=["the flag is saved", "a checkpoint of old"])
@pytest.mark.fault(8)
def test_a_run_that_broke_just_before_it_was_interrupted_is_refused_on_resume(parts, kept):
    state, batches, validation, loss = parts()
    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        list(
            train(
                state, batches, validation, lambda *pair: loss(*pair) * torch.nan, CONFIG, stop=lambda: next(steps) >= 2
            )
        )
    saved = state.to_dict()
    if not kept:
        del saved["broken"]
    again = parts()
    again[0].load(saved)
    with pytest.raises(RunFailed, match="stopped being finite"):
        list(train(*again, CONFIG))


def test_an_interrupted_epochs_seconds_and_speed_count_every_session(parts, monkeypatch):
    moments = itertools.count()
    monkeypatch.setattr(
        "experiments.training.loop.time.perf_counter", lambda: float(next(moments))
    )  # each look at the clock: a second
    state, *rest = parts()
    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        list(train(state, *rest, CONFIG, stop=lambda: next(steps) >= 4))
    spent = state.spent
    again = parts()
    again[0].load(state.to_dict())
    first = next(train(*again, CONFIG))
    assert 0 < spent < first.seconds and 0 < first.images_per_second < 32


@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_a_batch_in_pieces_makes_the_step_of_the_whole_batch(parts, pieces):
    """Where BatchNorm is at rest; five photographs, so that pieces differ in size."""
    from experiments.training.loop import take_step

    images, masks = torch.rand(5, 3, 32, 48), (torch.rand(5, 1, 32, 48) > 0.5).float()
    states = [parts()[0], parts()[0]]
    for state, count in zip(states, (1, pieces), strict=True):
        state.model.eval()
        take_step(state, images, masks, LOSSES["bce"].build(), 1.0, count)
    weights = [torch.cat([p.detach().flatten() for p in network(state.model).parameters()]) for state in states]
    moments = [
        torch.cat([s["exp_avg"].flatten() for s in state.optimizer.state_dict()["state"].values()]) for state in states
    ]
    assert torch.allclose(*moments, atol=1e-7) and not torch.equal(weights[0], torch.zeros(()))
    assert float(states[0].loss_sum) == pytest.approx(float(states[1].loss_sum), abs=1e-6)


def test_the_first_share_of_the_epochs_uses_images_at_half_the_size(parts, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "experiments.training.loop.take_step", lambda state, images, masks, *_: seen.append((images, masks))
    )
    config = replace(CONFIG, epochs=4, progressive=0.5)
    finish(config, *parts(config))
    assert [images.shape[-2:] for images, _ in seen] == 8 * [(16, 24)] + 8 * [(32, 48)]
    assert all(
        set(masks.unique().tolist()) <= {0.0, 1.0} and images.shape[-2:] == masks.shape[-2:] for images, masks in seen
    )


@pytest.mark.parametrize(
    ("progressive", "epochs", "half"), [(0.8, 5, 4), (0.8, 2, 1), (0.8, 1, 0), (0.5, 1, 0), (1.0, 2, 2), (0.0, 3, 0)]
)
def test_the_last_epoch_is_at_full_size_unless_all_shall_be_at_half(progressive, epochs, half):
    assert replace(CONFIG, epochs=epochs, progressive=progressive).half_size_epochs == half


def test_halving_averages_colours_and_lets_the_majority_decide_a_masks_pixel():
    from experiments.training.loop import halved

    images = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).float()[None, None]
    small, few = halved(images, masks)
    assert small[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]] and few[0, 0].tolist() == [[1, 0], [0, 0]]


def test_the_flag_is_looked_at_every_fifty_steps_and_at_the_end_of_an_epoch(parts, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "experiments.training.loop._refuse_broken", lambda state, epoch: looked.append((epoch, state.step))
    )
    monkeypatch.setattr("experiments.training.loop.CHECK_EVERY", 3)
    finish(replace(CONFIG, epochs=2), *parts())
    assert looked == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_a_step_asks_the_device_for_no_value(parts):
    """On meta tensors every look at a value raises, so nothing inside a step can wait for the device."""
    from experiments.training.loop import take_step

    state, _, _, loss = parts()
    network(state.model).to("meta")
    state.optimizer.param_groups[0]["params"] = list(network(state.model).parameters())
    state.broken, state.loss_sum = state.broken.to("meta"), state.loss_sum.to("meta")
    state.optimizer.step = lambda *_, **__: None  # fused Adam has no meta kernel
    images, masks = torch.zeros(2, 3, 32, 48, device="meta"), torch.zeros(2, 1, 32, 48, device="meta")
    take_step(state, images, masks, loss, clip=1.0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        state.loss_sum.item()


def test_early_stopping_ends_after_so_many_epochs_without_a_better_dice(parts, monkeypatch):
    dice = iter([0.5, 0.4, 0.6, 0.6, 0.3, 0.9])
    monkeypatch.setattr("experiments.training.loop.validate", lambda *_: (1.0, next(dice), 0.5))
    config = replace(CONFIG, epochs=6, early_stopping=2)
    assert [(n, best) for n, *_, best in finish(config, *parts(config))] == [
        (1, True),
        (2, False),
        (3, True),
        (4, False),
        (5, False),
    ]


def test_validation_does_not_depend_on_the_batch_size(parts):
    state, _, validation, loss = parts()
    one, many = validate(state, validation, loss, 1), validate(state, validation, loss, 5)
    assert one == pytest.approx(many, abs=1e-6)


def test_validation_takes_fewer_images_at_once_where_memory_runs_out(parts, tmp_path):
    from experiments.training import pictures

    state, _, validation, loss = parts()
    one = validate(state, validation, loss, 1)
    pictures.save_validation(tmp_path / "expected.png", state, validation)

    def refuse(_, given):
        if len(given[0]) > 1:
            raise torch.OutOfMemoryError("CUDA error")

    state.model.register_forward_pre_hook(refuse)
    assert validate(state, validation, loss, 8) == one
    pictures.save_validation(tmp_path / "found.png", state, validation)
    assert (tmp_path / "found.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_validation_averages_images_in_a_car_and_then_cars(photographs, parts):
    """Against a slow twin on two cars of unequal numbers of photographs."""
    import numpy as np

    state, _, _, loss = parts()
    validation = photographs(60, 70)  # 4 photographs of one car, 6 of another
    state.model.eval()
    dice = []
    for image, mask in validation:
        prediction = network(state.model)(image[None])[0].detach() > 0
        dice.append(2 * float((prediction & (mask > 0)).sum()) / float(prediction.sum() + mask.sum()))
    expected = (np.mean(dice[:4]) + np.mean(dice[4:])) / 2
    assert validate(state, validation, loss, 3)[1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_and_fp32_follow_the_same_path(parts, precision):
    config = replace(CONFIG, precision=precision)
    precise, quick = finish(CONFIG, *parts()), finish(config, *parts(config))
    assert quick[-1][1] == pytest.approx(precise[-1][1], rel=0.1) and quick != precise


def test_the_network_and_its_inputs_lie_channels_last(parts):
    state, batches, _, _ = parts()
    from experiments.data.dataset import as_input

    images = as_input(next(batches.epoch(1))[0], torch.device("cpu"))
    assert images.is_contiguous(memory_format=torch.channels_last)
    kernels = [p for p in network(state.model).parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_every_compiled_network_of_a_process_has_graphs_of_its_own(monkeypatch):
    """Networks of one class share the code of their forward pass, which PyTorch compiles only so often."""

    class Net(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, width, 1)

        def forward(self, image):
            return self.conv(image).sum(1, keepdim=True)

    graphs, compiled = [], torch.compile

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, mode: compiled(model, backend=backend))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    made = []
    for width in (2, 3):
        state = start(Net(width), replace(CONFIG, compile="default"))
        before = len(graphs)
        with torch.no_grad():
            state.model(torch.zeros(1, 3, 32, 32))
        made.append(len(graphs) - before)
    assert made[0] == made[1] > 0


FAULTS = """
import dataclasses, resource, sys, torch
from experiments.training import loop as train
from registry import LOSSES, MODELS
from tests.test_train import CONFIG
if sys.argv[1] == "give back": train.keep_freed_memory = lambda: False
state = train.start(MODELS["unet"].build(width=8), CONFIG)
images, masks = torch.rand(16, 3, 96, 96), torch.ones(16, 1, 96, 96)
for step in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    train.take_step(state, images, masks, LOSSES["bce"].build(), 1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is a setting of glibc")
@pytest.mark.slow
def test_steps_after_the_first_take_no_new_memory_from_the_system():
    """Page faults of the fifth step, each way in a fresh process."""
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("keep", "give back")
    )
    assert kept < 2000 < 8000 < given_back


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux counts anew")
def test_a_run_does_not_report_the_peak_memory_of_an_earlier_one_in_its_process():
    hundreds_of_mb = np.ones(400 << 17)  # 400 MiB
    before = environment.peak_memory()
    del hundreds_of_mb
    start(MODELS["unet"].build(width=8), CONFIG)
    assert environment.peak_memory() < before - (200 << 20)
