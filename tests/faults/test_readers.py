"""Whatever a config file, a study file or a command line holds: a valid reading or one sentence, never a traceback."""

import json
import re
import tomllib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments.config import values as reading
from experiments.config.schema import setting_types
from experiments.runtime.errors import on_one_line
from experiments.studies import study_file
from experiments.studies.definition import slug
from registry import InputError
from tests.conftest import examples
from tests.test_study import SETTINGS

WORDS = st.sampled_from(
    ["unet", "bce", "dice", "demo", "192x128", "1e-3", "inf", "nan", "-1", "0", "9" * 5000, "٣", "", "a\nb"]
)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=8),
    WORDS,
    st.integers(10**400, 10**401),
)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | WORDS, inner, max_size=3)
)
NAMES = st.sampled_from([*setting_types(), "preset", "label"]) | st.text(max_size=6)
QUICK = settings(examples(400), suppress_health_check=list(HealthCheck))


def answers(read):
    """Call `read`; what it refuses, it refuses in a sentence of one line."""
    try:
        return read()
    except InputError as error:
        text = error.args[0]
        assert isinstance(text, str) and len(on_one_line(text).splitlines()) == 1
        return None


@pytest.mark.fault(27)
@pytest.mark.parametrize("letter", ["\r", "\n", "\x85", "\x1e", "\u2028"])
def test_a_name_with_a_line_end_is_refused_on_one_line(tmp_path, command, letter):
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps({f"a{letter}b": 1}))
    code, _, complaint = command("--config", path)
    assert (
        code == 2 and complaint.endswith(".\n") and len(complaint.splitlines()) == 1 and repr(letter)[1:-1] in complaint
    )


@pytest.mark.slow
@pytest.mark.fault(27)
@QUICK
@given(st.dictionaries(NAMES, VALUES, max_size=5))
@example({"epochs": "9" * 5000})
@example({"size": "9" * 5000 + "x32"})
@example({"learning_rate": 10**400})
def test_any_arguments_are_read_or_refused_in_one_sentence(words):
    read = answers(lambda: reading.read(words))
    assert read is None or {*read.fields, *read.machine} == {*words} - {"preset"}  # nothing is dropped on the way


CONFIGS = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=80).map(str.encode),
    st.dictionaries(NAMES, VALUES, max_size=4).map(lambda found: json.dumps(found).encode()),
)


@pytest.mark.slow
@pytest.mark.fault(27)
@QUICK
@given(CONFIGS, st.sampled_from([".yaml", ".toml", ".yml"]))
@example(b"a = " + b"[" * 3000, ".toml")
@example(b"a: " + b"[" * 3000, ".yaml")
@example(b'epochs: !!int "_"', ".yaml")
def test_any_config_file_is_read_or_refused_in_one_sentence(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"settings{ending}"
    path.write_bytes(content)
    read = answers(lambda: reading.read({}, path))
    assert read is None or {*read.fields, *read.machine} <= {*setting_types()}


DESIGN = st.dictionaries(
    st.sampled_from(["seeds", "rope", "confirmatory", "pilot", "guess"]) | st.text(max_size=4), VALUES, max_size=4
)
TUNING = st.dictionaries(st.sampled_from(["low", "high", "points", "seeds", "sampler"]), VALUES, max_size=5)
FACTORS = st.dictionaries(
    NAMES, st.lists(VALUES | st.dictionaries(NAMES, VALUES, max_size=3), max_size=3) | VALUES, max_size=3
)
STUDY = {
    "settings": st.dictionaries(NAMES, VALUES, max_size=3),
    "factors": FACTORS,
    "design": DESIGN,
    "tuning": TUNING,
    "question": VALUES,
}


@pytest.mark.slow
@pytest.mark.fault(27)
@QUICK
@given(st.fixed_dictionaries({}, optional=STUDY), st.sampled_from([(), *[(name,) for name in STUDY]]))
def test_any_tables_of_a_study_are_a_study_or_refused_in_one_sentence(tables, kept):
    """One table is drawn and the others are sound, or all are drawn."""
    sound = {"settings": SETTINGS, "factors": {"loss": ["bce", "dice"]}, "design": {"seeds": [0, 1]}}
    content = {**sound, **{name: tables[name] for name in kept if name in tables}} if kept else tables
    found = answers(lambda: study_file.parse_study("fuzz", content, "The study file fuzz.toml"))
    assert found is None or found.cells()


@pytest.mark.fault(27)
@QUICK
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(b"a = " + b"[" * 3000)
def test_any_bytes_of_a_study_file_are_refused_in_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    assert answers(lambda: study_file.read_study(path)) is None


NASTY = ["<script>alert(1)</script>", "a|b\nc", "../../up", "[red]x[/y]", "$x_1$ & 50 %", "名 前", "-", "."]


@pytest.mark.fault(26)
def test_labels_of_any_kind_give_cells_whose_ids_are_safe_in_paths_and_tables(tmp_path):
    levels = [{"label": name, "weight_decay": n / 100} for n, name in enumerate(NASTY)]
    listed = json.dumps(levels, ensure_ascii=False).replace('": ', '" = ')
    text = f"[factors]\nstart = {listed}\n[design]\nseeds = [0]\n"
    found = study_file.parse_study("tiny", tomllib.loads(text), "The study file tiny.toml")
    ids = [cell.id for cell in found.cells()]
    assert len(set(ids)) == len(NASTY) and all(re.fullmatch(r"[a-z0-9_.+-]+", name) for name in ids)
    assert all(slug(name) == slug(slug(name)) for name in NASTY)


@pytest.mark.fault(26)
@pytest.mark.parametrize("name", ["../up", "a b", "<script>", "a|b", "x\ny", ""])
def test_a_name_that_is_no_name_is_refused_for_studies_and_grids(command, tmp_path, name):
    code, _, complaint = command(
        "grid",
        "--models",
        "unet",
        "--losses",
        "bce",
        "--seeds",
        "0",
        "--name",
        name or " ",
        "--output-dir",
        tmp_path / "o",
    )
    assert code == 2 and "--name takes a-z" in complaint and not (tmp_path / "o").exists()
