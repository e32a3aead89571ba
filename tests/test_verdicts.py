"""What a study answers: planned contrasts, marks in place of gates, what was planned and what was not, looks."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.records import committed
from analysis.records.load_runs import load_recorded_study
from analysis.records.study_paths import RESULTS
from analysis.records.study_reading import read_study_reading
from analysis.records.study_results import by_car
from analysis.statistics import against_baseline, compare, look_level
from analysis.statistics.comparisons import as_comparisons, planned_contrast
from analysis.statistics.estimator import stack
from analysis.text.notes import thin_test_set
from analysis.text.sentences import answer_sentences
from analysis.text.tables import effect_grids
from analysis.verdicts.answer import Named, answer_study, at_look, last_look, open_comparisons
from analysis.verdicts.observed_power import observe_power
from registry import InputError
from tests.made_study import LOSSES, MODELS, write_study

COMMITTED = committed.committed_studies(RESULTS)
CONFIRMATORY = (
    "two_by_two",
    "carvana_models_x_losses",
    "nuclei_models_x_losses",
)  # the plan named the comparisons with their baselines
NEWER = (  # planned when study files had labels
    "stalls", "stalls_attention_bce", "stalls_attention_focal", "carvana_models_x_losses", "more_training",
    "nuclei_models_x_losses",
)  # fmt: skip


def made(folder, **options):
    write_study(folder, **options)
    return load_recorded_study(folder, options.get("name", "made"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return made(tmp_path_factory.mktemp("made"), seeds=(0, 1, 2, 3))


def altered(study, cell, seed, **values):
    """The study with other values in one row of its runs."""
    runs = study.runs.copy()
    runs.loc[(runs.cell == cell) & (runs.seed == seed), list(values)] = list(values.values())
    return replace(study, runs=runs)


def shifted(study, cell, seed, by):
    """The study with another score of one run."""
    scores, runs = study.scores.copy(), study.runs.copy()
    scores.loc[(scores.cell == cell) & (scores.seed == seed), "dice"] += by
    runs.loc[(runs.cell == cell) & (runs.seed == seed), "dice"] += by
    return replace(study, scores=scores, runs=runs)


def test_a_level_is_compared_with_its_baseline_averaged_over_the_other_factor(study):
    answer, scores = answer_study(study), by_car(study)
    effects = {part.factor: part for part in answer.effects}
    assert effects["model"].baseline == "unet" and effects["loss"].baseline == "bce"
    assert list(effects["loss"].comparisons) == ["dice", "focal", "bce_dice"]
    for level, found in effects["loss"].comparisons.items():
        means = [scores[f"{model}-{level}"].mean() - scores[f"{model}-bce"].mean() for model in MODELS]
        assert found.difference == pytest.approx(np.mean(means), abs=1e-12)
    assert effects["loss"].over["dice"] == tuple((model,) for model in MODELS) and effects["loss"].complete


def test_the_interval_of_an_average_is_welchs_with_a_variance_per_cell(study):
    """With one group there is nothing but seeds: the textbook's interval, by hand."""
    scores = study.scores.assign(group="all").astype({"group": "category"})
    (found,) = [part for part in answer_study(replace(study, scores=scores)).effects if part.factor == "model"]
    runs = scores.groupby(["cell", "seed"], observed=True).dice.mean().unstack()
    cells = [(f"attention_unet-{loss}", f"unet-{loss}") for loss in LOSSES]
    parts = np.array([runs.loc[cell].var(ddof=1) / 4 / len(LOSSES) ** 2 for pair in cells for cell in pair])
    t = np.mean([runs.loc[a].mean() - runs.loc[b].mean() for a, b in cells]) / np.sqrt(parts.sum())
    plain = 2 * stats.t.sf(abs(t), parts.sum() ** 2 / (parts**2 / 3).sum())
    strict = 2 * stats.t.sf(abs(t), 3)
    p = found.comparisons["attention_unet"].p / 2  # Holm's first divisor of two, or its last of one
    assert any(min(plain, strict) * 0.99 <= candidate <= max(plain, strict) * 1.01 for candidate in (p, 2 * p))


def test_holm_runs_over_the_levels_of_one_factor_only(tmp_path):
    two = made(tmp_path, models={"unet": 0.0}, losses={"bce": 0.0, "dice": 0.0008}, seeds=range(5))
    (alone,) = answer_study(two).effects
    scores = by_car(two)
    plain = compare(scores["unet-dice"], scores["unet-bce"], rope=two.reading.cell_margin)
    assert alone.comparisons["dice"] == plain  # a family of one needs no adjustment


def test_a_cell_whose_validation_still_rose_is_marked_and_judged(study):
    runs = study.runs.copy()
    rising = runs.cell == "unet-bce"
    runs.loc[rising, "val_rise"] = [0.0040, 0.0042, 0.0041, 0.0043]
    answer = answer_study(replace(study, runs=runs))
    marked = [cell.name for cell in answer.cells if cell.eligibility.still_improving]
    assert marked == ["unet-bce"] and len(answer.judged) == len(answer.cells)
    runs.loc[rising, "val_rise"] = [0.0040, -0.0010, 0.0041, 0.0005]  # the mean lies above, its interval does not
    assert not any(cell.eligibility.still_improving for cell in answer_study(replace(study, runs=runs)).cells)


def test_what_the_change_from_half_to_full_size_adds_is_no_rise(study):
    runs = study.runs.assign(val_rise=0.1, epochs=5)
    for progressive, known in ((0.8, False), (0.7, False), (0.6, True), (0.0, True)):
        cells = answer_study(replace(study, runs=runs.assign(progressive=progressive))).cells
        assert [math.isnan(cell.eligibility.rise) for cell in cells] == [not known] * len(cells)
        assert [cell.eligibility.still_improving for cell in cells] == [known] * len(cells)
    cells = answer_study(replace(study, runs=runs.assign(progressive=0.6, epochs=4))).cells  # interpolated from epoch 3
    assert not any(cell.eligibility.still_improving for cell in cells)


def test_a_stalled_run_is_marked_counted_and_told_what_it_changes(study):
    answer = answer_study(shifted(study, "unet-bce_dice", 3, -0.02))
    assert {cell.name: cell.eligibility.stalled for cell in answer.cells if cell.eligibility.stalled} == {
        "unet-bce_dice": (3,)
    }
    assert answer.unstalled.left_out == 1 and len(answer.scores["unet-bce_dice"]) == 4  # never dropped
    named = {
        (name.factor, name.level): (before.verdict, after.verdict) for name, before, after in answer.unstalled.changed
    }
    assert named[("loss", "bce_dice")] == ("undecided", "better")
    assert answer_study(study).unstalled is None


def test_a_failed_run_takes_its_cell_out_and_the_averages_say_so(study):
    answer = answer_study(altered(study, "unet-dice", 1, state="failed", reason="loss is not finite"))
    (cell,) = [cell for cell in answer.cells if cell.name == "unet-dice"]
    assert cell.eligibility.kind == "failed" and cell.eligibility.reason == "seed 1: loss is not finite"
    (loss,) = [part for part in answer.effects if part.factor == "loss"]
    assert loss.over["dice"] == (("attention_unet",), ("resnet_unet",)) and not loss.complete and answer.exploratory


def test_an_unfinished_cell_shows_its_mean_without_a_verdict(study):
    answer = answer_study(altered(study, "unet-dice", 3, state="missing", reason="not begun"))
    (cell,) = [cell for cell in answer.cells if cell.name == "unet-dice"]
    assert cell.eligibility.kind == "incomplete" and np.isfinite(cell.dice) and cell not in answer.judged


def test_effects_within_another_factor_and_their_difference(tmp_path):
    options = {"models": {"unet": 0.0, "attention_unet": 0.0}, "losses": {"bce": 0.0, "dice": 0.0}, "seeds": range(4)}
    design = {"seeds": list(range(4)), "rope": 0.001, "simple_effects": ["loss"], "confirmatory": ["loss"]}
    study = made(tmp_path, **options, design=design)
    for seed in range(4):
        study = shifted(study, "unet-dice", seed, 0.005)
    (within,) = answer_study(study).within
    scores = by_car(study)
    assert within.within == ("model",) and set(within.comparisons) == {
        ("dice", ("unet",)),
        ("dice", ("attention_unet",)),
    }
    apart = [scores[f"{m}-dice"].mean() - scores[f"{m}-bce"].mean() for m in ("unet", "attention_unet")]
    assert within.comparisons["dice", ("unet",)].difference == pytest.approx(apart[0], abs=1e-12)
    assert within.difference.difference == pytest.approx(apart[0] - apart[1], abs=1e-12)
    assert within.difference.verdict == "better"


def test_an_effect_elsewhere_is_compared_with_the_effect_at_the_baselines(tmp_path):
    """Three combinations: each effect minus that at the baselines, which are not the first combination."""
    models = {"attention_unet": 0.0, "unet": 0.0, "resnet_unet": 0.0}
    design = {"seeds": list(range(4)), "rope": 0.001, "simple_effects": ["loss"], "confirmatory": ["loss"]}
    design["baseline"] = {"model": "unet", "loss": "bce"}
    study = made(tmp_path, models=models, losses={"bce": 0.0, "dice": 0.0}, seeds=range(4), design=design)
    for seed in range(4):
        study = shifted(study, "resnet_unet-dice", seed, 0.005)
    answer = answer_study(study)
    (within,) = answer.within
    assert within.reference == ("unet",) and list(within.differences) == [("attention_unet",), ("resnet_unet",)]
    assert within.difference is None
    scores = by_car(study)
    effect = {m: scores[f"{m}-dice"].mean() - scores[f"{m}-bce"].mean() for m in models}
    for (model,), comparison in within.differences.items():
        assert comparison.difference == pytest.approx(effect[model] - effect["unet"], abs=1e-12)
    assert within.differences["resnet_unet",].verdict == "better"
    assert within.differences["attention_unet",].verdict != "better"
    cells = [
        [scores[f"{m}-dice"], scores[f"{m}-bce"], scores["unet-dice"], scores["unet-bce"]]
        for (m,) in within.differences
    ]
    by_hand = stack([planned_contrast(four, [1, -1, -1, 1]) for four in cells])
    for one, other in zip(within.differences.values(), as_comparisons(by_hand, 0.002, True, 0.95), strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)
    (grid,) = effect_grids(answer, "en")
    assert grid.headings[-1] == "effect − effect at U-Net" and grid.rows[0][-1].head == "–" and len(grid.rows) == 4
    sentences = " ".join(answer_sentences(answer, "en"))
    assert "Compared with U-Net, this effect is 0.00" in sentences and "larger with ResNet" in sentences, sentences
    assert "与 U-Net 相比，这一效应在“ResNet" in "".join(answer_sentences(answer, "zh"))


def test_matched_seeds_are_compared_as_pairs(tmp_path):
    design = {"seeds": list(range(5)), "rope": 0.001, "confirmatory": ["loss"], "draw_training_cars": True}
    study = made(
        tmp_path,
        models={"unet": 0.0, "attention_unet": 0.0},
        losses={"bce": 0.0, "dice": 0.002},
        seeds=range(5),
        sd=0.00005,
        design=design,
    )
    for seed, luck in enumerate((0.01, -0.01, 0.004, -0.004, 0.0)):  # of the training set, the same for all cells
        for cell in ("unet-bce", "unet-dice", "attention_unet-bce", "attention_unet-dice"):
            study = shifted(study, cell, seed, luck)
    unmatched = replace(study, plan={**study.plan, "design": {**design, "draw_training_cars": False}})
    (matched, apart) = (
        next(part for part in answer_study(each).effects if part.factor == "loss").comparisons["dice"]
        for each in (study, unmatched)
    )
    assert matched.verdict == "better" and apart.verdict == "undecided"


def test_margins_of_averages_and_of_single_cells(tmp_path, study):
    answer = answer_study(study)
    assert {part.margin for part in answer.effects} == {0.001} and study.reading.cell_margin == 0.002
    alone = made(tmp_path, models={"unet": 0.0}, losses=LOSSES)
    assert alone.reading.cell_margin == 0.001 and [part.margin for part in answer_study(alone).effects] == [0.001]


def test_the_summary_against_the_baselines_cell_and_the_best_set(study):
    answer, scores = answer_study(study), by_car(study)
    assert dict(answer.against_baseline) == against_baseline(scores, "unet-bce", rope=0.002)
    assert set(answer.best) <= {f"resnet_unet-{loss}" for loss in LOSSES}  # its effect is 0.006
    assert set(answer.winners().values()) <= {cell.name for cell in answer.judged} and len(answer.winners()) == 4


PLAN = {
    "name": "x",
    "factors": {"model": ["unet", "attention_unet"], "loss": ["bce", "dice", "focal"]},
    "design": {"seeds": [0, 1], "rope": 0.001, "confirmatory": ["model", "loss"]},
}


def reading(folder, plan=PLAN, file=""):
    if file:
        (folder / "x.toml").write_text(file)
    return read_study_reading(plan, folder)


def test_the_study_file_is_laid_over_the_plan_as_it_was_run(tmp_path):
    file = '[design]\nrope = 0.003\ncell_rope = 0.004\nbaseline = { loss = "dice" }\nconfirmatory = ["model", "loss"]\n'
    found = reading(tmp_path, file=file + '[labels]\nunet = "U-Net"\nmodel = { en = "network", zh = "网络" }\n')
    assert found.baselines == {"model": "unet", "loss": "dice"} and (found.margin, found.cell_margin) == (0.003, 0.004)
    assert found.labels["unet"] == "U-Net" and found.labels["model"]["zh"] == "网络"
    assert found.confirmatory == {"model"}  # two levels: the only comparison there is; dice was chosen afterwards


def test_only_what_was_planned_with_its_baseline_is_confirmatory(tmp_path):
    design = PLAN["design"] | {"baseline": {"loss": "bce"}}
    assert reading(tmp_path, PLAN | {"design": design}).confirmatory == {"model", "loss"}
    assert reading(tmp_path).confirmatory == {"model"}
    extended = PLAN | {"design": design | {"extended_from": [2]}}
    assert not reading(tmp_path, extended).confirmatory
    withdrawn = reading(tmp_path, PLAN | {"design": design}, '[design]\nconfirmatory = ["loss"]\n')
    assert withdrawn.confirmatory == {"loss"}
    added = PLAN | {"design": design | {"confirmatory": []}}
    assert not reading(tmp_path, added, '[design]\nconfirmatory = ["model", "loss"]\n').confirmatory


def test_a_broken_or_foreign_study_file_changes_nothing(tmp_path):
    plain = reading(tmp_path)
    assert reading(tmp_path, file="[design\n") == plain
    assert reading(tmp_path, file='[design]\nbaseline = { loss = "gone", optimizer = "adam" }\n').baselines == (
        plain.baselines
    )


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_studies_are_judged_whole_and_exploratory_but_those_planned_with_baselines(name):
    study = committed.read_study(RESULTS, name)
    if len(study.finished) < len(study.runs):
        pytest.skip("under way")
    answer = answer_study(study)
    assert len(answer.judged) == len(answer.cells) and answer.exploratory == (name not in CONFIRMATORY)
    assert set(study.reading.labels) >= {
        *study.varied,
        *(level for levels in study.varied.values() for level in levels),
    }


def test_the_answers_that_an_independent_analysis_of_the_records_gave():
    """Differences and intervals from another analysis of the same records, with the tolerance of its digits."""
    found = {name: answer_study(committed.read_study(RESULTS, name)) for name in ("models_x_losses", "leak")}
    effects = {part.factor: part.comparisons for part in found["models_x_losses"].effects}
    resnet = effects["model"]["resnet_unet (from scratch)"]
    assert (resnet.difference, resnet.low, resnet.high) == pytest.approx((-0.0029, -0.0046, -0.0013), abs=1.5e-4)
    assert effects["loss"]["dice"].difference == pytest.approx(-0.0009, abs=5e-5)
    assert found["models_x_losses"].interaction.p == pytest.approx(0.5, abs=0.1)
    (leak,) = found["leak"].within
    few, many = leak.comparisons.values()
    assert (few.difference, few.verdict) == (pytest.approx(0.0026, abs=5e-5), "better")
    assert (many.low, many.high) == pytest.approx((-0.0006, 0.0007), abs=6e-5) and many.verdict == "equivalent"
    assert leak.difference.p == pytest.approx(4e-5, rel=0.2)


def looking(study, seeds, looks=(3, 4)):
    """The study as one that looks after so many seeds."""
    design = {**study.plan["design"], "seeds": list(seeds), "looks": list(looks)}
    return replace(study, plan={**study.plan, "design": design})


def test_a_look_sees_only_the_seeds_up_to_it_at_its_own_level(study):
    growing = looking(study, range(4))
    answer = answer_study(growing, 3)
    assert answer.seeds == 3 and answer.level == 1 - look_level((3, 4)) > 0.95
    assert set(answer.study.scores.seed) == {0, 1, 2} and last_look(growing) == 4
    wider = next(part for part in answer.effects if part.factor == "model").comparisons["attention_unet"]
    plain = next(part for part in answer_study(at_look(study, 3)).effects if part.factor == "model")
    usual = plain.comparisons["attention_unet"]
    assert wider.difference == usual.difference and wider.high - wider.low > usual.high - usual.low


def test_an_unfinished_next_seed_leaves_the_last_look_as_it_was(study):
    growing = looking(altered(study, "unet-dice", 3, state="missing", reason="not begun"), range(4))
    assert last_look(growing) == 3 and answer_study(growing).seeds == 3
    assert last_look(looking(study, range(4), looks=(6, 7))) == 0


def test_before_the_first_look_nothing_is_judged(study):
    early = looking(altered(study, "unet-dice", 3, state="missing", reason="not begun"), range(4), looks=(4, 5))
    answer = answer_study(early)
    assert answer.judged == [] and answer.effects == [] and answer.best == () and answer.pairs is None
    assert len(answer.measured) == len(early.cells)
    first, second = answer_sentences(answer, "en")
    assert "(47 of 48 runs)" in first and first.endswith("there is no verdict yet.") and "after 4 seeds" in second


def test_runs_after_the_last_look_stay_on_record(study):
    growing = looking(altered(study, "unet-dice", 3, state="missing", reason="not begun"), range(4))
    answer = answer_study(growing)
    assert set(answer.study.runs.seed) == {0, 1, 2} and answer.records is growing
    assert answer_study(study).records.runs is study.runs


def test_an_older_plan_takes_no_seed_and_no_look_from_the_committed_study(study):
    taken = [{"seeds": 3, "level": 0.03, "open": ["loss: dice"]}]
    old, older = looking(study, range(4)), looking(at_look(study, 3), range(3))
    old.plan["design"]["looks_taken"] = taken
    merged = committed.merge_studies(old, older).plan["design"]
    assert merged["seeds"] == [0, 1, 2, 3] and merged["looks_taken"] == taken
    extended = replace(study, plan={**study.plan, "design": {**study.plan["design"], "extended_from": [2]}})
    assert committed.merge_studies(extended, study).plan["design"]["extended_from"] == [2]


def test_runs_that_differ_in_a_setting_without_a_column_do_not_stand_in_one_table(study):
    same = {key: {"test_views": 4, "seed": seed} for key, seed in zip(study.runs.key, study.runs.seed, strict=True)}
    assert answer_study(replace(study, configs=same)).effects
    with pytest.raises(InputError, match="differ in test_views"):
        answer_study(replace(study, configs={**same, study.runs.key.iloc[0]: {"seed": 0}}))


def test_without_a_stalled_run_a_matched_study_lacks_its_seed(study):
    matched = {**study.plan, "design": {**study.plan["design"], "draw_training_cars": True}}
    answer = answer_study(replace(shifted(study, "unet-bce_dice", 3, -0.02), plan=matched))
    assert answer.unstalled.seeds == 3
    assert any("without its seed (3 are left)" in sentence for sentence in answer_sentences(answer, "en"))


@pytest.mark.parametrize("matched", [False, True])
def test_no_difference_is_called_detectable_that_the_intervals_would_not_show(study, matched):
    """What is found with 80 % power lies beyond an interval's half width, and not far beyond."""
    plan = {**study.plan, "design": {**study.plan["design"], "draw_training_cars": matched}}
    answer = answer_study(looking(replace(study, plan=plan), range(4)))
    observed = observe_power(answer)
    for effects in answer.effects:
        halves = [(one.high - one.low) / 2 for one in effects.comparisons.values()]
        assert np.median(halves) < observed.factors[effects.factor] < 2 * max(halves)


def test_whether_factors_interact_is_judged_at_the_level_of_the_look(study):
    answer = answer_study(looking(study, range(4)))
    for p, said in ((0.049, False), (0.047, True)):
        one = replace(answer, interaction=replace(answer.interaction, p=p))
        assert any("The factors interact" in sentence for sentence in answer_sentences(one, "en")) == said


def test_what_is_open_are_the_undecided_primary_comparisons(tmp_path):
    study = made(tmp_path, seeds=range(4), sd=0.002)
    answer = answer_study(looking(study, range(4)))
    left = {(name.factor, name.level) for name in open_comparisons(answer)}
    verdicts = {(p.factor, level): c.verdict for p in answer.effects for level, c in p.comparisons.items()}
    assert left == {name for name, verdict in verdicts.items() if verdict == "undecided"} != set()
    assert Named("model", "resnet_unet") not in open_comparisons(answer)
    failed = altered(looking(study, range(4)), "unet-dice", 0, state="failed", reason="diverged")
    for model in MODELS:
        failed = altered(failed, f"{model}-dice", 0, state="failed", reason="diverged")
    assert not any(name.level == "dice" for name in open_comparisons(answer_study(failed)))


def test_study_json_keeps_the_plan_byte_for_byte():
    for name in COMMITTED:
        path = RESULTS / name / "study.json"
        study = committed.read_study(RESULTS, name)
        assert committed.study_files(study)["study.json"] == path.read_bytes()
        planned_with_labels = name in NEWER  # the others are older than labels, which are laid over their plans
        assert ("labels" in json.loads(path.read_bytes())) == planned_with_labels


@pytest.mark.parametrize(("score", "told"), [((0.0, 1.0), 1), ((0.5, 1.0), 0)])
def test_images_whose_scores_are_all_or_nothing_are_mentioned(tmp_path, score, told):
    study = made(tmp_path)
    scores = study.scores.copy()
    one = scores.image == scores.image[0]
    scores.loc[one, "dice"] = [score[row % 2] for row in range(one.sum())]
    answer = answer_study(replace(study, scores=scores))
    lines = {language: thin_test_set(answer, language) for language in ("en", "zh")}
    assert sum("exactly 0 or 1 in every run" in line for line in lines["en"]) == told
    assert len(lines["zh"]) == len(lines["en"])
