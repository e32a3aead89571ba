"""The pictures of the networks hold what the built networks hold."""

from analysis.plots.architecture import NetworkLevel
from experiments.training.architecture_diagrams import draw, gate, levels, trace
from registry import MODELS


def test_shapes_are_followed_through_the_built_network():
    shapes, macs = trace(MODELS["unet"].build(width=8), (64, 48))
    finest, *_, bottleneck = found = levels(shapes)
    assert len(found) == 5
    assert finest == NetworkLevel(
        [(3, 48, 64), (8, 48, 64), (8, 48, 64)], (8, 48, 64), [(8, 48, 64), (8, 48, 64)], None
    )
    assert bottleneck == NetworkLevel([(64, 3, 4), (128, 3, 4), (128, 3, 4)]) and shapes["head"] == (1, 48, 64)
    from tests.test_run import macs_of_unet

    assert macs == macs_of_unet(8, 64, 48)


def test_a_gate_is_drawn_where_the_model_has_one():
    shapes, _ = trace(MODELS["attention_unet"].build(width=8), (64, 48))
    assert [level.gated for level in levels(shapes)] == [(8, 48, 64), (16, 24, 32), (32, 12, 16), (64, 6, 8), None]
    assert gate(shapes) == {"skip": (8, 48, 64), "signal": (16, 24, 32), "inner": (8, 24, 32), "alpha": (1, 48, 64)}


def test_figures_are_written_and_follow_the_model(tmp_path):
    import cv2

    wide, narrow = (draw(tmp_path / name, width, (64, 64)) for name, width in (("wide", 16), ("narrow", 8)))
    for one, other in zip(wide, narrow, strict=True):
        first, second = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (one, other))
        corners = first[[0, 0, -1, -1], [0, -1, 0, -1], 3]
        assert first.shape[1] > 800 and (first[..., 3] == 255).any() and not corners.any()  # a ground would be a slab
        assert first.shape != second.shape or (first != second).any()


def test_draw_says_what_it_wrote_and_refuses_what_it_cannot_draw(command, tmp_path):
    code, shown, _ = command("draw", "--output", tmp_path, "--width", "4", "--size", "64x64")
    assert code == 0 and "U-Net.png" in shown and (tmp_path / "U-Net.png").exists()
    for words, sentence in ((["--width", "0"], "Must be >= 1"), (["--size", "8x8"], "at least 32x32")):
        code, _, complaint = command("draw", "--output", tmp_path / "no", *words)
        assert code == 2 and sentence in complaint and not (tmp_path / "no").exists()
