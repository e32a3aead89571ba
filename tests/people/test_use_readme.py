"""What the pages say about using a trained model is typed here as it stands there, and completion completes."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.test_command_line import HEAVY, imported_by
from tests.test_data import write_pairs
from tests.test_readme import EVERYTHING, commands

USED = ("predict", "evaluate", "submit", "export", "completion")


@pytest.fixture
def there(trained, made_cars, tmp_path, monkeypatch):
    """The folder that the pages' commands speak of: two runs, photographs, pairs and Kaggle's test photographs."""
    for key in ("KEY1", "KEY2"):
        shutil.copytree(trained, tmp_path / "outputs" / "runs" / key)
    for place in ("photos", "data/carvana/test", "new/train"):
        (tmp_path / place).mkdir(parents=True)
        for path in sorted((made_cars / "train").glob("*.jpg"))[:2]:
            shutil.copy(path, tmp_path / place)
    write_pairs(tmp_path / "pairs", names=["a1", "a2", "b1"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [words for words in commands() if words[2] in USED], ids=" ".join)
def test_the_pages_commands_run(words, command, there):
    code, shown, complaint = command(*words[2:])
    assert code == 0 and shown, complaint


def blocks(*having):
    """The pages' Python blocks that hold all of these words, in English and in Chinese."""
    return [
        block
        for block in re.findall(r"```python\n(.*?)```", EVERYTHING, re.DOTALL)
        if all(word in block for word in having)
    ]


def test_a_model_a_loss_and_the_dataset_work_in_your_own_code(there, made_cars):
    shutil.rmtree(there / "data" / "carvana")
    shutil.copytree(made_cars, there / "data" / "carvana")
    found = blocks("ImageDataset(", "MODELS")
    assert len(found) == 2
    for block in found:
        names = {}
        exec(block, names)
        assert names["loss"].shape == () and torch.isfinite(names["loss"])


def test_a_checkpoint_and_the_metrics_work_in_your_own_code(there, command):
    assert command("predict", "pairs/images/a1.png", "--run", "KEY1")[0] == 0
    for block in [*blocks("from experiments.inference import"), *blocks("found = score(read_mask")]:
        names = {}
        exec(block, names)
        assert (
            names["found"].iou >= 0
            if "found" in names
            else names["model"](torch.rand(1, 3, 40, 40)).shape == (1, 1, 40, 40)
        )
    assert len(blocks("from experiments.inference import")) == 4
    assert len(blocks("found = score(read_mask")) == 2


def test_the_mlflow_model_is_loaded_as_the_page_says(there, command):
    assert command("export", "--run", "KEY1", "--format", "mlflow", "--output", "car")[0] == 0
    found = blocks("import mlflow")
    assert len(found) == 2 and all(len([line for line in block.splitlines() if line]) == 3 for block in found)
    names = {"images": np.full((1, 3, 40, 50), 128, np.float32)}
    exec(found[0], names)
    assert names["probability"].shape == (1, 1, 40, 50)


def completed(script, *words):
    """What bash offers for these words, the last of them being typed."""
    line = " ".join(f'"{word}"' for word in words)
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMPREPLY=()\n"
    ask += 'call=$(complete -p "${COMP_WORDS[0]}"); call=${call#* -F }; ${call%% *}\nprintf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_and_flags_of_both_names():
    done = subprocess.run(
        [sys.executable, "run.py", "completion", "bash"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    script = done.stdout
    for start in (["run_py"], ["python", "run.py"], ["python3", "./run.py"]):
        assert completed(script, *start, "pred") == ["predict"]
        assert completed(script, *start, "predict", "--over") == ["--overlay"]
        assert completed(script, *start, "data", "ver") == ["verify"]
    assert completed(script, "python", "other.py", "pred") == []  # left to bash


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_have_a_script_of_theirs(command, shell):
    code, shown, _ = command("completion", shell)
    assert code == 0 and "run_py" in shown and "predict" in shown and ("compdef" in shown) == (shell == "zsh")


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here; type apt-get install fish, then make test-people")
def test_fish_completes_commands_and_flags(command, tmp_path):
    (tmp_path / "run_py.fish").write_text(command("completion", "fish")[1])
    typed = ("pred", "predict --over", "data ver")
    ask = "; ".join(["source run_py.fish", *(f"complete -C 'run_py {words}'" for words in typed)])
    done = subprocess.run(["fish", "--no-config", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["predict", "--overlay", "verify"]


ZSH = """
zmodload zsh/zpty; zpty z zsh -f -i
zpty -w z "PS1=''; autoload -Uz compinit && compinit -u -d $1/dump; source $1/run_py.zsh; run_py() { : }; print rea''dy"
wait_for() {
  local seen='' part
  repeat 300 { while zpty -r -t z part; do seen+=$part; done; [[ $seen == *$1* ]] && return; sleep 0.1 }
  print -r -- "no $1 in: $seen"; exit 1
}
wait_for ready
zpty -w -n z $'run_py pred\t'; wait_for 'predict'
zpty -w -n z $'--over\t'; wait_for '--overlay'
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here; type apt-get install zsh, then make test-people")
def test_zsh_completes_commands_and_flags(command, tmp_path):
    (tmp_path / "run_py.zsh").write_text(command("completion", "zsh")[1])
    done = subprocess.run(["zsh", "-f", "-c", ZSH, "ask", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_an_unknown_shell_is_refused_in_one_sentence(command):
    code, _, complaint = command("completion", "basch")
    assert code == 2 and 'Did you mean "bash"?' in complaint


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--help"],
        ["predict", "a.jpg", "--ouput", "x"],
        ["export", "--format", "onx"],
        ["evaluate", "--data", "foldr"],
        ["predict", "--device", "gpu", "x"],
    ],
    ids=" ".join,
)
def test_help_and_the_error_for_an_invalid_argument_import_nothing_heavy(words):
    assert not (HEAVY | {"onnx", "onnxruntime"}) & imported_by(*words)
