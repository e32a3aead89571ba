"""What newcomers read holds: links and names lead somewhere, both languages agree, outsiders run the same tests."""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_readme import README

HALVES = README.split("# 中文说明", 1)


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_within_the_repository_lead_to_a_file_and_a_heading(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, place in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        path = ROOT / (target or page)
        assert path.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(anchor, headings), (target, place)


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
NEW = {"my_net", "my_losses", "pets"}  # what CONTRIBUTING and the README add as examples


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_and_module_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    folders = "(?:experiments|analysis|models|tests|reference)"
    for name in re.findall(rf"(?<![\w/.-])({folders}/[\w/]+\.(?:py|toml|ipynb))", text):
        assert (ROOT / name).exists() or Path(name).stem in NEW, name
    for name in re.findall(rf"(?<![\w/.])({folders}(?:\.\w+)+)", text):
        *parents, last = name.split(".")
        parent = ROOT.joinpath(*parents)
        source = parent.with_suffix(".py") if parent.with_suffix(".py").exists() else parent / "__init__.py"
        path = parent / last
        assert path.is_dir() or path.with_suffix(".py").exists() or last in source.read_text() or last in NEW, name


def test_the_comparison_with_others_links_the_same_sources_in_both_languages():
    tables = [
        re.search(r"^## (?:How it compares|与其他仓库比较)\n(.*?)^## ", half, re.MULTILINE | re.DOTALL)[1]
        for half in HALVES
    ]
    rows = [[line.count("|") for line in table.splitlines() if line.startswith("|")] for table in tables]
    assert rows[0] == rows[1] and len(rows[0]) >= 12 and set(rows[0]) == {7}
    links = [re.findall(r"\]\((https:[^)]*)\)", table) for table in tables]
    assert links[0] == links[1] and len(links[0]) >= 12


def test_the_roadmaps_ticks_are_the_same_in_both_languages():
    ticks = [re.findall(r"^- \[(.)\]", half, re.MULTILINE) for half in HALVES]
    assert ticks[0] == ticks[1] and {"x", " "} == set(ticks[0])


def test_pull_requests_and_the_project_run_every_test_once():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["tests"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]
    assert re.findall(r"^make (.*)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE) == [
        "test",
        "test-all",
    ]
    recipes = dict(
        re.findall(r"^(test|test-all): .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    )
    assert '--ignore=tests/people -m "not slow"' in recipes["test"] and "-m slow" in recipes["test-all"]


def test_the_citation_names_the_licence_and_what_the_models_come_from():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires
    assert citation["license"] == "Apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    sources = (ROOT / "registry.py").read_text(encoding="utf-8")
    for reference in citation["references"]:
        assert reference["url"].rpartition("/")[2] in sources
