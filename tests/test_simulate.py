"""Error rates of intervals, verdicts and tuning in simulation.

Short forms run here. Long forms (`python -m analysis.statistics.simulate`, an hour) have kept their results, which
docs/en/statistics.md shows: the limits hold for those.
"""

import re

import numpy as np
import pytest

from analysis.report.docs_tables import POOLED, kept_rows, simulation_tables
from analysis.statistics.simulate import SIMULATIONS, main
from analysis.statistics.simulate_designs import (
    detectable_rows,
    growing,
    look_rows,
    look_until_decided,
    stall_rows,
    training_draw_rows,
    unequal_rows,
)
from analysis.statistics.simulate_intervals import (
    CASES,
    Case,
    coverage,
    family_verdicts,
    pilot,
    tables,
    verdict_rows,
)
from analysis.statistics.simulate_tuning import judged, own_curve_rows, tuned_study
from analysis.text.wording import LANGUAGES
from analysis.verdicts.ledger_simulation import ledger_rows
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
DRAWS = 1500
SMOOTH = ("parabola", "steeper above", "flat top")  # responses without a cliff


@pytest.fixture(scope="module")
def covered():
    return {case: coverage(case, np.random.default_rng((0, n)), DRAWS) for n, case in enumerate(CASES)}


def test_intervals_cover_at_least_92_percent_in_every_case_and_93_to_97_5_on_average(covered):
    shares = {case: rates.covered for case, rates in covered.items()}
    assert min(shares.values()) >= 0.92, min(shares, key=shares.get)
    assert 0.93 <= np.mean(list(shares.values())) <= 0.975
    assert max(rates.separated for rates in covered.values()) <= 0.07


def test_a_few_cells_have_no_seed_effect_and_a_few_a_large_one():
    """What the test above walks: the design of the simulation itself."""
    for place, values in enumerate(((16, 64), (3, 5, 10), (0.0, 0.25, 1.0, 3.0), (1.0, 3.0, 10.0))):
        assert {case[place] for case in CASES} == set(values)
    assert len(CASES) == 72 and Case(16, 3, 0.0, 10.0) in CASES


def test_pairs_find_0_001_and_equal_cells_are_equivalent():
    rows = {row["seeds"]: row for row in verdict_rows(DRAWS)}
    assert rows[5]["0.001 found"] >= 0.70 and rows[10]["equal: `equivalent`"] >= 0.90
    assert max(row["12 equal cells: any false verdict"] for row in rows.values()) <= 0.08
    assert pilot(5, 54, 0.001, 0.0, np.random.default_rng(1), share=1.0).better >= 0.70  # all the spread in one


def test_cells_that_differ_by_the_rope_are_called_equivalent_in_at_most_5_percent_of_tables():
    means = np.array([0, 0, 0, 0.001, 0.001, 0.001])
    apart = np.array([means[a] != means[b] for a in range(6) for b in range(a + 1, 6)])
    verdicts = family_verdicts(tables(6, 10, 54, np.random.default_rng(4), means, DRAWS), 0.001)
    assert (verdicts[:, apart] == "equivalent").any(-1).mean() <= 0.055
    assert np.isin(verdicts[:, ~apart], ("better", "worse")).any(-1).mean() <= 0.065


def test_studies_tuned_by_pooled_fits_keep_their_error_rate_only_with_what_rates_cost():
    """Three staggered trials a cell, equal cells, curvatures differing fourfold between networks."""
    rng = np.random.default_rng(0)
    made = [
        tuned_study(response, noise, 3, rng) for response in SMOOTH[:2] for noise in (0.0006, 0.0013) for _ in range(20)
    ]
    for seeds in (5, 10):
        charged, free = judged(made, seeds, rng), judged(made, seeds, rng, charged=False)
        assert max(family.false for family in charged.values()) <= 0.06 + 0.03  # 80 studies leave 0.03 open
        assert min(family.covered for family in charged.values()) >= 0.93
    assert free["networks"].false > 0.15


def test_a_cells_own_curve_holds_where_the_luckiest_trial_and_one_global_parabola_do_not():
    rows = {(row["response"], row["decades apart"]): row for row in own_curve_rows(DRAWS, limits=False)}
    assert max(row["local parabola"] for row in rows.values()) <= 0.08
    assert rows["parabola", 0.5]["luckiest trial"] > 0.15 and rows["cliff above", 0.5]["one parabola"] > 0.5


def test_studies_without_stalls_are_rarely_flagged_and_unequal_variances_keep_the_error_rate():
    assert max(row["flagged at 6"] for row in stall_rows(200)) <= 0.08
    for row in unequal_rows(400):
        assert max(row["any false, networks"], row["any false, losses"], row["any false, all pairs"]) <= 0.085
        assert row["interaction found"] <= 0.12


def test_planned_contrasts_detect_less_than_half_of_what_all_pairs_need():
    for row in detectable_rows(60):
        assert row["difference of a loss, over networks"] < row["difference of a pair, all pairs (old)"] / 2


def test_looking_after_each_seed_keeps_the_error_rate_and_every_look_at_0_05_does_not():
    rows = list(look_rows(500))
    assert max(row["any false"] for row in rows) <= 0.055 + 0.03
    assert rows[0]["0.001 found"] >= 0.9 and float(rows[0]["seeds (0.001)"]) < 6
    estimates = growing("pair", False, 2.2, np.random.default_rng(3), 500, tuple(range(3, 11)))
    naive, seeds = look_until_decided(estimates, 0.05, 0.0)
    assert np.isin(naive, ("better", "worse")).mean() > 0.08 and seeds.max() == 10


def test_drawn_training_sets_cover_draws_from_these_cars_and_not_fresh_ones():
    rows = list(training_draw_rows(600))
    assert all(row["new draws of 120 of these 189 cars"] >= 0.92 for row in rows)
    assert rows[-1]["fresh training sets"] < 0.6


def test_a_ledger_rarely_accepts_anything_false():
    (five, _) = ledger_rows(ledgers=2, questions=30, trials=15)
    assert five["30 questions without an improvement: accepts any"] <= 0.5
    assert 0 < five["an improvement of 2 SD: accepted"] < 1


def test_the_kept_results_of_pooled_tuning_keep_the_limits():
    rows = [row for name in POOLED for row in kept_rows(name)]
    smooth = [row for row in rows if row["response"] in SMOOTH]
    cases = {(row["response"], row["noise of trials"], row["seeds"]) for row in smooth}
    assert len(cases) == 3 * 2 * 2 and {row["trials a cell"] for row in smooth} >= {3, 5}
    for row in smooth:
        assert max(row["any false, networks"], row["any false, losses"]) <= 0.06, row
        assert row["coverage"] >= 0.92, row
    assert 0.93 <= np.mean([row["coverage"] for row in smooth]) <= 0.975


def test_the_kept_results_of_looks_stalls_and_ledgers_keep_the_limits():
    assert max(row["any false"] for row in kept_rows("looks")) <= 0.055
    stalls = kept_rows("stalls")
    assert {row["seeds"] for row in stalls} == {3, 5, 8} and max(row["flagged at 6"] for row in stalls) <= 0.05
    accepted = [value for row in kept_rows("ledger") for name, value in row.items() if "accepts any" in name]
    assert len(accepted) == 2 and max(accepted) <= 0.05
    assert min(row["lowest"] for row in kept_rows("coverage")) >= 0.92


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_documents_tables_are_those_of_the_kept_results(language):
    text = (ROOT / f"docs/{language}/statistics.md").read_text(encoding="utf-8")
    assert "python -m analysis.statistics.simulate" in text
    for name, table in simulation_tables(language).items():
        written = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
        assert written and written[1] == table, f"type python -m analysis.report.docs_tables --write ({name})"


def test_a_simulation_that_does_not_exist_is_named(capsys):
    assert main(["tunning"]) == 2 and "Type one of: coverage" in capsys.readouterr().err
    assert set(POOLED) < set(SIMULATIONS)


def test_the_chinese_tables_leave_no_word_in_english():
    tables = simulation_tables("zh")
    assert len(tables) >= 10
    for name, table in tables.items():
        assert not re.search(r"[a-z]{4}", table.replace("equivalent", "")), f"a word without Chinese in {name}"
