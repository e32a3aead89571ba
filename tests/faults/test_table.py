"""docs/en/reliability.md, its Chinese twin and the tests' marks say the same."""

import ast
import re

import pytest

from tests.conftest import ROOT

ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.MULTILINE)


def marked():
    """The tests of each row, by their marks."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    found.setdefault(ast.literal_eval(mark.args[0]), set()).add(node.name)
    return found


def named(language):
    """The tests of each row, as the page in a language names them."""
    found = {}
    for number, cells in ROW.findall((ROOT / "docs" / language / "reliability.md").read_text(encoding="utf-8")):
        found.setdefault(int(number), []).extend(re.findall(r"`(test_\w+)`", cells.rsplit(" | ", 1)[1]))
    return found


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_row_names_tests_that_exist_and_are_marked_as_its_own(language):
    rows, marks = named(language), marked()
    assert list(rows) == list(range(1, 30))
    assert all(rows.values()), "a row names no test"
    assert {
        row: set(tests) - marks.get(row, set()) for row, tests in rows.items() if set(tests) - marks.get(row, set())
    } == {}


def test_both_languages_name_the_same_tests():
    assert named("en") == named("zh")
