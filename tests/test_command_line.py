"""The words: which flags there are, how fast help comes, and what a wrong word is answered."""

import os
import subprocess
import sys

import pytest

from experiments.config.resolve import resolve
from experiments.config.schema import PRESETS, RunConfig, RuntimeConfig
from experiments.config.values import HABITS, read
from experiments.data import carvana
from experiments.training.single_run import show_result
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, InputError
from tests.conftest import ROOT, run_folder, small

FLAGS = {
    "--model", "--model-kwargs", "--loss", "--loss-kwargs", "--augment", "--data", "--data-dir", "--preset", "--size",
    "--epochs", "--batch-size", "--learning-rate", "--optimizer", "--seed", "--split", "--fold", "--train-cars",
    "--precision", "--device", "--workers", "--config", "--output-dir", "--tracking-uri", "--split-file",
    "--group-pattern",
    "--epoch-steps", "--tune", "--tune-range", "--tune-points", "--tune-seeds", "--tune-sampler",
    "--weight-decay", "--schedule", "--clip", "--early-stopping", "--accumulate", "--compile", "--progressive",
    "--init", "--intensity", "--foreground", "--mask-channel", "--mask-exif", "--mask-pattern",
    "--train-draw", "--test-views", "--warmup",
    "--help",
}  # fmt: skip
HEAVY = {
    "torch",
    "mlflow",
    "segmentation_models_pytorch",
    "albumentations",
    "pandas",
    "matplotlib",
    "cv2",
}


def imported_by(*words):
    code = (
        "import sys, contextlib, io, run\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        f"    run.main({list(words)!r})\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    return set(
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_the_flags_are_those_that_are_documented(command):
    import re

    code, shown, _ = command("--help")
    assert code == 0 and set(re.findall(r"(?<!\w)--[a-z-]+", shown)) == FLAGS


def test_help_names_every_choice(command):
    shown = command("--help")[1]
    assert all(name in shown for table in (MODELS, LOSSES, AUGMENTATIONS, DATASETS, PRESETS) for name in table)


@pytest.mark.parametrize(("language", "field"), [("en_GB.UTF-8", "summary"), ("zh_CN.UTF-8", "summary_zh")])
def test_list_shows_every_choice_with_its_source_in_the_language_of_the_shell(command, monkeypatch, language, field):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("LC_ALL", language)
    shown = "".join(command("list")[1].split())
    for table in (MODELS, LOSSES, AUGMENTATIONS, DATASETS):
        for entry in table.values():
            summary = "".join(getattr(entry, field).split())
            assert entry.name in shown and summary[:4] in shown and entry.source.split()[0] in shown


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--modle", "unet"], ["--model", "unett"], ["--preset", "dmo"], ["trian"], ["--loss", "dise"]],
    ids=" ".join,
)
def test_help_and_the_error_for_an_unknown_name_import_nothing_heavy(words):
    assert not HEAVY & imported_by(*words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "Commands: list"),
        (["listt"], "did you mean 'list'?"),
        (["--modle", "unet"], "did you mean '--model'?"),
        (["--model", "atention_unet"], "did you mean 'attention_unet'?"),
        (["--loss", "bcedice"], "did you mean 'bce_dice'?"),
        (["--loss", "dice_bce"], "did you mean 'bce_dice'?"),
        (["--model", "nnunet"], "run.py judge compares its scores"),
        (["--data", "/"], "type --data folder --data-dir /."),
        (["--augment", "flop"], "did you mean 'flip'?"),
        (["--data", "carvanna"], "did you mean 'carvana'?"),
        (["--preset", "carvana-gpu"], 'Did you mean "carvana-cpu"?'),
        (["--model", "unet", "extra"], "extra"),
        (["--model"], "--model"),
        (["--model-kwargs", "widht=16"], "did you mean 'width'?"),
        (["--model-kwargs", "width"], "KEY=VALUE"),
        (["--model-kwargs", "width=wide"], "whole number"),
        (["--model-kwargs", "width=0"], "width"),
        (["--loss", "dice", "--loss-kwargs", "gamma=2"], "takes: smooth"),
        (["--loss", "focal", "--loss-kwargs", "gamma=-1"], "gamma"),
        (["--learning-rate", "0"], "Must be > 0"),
        (["--learning-rate", "-1e-3"], "Must be > 0"),
        (["--learning-rate", "nan"], "not a finite number"),
        (["--epochs", "0"], "Must be >= 1"),
        (["--epochs", "2.5"], "whole number"),
        (["--size", "16x16"], "at least 32x32"),
        (["--size", "192"], "WIDTHxHEIGHT"),
        (["--fold", "5/5"], "counted from 0"),
        (["--split", "cars"], 'Did you mean "car"?'),
        (["--optimizer", "adma"], 'Did you mean "adam"?'),
        (["--precision", "fp8"], 'Choose from: "auto", "bf16"'),
        (["--device", "gpu"], 'Choose from: "auto", "cuda"'),
        (["--data", "synthetic", "--precision", "fp16", "--device", "cpu"], "needs a CUDA GPU"),
        (["--data", "carvana", "--data-dir", "/no/such/place"], "/no/such/place"),
        (["--data-dir", "/no/such/place"], "--data synthetic"),
        (["--data", "carvana", "--group-pattern", "x"], "--data folder"),
        (["--config", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (["--model", "my.nets:Net", "--data", "synthetic"], "my"),
        (
            ["--model", "resnet_unet", "--model-kwargs", "pretrained=/no/file.pth", "--data", "synthetic"],
            "/no/file.pth",
        ),
        (["--batch-size", "2", "--accumulate", "3"], "more than the batch size"),
        (["--progressive", "1.5"], "Must be <= 1"),
        (["--progressive", "0.5", "--size", "48x48"], "at least 64x64"),
        (["--compile", "on"], 'Choose from: "off", "default"'),
        (["bench", "--model", "unett"], "did you mean 'unet'?"),
        (["bench", "--parts", "setp"], 'Did you mean "step"?'),
        (["bench", "--repeats", "0"], "Must be >= 1"),
        (["bench", "--data-dir", "/no/such/place", "--parts", "loader"], "/no/such/place"),
        (["--split-file", "x.csv", "--split", "car"], "leave out --split"),
        (["list", "--model", "unet"], "--model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_argument_is_refused_in_one_sentence_that_says_what_to_type(
    command, tmp_path, monkeypatch, words, sentence
):
    monkeypatch.chdir(tmp_path)  # some are found after the cars are made
    given = words if words[0] in ("list", "bench") else [*words, "--output-dir", tmp_path / "out"]
    code, shown, complaint = command(*given)
    assert code == 2 and sentence in complaint
    assert len(complaint.strip().splitlines()) == 1 and "Traceback" not in complaint + shown
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data", "verify", "--data", "folder", "--data-dir", 300 * "x"], "is no usable path"),
        (["judge", "scores.csv", "--score", "s", "--cell", "c", "--json", 300 * "x"], "is no usable path"),
        (["data", "verify", "--data", "folder", "--data-dir", "loop"], "loop"),
    ],
    ids=["long folder", "long file", "a link to itself"],
)
def test_paths_that_no_disk_takes_end_in_one_sentence(command, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    code, _, complaint = command(*words)
    assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1


def test_an_unknown_name_does_not_import_what_it_is_not():
    assert not HEAVY & imported_by("--model", "no_such_model", "--model-kwargs", "width=16")


def spoil_no_mask(cars):
    carvana.build(cars)[5].mask.unlink()


def spoil_truncated(cars):
    photo = carvana.build(cars)[5].image
    photo.write_bytes(photo.read_bytes()[:900])


def spoil_grey_mask(cars):
    import numpy as np
    from PIL import Image

    mask = carvana.build(cars)[5].mask
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96), dtype=np.uint8)).save(mask)


def spoil_two_cars(cars):
    keep = {s.group for s in carvana.build(cars)[:32]}
    for sample in carvana.build(cars):
        if sample.group not in keep:
            sample.image.unlink()
            sample.mask.unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_no_mask, "no mask"),
        (spoil_truncated, "truncated"),
        (spoil_grey_mask, "not binary"),
        (spoil_two_cars, "at least three groups"),
    ],
)
def test_invalid_data_is_found_before_the_work_starts(command, cars, tmp_path, spoil, sentence):
    spoil(cars)
    code, _, complaint = command(*small(cars, tmp_path / "out"))
    assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "runs").exists() or not any((tmp_path / "out" / "runs").glob("*/config.json"))


@pytest.mark.parametrize("name", ["settings.yaml", "settings.toml"])
def test_a_config_file_counts_and_the_command_line_wins(tmp_path, name):
    yaml = (
        "model: attention_unet\nmodel_kwargs: {width: 8}\n"
        "learning-rate: 0.01\nsize: 64x48\nepochs: 7\ndata: synthetic\n"
    )
    toml = (
        'model = "attention_unet"\nlearning-rate = 0.01\nsize = "64x48"\nepochs = 7\ndata = "synthetic"\n'
        "[model_kwargs]\nwidth = 8\n"
    )
    (tmp_path / name).write_text(yaml if name.endswith("yaml") else toml)
    config, _, _ = resolve(read({"epochs": "3"}, tmp_path / name))
    assert (config.model, config.model_kwargs, config.learning_rate, config.size) == (
        "attention_unet",
        {"width": 8},
        0.01,
        (64, 48),
    )
    assert config.epochs == 3


@pytest.mark.parametrize(
    "text", ["modle: unet\n", "- a\n- b\n", "model: [unet\n", "epochs: many\n", "learning_rate: true\n"]
)
def test_an_invalid_config_file_is_refused_in_one_sentence(command, tmp_path, text):
    (tmp_path / "settings.yaml").write_text(text)
    code, _, complaint = command("--config", tmp_path / "settings.yaml")
    assert code == 2 and len(complaint.strip().splitlines()) == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_for_every_model(preset):
    for model in MODELS:
        words = {"preset": preset, "model": model, "device": "cpu"}
        config, _, _ = resolve(read(words))
        takes_width = "width" in MODELS[model].options()
        assert (config.model_kwargs.get("width") == PRESETS[preset]["width"]) == takes_width


def test_the_presets_are_those_that_are_documented():
    demo, classic, fast, cpu = (resolve(read({"preset": name, "device": "cpu"}))[0] for name in PRESETS)
    assert (demo.data, demo.size, demo.model_kwargs) == ("synthetic", (192, 128), {"width": 16})
    assert (classic.size, classic.batch_size, classic.optimizer, classic.learning_rate) == ((572, 572), 4, "adam", 1e-4)
    assert (fast.size, fast.schedule) == ((384, 256), "one-cycle") and fast.batch_size > classic.batch_size
    assert (cpu.size, cpu.model_kwargs) == ((192, 128), {"width": 16})
    assert (cpu.epochs, cpu.learning_rate, cpu.clip, cpu.progressive) == (15, 1e-2, 0.25, 0.5)
    assert (cpu.epoch_steps, cpu.train_cars) == (None, None)  # other sets are trained in full


def test_a_preset_asks_for_half_size_only_where_there_is_one():
    small = {"preset": "carvana-cpu", "device": "cpu", "size": "48x48"}
    assert resolve(read(small))[0].progressive == 0
    assert resolve(read({**small, "size": "64x64"}))[0].progressive == 0.5
    with pytest.raises(InputError, match="at least 64x64"):
        resolve(read({**small, "progressive": "0.8"}))  # typed: refused, not dropped
    config, _, notices = resolve(read({"preset": "carvana-cpu", "device": "cpu", "early_stopping": "3"}))
    assert config.progressive == 0
    assert "All epochs are at full size, unlike in preset carvana-cpu: early stopping" in " ".join(notices)


def test_cuda_graphs_and_accumulation_are_refused_together(monkeypatch):
    import torch

    words = {"preset": "demo", "precision": "fp32", "accumulate": "2"}
    assert resolve(read({**words, "device": "cpu", "compile": "graphs"}))[0].accumulate == 2  # no graphs there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve(read({**words, "device": "cuda", "compile": "default"}))[0].device == "cuda"
    with pytest.raises(InputError, match="type --compile default"):
        resolve(read({**words, "device": "cuda", "compile": "graphs"}))


def test_without_a_preset_the_data_that_is_there_decides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, _, notices = resolve(read({"device": "cpu"}))
    assert config.data == "synthetic" and "SYNTHETIC CARS" in "".join(notices)
    for name in ("train", "train_masks"):
        (tmp_path / "data" / "carvana" / name).mkdir(parents=True)
    config, machine, notices = resolve(read({"device": "cpu"}))
    assert config.data == "carvana" and config.size == (192, 128) and "SYNTHETIC" not in "".join(notices)
    assert not machine.output_dir.is_relative_to("data") and machine.output_dir.is_absolute()


def test_the_key_follows_whatever_decides_the_result_and_nothing_else(tmp_path):
    def key(**words):
        return resolve(read({"preset": "demo", "device": "cpu", **words}))[0].key

    changes = [
        {},
        {"model": "attention_unet"},
        {"model_kwargs": ["width=8"]},
        {"loss": "dice"},
        {"loss_kwargs": ["smooth=2"]},
        {"augment": "none"},
        {"data": "carvana"},
        {"size": "64x64"},
        {"epochs": "3"},
        {"batch_size": "3"},
        {"seed": "3"},
        {"learning_rate": "0.1"},
        {"optimizer": "adam"},
        {"weight_decay": "0.1"},
        {"schedule": "cosine"},
        {"clip": "2"},
        {"early_stopping": "3"},
        {"epoch_steps": "3"},
        {"split": "image"},
        {"fold": "1/5"},
        {"train_cars": "3"},
        {"precision": "fp32"},
        {"group_pattern": "x", "data": "folder"},
        {"accumulate": "2"},
        {"compile": "default"},
        {"progressive": "0.5"},
        {"warmup": "0.5"},
    ]
    keys = [
        key(**change)
        for change in changes
        if "precision" not in change or resolve(read({"preset": "demo"}))[0].precision != "fp32"
    ]
    assert len(set(keys)) == len(keys)
    assert key() == key(data_dir=tmp_path, output_dir=tmp_path, workers="2", tracking_uri="http://127.0.0.1:1")
    assert key(model_kwargs=["width=16"]) == key()


@pytest.mark.parametrize(
    ("features", "processor", "precision"),
    [
        ({"amx_tile", "avx512_bf16"}, "Intel(R) Xeon(R) Platinum 8480+", "bf16"),
        ({"avx512_bf16"}, "AMD EPYC 9654 96-Core Processor", "bf16"),
        ({"avx512_bf16"}, "Intel(R) Xeon(R) Processor", "fp32"),  # bf16 instructions at half the rate of fp32
        (set(), "AMD EPYC 7763 64-Core Processor", "fp32"),
    ],
)
def test_bf16_is_chosen_where_it_multiplies_faster_than_fp32(monkeypatch, features, processor, precision):
    import torch

    from experiments.config import resolve as resolving

    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in features)
    monkeypatch.setattr(resolving, "processor", lambda: processor)
    assert resolve(read({"preset": "demo", "device": "cpu"}))[0].precision == precision


def test_a_config_survives_being_written_and_read():
    config = resolve(read({"preset": "demo", "fold": "1/5", "model_kwargs": ["width=8", "up=bilinear"]}))[0]
    assert RunConfig.from_dict(config.to_dict()) == config and RunConfig.from_dict(config.to_dict()).key == config.key


def test_the_run_ends_with_its_table_and_the_command_that_opens_it(command, made_cars, tmp_path):
    code, shown, _ = command(*small(made_cars, tmp_path, epochs=1))
    assert code == 0
    for words in (
        "test Dice",
        "test IoU",
        "boundary IoU",
        "HD95",
        "parameters",
        "python run.py ui --output-dir",
        run_folder(tmp_path).name,
    ):
        assert words in shown


def test_a_split_that_leaks_says_so_at_the_end(command, made_cars, tmp_path):
    shown = command(*small(made_cars, tmp_path, epochs=1, split="image"))[1]
    assert "WARNING: data leakage" in shown and "images of the test cars." in shown


def test_data_that_are_no_cars_are_not_called_so(capsys):
    scores = {"dice": 0.5, "iou": 0.5, "boundary_iou": 0.5, "hd95_median": 1.0, "hd95_failures": 0, "images": 4}
    result = {
        "key": "aa",
        "model": "unet",
        "loss": "bce",
        "data": "folder",
        "split": "siblings",
        "cars": {"test": 2},
        "headline": "last",
        "test": {"last": scores, "best": scores},
        "parameters": 1,
        "seconds": {"training": 1},
        "size": [48, 32],
        "epochs": 1,
        "best_epoch": 1,
        "ceiling": 0.9,
    }
    for unit, groups in (("group", "groups"), ("image", "groups"), ("car", "cars")):
        show_result(result, RuntimeConfig(), 1.0, unit)
        assert f"images of the test {groups}." in capsys.readouterr().out


@pytest.mark.parametrize(("words", "code"), [(["list"], 1), (["completion", "bash"], 141)], ids=["list", "completion"])
def test_a_closed_pipe_causes_no_traceback(words, code):
    """As `python run.py list | head` does; rich, which prints the tables, ends with 1."""
    process = subprocess.Popen(
        [sys.executable, "run.py", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), said) == (code, "")


def test_a_command_whose_output_was_closed_from_the_start_still_ends_well():
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, 'run.py', 'completion', 'bash'])"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "flag"),
    [(["--lr", "1e-3"], "--learning-rate"), (["--bs=8"], "--batch-size"), (["--arch", "Unet"], "--model"),
     (["predict", "x", "--weights", "a.pt"], "--run"), (["--epoch", "3"], "--epochs")],
)  # fmt: skip
def test_what_other_tools_call_a_flag_is_suggested_rightly(words, flag, command):
    code, _, complaint = command(*words)
    assert code == 2 and f"(did you mean '{flag}'?)" in complaint


def test_every_habit_leads_to_a_flag_that_some_command_has():
    import run

    named = {flag for name in ("", "predict") for flag in run._flags(run.app[name] if name else run.app)}
    named = {flag.removeprefix("--").replace("-", "_") for flag in named}
    assert set(HABITS.values()) <= named and not set(HABITS) & named


def test_a_tilde_is_the_home_folder_wherever_it_is_typed(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for word in ("--data-dir=~/pairs", "--data-dir=~"):
        code, _, complaint = command("--data", "folder", word)
        assert code == 2 and str(tmp_path / "home") in complaint and "~" not in complaint
    (tmp_path / "run.yaml").write_text("data: folder\ndata_dir: ~/pairs\n")
    _, _, complaint = command("--config", tmp_path / "run.yaml")
    assert str(tmp_path / "home" / "pairs") in complaint


def without(package, *words):
    """Run `run.py` in a process that lacks a package."""
    code = f"import runpy, sys; sys.modules['{package}'] = None; sys.argv = ['run.py', *{list(words)!r}]; "
    return subprocess.run(
        [sys.executable, "-c", code + "runpy.run_path('run.py', run_name='__main__')"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize(("package", "words"), [("cyclopts", ["--help"]), ("rich", ["list"]), ("torch", ["draw"])])
def test_a_missing_package_is_named_in_one_sentence(package, words):
    done = without(package, *words)
    assert done.returncode == 2 and package in done.stderr
    assert "pip install -r requirements.txt" in done.stderr and done.stderr.count("\n") == 1


def test_a_package_that_an_own_module_lacks_is_named_with_that_module(command, tmp_path, monkeypatch):
    (tmp_path / "my_ideas.py").write_text("import no_such_package_foo\n")
    (tmp_path / "my_others.py").write_text("import optuna.no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = "needs the package no_such_package_foo, which is not installed: pip install no_such_package_foo."
    code, _, complaint = command("--data", "synthetic", "--model", "my_ideas:net")
    assert code == 2 and complaint.strip() == f"my_ideas {sentence}"
    assert "requirements.txt" in command("--data", "synthetic", "--model", "my_others:net")[2]


def test_an_older_python_is_refused_in_one_sentence():
    done = subprocess.run(
        [sys.executable, "-c", "import runpy, sys; sys.version_info = (3, 10); runpy.run_path('run.py')"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2 and "Python 3.11 or later is needed" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow), pytest.param("gbk", marks=pytest.mark.slow)]
)
def test_no_encoding_of_the_terminal_ends_a_command(encoding, tmp_path):
    """Names in Chinese and in letters that no such terminal has."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    (tmp_path / "images" / "汽车_ç_ก.png").write_bytes(b"no picture")
    for words in (["list"], ["data", "verify", "--data", "folder", "--data-dir", str(tmp_path)], ["judge", "车.csv"]):
        done = subprocess.run(
            [sys.executable, "run.py", *words],
            capture_output=True,
            cwd=ROOT,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        )
        assert b"Traceback" not in done.stderr and done.returncode in (0, 1, 2)


@pytest.mark.parametrize(
    "words", [("predict", ""), ("predict", "x", "--output", ""), ("--data-dir=",), ("score", "a", "", "--output", "b")]
)
def test_an_empty_argument_is_never_the_working_directory(command, words):
    code, _, complaint = command(*words)
    assert code == 2 and "is empty" in complaint and complaint.count("\n") == 1
