"""One run from the command line to its record: what it writes, how it is resumed, what is refused."""

import csv
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from analysis.records import files
from experiments.config.schema import RunConfig
from experiments.data.synthetic import cars as synthetic
from experiments.runtime import leases
from experiments.training import runner
from experiments.training.checkpoint import load
from experiments.training.run_folder import RunFolder
from registry import InputError
from tests.conftest import ROOT, run_folder, small

COLUMNS = "set,group,image,tp,fp,fn,tn,dice,iou,precision,recall,boundary_iou,hd95"
KEPT = ("metrics.jsonl", "scores_best.csv", "scores_last.csv", "split.csv")


@pytest.fixture(scope="module")
def finished(finished_run, tmp_path_factory):
    """The output folder of one finished run, as another process left it."""
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("finished") / "outputs")


def digests(folder):
    """What must not differ between a run that was stopped and one that was not."""
    weights = [load(folder / name)["model"] for name in ("last.ckpt", "best.ckpt")]
    raw = b"".join(t.numpy().tobytes() for model in weights for t in model.values())
    return {"weights": hashlib.sha256(raw).hexdigest(), **{name: (folder / name).read_bytes() for name in KEPT}}


def killed(words, statement, where="experiments.training.loop", name="take_step"):
    """Run a command in a process that executes `statement` after call number `calls` of a function."""
    code = (
        f"import os, signal, sys, {where} as place\n"
        f"kept, calls = place.{name}, 0\n"
        "def spy(*given, **named):\n"
        "    global calls\n    done = kept(*given, **named)\n    calls += 1\n"
        f"    {statement}\n    return done\n"
        f"place.{name} = spy\n"
        f"import run; sys.exit(run.main({words!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def at(call):
    return f"calls == {call} and os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def same_threads(finished):
    """Bits are equal for equal numbers of threads: this process uses as many as the one that `finished` ran in."""
    before = torch.get_num_threads()
    torch.set_num_threads(json.loads((run_folder(finished) / "config.json").read_text())["config"]["threads"])
    yield
    torch.set_num_threads(before)


def signalled(command, words, step, number=signal.SIGTERM):
    """Type a command in this process, which sends itself a signal in a training step."""
    import experiments.training.loop

    with pytest.MonkeyPatch.context() as patch:
        kept, calls = experiments.training.loop.take_step, []

        def spy(*given):
            kept(*given)
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), number)

        patch.setattr(experiments.training.loop, "take_step", spy)
        return command(*words)


def test_a_run_leaves_the_record_that_is_documented(finished):
    folder = run_folder(finished)
    there = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "split.csv",
        "metrics.jsonl",
        "timing.jsonl",
        "last.ckpt",
        "previous.ckpt",
        "best.ckpt",
    } <= there
    assert {"scores_best.csv", "scores_last.csv", "result.json", "pictures"} <= there
    assert not {"scores.csv", "failed.json"} & there
    config = json.loads((folder / "config.json").read_text())
    assert config["key"] == folder.name and config["config"]["size"] == [48, 32]
    assert {"torch", "python", "albumentations"} <= set(config["versions"]) and "git_commit" in config
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert set(lines[0]) == {"epoch", "train/loss", "val/loss", "val/dice", "val/iou", "learning_rate"}
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert {"curves.png", "test-images.png", "validation-epoch-002.png"} <= names


@pytest.mark.parametrize("name", ["scores_best.csv", "scores_last.csv"])
def test_the_scores_are_one_row_a_test_image_at_its_own_size(finished, name):
    folder = run_folder(finished)
    text = (folder / name).read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert text.splitlines()[0] == COLUMNS
    with open(folder / "split.csv") as file:
        test = [row["image"] for row in csv.DictReader(file) if row["part"] == "test"]
    assert [row["image"] for row in rows] == test and {row["set"] for row in rows} == {"test"}
    assert all(sum(int(row[c]) for c in ("tp", "fp", "fn", "tn")) == 96 * 64 for row in rows)


def macs_of_unet(width, w, h):
    """By hand: 3x3 convolutions of both ways, 2x2 transposed ones, the 1x1 head."""
    total = 0
    for level in range(5):
        c, pixels = width * 2**level, (w >> level) * (h >> level)
        total += 9 * pixels * ((3 if level == 0 else c // 2) * c + c * c)
        if level < 4:
            total += pixels * 2 * c * c + 9 * pixels * (2 * c * c + c * c)
    return total + width * w * h


def test_the_result_is_what_the_scores_say(finished):
    folder = run_folder(finished)
    result = json.loads((folder / "result.json").read_text())
    for which in ("best", "last"):
        rows = list(csv.DictReader((folder / f"scores_{which}.csv").open()))
        cars = {row["group"] for row in rows}
        mean = sum(sum(float(r["dice"]) for r in rows if r["group"] == c) / 16 for c in cars) / len(cars)
        tp, fp, fn = (sum(int(r[c]) for r in rows) for c in ("tp", "fp", "fn"))
        assert result["test"][which]["dice"] == pytest.approx(mean, abs=1e-12)
        assert result["test"][which]["pooled_iou"] == pytest.approx(tp / (tp + fp + fn), abs=1e-12)
    counted = [json.loads(line)["images_per_second"] for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert result["images_per_second"] == pytest.approx(sum(counted) / 2, abs=0.01)  # of two epochs
    assert result["gmacs"] == pytest.approx(macs_of_unet(4, 48, 32) / 1e9, abs=1e-4)
    ceilings = [float(row["ceiling"]) for row in csv.DictReader((folder / "ceilings.csv").open())]
    assert len(ceilings) == len(rows) and sum(ceilings) / len(ceilings) == pytest.approx(result["ceiling"], abs=1e-6)
    assert 0.9 < result["ceiling"] < 1 and result["cars"] == {"train": 5, "val": 1, "test": 2}


def test_the_last_weights_score_the_same_in_your_own_script(finished, made_cars):
    """An independent walk from last.ckpt to a photograph's Dice."""
    import numpy as np
    from PIL import Image

    from experiments.data.cache import load_image
    from registry import MODELS

    folder = run_folder(finished)
    model = MODELS["unet"].build(width=4).eval()
    model.load_state_dict(torch.load(folder / "last.ckpt", weights_only=True)["model"])
    for row in list(csv.DictReader((folder / "scores_last.csv").open()))[::7]:
        photo = made_cars / "train" / row["image"]
        truth = np.asarray(Image.open(made_cars / "train_masks" / f"{photo.stem}_mask.gif")) > 0
        image = torch.tensor(load_image(photo, (48, 32))).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            logits = torch.nn.functional.interpolate(model(image), truth.shape, mode="bilinear", align_corners=False)
        found = logits[0, 0].numpy() > 0
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        assert float(row["dice"]) == pytest.approx(dice, abs=2e-3)


def test_a_finished_run_says_so_and_prints_its_result_again(finished, made_cars, command):
    before = (run_folder(finished) / "result.json").read_bytes()
    code, shown, _ = command(*small(made_cars, finished))
    assert code == 0 and "is finished" in shown and "test Dice" in shown and "epoch   1" not in shown
    assert (run_folder(finished) / "result.json").read_bytes() == before


def test_the_same_command_elsewhere_gives_the_same_record_bit_for_bit(
    finished, made_cars, tmp_path, command, same_threads
):
    assert command(*small(made_cars, tmp_path))[0] == 0
    assert run_folder(tmp_path).name == run_folder(finished).name
    assert digests(run_folder(tmp_path)) == digests(run_folder(finished))


SLOW = pytest.mark.slow


# Five steps an epoch: killed in the first epoch, at its end, in the last, at the end.
@pytest.mark.parametrize("step", [pytest.param(step, marks=SLOW) for step in (1, 4, 8, 10)])
@pytest.mark.usefixtures("same_threads", "stocked")
@pytest.mark.fault(1)
def test_a_killed_run_ends_like_an_undisturbed_one(finished, made_cars, tmp_path, command, step):
    words = small(made_cars, tmp_path)
    assert killed(words, at(step)).returncode == -signal.SIGKILL
    assert not (run_folder(tmp_path) / "result.json").exists()
    code, shown, complaint = command(*words)
    assert code == 0, complaint
    assert ("Resuming" in shown) == (step > 5)
    assert digests(run_folder(tmp_path)) == digests(run_folder(finished))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)])
@pytest.mark.fault(4)
def test_an_interrupted_run_says_so_and_ends_like_an_undisturbed_one(
    finished, made_cars, tmp_path, command, same_threads, number, code
):
    words = small(made_cars, tmp_path)
    stopped, _, complaint = signalled(command, words, 7, number)
    assert stopped == code and "Re-run the command to resume" in complaint
    assert load(run_folder(tmp_path) / "last.ckpt")["step"] == 2
    resumed, shown, _ = command(*words)
    assert resumed == 0 and "Resuming" in shown
    assert digests(run_folder(tmp_path)) == digests(run_folder(finished))


def spoil_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "names", "said"),
    [
        (spoil_flip, ["last.ckpt"], "after epoch 1"),
        (spoil_cut, ["last.ckpt"], "after epoch 1"),
        (spoil_flip, ["last.ckpt", "previous.ckpt"], "begins again"),
        (spoil_flip, ["best.ckpt"], "begins again"),
    ],
)
@pytest.mark.fault(3)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
    finished, made_cars, tmp_path, command, same_threads, spoil, names, said
):
    words = small(made_cars, tmp_path)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (run_folder(tmp_path) / "result.json").unlink()  # as a kill between the last epoch and the record would leave it
    for name in names:
        spoil(run_folder(tmp_path) / name)
    code, shown, _ = command(*words)
    assert code == 0 and said in shown and names[0] in shown
    assert digests(run_folder(tmp_path)) == digests(run_folder(finished))


@pytest.mark.fault(10)
def test_data_that_changed_in_between_is_refused_with_the_difference(cars, tmp_path, command):
    words = small(cars, tmp_path / "out")
    assert signalled(command, words, 7)[0] == 143
    mask = sorted((cars / "train_masks").iterdir())[3]
    mask.write_bytes(sorted((cars / "train_masks").iterdir())[4].read_bytes())
    code, _, complaint = command(*words)
    assert code == 2 and "data fingerprint" in complaint and "rm -r" in complaint


@pytest.mark.fault(11)
def test_a_config_edited_by_hand_is_refused_with_the_difference(made_cars, tmp_path, command):
    words = small(made_cars, tmp_path)
    assert signalled(command, words, 7)[0] == 143
    path = run_folder(tmp_path) / "config.json"
    content = json.loads(path.read_text())
    content["config"]["learning_rate"] = 0.5
    path.write_text(json.dumps(content))
    code, _, complaint = command(*words)
    assert code == 2 and "learning rate 0.003 -> 0.5" in complaint


def test_commands_in_messages_quote_a_folder_with_a_blank(tmp_path, command):
    folder = tmp_path / "my runs" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("damaged\n")
    for fails in (lambda: RunFolder(folder).verify_config(RunConfig()), RunFolder(folder).epochs):
        with pytest.raises(InputError) as refused:
            fails()
        assert shlex.split(str(refused.value))[-3:] == ["rm", "-r", str(folder)]
    cars = tmp_path / "my cars"
    code, shown, _ = command("data", "make", "--data-dir", cars, "--cars", 3, "--size", "48x32")
    assert code == 0 and shlex.split(shown)[-1] == str(cars)
    with pytest.raises(InputError, match=f"--data-dir '{tmp_path}/my other cars'"):
        synthetic.listing(tmp_path / "my other cars")


@pytest.mark.fault(11)
@pytest.mark.parametrize("change", [{"dropped_since": 1}, {"clip": None}], ids=["a setting more", "a setting fewer"])
def test_a_folder_that_another_version_left_is_refused_with_the_difference(made_cars, tmp_path, command, change):
    words = small(made_cars, tmp_path)
    assert signalled(command, words, 7)[0] == 143
    path = run_folder(tmp_path) / "config.json"
    content = json.loads(path.read_text())
    content["config"] = {
        name: value for name, value in (content["config"] | change).items() if value is not None or name != "clip"
    }
    path.write_text(json.dumps(content))
    before = {one.name: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}
    code, _, complaint = command(*words)
    assert code == 2 and next(iter(change)).replace("_", " ") in complaint and len(complaint.strip().splitlines()) == 1
    assert {one.name: one.read_bytes() for one in path.parent.iterdir() if one.is_file()} == before


def test_a_run_that_is_running_with_other_threads_is_not_to_be_deleted(made_cars, tmp_path, command):
    words = small(made_cars, tmp_path)
    assert signalled(command, words, 7)[0] == 143
    (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    content = json.loads((folder / "config.json").read_text())
    content["config"]["threads"] = 7
    other = folder.with_name("0123456789abcdef")
    folder.rename(other)
    (other / "config.json").write_text(json.dumps(content))
    code, _, complaint = command(*words)
    assert code == 2 and "unfinished" in complaint and "OMP_NUM_THREADS=7" in complaint and "rm -r" in complaint
    with leases.hold(other):
        code, _, complaint = command(*words)
    assert code == 2 and "under way" in complaint and "OMP_NUM_THREADS=7" in complaint and "rm -r" not in complaint


def test_a_run_trains_with_the_threads_of_its_settings_whatever_this_process_had(
    made_cars, tmp_path, command, monkeypatch
):
    """On Ray a worker begins with another number, and the last bits would be others."""
    before, seen = torch.get_num_threads(), []
    kept, first = runner.train_epochs, runner.refuse_changed

    def spy(*given):
        seen.append(torch.get_num_threads())
        return kept(*given)

    monkeypatch.setattr(runner, "train_epochs", spy)
    monkeypatch.setattr(runner, "refuse_changed", lambda *given: (torch.set_num_threads(before + 1), first(*given)))
    try:
        assert command(*small(made_cars, tmp_path))[0] == 0
    finally:
        torch.set_num_threads(before)
    assert seen == [before] == [json.loads((run_folder(tmp_path) / "config.json").read_text())["config"]["threads"]]


def test_two_processes_do_not_carry_out_the_same_run(finished, made_cars, tmp_path, command, same_threads):
    from filelock import FileLock

    words = small(made_cars, tmp_path)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = run_folder(tmp_path)
    (folder / "result.json").unlink()
    with FileLock(folder.parent / f"{folder.name}.lock"):
        code, _, complaint = command(*words)
    assert code == 2 and "another process" in complaint


@pytest.mark.fault(8)
def test_a_run_that_diverges_fails_with_its_reason_on_record(made_cars, tmp_path, command, monkeypatch):
    import experiments.training.losses

    monkeypatch.setattr(experiments.training.losses, "bce_dice_loss", lambda logits, mask: logits.float().mean() / 0)
    code, _, complaint = command(*small(made_cars, tmp_path))
    assert code == 1 and "lower --learning-rate" in complaint
    assert "finite" in json.loads((run_folder(tmp_path) / "failed.json").read_text())["reason"]
    assert not (run_folder(tmp_path) / "result.json").exists()


@pytest.mark.fault(7)
def test_running_out_of_memory_fails_with_advice(made_cars, tmp_path, command, monkeypatch):
    import experiments.training.losses

    def greedy(logits, mask):
        if logits.numel() < 10:
            return logits.mean()  # the trial call before the run
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(experiments.training.losses, "bce_dice_loss", greedy)
    code, _, complaint = command(*small(made_cars, tmp_path))
    assert code == 1 and "--batch-size" in complaint


@pytest.mark.fault(6)
def test_a_disk_that_fills_up_while_a_checkpoint_is_written_is_named(
    finished, made_cars, tmp_path, command, same_threads, monkeypatch
):
    from experiments.training import checkpoint

    kept, calls = files.write_atomically, []

    def full(path, *parts, **asked):
        if path.name == "last.ckpt":
            calls.append(path)
            if len(calls) == 2:
                raise OSError(28, "No space left on device", str(path))
        kept(path, *parts, **asked)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        code, _, complaint = command(*small(made_cars, tmp_path))
        assert code == 1 and "disk is full" in complaint and "last.ckpt" in complaint
    code, shown, _ = command(*small(made_cars, tmp_path))
    assert code == 0 and "Resuming" in shown
    assert digests(run_folder(tmp_path)) == digests(run_folder(finished))


@pytest.mark.parametrize("model", ["attention_unet", pytest.param("resnet_unet", marks=SLOW)])
def test_the_other_models_train_as_well(made_cars, tmp_path, command, model):
    options = {"attention_unet": ["width=4"], "resnet_unet": ["encoder=resnet18", "pretrained=false"]}[model]
    words = small(made_cars, tmp_path, model=model, epochs=1)
    at_ = words.index("--model-kwargs")
    code, shown, complaint = command(*words[: at_ + 1], *options, *words[at_ + 2 :])
    assert code == 0, complaint
    assert "test Dice" in shown


@pytest.mark.fault(7)
def test_a_run_whose_scoring_needs_more_memory_than_its_training_ends_with_the_same_scores(
    made_cars, tmp_path, command, monkeypatch
):
    (tmp_path / "greedy_nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Conv2d):\n"
        "    most = 1\n"
        "    def __init__(self):\n        super().__init__(3, 1, 1)\n"
        "    def forward(self, x):\n"
        "        if not self.training and len(x) > self.most:\n            raise torch.OutOfMemoryError('CUDA error')\n"
        "        return super().forward(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name in ("greedy", "modest"):
        words = small(made_cars, tmp_path / name, model="greedy_nets:Net", epochs=1)
        at_ = words.index("--model-kwargs")
        code, _, complaint = command(*words[:at_], *words[at_ + 2 :])
        assert code == 0, complaint
        found.append(digests(run_folder(tmp_path / name)))
        sys.modules["greedy_nets"].Net.most = 99
    losses = [json.loads(each.pop("metrics.jsonl"))["val/loss"] for each in found]
    assert found[0] == found[1] and losses[0] == pytest.approx(losses[1])


def test_a_network_that_reads_values_finishes_and_its_arithmetic_is_counted(made_cars, tmp_path, command, monkeypatch):
    (tmp_path / "reading_nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.last = torch.nn.Conv2d(3, 1, 1)\n"
        "    def forward(self, x):\n        return self.last(x / 255 if x.max() > 1 else x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = small(made_cars, tmp_path / "outputs", model="reading_nets:Net", epochs=1)
    at_ = words.index("--model-kwargs")
    code, _, complaint = command(*words[:at_], *words[at_ + 2 :])
    assert code == 0, complaint
    result = json.loads((run_folder(tmp_path / "outputs") / "result.json").read_text())
    assert result["gmacs"] == pytest.approx(3 * 48 * 32 / 1e9, abs=1e-4)


@pytest.mark.slow
def test_weights_given_as_a_file_count_by_their_bytes(made_cars, tmp_path, command):
    from registry import MODELS

    torch.manual_seed(0)
    encoder = MODELS["resnet_unet"].build(encoder="resnet18", pretrained=False).network.encoder.state_dict()
    keys = []
    for name in ("here.pth", "there.pth", "other.pth"):
        if name == "there.pth":
            shutil.copy(tmp_path / "here.pth", tmp_path / name)
        else:
            torch.save({k: v + len(keys) for k, v in encoder.items()}, tmp_path / name)
        words = small(made_cars, tmp_path / name.split(".")[0], model="resnet_unet", epochs=1)
        at_ = words.index("--model-kwargs")
        code, _, complaint = command(
            *words[: at_ + 1], "encoder=resnet18", f"pretrained={tmp_path / name}", *words[at_ + 2 :]
        )
        assert code == 0, complaint
        keys.append(run_folder(tmp_path / name.split(".")[0]).name)
    assert keys[0] == keys[1] != keys[2]


def test_folds_split_files_and_fewer_cars_reach_the_record(made_cars, tmp_path, command):
    words = small(made_cars, tmp_path / "one", epochs=1, fold="1/4", train_cars=2)
    assert command(*words)[0] == 0
    manifest = run_folder(tmp_path / "one") / "split.csv"
    rows = list(csv.DictReader(manifest.open()))
    assert len({r["image"][:12] for r in rows if r["part"] == "train"}) == 2
    assert command(*small(made_cars, tmp_path / "two", epochs=1, split_file=manifest))[0] == 0
    assert (run_folder(tmp_path / "two") / "split.csv").read_text() == manifest.read_text()
    assert json.loads((run_folder(tmp_path / "two") / "config.json").read_text())["config"]["split"].startswith("file:")


@pytest.mark.slow
@pytest.mark.fault(4)
def test_no_process_is_left_behind_by_a_stopped_run_with_workers(made_cars, tmp_path):
    words = small(made_cars, tmp_path, workers=2, epochs=500)
    process = subprocess.Popen(
        [sys.executable, "run.py", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    time.sleep(0.5)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left in its group
