"""The lesson runs from top to bottom, says what it says in both languages, and is committed as it ran."""

import re

import nbformat
import pytest

from reference.execute import NOTEBOOK, executed
from tests.conftest import ROOT
from tests.test_notes import NUMBER, unit


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def again():
    return executed()


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def words(cell):
    """What a cell printed, its numbers apart: those of a training differ a little from one kind of CPU to another."""
    return re.sub(NUMBER, "#", printed(cell))


def test_every_cell_runs_and_prints_and_draws_what_is_committed(committed, again):
    for cell, now in zip(code(committed), code(again), strict=True):
        assert words(now) == words(cell), cell.source
        assert [output.output_type for output in now.outputs] == [output.output_type for output in cell.outputs], (
            cell.source
        )


def test_what_does_not_depend_on_the_training_is_printed_to_the_last_digit(committed, again):
    """Everything before the first training: shapes, counts, the hand-built U-Net beside models.unet, the losses."""
    before = next(n for n, cell in enumerate(code(committed)) if "curve = fit(" in cell.source)
    assert before > 12
    for cell, now in zip(code(committed)[:before], code(again)[:before], strict=True):
        for found, stated in zip(re.findall(NUMBER, printed(now)), re.findall(NUMBER, printed(cell)), strict=True):
            assert float(found) == pytest.approx(float(stated), abs=1.01 * unit(stated) if "." in stated else 0), (
                cell.source
            )


def test_it_is_committed_as_it_ran_from_top_to_bottom_without_a_complaint(committed):
    assert [cell.execution_count for cell in code(committed)] == list(range(1, len(code(committed)) + 1))
    outputs = [output for cell in code(committed) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 8
    assert NOTEBOOK.stat().st_size < 1.5e6
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert (
        not re.search(r"(/home/|/root/|/tmp/|/Users/|site-packages)", text) and str(ROOT) not in text
    )  # no path of any machine


def test_what_the_notebook_builds_it_compares_with_the_project(committed):
    source = "\n".join(cell.source for cell in code(committed))
    assert source.count("assert ") >= 20
    for part in (
        "from experiments.data import split",
        "from experiments.evaluation import score",
        "models.attention_unet",
        "MODELS[",
        "LOSSES[",
        "AUGMENTATIONS[",
    ):
        assert part in source, part
    assert "assert torch.equal(a, b)" in source and 'MODELS["unet"]' in source  # the hand-built U-Net is models.unet


def test_every_paragraph_of_the_notebook_is_there_in_both_languages(committed):
    for cell in (cell for cell in committed.cells if cell.cell_type == "markdown"):
        without_formulas = re.sub(r"\$\$.*?\$\$", "", cell.source, flags=re.DOTALL)
        assert re.search(r"[\u4e00-\u9fff]{2}", without_formulas) and re.search(
            r"[A-Za-z]{3} ?[A-Za-z]*", without_formulas
        )


def test_links_of_the_notebook_lead_somewhere(committed):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", "".join(cell.source for cell in committed.cells)):
        assert (ROOT / "reference" / target).exists(), target
