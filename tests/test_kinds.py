"""Scores by kind of image: from the runs' folders over the committed files to the page."""

import pytest

from analysis.records import committed, load_runs
from analysis.records.study_reading import read_study_reading
from analysis.text.image_kinds import kind_grids
from analysis.text.wording import LANGUAGES
from analysis.verdicts.answer import answer_study
from experiments.studies.study_file import parse_study
from registry import InputError
from tests.made_study import write_study

DESIGN = {"seeds": [0, 1, 2], "rope": 0.001, "kinds": r"_0([12])\.jpg$"}


@pytest.fixture
def study(tmp_path):
    """A made study whose kinds are the views 1 and 2, with ceilings beside the scores of its runs."""
    write_study(tmp_path, cars=5, tuned=False, design=DESIGN)
    for place, folder in enumerate(sorted((tmp_path / "runs").iterdir())):
        images = [f"car{car:04}_{view:02}.jpg" for car in range(5) for view in (1, 2, 3, 4)]
        ceilings = [f"{image},{0.9 + int(image[9]) / 100}" for image in images]
        if place:  # one run is of an earlier version, which left none
            (folder / "ceilings.csv").write_text("\n".join(["image,ceiling", *ceilings]) + "\n")
    return load_runs.load_recorded_study(tmp_path, "made")


def test_every_level_has_its_mean_on_each_kind_and_a_perfect_mask_its_own(study):
    (table,) = kind_grids(answer_study(study), "en")
    assert table.headings == ["", "1 (5 images)", "2 (5 images)"]
    rows = {str(row[0]): [cell.head for cell in row[1:]] for row in table.rows}
    assert rows["a perfect mask"] == ["91.00", "92.00"]
    of_unet = study.scores[study.scores.cell.astype(str).str.startswith("unet-")]
    for kind, shown in zip("12", rows["network: U-Net"], strict=True):
        values = of_unet.dice[of_unet.image.astype(str).str.endswith(f"_0{kind}.jpg")]
        assert float(shown) == pytest.approx(100 * values.mean(), abs=0.0051)
    assert len(rows) == 1 + 3 + 4


def test_the_committed_files_give_the_same_table_and_other_studies_have_none(study, tmp_path):
    for name, content in committed.study_files(study).items():
        (tmp_path / "results" / "made").mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / "made" / name).write_bytes(content)
    again = committed.read_study(tmp_path / "results", "made")
    for language in LANGUAGES:
        assert kind_grids(answer_study(again), language) == kind_grids(answer_study(study), language)
    merged = committed.merge_studies(again, study)
    assert len(merged.ceilings) == len(study.ceilings) == 20
    del study.plan["design"]["kinds"]
    del study.__dict__["reading"]
    assert kind_grids(answer_study(study), "en") == [] and "ceilings.csv" not in committed.study_files(study)


def test_kinds_have_labels_although_only_the_images_know_them():
    tables = {"factors": {"loss": ["bce", "dice"]}, "kinds": {"stain": {"en": "stained", "zh": "染色"}}}
    tables["design"] = {"seeds": [0, 1], "kinds": "^([a-z]+)_"}
    assert parse_study("made", tables, "made.toml").labels["stain"]
    assert read_study_reading({"name": "nuclei_models_x_losses"}).labels["stain"] == {
        "en": "stained tissue",
        "zh": "染色组织",
    }
    del tables["design"]["kinds"]
    with pytest.raises(InputError, match=r"\[kinds\] needs kinds in \[design\]"):
        parse_study("made", tables, "made.toml")


@pytest.mark.parametrize(("pattern", "sentence"), [("[", "regular expression"), ("abc", "a group in parentheses")])
def test_a_pattern_without_a_group_is_refused(pattern, sentence):
    tables = {"factors": {"loss": ["bce", "dice"]}, "design": {"seeds": [0, 1], "kinds": pattern}}
    with pytest.raises(InputError, match=sentence):
        parse_study("made", tables, "The study file made.toml")
