"""The READMEs and docs/: both languages agree, the front pages stay short, and commands run as they are written."""

import csv
import itertools
import json
import re
import shlex
import shutil

import pytest
import yaml

from tests.conftest import ROOT, small
from tests.test_datasets import MADE
from tests.test_download import serving

READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
# Every page that is written by hand, by language; the studies' own pages are rendered whole.
PAGES = {language: [readme, *sorted((ROOT / "docs" / language).glob("*.md"))] for language, readme in READMES.items()}
PAIRS = list(zip(*PAGES.values(), strict=True))
TEXTS = {language: "\n".join(page.read_text(encoding="utf-8") for page in PAGES[language]) for language in PAGES}
EVERYTHING = "\n".join(TEXTS.values())


def without_code(text):
    """The text without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text):
    """The marks and titles of a page's headings, in order."""
    return re.findall(r"^(#+) (.*)$", without_code(text), re.MULTILINE)


def code_blocks(text, language):
    """The blocks of a language, comments apart."""
    return [re.sub(" *#.*", "", block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def test_what_the_readme_shows_is_rendered_from_the_registry_and_the_committed_results(command):
    code, shown, complaint = command("report", "--check")
    assert code == 0, f"{shown}{complaint}: type make readme"


def test_the_tables_of_speed_are_rendered_from_what_bench_printed():
    from analysis.report.docs_tables import pages, rendered

    for page, tables in pages().items():
        assert rendered(page, tables) == page.read_text(encoding="utf-8"), "type make readme"


def test_both_languages_have_the_same_pages():
    names = [[page.name for page in PAGES[language][1:]] for language in PAGES]
    assert names[0] == names[1] and len(names[0]) >= 20


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].name)
def test_both_languages_of_a_page_have_the_same_headings_tables_and_commands(pair):
    english, chinese = (page.read_text(encoding="utf-8") for page in pair)
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    columns = [[line.count("|") for line in text.splitlines() if line.startswith("|")] for text in (english, chinese)]
    assert columns[0] == columns[1]
    for language in ("bash", "python"):
        assert code_blocks(english, language) == code_blocks(chinese, language)


def test_every_page_leads_to_the_other_language():
    for english, chinese in PAIRS[1:]:
        assert f"](../zh/{english.name})" in english.read_text(encoding="utf-8")
        assert f"](../en/{english.name})" in chinese.read_text(encoding="utf-8")


@pytest.mark.parametrize("language", READMES)
def test_the_front_page_is_short_enough_to_be_read(language):
    text = READMES[language].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250 and len(text.encode()) <= 24 * 1024
    prose = [line for line in without_code(text).splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 300
    assert max(line.count("|") - 1 for line in text.splitlines() if line.startswith("|")) <= 9


@pytest.mark.parametrize(
    "page",
    [
        *(ROOT / "docs" / "en").glob("*.md"),
        *(ROOT / "reference").glob("*.py"),
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
    ],
    ids=lambda page: page.name,
)
def test_lines_of_english_prose_end_at_120_characters(page):
    """A Chinese paragraph is one line, since a break within it would be shown as a space."""
    lines = without_code(page.read_text(encoding="utf-8")).splitlines()
    long = [line for line in lines if len(line) > 120 and not line.lstrip().startswith("|") and "](http" not in line]
    assert [line for line in long if not re.search("[\u4e00-\u9fff]", line)] == []


@pytest.mark.parametrize("language", READMES)
def test_the_names_on_the_front_page_are_those_of_the_registry(language):
    from experiments.config.schema import PRESETS
    from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS

    text = READMES[language].read_text(encoding="utf-8")
    tables = {"model": MODELS, "loss": LOSSES, "augment": AUGMENTATIONS, "data": DATASETS, "preset": PRESETS}
    for flag, table in tables.items():
        (item,) = re.findall(rf"^- \*\*[^\n]*`--{flag}`.*?(?=^- |\n\n)", text, re.MULTILINE | re.DOTALL)
        assert set(table) == set(re.findall(r"`(\w[\w-]*)`", item)), flag


@pytest.mark.parametrize("language", READMES)
def test_what_a_set_up_costs_is_what_the_records_say(language):
    text = READMES[language].read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*\| (?:192×128|96×64) \| 16 \|(.*)\|$", text, re.MULTILINE)
    demo, shortened, study = [row.split("|") for row in rows]
    printed = (ROOT / "docs" / "demo.txt").read_text(encoding="utf-8")
    seconds, dice = re.search(r"(\d+) in all|total (\d+) s", printed), re.search(r"test Dice +│ ([\d.]+)", printed)
    assert numbers(demo) == [f"{int(seconds[1] or seconds[2]) / 60:.1f}", f"{float(dice[1]):.3f}"]
    run = json.loads((ROOT / "docs" / "bench" / "quality.json").read_text())
    in_all = run["seconds"]["this_sitting"] / 60
    assert numbers(shortened) == [f"{run['peak_memory_gb']:.1f}", f"{in_all:.1f}", f"{run['test']['last']['dice']:.3f}"]
    with (ROOT / "analysis" / "results" / "carvana_models_x_losses" / "runs.csv").open() as file:
        runs = [row for row in csv.DictReader(file) if row["cell"] == "unet+bce_dice" and row["dice"]]
    memory = min(float(row["peak_memory_gb"]) for row in runs)  # a process's peak, which may be an earlier run's
    training, dice = (mean(runs, name) for name in ("training_seconds", "dice"))
    assert numbers(study) == [f"{memory:.1f}", f"{training / 60:.1f}", f"{dice:.3f}"]


def test_what_the_text_below_the_findings_says_of_earlier_studies_is_what_their_records_give():
    from analysis.report.pages import EARLIER, FLAGSHIP, RESULTS, committed_answer

    verdicts = {name: {} for name in (*EARLIER, FLAGSHIP)}
    for name, known in verdicts.items():
        for effects in committed_answer(RESULTS, name).effects:
            known |= {level: comparison.verdict for level, comparison in effects.comparisons.items()}
    networks = ("attention_unet", "resnet_unet (from scratch)", "mobilenet_v2 U-Net (ImageNet)")
    assert not any(known.get(network) == "better" for known in verdicts.values() for network in networks)
    assert verdicts[FLAGSHIP]["bce_dice"] == verdicts["models_x_losses"]["bce_dice"] == "equivalent"


@pytest.mark.parametrize("language", READMES)
def test_what_the_front_page_says_of_nuclei_is_what_the_records_give(language):
    from analysis.report.pages import RESULTS, committed_answer

    answer = committed_answer(RESULTS, "nuclei_models_x_losses")
    (networks,) = (effects for effects in answer.effects if effects.factor == "model")
    lead = networks.comparisons["mobilenet_v2 U-Net (ImageNet)"]
    scores = answer.study.scores[answer.study.scores.seed < answer.seeds]
    rare = scores[scores.image.str.startswith("grey_")]
    loss = rare.groupby(rare.cell.str.rpartition("+")[2]).dice.mean()
    text = READMES[language].read_text(encoding="utf-8")
    said = [rf"\b{value:.2f}\b" for value in (loss.bce, loss.bce_dice, loss.dice)]
    said += [rf"\b{number}\b" for number in (scores.image.nunique(), rare.image.nunique())]
    assert any(all(re.search(number, line, re.ASCII) for number in said) for line in text.splitlines()), said
    assert lead.verdict == "better"
    assert re.search(rf"\b{lead.difference:.3f}\D+{lead.low:.3f}\D+{lead.high:.3f}\b", text, re.ASCII)
    others = scores[~scores.image.str.startswith("grey_")]
    without = others.groupby(others.cell.str.rpartition("+")[2]).dice.mean()
    assert all(without[name] - without.bce < 0.004 for name in ("dice", "bce_dice"))  # so the rest is of those images


def numbers(cells):
    return re.findall(r"\d+\.\d+", " ".join(cells))


def mean(rows, name):
    return sum(float(row[name]) for row in rows) / len(rows)


def test_the_clone_line_and_the_citation_name_the_same_address():
    address = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"]
    for readme in READMES.values():
        text = readme.read_text(encoding="utf-8")
        assert f"git clone {address}.git && cd {address.rpartition('/')[2]}\n" in text
        assert f"url    = {{{address}}}" in text


def test_the_walk_has_an_output_for_each_step_in_both_languages():
    from reference.walk import KEPT, steps

    walks = [(ROOT / "docs" / language / "walkthrough.md").read_text(encoding="utf-8") for language in PAGES]
    assert steps(walks[0]) == steps(walks[1])
    assert list(steps(walks[0])) == ["pairs", "compare", "report", "predict", "export", "page"]
    for name in steps(walks[0]):
        printed = (KEPT / f"{name}.txt").read_text(encoding="utf-8").strip()
        assert all(f"<!-- walk {name} -->\n```text\n{printed}\n```" in walk for walk in walks)


def commands():
    """Every `python run.py …` in the shell blocks of all pages, once."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", EVERYTHING, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = list(itertools.takewhile(lambda word: word != ">", shlex.split(line, comments=True)))
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
    """Create what the pages' data commands name: cars, pairs, a manifest, zips, and a fake kagglehub."""
    import shutil
    import sys
    import types

    from experiments.data import carvana, splits
    from tests.test_data import write_pairs

    for name in ("train", "train_masks"):
        for copy in ("carvana", "carvana_384x256"):
            shutil.copytree(cars / name, folder / "data" / copy / name)
        shutil.make_archive(str(folder / name), "zip", cars, name)
    (folder / "split.csv").write_text(splits.manifest(splits.split(carvana.build(cars))))
    write_pairs(folder / "pairs", names=[f"{letter}_{n}" for letter in "abcd" for n in range(2)])
    nuclei = [f"{kind}_{n}" for kind in ("fluo", "grey", "stain") for n in range(8)]
    write_pairs(folder / "data" / "nuclei_pairs", names=nuclei)
    hub = types.SimpleNamespace(competition_download=lambda handle, path: str(folder / path))
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    monkeypatch.chdir(folder)


def write_pets(folder):
    """Photographs NAME_1.jpg and masks NAME_1.png side by side, as the data set of docs/en/extending.md lists them."""
    from PIL import Image

    from tests.strangers import scene

    folder.mkdir()
    for number, name in enumerate("abcdefgh"):
        photo, mask = scene(96, 64, number)
        Image.fromarray(photo).save(folder / f"{name}_1.jpg")
        Image.fromarray((mask > 0).astype("uint8") * 255).save(folder / f"{name}_1.png")


def write_scores(folder, images):
    """Tables of scores in the columns that the pages' `judge` commands name: a row per image, or one per run."""
    cases = itertools.product(("main", "candidate"), range(3), range(6 if images else 1))
    rows = [
        f"{name},{name},bce,{seed},{case},{case},{0.9 + (7 * seed + case) % 10 / 100}" for name, seed, case in cases
    ]
    (folder / "scores.csv").write_text("\n".join(["version,model,loss,seed,patient,image,dice", *rows]))
    (folder / "wide.csv").write_text("case,ours,theirs\n" + "".join(f"{n},0.9{n},0.8{9 - n}\n" for n in range(9)))


# What makes a command of the pages that measures or draws a matter of seconds; it takes the place of its own flags.
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
        "epochs": "1",
        "epoch_steps": "1",
        "train_cars": "2",
        "batch_size": "16",
        "size": '"48x32"',
        "precision": '"fp32"',
        "progressive": "0.0",
        "model_kwargs": "{ width = 4 }",
        "model": '["unet"]',
        "loss": '["bce"]',
        "points": "4",
    }
    for path in study_file.STUDIES.glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        text = text.partition("[labels]")[0]
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
def test_the_pages_commands_run(words, command, made_cars, tmp_path, monkeypatch):
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
    if given[:1] == ["judge"]:
        write_scores(tmp_path, images="--image" in given)
        assert command(*given)[0] in ((0, 3, 4) if "--accept" in given else (0,))
        return
    if given[:2] == ["data", "download"] and given[2] != "carvana":
        with serving(tmp_path, monkeypatch):
            assert command(*given)[0] == 0
        return
    if given[:1] in (["data"], ["runs"], ["study"], ["tune"], ["grid"]):
        lay_out_data(tmp_path, made_cars, monkeypatch)
        shrink_studies(tmp_path, monkeypatch)
    if given and not given[0].startswith("-"):
        elsewhere = study_to_report(tmp_path, given, monkeypatch) if given[0] == "report" else []
        short = QUICK.get(" ".join(given[:2]), QUICK.get(given[0], []))
        short = short[:-2] if "resnet_unet" in given else short  # it has no width
        if given[:2] == ["data", "reduce"]:  # the cars are made, and so is the folder that the command would write
            given = [*given, "--every-car"]
            shutil.rmtree("data/carvana_384x256")
        code, _, complaint = command(*with_flags(given, short, short[::2]), *elsewhere)
        assert code == 0, complaint
        return
    flags = [word for word in given if word.startswith("--")]
    (tmp_path / "settings.yaml").write_text("model: unet\nmodel_kwargs: {width: 4}\n")
    for own in {word.split(":")[0] for word in given if word.startswith(("my_ideas:", "my_data:"))}:
        (code,) = {
            re.sub("#.*", "", block) for block in re.findall(rf"```python\n(# {own}.*?)```", EVERYTHING, re.DOTALL)
        }
        (tmp_path / f"{own}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
    short = small(made_cars, tmp_path / "outputs", epochs=1)
    if "folder" in given:
        between = "_" if "^([^_]+)_" in given else ""
        write_pairs(tmp_path / "pairs", names=[f"{letter}{between}{n}" for letter in "abcdefgh" for n in range(2)])
        for mask in (tmp_path / "pairs" / "masks").iterdir() if "{name}_annotated" in given else ():
            mask.rename(mask.with_stem(f"{mask.stem}_annotated"))
        short = small(tmp_path / "pairs", tmp_path / "outputs", epochs=1)
    for name in {"nuclei", "oxford_pet"} & set(given):
        MADE[name](tmp_path / name)
        short = small(tmp_path / name, tmp_path / "outputs", epochs=1)
    if "my_data:pets" in given:
        write_pets(tmp_path / "pets")
        short = small(tmp_path / "pets", tmp_path / "outputs", epochs=1)
    if "--progressive" in given:  # begins at half of the size
        short[short.index("--size") + 1] = "96x64"
    replaced = {"--epochs", "--size", "--batch-size", "--data-dir", "--output-dir", "--preset", "--precision"}
    replaced |= {"--train-cars", "--epoch-steps"} & {*given}
    short += [word for flag in sorted(replaced & {"--train-cars", "--epoch-steps"}) for word in (flag, "2")]
    added = [flag for flag in short[::2] if flag not in flags]
    code, shown, complaint = command(*with_flags(given, short, [*replaced, *added]))
    assert code == 0, complaint
    assert "test Dice" in shown or "--help" in given
