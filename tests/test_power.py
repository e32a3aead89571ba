"""Planning: the pilot's variances, and what a study can detect, against simulation."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.estimator import AddedVariance
from analysis.statistics.power import (
    Spread,
    chances,
    detectable,
    smallest_difference,
    spread_of,
    spread_of_differences,
    what_it_can_detect,
)
from analysis.statistics.simulate_intervals import PILOT, pilot, scaled, scores


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_chances_of_verdicts_are_those_of_a_simulation(seeds):
    rng = np.random.default_rng(seeds)
    for difference, rope in ((0.0, 0.001), (0.0007, 0.001), (0.001, 0.0), (0.0015, 0.001)):
        seen, planned = pilot(seeds, 54, difference, rope, rng), chances(PILOT, seeds, 54, difference, rope)
        expected = (planned.better, planned.worse, planned.equivalent)
        assert (seen.better, seen.worse, seen.equivalent) == pytest.approx(expected, abs=0.03)
        assert sum(vars(planned).values()) == pytest.approx(1)


def test_without_car_effects_and_with_seeds_galore_power_is_that_of_the_t_test():
    """Welch's degrees of freedom are those of equal variances, nearly; SciPy's noncentral t is the oracle."""
    spread, df = Spread(0.001, 0.0, 0.0), 2 * (40 - 1)
    shift = 0.0005 / (0.001 / np.sqrt(40))
    oracle = stats.nct.sf(stats.t.isf(0.025, df), df, shift)
    assert chances(spread, 40, 54, 0.0005, 0).better == pytest.approx(oracle, abs=0.01)


def test_power_of_runs_matched_by_seed_is_that_of_the_paired_t_test():
    spread, df = Spread(0.001, 0.0, 0.0), 5 - 1
    oracle = stats.nct.sf(stats.t.isf(0.025, df), df, 0.001 / (0.001 / np.sqrt(5)))
    assert chances(spread, 5, 54, 0.001, 0, matched=True).better == pytest.approx(oracle, abs=0.02)
    added = AddedVariance(np.asarray(0.001**2 / 5), np.asarray(1e9))  # as much again, exactly known
    assert chances(spread, 5, 54, 0.001, 0, matched=True, added=added).better < oracle - 0.05


def test_the_spread_of_differences_comes_back_from_many_seeds_and_cars():
    own = Spread(0.002, 0.001, 0.0015)
    shared = np.random.default_rng(5).normal(0, 0.01, (400, 1))  # what a seed does to all cells cancels
    tables = [scores(np.random.default_rng(n), 400, 400, own, draws=1)[0] + shared for n in range(2)]
    found = spread_of_differences([tables[1] - tables[0]])
    twice = {name: value * np.sqrt(2) for name, value in vars(own).items()}
    assert vars(found) == pytest.approx(twice, rel=0.1)


def test_the_smallest_difference_is_found_with_the_power_asked_for():
    smallest = smallest_difference(PILOT, 5, 54)
    assert pilot(5, 54, smallest, 0.0, np.random.default_rng(0)).better == pytest.approx(0.8, abs=0.03)


def test_main_effects_show_smaller_differences_than_pairs_and_more_seeds_than_fewer():
    few, many = (what_it_can_detect(PILOT, seeds, 54, models=4, losses=3) for seeds in (3, 10))
    for design in (few, many):
        assert design.losses < design.models < design.single < design.pair
        assert design.equivalent_pair < design.equivalent_single
    assert many.pair < few.pair and many.losses < few.losses
    assert np.isnan(what_it_can_detect(PILOT, 5, 54, models=1, losses=3).models)


def test_a_plan_counts_the_comparisons_with_the_baselines():
    found = detectable(PILOT, 5, 54, {"model": 4, "loss": 3, "size": 1}, rope=0.002)
    assert found["pair"] == smallest_difference(PILOT, 5, 54, comparisons=11)
    assert found["main"]["model"] == smallest_difference(PILOT, 5, 54, comparisons=3, averaged=3)
    assert found["main"]["size"] is None
    assert found["equivalent"] == chances(PILOT, 5, 54, 0.0, 0.002, comparisons=11).equivalent
    looked_at = detectable(PILOT, 5, 54, {"model": 4, "loss": 3}, rope=0.002, level=0.98)
    assert looked_at["pair"] > found["pair"]


def test_the_pilots_spread_comes_back_from_many_seeds_and_cars():
    own = scaled(Spread(0.002, 0.001, 0.0015), np.sqrt(0.5))
    cells = [scores(np.random.default_rng(n), 400, 400, own, draws=1)[0] for n in range(2)]
    assert vars(spread_of(cells)) == pytest.approx({"seed": 0.002, "car": 0.001, "residual": 0.0015}, rel=0.1)


def test_the_pilots_mean_squares_are_unbiased():
    pilots = [[scores(np.random.default_rng((n, k)), 5, 20, PILOT, draws=1)[0] for k in range(2)] for n in range(400)]
    found = [spread_of(cells) for cells in pilots]
    for name in ("seed", "residual"):  # the cars' part is cut at 0
        assert np.mean([vars(s)[name] ** 2 for s in found]) == pytest.approx(2 * vars(PILOT)[name] ** 2, rel=0.1)


def test_a_pilot_or_a_plan_too_small_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="at least two cells"):
        spread_of([np.zeros((5, 4))])
    with pytest.raises(ValueError, match="every verdict is undecided"):
        chances(PILOT, 1, 54, 0.001)


def test_no_spread_at_all_detects_everything():
    nothing = Spread(0, 0, 0)
    assert smallest_difference(nothing, 2, 2) == 0
    assert chances(nothing, 2, 2, 0.002).better == pytest.approx(1) and chances(
        nothing, 2, 2, 0.0
    ).equivalent == pytest.approx(1)
