"""`--init`: weights of an earlier run, or of anybody, to start from; what fitted is said, and the key knows it."""

import json

import pytest
import torch

from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.inference.trained_model import TrainedModel
from experiments.training import checkpoint, initial_weights
from experiments.training.initial_weights import digest_of, load_initial_weights, with_initial_weights
from models.unet import unet
from registry import InputError
from tests.conftest import run_folder, small

pytestmark = pytest.mark.usefixtures("one_thread")


def resolved(name, output):
    return with_initial_weights(RunConfig(init=str(name)), RuntimeConfig(output_dir=output))


def saved(path, model):
    torch.save(model.state_dict(), path)
    return path


def test_a_run_begins_with_the_weights_of_another(made_cars, tmp_path, command):
    assert command(*small(made_cars, tmp_path, epochs=1))[0] == 0
    first = run_folder(tmp_path)
    words = [*small(made_cars, tmp_path, epochs=1, learning_rate="1e-12"), "--init", first.name[:6]]
    code, said, complaint = command(*words)
    assert code == 0, complaint
    assert "Initial weights: " in said and f" tensors from {first / 'last.ckpt'}." in said
    second = next(path.parent for path in (tmp_path / "runs").glob("*/result.json") if path.parent != first)
    begin, end = (checkpoint.load(folder / "last.ckpt")["model"] for folder in (first, second))
    weights = [name for name in begin if name.endswith("weight")]
    assert all(torch.allclose(begin[name], end[name], atol=1e-6) for name in weights)  # nothing was learned since
    saved_by = [json.loads((folder / "config.json").read_text())["config"] for folder in (first, second)]
    assert saved_by[1]["init"] == digest_of(begin) and "init" not in saved_by[0]


def test_a_foreign_state_dict_is_taken_where_it_fits(tmp_path):
    other = unet(width=4)
    state = {f"module.{name}": value for name, value in other.state_dict().items()}
    state.pop(next(iter(state)))
    torch.save({"state_dict": state}, tmp_path / "foreign.pth")
    config, machine = resolved(tmp_path / "foreign.pth", tmp_path)
    model = unet(width=4)
    said = load_initial_weights(model, config, machine)
    assert f"{len(state)} of {len(state) + 1} tensors" in said and "; random: " in said
    name = list(state)[-1].removeprefix("module.")
    assert torch.equal(model.state_dict()[name], other.state_dict()[name])


def test_the_key_follows_the_tensors_not_the_file(tmp_path):
    model = unet(width=4)
    one = resolved(saved(tmp_path / "a.pth", model), tmp_path)[0]
    torch.save({"model": model.state_dict(), "note": "saved again"}, tmp_path / "b.pt")
    two = resolved(tmp_path / "b.pt", tmp_path)[0]
    other = resolved(saved(tmp_path / "c.pth", unet(width=4)), tmp_path)[0]
    assert one.key == two.key != other.key != RunConfig().key


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "none.pth", "there is no such file or run"),
        (
            lambda folder: saved(folder / "narrow.pth", torch.nn.Conv2d(3, 7, 5)),
            "no tensor of .* has the name and shape",
        ),
        (lambda folder: folder, "the run has no last.ckpt"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(make, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        load_initial_weights(unet(width=4), *resolved(make(tmp_path), tmp_path))


def test_weights_that_were_changed_since_are_refused(tmp_path):
    config, machine = resolved(saved(tmp_path / "a.pth", unet(width=4)), tmp_path)
    saved(tmp_path / "a.pth", unet(width=4))
    with pytest.raises(InputError, match="no longer those that this run began with"):
        load_initial_weights(unet(width=4), config, machine)


def test_a_checkpoint_that_was_saved_again_is_no_cut_one(tmp_path):
    content = {"model": unet(width=4).state_dict()}
    checkpoint.save(tmp_path / "own.ckpt", content)
    torch.save(content, tmp_path / "again.ckpt")
    with pytest.raises(checkpoint.Damaged, match=r"lacks the checksum .* --init .*again.ckpt starts from its weights"):
        checkpoint.load(tmp_path / "again.ckpt")
    with pytest.raises(InputError, match=r"saved again\. --init .* Otherwise use the run's own file\.$"):
        TrainedModel(tmp_path / "again.ckpt", RunConfig(model="unet", model_kwargs={"width": 4}), {}).model()
    assert resolved(tmp_path / "again.ckpt", tmp_path)[0].init == resolved(tmp_path / "own.ckpt", tmp_path)[0].init
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "own.ckpt").read_bytes()[:-200])
    with pytest.raises(checkpoint.Damaged, match="cut short"):
        checkpoint.load(tmp_path / "cut.ckpt")


@pytest.mark.parametrize(
    "odd",
    [
        {3: torch.ones(2)},
        {"w\udcff": torch.ones(2)},
        {"w": torch.ones(2).to_sparse()},
        {"w": torch.ones(2, device="meta")},
        {"w": torch.ones(2, dtype=torch.complex64).conj()},
    ],
    ids=["number", "surrogate", "sparse", "meta", "conjugate"],
)
def test_odd_tensors_are_refused_in_one_sentence(odd, monkeypatch, tmp_path):
    monkeypatch.setattr(initial_weights, "read_weights", lambda path: odd)
    (tmp_path / "odd.pth").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        initial_weights._read(tmp_path / "odd.pth")
