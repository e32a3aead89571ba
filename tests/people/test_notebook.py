"""The lesson runs from top to bottom, says the same in two languages, and is committed as it ran."""

import re

import nbformat
import pytest

from reference.build_notebooks import HERE, LANGUAGES, executed, notebook, notebook_path
from tests.conftest import ROOT
from tests.test_newcomers import anchors
from tests.test_notes import NUMBER, unit

SOURCES = {"u-net-pytorch": HERE / "lesson.py", "gpu-study": HERE / "gpu_study.py"}
BOTH = [(name, language) for name in SOURCES for language in LANGUAGES]


def read(name, language="en"):
    return nbformat.read(notebook_path(name, language), as_version=4)


@pytest.fixture(scope="module")
def committed():
    return read("u-net-pytorch")


@pytest.fixture(scope="module")
def again():
    return executed(notebook(SOURCES["u-net-pytorch"], "en"))


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def prose(book):
    return [cell.source for cell in book.cells if cell.cell_type == "markdown"]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def words(cell):
    """What a cell printed without its numbers, which differ a little from one kind of CPU to another.

    Which combinations the last section compares depends on such numbers; so does its verdict.
    """
    return re.sub(NUMBER, "#", re.sub(r".* minus .*\n.*", "", printed(cell)))


@pytest.mark.parametrize(("name", "language"), BOTH)
def test_a_notebook_is_what_its_source_says(name, language):
    book, source = read(name, language), notebook(SOURCES[name], language)
    assert [(cell.cell_type, cell.source) for cell in book.cells] == [
        (cell.cell_type, cell.source) for cell in source.cells
    ]


def test_every_cell_runs_and_prints_and_draws_what_is_committed(committed, again):
    for cell, now in zip(code(committed), code(again), strict=True):
        assert words(now) == words(cell), cell.source
        assert [output.output_type for output in now.outputs] == [output.output_type for output in cell.outputs], (
            cell.source
        )


def test_what_does_not_depend_on_the_training_is_printed_to_the_last_digit(committed, again):
    """Everything between the first training and the loop: shapes, counts, the hand-built U-Net, the losses."""
    before = next(n for n, cell in enumerate(code(committed)) if "curve = train(" in cell.source)
    assert before > 12
    for cell, now in zip(code(committed)[2:before], code(again)[2:before], strict=True):
        for found, stated in zip(re.findall(NUMBER, printed(now)), re.findall(NUMBER, printed(cell)), strict=True):
            assert float(found) == pytest.approx(float(stated), abs=1.01 * unit(stated) if "." in stated else 0), (
                cell.source
            )


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_committed_as_it_ran_from_top_to_bottom_without_a_complaint(language):
    book = read("u-net-pytorch", language)
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 8
    text = notebook_path("u-net-pytorch", language).read_text(encoding="utf-8")
    assert len(text) < 1.5e6
    # no path of any machine
    assert not re.search(r"(/home/|/root/|/tmp/|/Users/|site-packages)", text) and str(ROOT) not in text


def test_a_trained_prediction_stands_within_the_first_five_cells(committed):
    early = [cell for cell in committed.cells[:5] if "show_predictions(" in cell.source]
    assert early and "image/jpeg" in early[0].outputs[0].data


@pytest.mark.parametrize(("name", "language"), BOTH)
def test_code_lines_fit_into_the_column_of_a_notebook(name, language):
    for cell in code(read(name, language)):
        assert max(map(len, cell.source.splitlines())) <= 88, cell.source


def test_what_the_notebook_builds_it_compares_with_the_project(committed):
    source = "\n".join(cell.source for cell in code(committed))
    assert source.count("assert ") >= 10
    for part in ("import split", "import score", "models.attention_unet", 'MODELS["unet"]', "AUGMENTATIONS["):
        assert part in source, part
    assert "assert torch.equal(ours.eval()(awkward), first(awkward))" in source  # the hand-built U-Net is models.unet


@pytest.mark.parametrize("name", SOURCES)
def test_a_notebook_has_one_language_and_both_have_the_same_cells(name):
    english, chinese = read(name, "en"), read(name, "zh")
    assert [cell.cell_type for cell in english.cells] == [cell.cell_type for cell in chinese.cells]
    assert all(re.search(r"[\u4e00-\u9fff]{2}", text) for text in prose(chinese))
    assert not re.search(r"[\u4e00-\u9fff]", "".join(prose(english)).replace("[中文]", ""))
    assert [cell.source for cell in code(english)] == [cell.source for cell in code(chinese)]


def test_readers_are_asked_to_guess_and_exercises_have_answers():
    for language, guess, answer in (("en", "Guess before you run", "Answer"), ("zh", "先猜一猜", "答案")):
        text = "\n".join(prose(read("u-net-pytorch", language)))
        assert text.count(guess) >= 5
        assert text.count(f"<summary>{answer}</summary>") == len(re.findall(r"^\*\*\d\.\*\*", text, re.MULTILINE)) == 5


@pytest.mark.parametrize(("name", "language"), BOTH)
def test_links_of_a_notebook_lead_somewhere(name, language):
    text = "\n".join(prose(read(name, language)))
    headings = {line.lstrip("# ").replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (HERE / path).exists(), target
        assert anchor in headings if not path else not anchor or anchor in anchors(HERE / path), target


@pytest.mark.parametrize(("name", "language"), BOTH)
def test_a_notebook_is_fetched_from_where_the_project_is_cited(name, language):
    (cited,) = re.findall(r'^repository-code: "([^"]+)"', (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    book = read(name, language)
    assert f"{cited}.git" in "\n".join(cell.source for cell in code(book)[:1])
    assert (
        f"/github/{cited.partition('github.com/')[2]}/blob/main/reference/{notebook_path(name, language).name}"
        in (prose(book)[0])
    )


def test_the_six_cells_of_the_gpu_study_carry_out_a_tiny_one(tmp_path):
    book = notebook(SOURCES["gpu-study"], "en")
    assert len(code(book)) == 6
    first = code(book)[0]
    for words, tried in (("TINY = False", "TINY = True"), ('Path("outputs/gpu-study")', f"Path({str(tmp_path)!r})")):
        assert words in first.source
        first.source = first.source.replace(words, tried)
    said = "".join(map(printed, code(executed(book))))
    assert "analysis/results/full_size/runs.csv" in said and "docs/zh/studies/full_size.md" in said
    assert (tmp_path / "full_size-results.zip").stat().st_size > 1000


def test_the_gpu_study_is_the_committed_one_in_fp16():
    source = "\n".join(cell.source for cell in code(read("gpu-study")))
    plan = (ROOT / "experiments" / "studies" / "full_size.toml").read_text(encoding="utf-8")
    (before, after) = re.findall(r"plan\.replace\(\"(.+?)\", '(.+?)'\)", source)[0]
    assert plan.count(before) == 1 and 'precision = "fp16"' in after and "--published" in source
