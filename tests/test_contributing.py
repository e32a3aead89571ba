"""The steps of CONTRIBUTING.md: every snippet is written, registered, checked by the contract tests and trained."""

import importlib
import re
import sys
import textwrap
import types

import pytest

import registry
from tests import test_registry as contract
from tests.conftest import ROOT, small

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)]


def register(table, entry, monkeypatch):
    """Add the text of an entry to a table of the registry, as if it stood in registry.py; return its name."""
    (row,) = eval(f"[{entry}]")
    monkeypatch.setitem(table._entries, row[0], table._entry(*row, kind=table.kind))
    return row[0]


def write(path, code, monkeypatch):
    """Put `code` into the module at `path`, a new one or one that exists."""
    name = path.removesuffix(".py").replace("/", ".")
    if (ROOT / path).exists():
        module = importlib.import_module(name)
        for function in re.findall(r"^def (\w+)", code, re.MULTILINE):
            monkeypatch.setattr(module, function, None, raising=False)  # removed again after the test
    else:
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
    exec(compile(code, path, "exec"), vars(module))


@pytest.fixture
def added(monkeypatch):
    """The names that following the page adds, by table."""
    names = {}
    for block in BLOCKS:
        place, _, text = block.partition("\n")
        if place.startswith("# registry.py, "):
            table = place.removeprefix("# registry.py, ")
            names[table] = register(getattr(registry, table), text, monkeypatch)
        else:
            write(place.removeprefix("# "), text, monkeypatch)
    return names


def test_the_pages_entries_fulfil_the_contract_of_their_tables(added):
    assert set(added) == {"MODELS", "LOSSES", "AUGMENTATIONS", "DATASETS"}
    for table, name in added.items():
        contract.test_every_entry_is_described_in_both_languages_and_names_its_source(getattr(registry, table)[name])
    for size in ((32, 32), (33, 47)):
        contract.test_every_model_takes_any_size_from_32_up(added["MODELS"], *size)
    contract.test_every_model_learns_from_a_step(added["MODELS"])
    contract.test_every_loss_scores_each_image_alone_and_then_averages(added["LOSSES"])
    contract.test_every_loss_prefers_the_truth(added["LOSSES"])
    contract.test_every_augmentation_keeps_sizes_types_and_a_binary_mask(added["AUGMENTATIONS"])


@pytest.mark.slow
def test_a_run_trains_with_all_that_the_page_adds(added, command, tmp_path):
    from tests.test_readme import write_pets

    write_pets(tmp_path / "pets")
    names = {
        "model": added["MODELS"],
        "loss": added["LOSSES"],
        "augment": added["AUGMENTATIONS"],
        "data": added["DATASETS"],
    }
    words = small(tmp_path / "pets", tmp_path / "outputs", epochs=1, **names)
    code, shown, complaint = command(*words)
    assert code == 0, complaint
    assert "test Dice" in shown
    assert command("data", "verify", "--data", added["DATASETS"], "--data-dir", tmp_path / "pets")[0] == 0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_entry_on_the_extending_page_is_one_that_the_registry_takes(language, monkeypatch):
    page = (ROOT / "docs" / language / "extending.md").read_text(encoding="utf-8")
    (entry,) = re.findall(r"```python\n(.*\"models\.my_net:my_net\".*)\n```", page)
    assert register(registry.MODELS, entry, monkeypatch) == "my_net"


def test_the_six_files_to_read_first_exist_and_the_tree_names_what_is_there():
    six = re.findall(r"^\d\. \[([\w/.]+)\]", PAGE, re.MULTILINE)
    assert len(six) == 6 and all((ROOT / path).is_file() for path in six)
    tree = PAGE.split("```")[1].splitlines()[1:]
    packages = {name for line in tree if line.startswith("  ") for name in re.findall(r"(\w+)/(?= )", line)}
    there = {path.parent.name for path in (ROOT / "experiments").glob("*/__init__.py")}
    assert len(tree) == 10 and packages == there
