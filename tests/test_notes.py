"""The notes are true: their code runs and prints what stands beside it, and no number stands there without a source."""

import ast
import os
import re
import subprocess
import sys
import tempfile

import pytest

from tests.conftest import ROOT

TEXTS = {language: (ROOT / "docs" / language / "notes.md").read_text(encoding="utf-8") for language in ("en", "zh")}
EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?"
EXAMPLES = EXAMPLE.findall(TEXTS["en"])
FORKS = "multiprocessing_context"  # in a process of its own: one that runs threads should not be forked


def sections(text):
    """The text of each section, from one heading to the next, the examples' code included."""
    return [part for part in re.split(r"^#+ .*\n", text, flags=re.MULTILINE) if part.strip()]


def unit(number):
    """One unit in the last printed digit: 0.001 for 0.123."""
    return 10.0 ** -len(number.partition(".")[2])


@pytest.mark.slow
@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_notes_prints_what_stands_beside_it(code, printed, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if FORKS in code:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        shown = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout
    else:
        exec(compile(code, "notes", "exec"), {"__name__": "notes"})
        shown = capsys.readouterr().out
    assert re.sub(NUMBER, "#", shown) == re.sub(NUMBER, "#", printed)
    for found, stated in zip(re.findall(NUMBER, shown), re.findall(NUMBER, printed), strict=True):
        assert float(found) == pytest.approx(float(stated), abs=1.01 * unit(stated) if "." in stated else 0)


def test_both_languages_have_the_same_sections_and_the_same_examples():
    levels = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in TEXTS.values()]
    assert levels[0] == levels[1] and len(levels[0]) >= 20
    english, chinese = (EXAMPLE.findall(text) for text in TEXTS.values())
    assert len(english) == TEXTS["en"].count("```python") == TEXTS["zh"].count("```python") >= 12
    for (code, printed), (code_zh, printed_zh) in zip(english, chinese, strict=True):
        assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(code_zh)) and printed == printed_zh


@pytest.mark.parametrize("language", TEXTS)
def test_every_decimal_number_of_the_notes_is_printed_beside_it_or_its_source_is_linked(language):
    """The premises of the exercises apart, which are made up."""
    lesson = re.split(r"^## (?:Exercises|练习)$", TEXTS[language], flags=re.MULTILINE)[0]
    for section in sections(lesson):
        beside = {
            number.lstrip("+-")
            for example in EXAMPLE.findall(section)
            for number in re.findall(NUMBER, "".join(example))
        }
        prose = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
        for paragraph in prose.split("\n\n"):
            stated = set(re.findall(r"\d+\.\d+", re.sub(r"\]\(.*?\)|`[^`]*`", "", paragraph)))
            assert "](" in paragraph or stated <= beside | {"0.5"}, (stated - beside, paragraph)  # 0.5 is the threshold


def test_the_table_of_the_dice_note_adds_up():
    for text in TEXTS.values():
        first, second, per_image, over_batch = map(float, re.findall(r"\| \**(\d\.\d{4})\** \|", text))
        assert per_image == pytest.approx((first + second) / 2, abs=1e-4) != pytest.approx(over_batch, abs=0.1)
