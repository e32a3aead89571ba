"""The answer in words says what the verdicts say, and never more."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateNotFound, UndefinedError

from analysis.records import gather, test_set_ledger
from analysis.records.study_results import TRIALS, typed
from analysis.text.notes import study_notes
from analysis.text.sentences import answer_sentences, verdict
from analysis.text.study_page import study_long_form
from analysis.text.tables import main_effects_table
from analysis.text.wording import LANGUAGES, TEMPLATES, environment, phrases
from analysis.verdicts.answer import answer_study
from tests.conftest import examples
from tests.made_study import write_study

MODELS = ("unet", "attention_unet", "resnet_unet")


def study(tmp_path, models, losses=None, **other):
    write_study(tmp_path, models=models, losses=losses or {"bce": 0.0}, **other)
    return answer_study(gather.gather_study(tmp_path, "made"))


def test_one_cell_that_is_better_than_all_is_named_and_the_rope_is_respected(tmp_path):
    found = study(tmp_path / "a", {"unet": 0, "attention_unet": 0, "resnet_unet": 0.01}, sd=1e-4, seeds=range(5))
    first, *_ = answer_sentences(found, "en")
    assert first.startswith("resnet_unet + bce is better than each of the other 2 cells, each time by more than 0.001.")
    assert answer_sentences(found, "zh")[0].startswith(
        "resnet_unet + bce 优于其余 2 个单元中的每一个，且每次都超过 0.001。"
    )
    found = study(tmp_path / "b", {"unet": 0, "resnet_unet": 0.0011}, sd=1e-4, seeds=range(5), cars=40)
    assert "though not surely by more than 0.001" in answer_sentences(found, "en")[0]


def test_two_cells_that_do_not_differ_significantly_are_both_named_and_the_worse_one_is_not(tmp_path):
    found = study(tmp_path, {"unet": 0, "attention_unet": 0.01, "resnet_unet": 0.01}, sd=5e-4, seeds=range(5))
    assert (
        "undecided among 2: " in answer_sentences(found, "en")[0]
        and "The other one is worse" in answer_sentences(found, "en")[0]
    )
    assert " unet + bce" not in answer_sentences(found, "en")[0]


def test_one_small_difference_is_enough_to_say_that_it_is_small(tmp_path):
    found = study(
        tmp_path, {"unet": 0, "attention_unet": 0.0092, "resnet_unet": 0.01}, sd=1e-4, seeds=range(5), cars=40
    )
    assert (
        "better than each of the other 2 cells, though not surely by more than 0.001"
        in answer_sentences(found, "en")[0]
    )


def test_equal_cells_are_called_equivalent_only_where_every_pair_is(tmp_path):
    found = study(tmp_path, dict.fromkeys(MODELS, 0.0), sd=1e-5, seeds=range(10), cars=60)
    assert answer_sentences(found, "en")[0].startswith(
        "All 3 cells are equivalent: the interval of every difference in Dice lies within ±0.001."
    )
    assert "全部等效" in answer_sentences(found, "zh")[0]


def test_noise_is_undecided(tmp_path):
    found = study(tmp_path, dict.fromkeys(MODELS, 0.0), sd=0.02)
    assert answer_sentences(found, "en")[0].startswith("Undecided: none of the 3 cells is separated from another.")


def test_main_effects_come_first_where_the_plan_names_them_and_pairs_where_it_names_pairs(tmp_path):
    effects = {"unet": 0.0, "resnet_unet": 0.01}, {"bce": 0.0, "dice": 0.005}
    named = {"seeds": [0, 1, 2], "rope": 0.001}
    found = study(tmp_path / "a", *effects, sd=1e-4, design={**named, "confirmatory": ["model"]})
    texts = answer_sentences(found, "en")
    assert texts[0].startswith("By model, over all the other factors: resnet_unet is better than unet (+0.0")
    assert "(Exploratory" in texts[1] and texts[2].startswith(
        "By loss, over all the other factors (exploratory): dice is better"
    )
    found = study(tmp_path / "b", *effects, sd=1e-4, design={**named, "confirmatory": ["pairs"]})
    texts = answer_sentences(found, "en")
    assert texts[0].startswith("resnet_unet + dice is better than each") and "xploratory" not in texts[0]
    assert all("(exploratory)" in text for text in texts[1:])


@examples(12)
@given(
    effects=st.lists(st.sampled_from([0.0, 0.0003, 0.001, 0.003, 0.01]), min_size=2, max_size=4),
    sd=st.sampled_from([1e-5, 3e-4, 2e-3]), seeds=st.integers(1, 4),
)  # fmt: skip
def test_no_sentence_claims_more_than_the_verdicts(tmp_path_factory, effects, sd, seeds):
    found = study(
        tmp_path_factory.mktemp("any"), {f"m{n}": e for n, e in enumerate(effects)}, sd=sd, seeds=range(seeds), views=2
    )
    comparisons = found.family.comparisons
    text = answer_sentences(found, "en")[0]
    for winner in re.findall(r"(\S+ \+ bce) is better than each", text):
        (cell,) = [row.cell for row in found.rows if row.label == winner]
        assert all(c.verdict == "better" for (a, _), c in comparisons.items() if a == cell)
        assert ("each time by more" in text) == all(c.exceeds_rope for (a, _), c in comparisons.items() if a == cell)
    if "equivalent" in text:
        assert all(c.verdict == "equivalent" for c in comparisons.values())
    if "undecided among" in text:
        named = set(text.split(": ")[1].split(". ")[0].split(", "))
        assert named == {row.label for row in found.rows if row.top}
    if seeds == 1:
        assert "Undecided" in text and all(c.verdict == "undecided" for c in comparisons.values())
    for row in found.rows:
        counts = [int(n) for n in re.findall(r"\d+", verdict(row, "en"))]
        assert sum(counts) == len(found.judged) - 1


def test_an_average_over_some_combinations_and_no_average_at_all_are_called_what_they_are(tmp_path):
    plan = write_study(
        tmp_path, models={"unet": 0, "attention_unet": 0, "resnet_unet": 0}, losses={"bce": 0, "dice": 0.003}
    )
    place = tmp_path / "studies/made/plan.json"

    def told(*edges):
        for cell in plan["cells"]:
            cell["edge"] = cell["cell"] in edges
        place.write_text(json.dumps(plan))
        return "\n".join(answer_sentences(answer_study(gather.gather_study(tmp_path, "made")), "en"))

    assert "By loss, over all the other factors: " in told()
    left_out = " (planned as confirmatory, but cells without a verdict are left out): "
    assert (
        f"By loss, over the 2 of 3 combinations of the other factors in which both levels are judged{left_out}"
        in told("unet-bce")
    )
    assert "By loss, within resnet_unet alone, the only one of 3 " in told("unet-bce", "attention_unet-dice")
    assert (
        "By model, each two levels over the combinations of the other factors in which both are judged "
        f"(at least 1 of 2){left_out}" in told("unet-bce")
    )


def test_a_level_or_a_whole_factor_without_a_verdict_is_still_reported(tmp_path):
    models, losses = {"unet": 0, "attention_unet": 0.002, "resnet_unet": 0.009}, {"bce": 0, "dice": 0.003}
    plan = write_study(tmp_path, models=models, losses=losses, tuned=False)
    plan["factors"] = {"size": ["small", "large"], **plan["factors"]}
    for cell in plan["cells"]:
        cell["levels"] = {"size": "small", **cell["levels"]}

    def told(edges, more=()):
        cells = [{**cell, "edge": cell["levels"]["model"] in edges} for cell in plan["cells"]] + list(more)
        (tmp_path / "studies/made/plan.json").write_text(json.dumps({**plan, "cells": cells}))
        found = answer_study(gather.gather_study(tmp_path, "made"))
        return ["\n".join(answer_sentences(found, language)) for language in ("en", "zh")]

    english, chinese = told(["resnet_unet"])
    assert "By model, 2 of 3 levels, over all the other factors: attention_unet is better than unet (" in english
    assert "按 model（3 个水平中的 2 个），对其余因素取平均：attention_unet 优于 unet" in chinese
    large = [
        {
            **cell,
            "cell": f"large-{cell['cell']}",
            "levels": cell["levels"] | {"size": "large"},
            "edge": True,
            "runs": {},
        }
        for cell in plan["cells"]
    ]
    english, chinese = told([], large)
    assert "over all the other factors" not in english and "By size" not in english
    assert (
        "By loss, over the 3 of 6 combinations of the other factors in which both levels are judged (planned" in english
    )
    assert "对其余因素的 6 种组合中两个水平都已判定的 3 种取平均" in chinese


def test_one_square_of_cells_is_reported_as_one_interaction_and_what_cannot_be_checked_is_reported(tmp_path):
    plan = write_study(tmp_path, models={"unet": 0, "attention_unet": 0}, losses={"bce": 0, "dice": 0}, tuned=False)
    plan["factors"] = {"size": ["small", "large"], **plan["factors"]}
    for cell in plan["cells"]:
        cell["levels"] = {"size": "small", **cell["levels"]}
    alone = plan["cells"][0]
    plan["cells"].append(alone | {"cell": "large", "levels": alone["levels"] | {"size": "large"}})
    (tmp_path / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(gather.gather_study(tmp_path, "made"))
    told = [
        note
        for note in study_notes(found, test_set_ledger.read_ledger(tmp_path), "en")
        if note.startswith("Interaction")
    ]
    assert len(told) == 2 and told[1].startswith("Interaction of size with the others: not checked")
    clearest = min(effect.interaction.p for effect in found.effects if effect.interaction.where)
    assert f"p {clearest:.3f} (" in told[0]


def test_interactions_of_factors_whose_levels_are_called_alike_are_distinguished(tmp_path):
    plan = write_study(tmp_path, models={"yes": 0, "no": 0.004}, losses={"yes": 0, "no": 0}, tuned=False, sd=0.00001)
    plan["factors"] = {"size": ["small", "large"], **plan["factors"]}
    large = []
    for cell in plan["cells"]:
        cell["levels"] = {"size": "small", **cell["levels"]}
        large.append({**cell, "cell": f"large-{cell['cell']}", "levels": cell["levels"] | {"size": "large"}})
    for cell, other in zip(large, [*plan["cells"][1:], plan["cells"][0]], strict=True):
        cell["runs"] = other["runs"]  # the same scores in another order: every square has its own difference
    (tmp_path / "studies/made/plan.json").write_text(json.dumps({**plan, "cells": [*plan["cells"], *large]}))
    found = answer_study(gather.gather_study(tmp_path, "made"))
    squares = {
        frozenset(
            frozenset([*effect.others[second], (effect.factor, first)])
            for first in effect.interaction.where[0]
            for second in effect.interaction.where[1]
        )
        for effect in found.effects
    }
    told = [
        note
        for note in study_notes(found, test_set_ledger.read_ledger(tmp_path), "en")
        if note.startswith("Interaction")
    ]
    assert all(len(square) == 4 for square in squares) and len(told) == len(squares)


def test_what_was_tried_in_another_study_is_not_counted_as_spent_twice(tmp_path):
    found = study(tmp_path, {"unet": 0, "attention_unet": 0})
    a, b = (cell["cell"] for cell in found.study.cells)
    made = trials((a, (0.93, 0.96, 0.95, 0.92, 0.90)), (b, (0.90, 0.93, 0.96, 0.97, 0.95)))
    made = made.assign(seconds=[3600.0, *[0.0] * 17, None, None])
    hours = found.study.finished.training_seconds.sum() / 3600 + 1
    english, chinese = (
        study_notes(
            replace(found, study=replace(found.study, trials=made)), test_set_ledger.read_ledger(tmp_path), tongue
        )[-1]
        for tongue in ("en", "zh")
    )
    assert f"20 tuning trials, 2 of them spent in other studies; {hours:.1f} hours" in english
    assert "20 次调参试验（其中 2 次计入其他研究）" in chinese


def test_both_languages_say_the_same_number_of_things_about_the_same_names(tmp_path):
    found = study(tmp_path, {"unet": 0, "resnet_unet": 0.01}, {"bce": 0.0, "dice": 0.005}, sd=1e-3)
    english, chinese = (answer_sentences(found, language) for language in ("en", "zh"))
    assert len(english) == len(chinese)
    for one, other in zip(english, chinese, strict=True):
        assert set(re.findall(r"\d+\.\d+|\w*unet\w*|bce|dice\b", one)) == set(
            re.findall(r"\d+\.\d+|[a-z_]*unet[a-z_]*|bce|dice\b", other)
        )


@pytest.mark.parametrize("values", [[], [0.9]])
def test_a_rise_needs_two_epochs(values):
    from analysis.records.study_results import rise

    assert np.isnan(rise(np.array(values)))


def trials(*curves):
    """Tuning trials of cells whose validation Dice at the rates 0.001, 0.003, 0.01, 0.03, 0.1 is given; two of each."""
    rows = [
        {"cell": cell, "rate": rate, "seed": seed, "state": "finished", "value": value}
        for cell, values in curves
        for rate, value in zip((0.001, 0.003, 0.01, 0.03, 0.1), values, strict=True)
        for seed in (100, 101)
    ]
    return typed(pd.DataFrame(rows).reindex(columns=list(TRIALS)))


def test_which_cell_was_highest_at_one_rate_for_all_is_reported_beside_the_highest_of_the_runs(tmp_path):
    found = study(tmp_path, {"unet": 0, "attention_unet": 0.004})
    a, b = (cell["cell"] for cell in found.study.cells)
    made = trials((a, (0.93, 0.96, 0.95, 0.92, 0.90)), (b, (0.90, 0.93, 0.96, 0.97, 0.95)))

    def told(given, language="en"):
        return study_notes(
            replace(found, study=replace(found.study, **given)), test_set_ledger.read_ledger(tmp_path), language
        )

    assert found.study.finished.groupby("cell").val_dice_last.mean().idxmax() == b
    (note,) = [n for n in told({"trials": made}) if "One rate for all" in n]
    assert "(2 a cell and rate)" in note and "leads the next by 0.0100 to 0.0500. " in note
    assert "that of unet + bce at 0.001, 0.003; attention_unet + bce at 0.01, 0.03, 0.1;" in note
    assert (
        "the highest mean validation Dice is that of attention_unet + bce. So another cell is the highest at 2 of 5"
        in note
    )
    assert "Kendall's τ of -1.00 to 1.00" in note
    (note,) = [n for n in told({"trials": made}, "zh") if "所有单元用同一个学习率" in n]
    assert "5 个共用的学习率中有 2 个" in note
    diverged = made.assign(value=made.value.where((made.cell != b) | (made.rate < 0.03)))
    assert not any(re.search(r"at 0\.03|0\.03,", n) and "One rate" in n for n in told({"trials": diverged}))
    runs = found.study.runs.copy()
    runs.loc[runs.index[0], "state"] = "missing"
    assert not any("One rate" in n for n in told({"trials": made, "runs": runs}))  # not all runs have ended


def test_every_two_levels_of_a_factor_stand_in_a_table_with_their_difference(tmp_path):
    found = study(
        tmp_path, {"unet": 0, "attention_unet": 0.002, "resnet_unet": 0.009}, {"bce": 0, "dice": 0.003}, sd=1e-4
    )
    made = main_effects_table(found.effects, "en")
    mean = (
        found.study.scores.groupby(["cell", "seed", "group"], observed=True)
        .dice.mean()
        .groupby("cell", observed=True)
        .mean()
    )
    level = {cell["cell"]: cell["levels"]["model"] for cell in found.study.cells}
    by_model = mean.groupby(mean.index.map(level)).mean()
    models = made[made.factor == "model"]
    assert len(models) == 3
    for row in models.itertuples(index=False):
        first, second = row.difference.split(" − ")
        assert row[4].startswith(f"{by_model[first] - by_model[second]:+.4f} [")
        assert row[3] == ("better than" if by_model[first] > by_model[second] else "worse than")
    assert [len(main_effects_table(found.effects, language)) for language in ("en", "zh")] == [len(made)] * 2
    assert (
        "not estimable"
        not in study_long_form(found, test_set_ledger.read_ledger(tmp_path), "en", "pictures", ()).lower()
    )
    for cell in found.study.cells:
        cell["rate_low"] = None
    assert "\n\nNot estimable: no rate was tried twice" in study_long_form(
        found, test_set_ledger.read_ledger(tmp_path), "en", "pictures", ()
    )


TOPICS = sorted({path.name.split(".")[0] for path in TEMPLATES.glob("*.j2")})


def exported(topic, language):
    """What a template gives: of a macro the names of its arguments, of a word list its keys or its length."""
    module = environment().get_template(f"{topic}.{language}.j2").module
    names = [name for name in vars(module) if not name.startswith("_")]
    found = {}
    for name in names:
        part = getattr(module, name)
        known = getattr(part, "arguments", None) or (list(part) if isinstance(part, dict) else None)
        found[name] = len(part) if known is None and isinstance(part, list) else known
    return found


@pytest.mark.parametrize("topic", TOPICS)
def test_a_template_has_the_same_macros_with_the_same_arguments_in_both_languages(topic):
    english, chinese = (exported(topic, language) for language in LANGUAGES)
    assert english == chinese and english


def test_every_template_stands_in_both_languages_and_what_is_missing_raises():
    names = {path.name for path in TEMPLATES.glob("*")}
    assert names == {f"{topic}.{language}.j2" for topic in TOPICS for language in LANGUAGES}
    with pytest.raises(TemplateNotFound):
        phrases("no_such_topic", "en")
    for language in LANGUAGES:
        with pytest.raises(AttributeError):
            phrases("notes", language).no_such_sentence()
        with pytest.raises(UndefinedError):
            phrases("notes", language).seed_correlation(correlation=0.1)
        with pytest.raises(TypeError):
            phrases("notes", language).seed_correlation(correlation=0.1, p=0.2, more=1)


def test_no_line_of_a_template_is_longer_than_120_characters():
    for path in TEMPLATES.glob("*.j2"):
        assert all(len(line) <= 120 for line in path.read_text(encoding="utf-8").splitlines()), path.name


def test_verdicts_state_on_what_they_are_conditional():
    given = {
        "cars": 54, "epochs": ["30"], "steps": [], "trials": 0, "one_a_rate": False, "data": ["Carvana"],
        "sizes": ["384x256"], "one_training_set": True, "rope": 0.001,
    }  # fmt: skip
    english, chinese = (phrases("notes", language).conditions(seeds=[4, 5], **given) for language in LANGUAGES)
    for part in ("4 to 5 seeds", "54 cars", "30 epochs", "not tuned", "Carvana at 384x256", "0.001"):
        assert part in english
    assert all(part in chinese for part in ("4–5 个种子", "54 辆车", "30 轮", "未调参", "Carvana，384x256"))
    assert "(5 seeds a cell" in phrases("notes", "en").conditions(seeds=[5], **given)


def test_what_the_listed_faulty_masks_change_is_reported(tmp_path):
    found = study(tmp_path, {"unet": 0, "attention_unet": 0}, sd=1e-5, seeds=range(5), cars=40)
    none = answer_study(replace(found.study, plan={**found.study.plan, "known_faulty": []}))
    assert any(
        note.startswith("None of the masks") for note in study_notes(none, test_set_ledger.read_ledger(tmp_path), "en")
    )
    scores = found.study.scores.copy()
    photo = scores.image.iloc[0]
    scores.loc[(scores.image == photo) & (scores.cell == scores.cell.iloc[0]), "dice"] = (
        0.0  # one bad mask spoils one cell
    )
    spoilt = replace(found.study, scores=scores, plan={**found.study.plan, "known_faulty": [photo]})
    (told,) = [
        note
        for note in study_notes(answer_study(spoilt), test_set_ledger.read_ledger(tmp_path), "en")
        if "publicly listed" in note
    ]
    assert "Without the 1 test photographs" in told and "→ equivalent" in told
    rows = scores[scores.image != photo].groupby(["cell", "seed", "group"], observed=True).dice.mean()
    a = answer_study(spoilt)
    assert a.faultless.dice == pytest.approx(rows.groupby("cell", observed=True).mean().to_dict())
    assert not any(
        "publicly listed" in note for note in study_notes(found, test_set_ledger.read_ledger(tmp_path), "en")
    )  # an older plan does not know


def test_what_was_spent_and_in_which_pixels_is_reported_in_both_languages(tmp_path):
    found = study(tmp_path, {"unet": 0, "attention_unet": 0})
    plan = found.study.plan | {"photographs": {"photographs": 4320, "groups": 270, "sizes": ["384x256"]}}
    for language, data, spent in (
        ("en", "4,320 photographs in 270 groups", "Spent: 6 runs"),
        ("zh", "分为 270 组", "开销：6 次运行"),
    ):
        told = study_notes(
            replace(found, study=replace(found.study, plan=plan)), test_set_ledger.read_ledger(tmp_path), language
        )
        assert [data in note and "384x256" in note for note in told].count(True) == 1
        assert [spent in note for note in told].count(True) == 1


def test_a_factor_with_requested_simple_effects_leads_the_answer_and_each_effect_is_reported(tmp_path):
    plan = write_study(
        tmp_path, models={"unet": 0, "attention_unet": 0, "resnet_unet": 0}, losses={"bce": 0, "dice": 0.004}
    )
    plan["design"] |= {"confirmatory": [], "simple_effects": ["loss"]}
    for cell in plan["cells"]:
        cell["edge"] = cell["cell"] == "resnet_unet-dice"
    (tmp_path / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(gather.gather_study(tmp_path, "made"))
    english, chinese = (answer_sentences(found, language) for language in ("en", "zh"))
    assert english[0].startswith("By loss, over the 2 of 3 combinations") and "(exploratory)" in english[0]
    assert (
        english[1] == "By loss, dice against bce, one by one (exploratory): better with unet, attention_unet; "
        "no verdict with resnet_unet."
    )
    assert (
        chinese[1] == "按 loss，dice 相对于 bce，逐一来看（探索性）：在 unet、attention_unet 之内更好；"
        "在 resnet_unet 之内没有判定。"
    )


def test_among_many_levels_the_possibly_best_and_the_worse_ones_are_named(tmp_path):
    losses = {"bce": -0.02, "dice": 0, "focal": 0, "bce_dice": -0.01}
    design = {"seeds": list(range(5)), "rope": 0.001, "confirmatory": ["loss"]}
    found = study(
        tmp_path / "two", {"unet": 0, "attention_unet": 0}, losses, sd=1e-3, seeds=range(5), cars=40, design=design
    )
    english, chinese = (
        next(one for one in answer_sentences(found, language) if "loss" in one) for language in ("en", "zh")
    )
    told = (
        "By loss, over all the other factors: no other level is better than dice, focal; "
        "each of bce, bce_dice is worse than at least one other."
    )
    assert english == told
    assert "没有其他水平优于 dice、focal；bce、bce_dice 各自至少劣于另外一个。" in chinese
    losses["bce"] = 0
    found = study(
        tmp_path / "one", {"unet": 0, "attention_unet": 0}, losses, sd=1e-3, seeds=range(5), cars=40, design=design
    )
    (english,) = (one for one in answer_sentences(found, "en") if one.startswith("By loss"))
    assert english.endswith(
        ": no other level is better than bce, dice, focal; bce_dice is worse than at least one other."
    )


def test_levels_of_which_the_same_is_reported_share_a_sentence(tmp_path):
    losses = {"bce": 0, "dice": -0.01, "focal": 0.01, "bce_dice": -0.01}
    design = {
        "seeds": [0, 1, 2],
        "rope": 0.001,
        "confirmatory": ["loss"],
        "simple_effects": ["loss"],
        "baseline": {"loss": "bce"},
    }
    found = study(tmp_path, {"unet": 0, "attention_unet": 0}, losses, sd=1e-4, cars=40, design=design)
    told = [one for one in answer_sentences(found, "en") if "one by one" in one]
    assert told == [
        "By loss, dice, bce_dice against bce, one by one: worse with unet, attention_unet.",
        "By loss, focal against bce, one by one: better with unet, attention_unet.",
    ]
    assert "按 loss，dice、bce_dice 相对于 bce，逐一来看：在 unet、attention_unet 之内更差。" in answer_sentences(
        found, "zh"
    )


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """A study of three models with two losses, and its plan."""
    folder = tmp_path_factory.mktemp("six")
    models = {"unet": 0, "attention_unet": 0.004, "resnet_unet": 0.004}
    return folder, write_study(folder, models=models, losses={"bce": 0, "dice": 0.003}, views=2)


@given(edges=st.lists(st.booleans(), min_size=6, max_size=6))
@examples(25)
def test_no_sentence_speaks_of_all_where_some_are_not_judged(six, edges):
    folder, plan = six
    for cell, edge in zip(plan["cells"], edges, strict=True):
        cell["edge"] = edge
    (folder / "studies/made/plan.json").write_text(json.dumps(plan))
    found = answer_study(gather.gather_study(folder, "made"))
    judged = {tuple(row.levels.values()) for row in found.judged}
    for effect in found.effects:
        place = list(found.study.factors).index(effect.factor)
        text = next(
            one
            for one in answer_sentences(found, "en")
            if one.startswith(f"By {effect.factor}") and "one by one" not in one
        )
        levels = {cell[place] for cell in judged}
        others = len(list(found.study.factors.values())[1 - place])
        whole = all(len({cell[1 - place] for cell in judged if cell[place] == level}) == others for level in levels)
        assert ("over all the other factors" in text) == whole
        assert (f"of {len(found.study.factors[effect.factor])} levels" in text) == (
            len(levels) < len(found.study.factors[effect.factor])
        )
    for text in answer_sentences(found, "en"):
        if any(edges) and re.search(r"\bcells? ", text) and not text.startswith(("No verdict", "By ")):
            assert "judged" in text or "may be judged" in text, text
