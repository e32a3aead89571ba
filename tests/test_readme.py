"""The README: what it shows is rendered, both languages agree, and its commands run as they are written."""

import itertools
import re
import shlex

import pytest

from tests.conftest import ROOT, small

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_the_readme_shows_is_rendered_from_the_registry_and_the_committed_results(command):
    code, shown, complaint = command("report", "--check")
    assert code == 0, f"{shown}{complaint}: type make readme"


def test_the_tables_of_speed_are_rendered_from_what_bench_printed():
    from analysis.report.bench_tables import DOCUMENT, rendered

    text = DOCUMENT.read_text(encoding="utf-8")
    assert rendered(text) == text, "type make readme"


def test_both_languages_have_the_same_headings():
    english, chinese = README.split("# 中文说明", 1)
    levels = [[len(mark) for mark in re.findall(r"^(##+) ", part, re.MULTILINE)] for part in (english, chinese)]
    assert levels[0] == levels[1] and len(levels[0]) >= 6


def test_the_walk_is_the_same_in_both_languages_and_each_step_has_its_output():
    from reference.walk import KEPT, steps

    english, chinese = README.split("# 中文说明", 1)
    assert list(steps(english)) == ["pairs", "compare", "predict", "export", "page"]
    for name, block in steps(english).items():
        assert block in chinese
        assert (KEPT / f"{name}.txt").read_text(encoding="utf-8") in english


def commands():
    """Every `python run.py …` in the README's shell blocks, once."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["python", "run.py"] and words not in found:
                found.append(words)
    return found


def study_to_report(folder, given, monkeypatch):
    """Records of the study that `given` reports, in a folder of their own, and the words that name it."""
    from tests.made_study import write_study

    monkeypatch.chdir(folder)
    name = next((word for word in given[1:] if not word.startswith("-")), "two_by_two")
    write_study(folder / "outputs", name, {"unet": 0, "attention_unet": 0}, {"bce": 0, "bce_dice": 0})
    (folder / "README.md").write_text("")
    return ["--results-dir", folder / "results", "--readme", folder / "README.md"]


def lay_out_data(folder, cars, monkeypatch):
    """Create what the README's data commands name: cars, pairs, a manifest, zips, and a fake kagglehub."""
    import shutil
    import sys
    import types

    from experiments.data import carvana, splits
    from tests.test_data import write_pairs

    for name in ("train", "train_masks"):
        shutil.copytree(cars / name, folder / "data" / "carvana" / name)
        shutil.make_archive(str(folder / name), "zip", cars, name)
    (folder / "split.csv").write_text(splits.manifest(splits.split(carvana.build(cars))))
    write_pairs(folder / "pairs", names=[f"{letter}_{n}" for letter in "abcd" for n in range(2)])
    hub = types.SimpleNamespace(competition_download=lambda handle, path: str(folder / path))
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    monkeypatch.chdir(folder)


def write_pets(folder):
    """Photographs NAME_1.jpg and masks NAME_1.png side by side, as the README's own data set lists them."""
    from PIL import Image

    from tests.strangers import scene

    folder.mkdir()
    for number, name in enumerate("abcdefgh"):
        photo, mask = scene(96, 64, number)
        Image.fromarray(photo).save(folder / f"{name}_1.jpg")
        Image.fromarray((mask > 0).astype("uint8") * 255).save(folder / f"{name}_1.png")


# What makes a command of the README that measures or draws a matter of seconds; it takes the place of its own flags.
QUICK = {
    "bench": [
        "--parts",
        "step",
        "--size",
        "48x32",
        "--batch-size",
        "2",
        "--repeats",
        "1",
        "--steps",
        "2",
        "--model-kwargs",
        "width=4",
    ],
    "draw": ["--width", "4", "--size", "64x64"],
    "grid": ["--size", "48x32", "--epochs", "1", "--model-kwargs", "width=4"],
    "data make": ["--cars", "2", "--size", "60x40"],
}


def with_flags(given, short, names):
    """`given` with those flags of `short` (flag, value, flag, value ...) that are among `names` in place of its own."""
    own, skip = [], False
    for word in given:
        skip = word in names and word in short if word.startswith("--") else skip
        own += [] if skip else [word]
    return [
        *own,
        *(w for flag, value in zip(short[::2], short[1::2], strict=True) if flag in names for w in (flag, value)),
    ]


def few(study):
    """The text of a study whose levels set numbers of cars or steps, with 2, 3, ... for the cars and 1, 2, ... for the
    steps.
    """
    numbers = {"train_cars": itertools.count(2), "epoch_steps": itertools.count(1)}
    return re.sub(
        r"(\{[^{}]*?)(train_cars|epoch_steps) = \d+", lambda m: f"{m[1]}{m[2]} = {next(numbers[m[2]])}", study
    )


def shrink_studies(folder, monkeypatch):
    """The committed studies with the least of everything: one cell, one seed, one short epoch on two small cars."""
    from experiments.studies import study_file

    least = {
        "epochs": "1", "epoch_steps": "1", "train_cars": "2", "batch_size": "16", "size": '"48x32"',
        "precision": '"fp32"',
        "model_kwargs": "{ width = 4 }", "model": '["unet"]', "loss": '["bce"]', "points": "4",
    }  # fmt: skip
    for path in study_file.STUDIES.glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        lines = re.sub(
            r"^\w+ = \[\n(.*\n)*?\]", lambda m: re.sub(r",?\n", ",", m[0]).replace("[,", "["), text, flags=re.MULTILINE
        )
        kept = (
            ("model", "model_kwargs") if '\nmodel = "smp"' in lines else ()
        )  # what its levels name is an option of no other model
        own = {name: value for name, value in least.items() if name not in kept}
        levels = set(re.findall(r"(?<=[{,] )(\w+)(?= = )", lines))
        shared = [
            name for name in own if name not in ("model", "loss", "points") and name not in levels - {"model_kwargs"}
        ]
        text = few(re.sub(rf"^({'|'.join(shared)}) = .*\n", "", lines, flags=re.MULTILINE))
        text = re.sub(
            r"^(\w+) = (\"?).*",
            lambda m, own=own: f"{m[1]} = {own[m[1]].strip('[]') if m[2] else own[m[1]]}" if m[1] in own else m[0],
            text,
            flags=re.MULTILINE,
        )
        text = re.sub(r"^seeds = \[(\d+).*", r"seeds = [\1]", text, flags=re.MULTILINE)
        settings = "[settings]\n" + "".join(f"{name} = {own[name]}\n" for name in shared)
        text, tables = re.subn(r"^\[settings\].*\n", settings, text, flags=re.MULTILINE)
        assert tables == 1, path
        (folder / path.name).write_text(text, encoding="utf-8")
        for name in re.findall(r'"(weights/[^"]+)"', text):
            put_weights(folder / name)
    monkeypatch.setattr(study_file, "STUDIES", folder)


def put_weights(path):
    """Weights of mobilenet_v2 as nobody has trained it, where a study looks for torchvision's."""
    import torch

    from models import zoo

    path.parent.mkdir(exist_ok=True)
    torch.save(zoo.build("Unet", "mobilenet_v2", pretrained=False).network.encoder.state_dict(), path)


# Studies of many configurations or done already in another command, networks of millions of parameters, a tuning, and
# a benchmark that starts a process for each loop.
STUDIES = ("pretraining", "augmentation", "full_size", "models_x_losses", "leak", "--data-dir", "--published")
SLOW = ({"bench"}, {"tune"}, {"--tune"}, {"smp"}, {"resnet_unet"}, *({"study", name} for name in STUDIES))
PARAMETERS = [
    pytest.param(words, marks=pytest.mark.slow if any(slow <= {*words} for slow in SLOW) else ())
    for words in commands()
]


@pytest.mark.parametrize("words", PARAMETERS, ids=lambda words: " ".join(words))
def test_the_readmes_commands_run(words, command, made_cars, tmp_path, monkeypatch):
    """Training commands run for one short epoch on small cars; their other flags are kept as they are written."""
    from tests.test_data import write_pairs

    given = words[2:]
    if given[:1] == ["ui"]:
        pytest.skip("the UI is opened in tests/faults/test_tracking_away.py")
    if given[:1] == ["sync"]:
        pytest.skip("it wants runs, and has some in tests/faults/test_tracking_away.py")
    if "--executor" in given:
        pytest.skip("studies are carried out on Ray in tests/faults/test_ray.py")
    if given[:1] == ["robustness"]:
        pytest.skip("it wants a finished study, and has one in tests/test_robustness.py")
    if given[:1] in (["predict"], ["evaluate"], ["submit"], ["export"], ["completion"], ["page"]):
        pytest.skip("they want a trained run, and have one in tests/people")
    monkeypatch.chdir(tmp_path)
    if given[:1] in (["data"], ["runs"], ["study"], ["tune"], ["grid"]):
        lay_out_data(tmp_path, made_cars, monkeypatch)
        shrink_studies(tmp_path, monkeypatch)
    if given and not given[0].startswith("-"):
        elsewhere = study_to_report(tmp_path, given, monkeypatch) if given[0] == "report" else []
        short = QUICK.get(" ".join(given[:2]), QUICK.get(given[0], []))
        code, _, complaint = command(*with_flags(given, short, short[::2]), *elsewhere)
        assert code == 0, complaint
        return
    flags = [word for word in given if word.startswith("--")]
    (tmp_path / "settings.yaml").write_text("model: unet\nmodel_kwargs: {width: 4}\n")
    for own in {word.split(":")[0] for word in given if word.startswith(("my_ideas:", "my_data:"))}:
        (code,) = {re.sub("#.*", "", block) for block in re.findall(rf"```python\n(# {own}.*?)```", README, re.DOTALL)}
        (tmp_path / f"{own}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
    short = small(made_cars, tmp_path / "outputs", epochs=1)
    if "folder" in given:
        write_pairs(tmp_path / "pairs", names=[f"{letter}{n}" for letter in "abcdefgh" for n in range(2)])
        short = small(tmp_path / "pairs", tmp_path / "outputs", epochs=1)
    if "my_data:pets" in given:
        write_pets(tmp_path / "pets")
        short = small(tmp_path / "pets", tmp_path / "outputs", epochs=1)
    replaced = {"--epochs", "--size", "--batch-size", "--data-dir", "--output-dir", "--preset", "--precision"}
    added = [flag for flag in short[::2] if flag not in flags]
    code, shown, complaint = command(*with_flags(given, short, [*replaced, *added]))
    assert code == 0, complaint
    assert "test Dice" in shown or "--help" in given
