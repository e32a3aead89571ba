"""Effects averaged over a factor, the seeds' correlation, and the interval of one cell."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.comparisons import as_comparisons, compare, compare_all, planned_contrast
from analysis.statistics.estimator import contrast, stack, summarise_cell
from analysis.statistics.power import Spread
from analysis.statistics.seed_pairing import pairing_helps, seed_correlation
from analysis.statistics.simulate_intervals import PILOT, scaled, scores

MODELS, LOSSES = ("unet", "attention", "resnet"), ("bce", "dice")


def grid(seed=0, dice=0.0, odd=0.0, seeds=5, cars=30):
    """A table of cells: `dice` better with every model, and one cell off by `odd`."""
    rng = np.random.default_rng(seed)
    return {
        (m, loss): 0.99
        + dice * (loss == "dice")
        + odd * ((m, loss) == ("resnet", "dice"))
        + scores(rng, seeds, cars, PILOT, 1)[0]
        for m in MODELS
        for loss in LOSSES
    }


# --- effects averaged over the other factor ---


def average(cells):
    """Dice minus BCE, averaged over the models: its estimate and its comparison."""
    weights = {(m, loss): sign / len(MODELS) for loss, sign in (("dice", 1), ("bce", -1)) for m in MODELS}
    estimate = planned_contrast([cells[key] for key in weights], list(weights.values()))
    return as_comparisons(stack([estimate]), 0.001, True, 0.95)[0]


def test_an_average_effect_is_the_mean_of_the_pairs_differences_and_narrower_than_they_are():
    cells = grid(dice=0.001)
    effect = average(cells)
    pairs = [compare(cells[m, "dice"], cells[m, "bce"]) for m in MODELS]
    assert effect.difference == pytest.approx(np.mean([pair.difference for pair in pairs]))
    assert effect.high - effect.low < min(pair.high - pair.low for pair in pairs)
    assert effect.verdict == "better"


def test_without_car_effects_an_average_effect_is_a_t_test_with_the_documented_degrees_of_freedom():
    rng = np.random.default_rng(1)
    cells = {key: np.repeat(rng.normal(0.99, 0.001 * (1 + n), (4, 1)), 6, axis=1) for n, key in enumerate(grid())}
    variances = np.array([cell[:, 0].var(ddof=1) / 4 for cell in cells.values()]) / len(MODELS) ** 2
    share = variances / variances.sum()
    inverse = (share**2 / 3).sum()
    df = 1 / (inverse + share.max() / 4 * (1 / 3 - inverse))
    half = stats.t.isf(0.025, df) * np.sqrt(variances.sum())
    effect = average(cells)
    assert (effect.high - effect.low) / 2 == pytest.approx(half)


def test_an_average_effects_interval_covers_in_simulation():
    rng, missed = np.random.default_rng(2), []
    for spread in (PILOT, Spread(0.0, 0.0003, 0.001), Spread(0.003, 0.001, 0.001)):
        cells = [summarise_cell(scores(rng, 3, 32, scaled(spread, factor))) for factor in (1, 1, 1, 3, 1, 1)]
        estimate = contrast(cells, [1 / 3] * 3 + [-1 / 3] * 3)
        missed.append(float((np.abs(estimate.value) > estimate.half_width(0.05)).mean()))
    assert max(missed) <= 0.06 and np.mean(missed) >= 0.025


# --- seeds ---


def shared(seed, correlation, cells=6, seeds=5):
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(seeds, 1)), rng.normal(size=(cells, seeds, 1))
    effects = 0.001 * (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)
    return {n: 0.99 + effects[n] + 0.0001 * rng.normal(size=(seeds, 20)) for n in range(cells)}


def test_the_seeds_correlation_is_the_intraclass_one():
    cells = shared(0, 0.5)
    found, means = seed_correlation(cells), np.stack([cell.mean(1) for cell in cells.values()])
    covariance = np.cov(means)
    off = covariance[~np.eye(6, dtype=bool)]
    assert found.overall == pytest.approx(off.mean() / np.diag(covariance).mean())


def test_the_p_of_a_common_seed_effect_is_that_of_the_two_way_table():
    """For two cells the F-test over seeds is known in closed form from the correlation of sum and difference."""
    means = np.stack([cell.mean(1) for cell in shared(3, 0.5).values()])
    centred = means - means.mean(1, keepdims=True)
    by_seed = centred.mean(0)
    common = 6 * (by_seed**2).sum() / 4
    own = ((centred - by_seed) ** 2).sum() / 20
    assert seed_correlation(shared(3, 0.5)).p == pytest.approx(stats.f.sf(common / own, 4, 20))


def test_seeds_are_paired_only_where_that_helps():
    strong, none = shared(0, 0.95), shared(1, 0.0)
    assert pairing_helps(list(strong.values())) and not pairing_helps(list(none.values()))
    paired, plain = compare_all(strong, paired_seeds=None), compare_all(strong)
    assert paired.paired_seeds and not plain.paired_seeds and not compare_all(none, paired_seeds=None).paired_seeds
    widths = [[c.high - c.low for c in family.comparisons.values()] for family in (paired, plain)]
    assert np.mean(widths[0]) < np.mean(widths[1])


def test_independent_seeds_are_hardly_ever_paired():
    assert np.mean([pairing_helps(list(shared(seed, 0.0).values())) for seed in range(500)]) <= 0.025


def test_a_correlation_that_cannot_be_measured_is_nan_and_pairs_nothing():
    cells = shared(0, 0.9)
    cells[0] = cells[0][:4]
    found = seed_correlation(cells)
    assert np.isnan(found.overall) and not pairing_helps(list(cells.values()))
    constant = {n: np.full((5, 4), 0.9) for n in range(2)}
    assert np.isnan(seed_correlation(constant).overall) and not pairing_helps(list(constant.values()))
    assert not pairing_helps([np.zeros((2, 4)), np.ones((2, 4))])


# --- one cell ---


def test_a_cells_mean_has_an_interval_over_seeds_and_cars_that_covers():
    rng = np.random.default_rng(4)
    for spread in (Spread(0.001, 0.002, 0.001), Spread(0.001, 0.0, 0.001), Spread(0.0, 0.002, 0.001)):
        estimate = contrast([summarise_cell(scores(rng, 4, 24, spread))], [1])
        assert 0.94 <= (np.abs(estimate.value) <= estimate.half_width(0.05)).mean() <= 0.985
