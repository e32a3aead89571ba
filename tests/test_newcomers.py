"""What newcomers read holds: links and names lead somewhere, both languages agree, outsiders run the same tests."""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_readme import headings

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]
NEW = {"my_net", "my_losses", "birds"}  # what CONTRIBUTING and docs/ add as examples


def name(path):
    return path.relative_to(ROOT).as_posix()


def anchors(path):
    """The anchors that GitHub gives the headings of a page."""
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for _, title in headings(path.read_text(encoding="utf-8"))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_within_the_repository_lead_to_a_file_and_a_heading(page):
    for target, place in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve() if target else page
        assert path.is_relative_to(ROOT) and path.exists(), target
        assert not place or place in anchors(path), (target, place)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_and_module_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    folders = "(?:experiments|analysis|models|tests|reference)"
    for file in re.findall(rf"(?<![\w/.-])({folders}/[\w/]+\.(?:py|toml|ipynb))", text):
        assert (ROOT / file).exists() or Path(file).stem in NEW, file
    for target in re.findall(rf"(?<![\w/.])({folders}(?:\.\w+)+)", text):
        *parents, last = target.split(".")
        parent = ROOT.joinpath(*parents)
        source = parent.with_suffix(".py") if parent.with_suffix(".py").exists() else parent / "__init__.py"
        path = parent / last
        assert path.is_dir() or path.with_suffix(".py").exists() or last in source.read_text() or last in NEW, target


def page_in(language, file):
    return (ROOT / "docs" / language / file).read_text(encoding="utf-8")


def test_the_comparison_with_others_links_the_same_sources_in_both_languages():
    tables = [page_in(language, "comparison.md") for language in ("en", "zh")]
    rows = [[line.count("|") for line in table.splitlines() if line.startswith("|")] for table in tables]
    assert rows[0] == rows[1] and len(rows[0]) >= 12 and set(rows[0]) == {7}
    links = [re.findall(r"\]\((https:[^)]*)\)", table) for table in tables]
    assert links[0] == links[1] and len(links[0]) >= 12


def test_the_roadmaps_ticks_are_the_same_in_both_languages():
    ticks = [re.findall(r"^- \[(.)\]", page_in(language, "roadmap.md"), re.MULTILINE) for language in ("en", "zh")]
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


def test_make_announces_what_it_installs_before_it_does():
    recipes = re.findall(r"^(\.venv.*?):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    announced = {name: lines.partition("-r requirements")[0] for name, lines in recipes}
    assert {".venv/runtime", ".venv-page/complete"} <= set(announced)
    for name in (".venv/runtime", ".venv-page/complete"):
        assert re.search(r'^\t@echo "Installing the packages of requirements', announced[name], re.M), name


def test_the_citation_names_the_licence_and_what_the_models_come_from():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires
    assert citation["license"] == "Apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    sources = (ROOT / "registry.py").read_text(encoding="utf-8")
    for reference in citation["references"]:
        assert reference["url"].rpartition("/")[2] in sources
