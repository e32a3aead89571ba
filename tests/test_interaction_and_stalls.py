"""The test of additivity, the mark of stalled runs, and learning rates that losses of one network share."""

import numpy as np
import pytest

from analysis.statistics.baseline_comparisons import against_baseline
from analysis.statistics.comparisons import compare_all
from analysis.statistics.interaction_test import interaction_test
from analysis.statistics.pooled_learning_rates import fit_pooled_rates
from analysis.statistics.possible_best import best_set
from analysis.statistics.rate_cost import study_rate_cost
from analysis.statistics.stalled_runs import THRESHOLD, false_marks, stalled

NETWORK = dict.fromkeys(("l0", "l1", "l2", "l3"), "network")


def table(rng, rows=3, columns=3, seeds=5, effect=0.0, sd=1.0):
    means = {(f"m{i}", f"l{j}"): i + 2 * j + effect * (i == j == 0) for i in range(rows) for j in range(columns)}
    return {key: mean + sd * rng.standard_normal((seeds, 1)) for key, mean in means.items()}


def test_an_additive_table_without_noise_has_no_interaction_and_one_odd_cell_shows():
    rng = np.random.default_rng(0)
    assert interaction_test(table(rng, sd=0.01)).p > 0.05
    assert interaction_test(table(rng, sd=0.01, effect=1.0)).p < 1e-6
    matched = interaction_test(table(rng, sd=0.01, effect=1.0, seeds=8), paired=True)
    assert matched.p < 1e-3


def test_with_two_by_two_cells_of_equal_spread_it_is_the_squared_welch_statistic():
    rng = np.random.default_rng(1)
    cells = table(rng, 2, 2, seeds=6)
    found = interaction_test(cells)
    means = {key: float(scores.mean()) for key, scores in cells.items()}
    difference = means["m0", "l0"] - means["m0", "l1"] - means["m1", "l0"] + means["m1", "l1"]
    variance = sum(float(scores.var(ddof=1)) / 6 for scores in cells.values())
    assert found.statistic == pytest.approx(difference**2 / variance)
    assert found.df1 == pytest.approx(1.0)


def test_nothing_can_be_tested_in_a_row_or_with_one_seed():
    rng = np.random.default_rng(2)
    assert interaction_test(table(rng, 1, 4)).p == 1
    assert interaction_test(table(rng, seeds=1)).p == 1
    assert interaction_test({key: np.zeros((3, 1)) for key in table(rng)}).p == 1


@pytest.mark.parametrize("paired", [False, True])
def test_unequal_variances_keep_the_error_rate(paired):
    rng, false = np.random.default_rng(3), 0
    for _ in range(300):
        cells = {
            (f"m{i}", f"l{j}"): sd * rng.standard_normal((5, 1))
            for i, sd in enumerate((1.7, 1.6, 0.7, 0.3))
            for j in range(4)
        }
        false += interaction_test(cells, paired).p <= 0.05
    assert false / 300 < 0.08


def test_a_run_far_below_its_cell_is_marked_and_its_neighbours_are_not():
    rng = np.random.default_rng(4)
    runs = {f"c{n}": 0.98 + 0.0006 * rng.standard_normal(5) for n in range(16)}
    assert stalled(runs, margin=0.001) == {}
    runs["c3"][2] -= 0.007
    assert stalled(runs, margin=0.001) == {"c3": (2,)}
    assert stalled({name: -scores for name, scores in runs.items()}, 0.001, higher_is_better=False) == {"c3": (2,)}
    assert stalled(runs, margin=0.005) == {}


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_a_study_without_stalls_is_rarely_marked(seeds):
    """Networks' standard deviations differ by a factor of 2.25, their variances fivefold."""
    rng = np.random.default_rng(seeds)
    furthest = false_marks(seeds, 16, np.repeat((0.4, 0.6, 0.7, 0.9), 4), rng, draws=300)
    assert (furthest > THRESHOLD).mean() <= 0.07  # 5 % and what 300 draws leave open


def trials(rng, tops, noise, curvature=0.01, points=3):
    steps = np.linspace(-4, -2, points * len(tops)).reshape(points, -1)
    return {
        f"l{n}": (10 ** steps[:, n], 0.98 - curvature * (steps[:, n] - top) ** 2 + noise * rng.standard_normal(points))
        for n, top in enumerate(tops)
    }


def test_three_staggered_rates_a_cell_find_the_top_of_a_parabola():
    found = fit_pooled_rates(trials(np.random.default_rng(5), (-3.0, -3.0, -3.0, -3.0), noise=1e-6))
    assert all(np.log10(rate) == pytest.approx(-3, abs=0.02) for rate in found.rates.values())
    assert found.curvature == pytest.approx(0.01 / np.log(10) ** 2, rel=0.15) and not any(found.at_edge.values())


def test_shifts_are_found_where_trials_show_them_and_shrunk_where_they_do_not():
    tops = (-3.2, -3.0, -2.9, -2.8)
    clear = fit_pooled_rates(trials(np.random.default_rng(6), tops, noise=1e-6, points=5))
    assert [np.log10(rate) for rate in clear.rates.values()] == pytest.approx(tops, abs=0.03)
    errors = []
    for seed in range(10):
        noisy = fit_pooled_rates(trials(np.random.default_rng(seed), tops, noise=0.002))
        errors.append(np.abs(np.log10(list(noisy.rates.values())) - tops).mean())
    assert np.mean(errors) < 0.25  # of two decades; three trials of one loss alone hold no information on the curvature


def test_a_top_beyond_the_range_is_at_its_edge_and_a_noisier_fit_costs_more():
    assert any(fit_pooled_rates(trials(np.random.default_rng(7), (-1.8,) * 4, 1e-6)).at_edge.values())
    costs = [
        study_rate_cost(trials(np.random.default_rng(8), (-3.0,) * 4, noise), NETWORK).of({"l0": 1}).variance
        for noise in (0.0003, 0.0006, 0.0013)
    ]
    assert costs == sorted(costs) and costs[0] > 0


def test_what_cells_of_one_network_share_is_counted_once_and_what_all_lose_alike_cancels():
    cost = study_rate_cost(trials(np.random.default_rng(9), (-3.0,) * 4, 0.0006), NETWORK)
    losses = list(NETWORK)
    alone, mean = cost.of({"l0": 1}).variance, cost.of(dict.fromkeys(losses, 0.25)).variance
    assert mean > alone / 4
    assert cost.of({"l0": 0.5, "l1": -0.5}).variance < mean


def test_a_rate_off_the_pooled_top_costs_more_than_the_top():
    made = trials(np.random.default_rng(12), (-3.0,) * 4, 0.0006)
    rates = fit_pooled_rates(made).rates
    top = study_rate_cost(made, NETWORK, rates)
    off = study_rate_cost(made, NETWORK, rates | {"l0": 3 * rates["l0"]})
    assert top.covariance == pytest.approx(study_rate_cost(made, NETWORK).covariance)
    known = 0.01 * np.log10(3) ** 2  # the loss that a rate three times too high has without noise
    assert off.of({"l0": 1, "l1": -1}).variance > top.of({"l0": 1, "l1": -1}).variance + 0.2 * known**2


def test_a_comparison_is_wider_by_what_its_rates_cost_and_a_given_rate_costs_nothing():
    rng = np.random.default_rng(13)
    cells = {name: 0.98 + 0.0006 * rng.standard_normal((5, 6)) for name in ("l0", "l1", "given", "given too")}
    cost = study_rate_cost(trials(rng, (-3.0,) * 4, 0.0013), NETWORK)

    def widths(**named):
        found = compare_all(cells, **named).comparisons
        return {pair: comparison.high - comparison.low for pair, comparison in found.items()}

    without, with_cost = widths(), widths(rate_cost=cost)
    assert with_cost["l0", "l1"] > without["l0", "l1"]
    assert cost.of({"given": 1, "given too": -1}).variance == 0
    assert against_baseline(cells, "l0", rate_cost=cost)["l1"].p > against_baseline(cells, "l0")["l1"].p
    assert set(best_set(cells)) <= set(best_set(cells, rate_cost=cost))


def test_diverged_trials_are_left_out_and_hopeless_ones_refused():
    given = trials(np.random.default_rng(10), (-3.0, -3.0), 1e-6, points=5)
    given["l0"][1][-1] = np.nan
    assert np.log10(fit_pooled_rates(given).rates["l0"]) == pytest.approx(-3, abs=0.05)
    with pytest.raises(ValueError, match="more rates"):
        fit_pooled_rates(trials(np.random.default_rng(11), (-3.0,) * 4, 1e-6, points=1))
    with pytest.raises(ValueError, match="positive"):
        fit_pooled_rates({"l0": ([0.0, 1.0], [1.0, 1.0])})
