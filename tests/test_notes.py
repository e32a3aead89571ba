"""The notes are true: their examples run and print the numbers that they state, in both languages."""

import re

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_worked_example_of_the_dice_note_gives_the_numbers_of_its_table(language, capsys):
    text = (ROOT / "docs" / f"notes.{language}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, f"notes.{language}.md", "exec"), {})
    printed = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    table = [float(number) for number in re.findall(r"\| \**(\d\.\d{4})\** \|", text)]
    first, second, per_image, over_batch = table
    assert printed == [first, first, second, second, per_image, over_batch]
    assert per_image == pytest.approx((first + second) / 2, abs=1e-4) != pytest.approx(over_batch, abs=0.1)


def test_both_languages_have_the_same_sections():
    texts = [(ROOT / "docs" / f"notes.{language}.md").read_text(encoding="utf-8") for language in ("en", "zh")]
    levels = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in texts]
    assert levels[0] == levels[1] and len(levels[0]) >= 3
