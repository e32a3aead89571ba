"""Comparisons with a baseline, the set of possible bests, and looks at a growing study."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.baseline_comparisons import against_baseline
from analysis.statistics.comparisons import compare, compare_all
from analysis.statistics.possible_best import best_set
from analysis.statistics.sequential_looks import look_level


def cells(*means, seeds=5, groups=20, sd=0.001, rng=None):
    rng = rng or np.random.default_rng(0)
    return {
        f"c{n}": mean + sd * rng.standard_normal((seeds, 1)) + sd * rng.standard_normal((seeds, groups))
        for n, mean in enumerate(means)
    }


def test_one_group_is_welch_over_seeds():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.98, 0.001, (9, 1)), rng.normal(0.982, 0.001, (9, 1))
    found, oracle = compare(a, b), stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False)
    assert found.difference == pytest.approx(float(a.mean() - b.mean()))
    assert found.p == pytest.approx(oracle.pvalue, rel=0.35)  # the project's degrees of freedom are a little fewer
    assert found.p >= oracle.pvalue


def test_a_single_other_cell_is_compared_as_compare_does():
    made = cells(0.98, 0.99)
    assert against_baseline(made, "c0")["c1"] == compare(made["c1"], made["c0"])


def test_the_baseline_is_subtracted_and_left_out():
    made = cells(0.98, 0.99, 0.97)
    found = against_baseline(made, "c0")
    assert list(found) == ["c1", "c2"]
    assert found["c1"].verdict == "better" and found["c1"].difference > 0
    assert found["c2"].verdict == "worse" and found["c2"].difference < 0
    assert against_baseline(made, "c0", higher_is_better=False)["c1"].verdict == "worse"


def test_fewer_comparisons_are_narrower_than_all_pairs():
    made = cells(0.98, 0.98, 0.98, 0.98, 0.98, 0.98)
    planned, every = against_baseline(made, "c0"), compare_all(made).comparisons
    assert all(one.high - one.low <= every[name, "c0"].high - every[name, "c0"].low for name, one in planned.items())


@pytest.mark.parametrize(
    ("made", "baseline"), [({}, "c0"), (cells(0.9), "c0"), (cells(0.9, 0.8), "c9")], ids=["none", "alone", "unknown"]
)
def test_a_baseline_without_a_family_is_refused(made, baseline):
    with pytest.raises(ValueError, match="baseline"):
        against_baseline(made, baseline)


def test_a_clearly_lower_cell_is_excluded_as_the_best():
    assert best_set(cells(0.98, 0.98, 0.95)) == ("c0", "c1")
    assert best_set(cells(0.98, 0.98, 0.95), higher_is_better=False) == ("c2",)


def test_the_best_set_of_one_cell_is_itself_and_one_seed_excludes_nothing():
    assert best_set(cells(0.98)) == ("c0",)
    assert best_set(cells(0.98, 0.5, seeds=1)) == ("c0", "c1")


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_the_highest_mean_is_always_a_possible_best(seed, count):
    rng = np.random.default_rng(seed)
    made = cells(*rng.normal(0.98, 0.001, count), seeds=3, groups=4, rng=rng)
    highest = max(made, key=lambda name: made[name].mean())
    assert highest in best_set(made)


def test_a_true_best_is_in_the_set_at_its_level():
    rng = np.random.default_rng(2)
    draws, held = 400, 0
    for _ in range(draws):
        made = cells(0.981, 0.981, 0.981, 0.9805, seeds=4, groups=6, rng=rng)
        held += "c0" in best_set(made)
    assert held / draws >= 0.93


@pytest.mark.parametrize(
    ("looks", "paired", "expected"), [(8, False, 0.0176), (8, True, 0.0122), ((5, 6, 7, 8), True, 0.0226)]
)
def test_the_level_of_a_look(looks, paired, expected):
    """Against values of an independent simulation with 200,000 studies of another random stream."""
    assert look_level(looks, paired=paired) == pytest.approx(expected, rel=0.05)


def test_one_look_takes_the_whole_level_and_more_looks_take_less_each():
    assert look_level(1) == pytest.approx(0.05)
    levels = [look_level(looks) for looks in (1, 2, 4, 8)]
    assert levels == sorted(levels, reverse=True) and levels[-1] > 0.05 / 8
    assert look_level((3, 4, 5)) == look_level(3)


@pytest.mark.parametrize("looks", [0, (), (5, 5), (6, 5), (1, 2)])
def test_looks_that_do_not_rise_are_refused(looks):
    with pytest.raises(ValueError, match="rising"):
        look_level(looks)


def test_looking_that_often_keeps_the_error_rate():
    """Two equal cells, a new seed for each look, another random stream than the function's own."""
    rng, level, false, studies = np.random.default_rng(7), 1 - look_level((3, 4, 5, 6)), 0, 600
    for _ in range(studies):
        a, b = rng.normal(0, 1, (6, 1)), rng.normal(0, 1, (6, 1))
        verdicts = [compare(a[:n], b[:n], rope=0, level=level).verdict for n in (3, 4, 5, 6)]
        false += any(verdict != "undecided" for verdict in verdicts)
    assert false / studies < 0.08
