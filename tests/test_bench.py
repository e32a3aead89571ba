"""The benchmark measures what it says: counts against a count by hand, ratios of turns, and every figure is there."""

import dataclasses
import itertools
import json
import sys

import pytest
import torch

from experiments.bench import report, roofline, step
from experiments.config.schema import RunConfig
from experiments.runtime.errors import RunFailed
from experiments.training import speed
from registry import AUGMENTATIONS, LOSSES
from tests.test_run import macs_of_unet

WORK = step.Workload(
    RunConfig(
        model="unet", model_kwargs={"width": 4}, size=(48, 32), batch_size=2, precision="fp32", device="cpu", epochs=99
    ),
    steps=2,
    repeats=3,
)


def test_arithmetic_is_that_of_a_count_by_hand():
    """Backward costs twice the forward pass, but for the photograph, which needs no gradient."""
    first = 9 * 48 * 32 * 3 * 4
    assert roofline.step_flop(WORK) == 2 * (3 * macs_of_unet(4, 48, 32) - first)


class Reading(torch.nn.Module):
    """Reads a value, which the meta device has not, and makes a tensor on the CPU in float32."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, image):
        image = image / 255 if image.max() > 1 else image
        column = torch.linspace(0, 1, image.shape[-1]).expand(len(image), 1, *image.shape[-2:])
        return self.last(torch.cat([image, column], dim=1))


class FromFile(Reading):
    """A file of weights is `file` in a run's settings, its path is not."""

    def __init__(self, pretrained: bool | str = False):
        super().__init__()
        assert not pretrained


class Constants(torch.nn.Module):
    moved = ()

    def forward(self, logits, mask):
        return (logits - mask).square().mean()

    def to(self, device):
        type(self).moved = (*self.moved, device)
        return self


def test_both_loops_take_a_network_of_a_file_and_a_loss_with_constants():
    names = {"model": "tests.test_bench:FromFile", "loss": "tests.test_bench:Constants"}
    config = dataclasses.replace(WORK.config, model_kwargs={"pretrained": "file"}, weights="f00", **names)
    work = dataclasses.replace(WORK, config=config)
    constants = LOSSES[config.loss].load()
    assert step.own_loop(work)() > 0 and constants.moved == (torch.device("cpu"),)
    step.plain_loop(work)
    assert constants.moved == 2 * (torch.device("cpu"),)


@pytest.mark.parametrize(
    ("complaint", "sentence"),
    [("ValueError: no such layer", "ended early: ValueError: no such layer$"),
     ("torch.OutOfMemoryError: CUDA out of memory.", "perhaps out of memory: try a smaller --batch-size"),
     ("", "perhaps out of memory: try a smaller --batch-size")],
)  # fmt: skip
def test_a_benchmark_that_ends_early_says_why(monkeypatch, complaint, sentence):
    code = f"import sys; input(); print({complaint!r}, file=sys.stderr)"
    popen = step.subprocess.Popen
    monkeypatch.setattr(step.subprocess, "Popen", lambda _, **kinds: popen([sys.executable, "-c", code], **kinds))
    with pytest.raises(RunFailed, match=sentence):
        step.BenchmarkProcess(WORK, "own")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_the_meta_device_cannot_run_is_counted_as_well(precision):
    config = dataclasses.replace(WORK.config, model="tests.test_bench:Reading", model_kwargs={}, precision=precision)
    work = dataclasses.replace(WORK, config=config)
    forward = 9 * 48 * 32 * 4
    assert roofline.step_flop(work) == 2 * 2 * forward  # the images need no gradient
    assert 0 < roofline.roofline(work, peak=1e9, bytes_a_second=1e30) <= 1e9 / roofline.step_flop(work)


def test_the_roofline_counts_arithmetic_where_memory_is_free_and_traffic_where_arithmetic_is():
    assert roofline.roofline(WORK, peak=1e9, bytes_a_second=1e30) == pytest.approx(1e9 / roofline.step_flop(WORK))
    slow, quick = (roofline.roofline(WORK, 1e30, bandwidth) for bandwidth in (1e9, 2e9))
    assert quick == pytest.approx(2 * slow)
    assert roofline.roofline(WORK, 1e9, 1e9) < min(slow, roofline.roofline(WORK, 1e9, 1e30))


def test_ways_are_measured_in_turns_after_a_warm_up_and_compared_round_by_round():
    calls, count = [], itertools.count(1)
    ways = {name: lambda name=name: calls.append(name) or float(next(count)) for name in ("a", "b")}
    rounds = step.alternate(ways, 2)
    assert calls == ["a", "b"] * 3 and rounds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert step.ratio([2.0, 9.0, 4.0], [1.0, 1.0, 1.0]) == 4.0


def test_both_loops_learn_from_the_same_images():
    """The plain loop is no straw man: it trains the same network as well."""
    images = speed.synthetic_images(WORK.config.size, 4)
    assert len({images[i][0].sum().item() for i in range(4)}) == 4
    assert all(0.1 < images[i][1].mean() < 0.6 for i in range(4))
    own, plain = step.own_loop(WORK), step.plain_loop(WORK)
    assert own() > 0 and own() > 0 and plain() > 0


@pytest.mark.slow
def test_each_loop_has_a_process_of_its_own_and_a_larger_batch_takes_more_memory():
    import dataclasses

    large = dataclasses.replace(
        WORK, repeats=1, config=dataclasses.replace(WORK.config, batch_size=16, size=(256, 192))
    )
    found = step.step_speeds(large)
    assert set(found["rounds"]) == {"own", "plain"} and all(len(values) == 1 for values in found["rounds"].values())
    assert min(found["peak_memory_gb"].values()) > 0.05  # of 16 photographs; one feature map of them is 12.6 MB


@pytest.mark.slow
def test_bench_prints_every_figure_as_a_table_and_as_json(command, made_cars, monkeypatch, capsys):
    monkeypatch.setattr("experiments.bench.report.SECONDS", 0.05)
    monkeypatch.setattr(
        "experiments.bench.roofline.machine_peaks", lambda device: {"fp32": 1e12, "bf16": 2e12, "bandwidth": 1e10}
    )
    words = [
        "bench",
        "--model-kwargs",
        "width=4",
        "--size",
        "48x32",
        "--batch-size",
        "2",
        "--repeats",
        "1",
        "--data-dir",
        made_cars,
    ]
    code, shown, complaint = command(*words, "--parts", "step", "loader", "scoring", "--json", "--precision", "fp32")
    assert code == 0, complaint
    found = json.loads(shown)
    assert set(found) == {"machine", "work", "step", "loader", "scoring"}
    report.print_results(found, as_json=False)
    shown = capsys.readouterr().out
    for text in (
        "this project's train",
        "plain",
        "bf16 matrix product",
        "roofline",
        "peak memory",
        "strong",
        "96x64",
        *AUGMENTATIONS,
    ):
        assert text in shown
    own = found["step"]["images_per_second"]["own"]
    flop = roofline.step_flop(WORK)
    assert found["step"]["share_of_peak"]["fp32"] == pytest.approx(own * flop / 1e12)
    assert found["step"]["own_over"]["plain"] == pytest.approx(own / found["step"]["images_per_second"]["plain"])


def test_the_peak_of_a_matrix_product_is_of_the_right_size():
    """Within the possible: more than a megaflop a second and less than a petaflop."""
    assert 1e6 < roofline.matrix_peak("cpu", torch.float32, 256) < 1e15
    assert 1e6 < roofline.bandwidth("cpu", 8) < 1e13


def test_a_loop_can_be_measured_more_often_than_its_preset_has_epochs():
    own = step.own_loop(step.Workload(dataclasses.replace(WORK.config, epochs=1), steps=1))
    assert all(own() > 0 for _ in range(3))


def test_every_measured_step_is_at_full_size(monkeypatch):
    seen = []
    monkeypatch.setattr(step, "training_speeds", lambda config, steps: seen.append(config) or iter([1.0]))
    step.own_loop(step.Workload(dataclasses.replace(WORK.config, progressive=0.5), steps=1))()
    assert [config.half_size_epochs for config in seen] == [0]
