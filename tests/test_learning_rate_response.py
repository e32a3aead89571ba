"""The learning rate from tuning trials: the top of a local parabola, its uncertainty, and the range's edge."""

import numpy as np
import pytest

from analysis.statistics.learning_rate_response import EDGE, SPAN, best_rates, fit_response

RATES = np.repeat(np.geomspace(1e-4, 1e-2, 7), 3)
RNG = np.random.default_rng(0)


def trials(best=1e-3, noise=0.0, steep=0.01, rates=RATES, rng=RNG):
    return 0.99 - steep * np.log10(rates / best) ** 2 + noise * rng.normal(size=rates.size)


@pytest.mark.parametrize("best", [3e-4, 1e-3, 2.3e-3])
def test_the_top_of_a_parabola_is_found_exactly(best):
    found = fit_response(RATES, trials(best))
    assert (found.rate, found.score) == (pytest.approx(best), pytest.approx(0.99))
    assert (found.low, found.high) == pytest.approx((best, best)) and found.expected_loss == pytest.approx(0, abs=1e-12)
    assert best_rates(RATES, trials(best)) == pytest.approx(best)


def test_the_fit_is_numpys_weighted_polynomial_around_its_own_top():
    scores = trials(noise=0.001)
    found, x = fit_response(RATES, scores), np.log(RATES)
    top, every = np.log(found.rate), np.unique(np.log(RATES))
    reach = max(SPAN * np.ptp(every), 1.2 * np.sort(np.abs(every - top))[3])
    weight = np.clip(1 - np.abs((x - top) / reach) ** 3, 0, None) ** 3
    bend, slope, level = np.polyfit(x - top, scores, 2, w=np.sqrt(weight))  # NumPy squares its weights
    assert slope == pytest.approx(0, abs=1e-6) and found.score == pytest.approx(level)
    assert found.curve == pytest.approx(level + bend * np.log(found.rates / found.rate) ** 2, abs=1e-7)


def test_the_rates_interval_holds_the_best_rate_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [fit_response(RATES, trials(noise=0.001, rng=rng)) for _ in range(600)]
    assert np.mean([f.low <= 1e-3 <= f.high for f in found]) == pytest.approx(0.95, abs=0.03)
    lost = np.mean([0.01 * np.log10(f.rate / 1e-3) ** 2 for f in found])
    assert np.mean([f.expected_loss for f in found]) == pytest.approx(lost, rel=0.25)


def test_a_cliff_far_above_does_not_pull_the_top():
    scores = trials(5e-4)
    scores[RATES > 9e-3] = 0.3
    assert fit_response(RATES, scores).rate == pytest.approx(5e-4, rel=0.02)


def test_a_lucky_trial_does_not_decide():
    scores = trials(1e-3)
    scores[0] += 0.012  # the lowest rate, once: now the best of all trials
    assert scores.argmax() == 0 and fit_response(RATES, scores).rate == pytest.approx(1e-3, rel=0.25)


def test_a_dip_at_the_top_of_a_flat_response_does_not_send_the_search_in_circles(monkeypatch):
    """Validation Dice of a real cell: the narrow parabola at 0.02 is a valley, which sent the search to 0.1118."""
    rates = np.geomspace(8.94428e-4, 0.111803, 7)
    scores = np.array([0.9792118, 0.982742, 0.9846924, 0.9847782, 0.9843277, 0.9852231, 0.9808848])
    found = fit_response(rates, scores)
    assert 0.004 < found.rate < 0.06 and not found.at_edge and found.score == pytest.approx(0.985, abs=0.001)
    every = np.stack([scores, scores[::-1], 0.99 - 0.01 * np.log10(rates / 0.01) ** 2])  # settled ones keep their width
    rate = best_rates(rates, every)
    assert rate == pytest.approx([fit_response(rates, one).rate for one in every])
    for steps in (11, 12, 13):  # where a search ends must not depend on when it is stopped
        monkeypatch.setattr("analysis.statistics.learning_rate_response.STEPS", steps)
        assert best_rates(rates, every) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(
    ("best", "at_edge"),
    [
        (1e-3, False),
        (1e-2, True),
        (1e-4, True),
        (1e-5, True),
        (1e-1, True),
        (10 ** (-4 + 2.2 * EDGE), False),
        (10 ** (-4 + 1.8 * EDGE), True),
    ],
)
def test_a_top_in_the_outer_sixth_of_the_range_says_so(best, at_edge):
    assert fit_response(RATES, trials(best)).at_edge is at_edge


def test_a_response_without_a_top_ends_at_the_edge_with_unknown_uncertainty():
    found = fit_response(RATES, 0.9 + 0.01 * np.log10(RATES) ** 2)  # a valley: no curvature to hold on to
    assert found.at_edge and found.expected_loss == float("inf")
    assert (found.low, found.high) == pytest.approx((RATES.min(), RATES.max()))


def test_rates_tried_once_have_a_top_but_no_measured_uncertainty():
    once = np.geomspace(1e-4, 1e-2, 7)
    found = fit_response(once, trials(rates=once))
    assert (found.rate, found.low, found.high) == pytest.approx((1e-3, once[0], once[-1]))


def test_a_diverged_rate_is_left_out_with_all_beyond_it_and_the_range_stays():
    scores = trials(1e-3)
    scores[16] = np.nan  # one trial of the sixth of seven rates
    found = fit_response(RATES, scores)
    assert found.rate == pytest.approx(1e-3) and found.rates.max() <= np.unique(RATES)[4] * 1.001
    steep = trials(6e-3)
    steep[18:] = np.inf
    assert fit_response(RATES, steep).at_edge  # its top lies between the last stable rate and the first that diverged


def test_lower_is_better_turns_the_curve():
    found = fit_response(RATES, 1 - trials(5e-4), higher_is_better=False)
    assert found.rate == pytest.approx(5e-4) and found.score == pytest.approx(0.01) and found.curve.min() >= 0.01 - 1e-9


def test_many_cells_at_once_get_what_each_gets_alone():
    scores = np.stack([trials(best, 0.002) for best in (3e-4, 1e-3, 4e-3)])
    assert best_rates(RATES, scores) == pytest.approx([fit_response(RATES, row).rate for row in scores])


@pytest.mark.parametrize(
    ("rates", "scores", "says"),
    [
        (RATES[:9], trials()[:9], "has 3: try more rates"),
        (RATES, trials()[:-1], "one rate and one score each"),
        (-RATES, trials(), "positive number"),
        (RATES, np.full(21, np.nan), "Try lower rates"),
    ],
)
def test_trials_that_show_no_curve_are_refused_in_a_sentence(rates, scores, says):
    with pytest.raises(ValueError, match=says):
        fit_response(rates, scores)
