"""Verdicts: the contract, properties, and oracles (SciPy's t-tests, a slow reference, a plain Holm)."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.comparisons import Comparison, adjust, classify, compare, compare_all
from analysis.statistics.estimator import Estimate, contrast, summarise_cell
from tests.conftest import examples

RNG = np.random.default_rng(0)


def cell(seeds=5, cars=20, mean=0.99, seed=0.0006, car=0.0003, residual=0.001, rng=RNG):
    effects = (
        seed * rng.normal(size=(seeds, 1))
        + car * rng.normal(size=(1, cars))
        + residual * rng.normal(size=(seeds, cars))
    )
    return mean + effects


def about(comparison: Comparison, **tolerance):
    """`comparison`, to be compared with one whose numbers were computed in another way."""
    numbers = {name: getattr(comparison, name) for name in ("difference", "low", "high", "p")}
    close = {name: pytest.approx(value, **{"rel": 1e-6, "abs": 1e-9} | tolerance) for name, value in numbers.items()}
    return dataclasses.replace(comparison, **close)


# --- the contract ---


def test_equal_arrays_differ_by_nothing_and_are_equivalent():
    a = cell()
    for b in (a, a.copy(), a[::-1]):
        assert compare(a, b) == Comparison(0.0, 0.0, 0.0, 1.0, "equivalent", False)
        assert compare(a, b, rope=0).verdict == "equivalent"


@pytest.mark.parametrize("seeds", [(1, 1), (1, 5), (5, 1)])
def test_one_seed_gives_the_means_and_is_always_undecided(seeds):
    a, b = cell(seeds[0]), cell(seeds[1], mean=0.5)
    found = compare(a, b)
    assert found == Comparison(pytest.approx(a.mean() - b.mean()), -math.inf, math.inf, 1.0, "undecided", False)
    assert compare(a[:1], a[:1]).verdict == "undecided"


def test_one_car_is_compared_over_seeds_alone():
    found = compare(cell(cars=1), cell(cars=1, mean=0.5))
    assert found.verdict == "better" and found.low > 0


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.001, 0.001, "equivalent"),
        (0.0001, 0.0009, "equivalent"),  # looked at before its sign
        (0.0001, 0.0011, "better"),
        (0.002, 0.003, "better"),
        (-0.003, -0.0001, "worse"),
        (-0.0011, 0.0001, "undecided"),
        (-math.inf, math.inf, "undecided"),
    ],
)
def test_a_verdict_is_read_off_the_interval(low, high, verdict):
    low, high = np.array([low]), np.array([high])
    assert classify(low, high, 0.001) == verdict
    turned = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert classify(low, high, 0.001, higher_is_better=False) == turned


def test_a_difference_beyond_the_rope_says_so():
    assert compare(cell(mean=0.98), cell()).exceeds_rope and compare(cell(), cell(mean=0.98)).exceeds_rope
    little = compare(cell(100, 200, 0.9912), cell(100, 200), rope=0.00119)
    assert little.verdict == "better" and not little.exceeds_rope


def test_lower_is_better_turns_the_verdict_and_not_the_difference():
    a, b = cell(mean=0.98), cell()
    up, down = compare(a, b), compare(a, b, higher_is_better=False)
    assert (up.verdict, down.verdict) == ("worse", "better")
    assert dataclasses.replace(up, verdict="better") == down and down.difference == pytest.approx(a.mean() - b.mean())


def test_scores_that_do_not_vary_give_no_nan_and_no_division_by_zero(recwarn):
    a, b = np.full((3, 4), 0.9), np.full((5, 4), 0.8)
    assert compare(a, b).p == 0 and compare(a, b).verdict == "better" and compare(a, b).low == pytest.approx(0.1)
    assert compare(a, np.full((5, 4), 0.9), rope=0) == Comparison(0.0, 0.0, 0.0, 1.0, "equivalent", False)
    assert compare(a, cell(cars=4)).verdict == "worse"
    assert not recwarn.list


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (cell()[0], cell(), "pass scores\\[None\\]"),
        (cell(cars=3), cell(cars=4), "same cars"),
        (np.full((2, 3), np.nan), cell(2, 3), "scores of a hold NaN"),
        (cell(2, 3), np.full((2, 3), np.inf), "scores of b hold NaN"),
        (np.zeros((0, 3)), cell(cars=3), "at least one of each"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_in_a_sentence(a, b, says):
    with pytest.raises(ValueError, match=says):
        compare(a, b)


@pytest.mark.parametrize("wrong", [{"rope": -1}, {"rope": math.nan}, {"level": 1}, {"level": 95}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rope|level"):
        compare(cell(), cell(), **wrong)


# --- properties ---

tables = st.builds(
    lambda seed, seeds, cars, shift: (
        cell(seeds[0], cars, rng=np.random.default_rng(seed)),
        cell(seeds[1], cars, 0.99 + shift, rng=np.random.default_rng(seed + 1)),
    ),
    st.integers(0, 10**6), st.tuples(st.integers(2, 6), st.integers(2, 6)), st.integers(2, 12),
    st.sampled_from([0, 0.0005, 0.003]),
)  # fmt: skip


@examples(60)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_the_two_mirrors_and_the_order_of_seeds_and_cars_changes_nothing(pair, random):
    a, b = pair
    found = compare(a, b)
    assert compare(b, a) == found.mirrored()
    cars = random.sample(range(a.shape[1]), a.shape[1])
    assert compare(a[::-1][:, cars], b[random.sample(range(len(b)), len(b))][:, cars]) == about(found)
    assert (found.p <= 0.05) == (found.low > 0 or found.high < 0)


@examples(60)
@given(tables, st.floats(-5, 5), st.sampled_from([0.25, 8.0, 100.0]))
def test_another_zero_and_another_unit_change_nothing_but_the_unit(pair, zero, unit):
    a, b = pair
    assume(abs(abs(compare(a, b).p - 0.05)) > 1e-6)
    found, other = compare(a, b), compare(zero + unit * a, zero + unit * b, rope=unit * 0.001)
    scaled = dataclasses.replace(
        found, difference=unit * found.difference, low=unit * found.low, high=unit * found.high
    )
    assert other == about(scaled, abs=1e-9 * unit)


# --- oracles ---


@pytest.mark.parametrize("seeds", [(2, 2), (5, 3), (200, 300)])
def test_where_cars_add_nothing_it_is_welchs_t_test_of_the_seeds_means(seeds):
    """Every car of a run has the same score, so only the seeds' means count, with the documented degrees of freedom."""
    a, b = (np.repeat(RNG.normal(0.99, sd, (n, 1)), 8, axis=1) for n, sd in zip(seeds, (0.001, 0.002), strict=True))
    oracle, found = stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False), compare(a, b)
    df = moved_df(1 / oracle.df, *(y[:, 0].var(ddof=1) / len(y) for y in (a, b)), fewest=min(seeds))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(oracle.statistic), df), rel=1e-9)
    assert found.difference / (found.high - found.difference) == pytest.approx(
        oracle.statistic / stats.t.isf(0.025, df)
    )
    if min(seeds) >= 200:
        ends = oracle.confidence_interval(0.95)
        assert (found.p, found.low, found.high) == pytest.approx((oracle.pvalue, ends.low, ends.high), rel=1e-2)


def test_where_one_cell_does_not_vary_it_is_the_one_sample_t_test():
    a, b = np.repeat(RNG.normal(0.99, 0.001, (4, 1)), 8, axis=1), np.full((4, 8), 0.989)
    oracle = stats.ttest_1samp(a[:, 0], 0.989)
    found, ends = compare(a, b), oracle.confidence_interval(0.95)
    assert (found.p, found.low + 0.989, found.high + 0.989) == pytest.approx(
        (oracle.pvalue, ends.low, ends.high), rel=1e-6
    )


def moved_df(inverse, *parts, fewest):
    """Welch's 1/f, moved towards that of the fewest seeds by the largest share over their number."""
    return 1 / (inverse + max(parts) / sum(parts) / fewest * (1 / (fewest - 1) - inverse))


def test_where_seeds_add_nothing_it_is_the_paired_t_test_over_cars():
    a, b = (np.repeat(RNG.normal(0.99, 0.001, (1, 9)), n, axis=0) for n in (4, 5))
    oracle = stats.ttest_rel(a[0], b[0])
    found, ends = compare(a, b), oracle.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((oracle.pvalue, ends.low, ends.high), rel=1e-6)


def test_paired_seeds_without_car_effects_are_the_paired_t_test_over_seeds():
    a, b = (np.repeat(RNG.normal(0.99, 0.001, (6, 1)), 8, axis=1) for _ in range(2))
    oracle = stats.ttest_rel(a[:, 0], b[:, 0])
    assert compare(a, b, paired_seeds=True).p == pytest.approx(oracle.pvalue, rel=1e-9)
    with pytest.raises(ValueError, match="Seeds cannot be paired"):
        compare(a, b[:3], paired_seeds=True)


def slow_twin(a, b, alpha=0.05):
    """The docstring of analysis.statistics.estimator in plain loops: the difference and half the interval's width."""
    between, parts, residual = 0.0, [], 0.0
    for y in (a, b):
        seeds, cars = len(y), len(y[0])
        grand = sum(map(sum, y)) / (seeds * cars)
        rows = [sum(row) / cars for row in y]
        columns = [sum(row[c] for row in y) / seeds for c in range(cars)]
        parts.append(sum((r - grand) ** 2 for r in rows) / (seeds - 1) / seeds)
        left = sum((y[s][c] - rows[s] - columns[c] + grand) ** 2 for s in range(seeds) for c in range(cars))
        residual += left / ((seeds - 1) * (cars - 1)) / (seeds * cars)
    by_car = [sum(r[c] for r in a) / len(a) - sum(r[c] for r in b) / len(b) for c in range(cars)]
    difference = sum(by_car) / cars
    between = sum((d - difference) ** 2 for d in by_car) / (cars - 1) / cars
    inverse = sum(part**2 / (len(y) - 1) for part, y in zip(parts, (a, b), strict=True)) / sum(parts) ** 2
    f = moved_df(inverse, *parts, fewest=min(len(a), len(b)))
    squares = stats.t.isf(alpha / 2, f) ** 2 * sum(parts) + stats.t.isf(alpha / 2, cars - 1) ** 2 * max(
        between - residual, 0
    )
    return difference, math.sqrt(squares)


@pytest.mark.parametrize("car", [0.0, 0.0003, 0.003])
@pytest.mark.parametrize("seeds", [(2, 2), (5, 5), (10, 3)])
def test_the_interval_is_that_of_a_slow_twin_and_its_p_is_where_the_twin_touches_zero(seeds, car):
    for _ in range(4):
        a, b = cell(seeds[0], car=car), cell(seeds[1], mean=0.991, car=car)
        found, (difference, half) = compare(a, b), slow_twin(a.tolist(), b.tolist())
        assert (found.difference, found.high - found.difference) == pytest.approx((difference, half), rel=1e-9)
        assert slow_twin(a.tolist(), b.tolist(), found.p)[1] == pytest.approx(abs(difference), rel=1e-6)


def test_leading_axes_are_many_comparisons_at_once():
    a, b = np.stack([cell(4) for _ in range(6)]), np.stack([cell(3, mean=0.991) for _ in range(6)])
    estimate = contrast([summarise_cell(a), summarise_cell(b)], [1, -1])
    for n in range(6):
        assert estimate.p(np.abs(estimate.value))[n] == pytest.approx(compare(a[n], b[n]).p)


# --- families ---


def plain_holm(p):
    adjusted, so_far = {}, 0.0
    for k, name in enumerate(sorted(p, key=p.get)):
        so_far = max(so_far, min(1.0, (len(p) - k) * p[name]))
        adjusted[name] = so_far
    return adjusted


def family_of(seed, cells=6, rope=0.001):
    rng = np.random.default_rng(seed)
    means = 0.99 + rng.choice([0, 0.0004, 0.003], cells)
    return {f"m{n}": cell(5, 30, mean, rng=rng) for n, mean in enumerate(means)}


@pytest.mark.parametrize("seed", range(8))
def test_a_familys_p_is_holms_wherever_it_is_not_about_equivalence(seed):
    cells = family_of(seed)
    names = list(cells)
    pairs = [(a, b) for n, a in enumerate(names) for b in names[n + 1 :]]
    oracle = plain_holm({pair: compare(*(cells[name] for name in pair)).p for pair in pairs})
    found = compare_all(cells, rope=0).comparisons  # without a rope nothing is equivalent
    assert {pair: found[pair].p for pair in pairs} == pytest.approx(oracle)
    assert {pair for pair in pairs if found[pair].verdict != "undecided"} == {
        pair for pair in pairs if oracle[pair] <= 0.05
    }


@pytest.mark.parametrize("rope", [0.0, 0.0005, 0.001, 0.002])
@pytest.mark.parametrize("seed", range(6))
def test_every_verdict_of_a_family_is_read_off_its_own_interval_and_agrees_with_its_p(seed, rope):
    found = compare_all(family_of(seed), rope=rope).comparisons
    for (a, b), comparison in found.items():
        assert comparison.verdict == classify(np.array(comparison.low), np.array(comparison.high), rope)
        assert (comparison.p <= 0.05) == (comparison.low > 0 or comparison.high < 0)
        assert found[b, a] == comparison.mirrored()


@pytest.mark.parametrize("seed", range(6))
def test_a_familys_interval_is_never_narrower_than_the_pairs_own(seed):
    cells = family_of(seed)
    for (a, b), comparison in compare_all(cells).comparisons.items():
        own = compare(cells[a], cells[b])
        assert comparison.low <= own.low and comparison.high >= own.high and comparison.p >= own.p


def test_a_family_of_two_is_a_comparison():
    cells = {"a": cell(), "b": cell(mean=0.992)}
    assert compare_all(cells).comparisons["a", "b"] == compare(cells["a"], cells["b"])


def estimates(values, errors, df=20.0):
    values, errors = np.array(values, float), np.array(errors, float)
    nothing = np.zeros_like(values)
    return Estimate(values, errors**2, nothing + df, nothing, nothing + 1)


def test_a_pair_found_equivalent_lends_nothing_to_a_false_difference():
    """One p of 0.02 among nineteen clearly equivalent pairs: Holm over all verdicts together would let it through."""
    p = 0.02
    value = stats.t.isf(p / 2, 20) * 1.0
    low, high, adjusted = adjust(estimates([value, *[0.0] * 19], [1.0, *[0.1] * 19]), 2.0, 0.05)
    assert list(classify(low, high, 2.0)) == ["undecided", *["equivalent"] * 19]
    assert adjusted[0] == pytest.approx(20 * p)


def test_a_pair_found_different_lends_nothing_to_a_false_equivalence():
    reach = 2.0 - stats.t.isf(0.02 / 2, 20) * 0.1  # inside the rope at error rate 0.02, alone
    low, high, _ = adjust(estimates([reach - 1.5, *[5.0] * 19], [0.1 + 0.5, *[0.1] * 19]), 2.0, 0.05)
    assert classify(low, high, 2.0)[0] == "undecided"


def test_a_rejected_difference_inside_the_rope_is_not_equivalent_unless_holm_says_so():
    """The last of many differences is tested at alpha itself; its interval inside the rope is not, and gets wider."""
    low, high, p = adjust(estimates([1.0, *[50.0] * 19], [0.35, *[1.0] * 19]), 2.0, 0.05)
    assert (low[0] < 0) == (p[0] > 0.05) and classify(low, high, 2.0)[0] != "equivalent"


def test_one_cell_is_no_family():
    with pytest.raises(ValueError, match="at least two cells"):
        compare_all({"a": cell()})
