"""Error rates of intervals and verdicts in simulation: 4,000 draws per case, of the code that a study runs.

`make simulate` averages ten such simulations.
"""

import os
import re

import numpy as np
import pytest

from analysis.report.simulation_tables import DOCUMENT, rendered_tables
from analysis.statistics.simulate import (
    CASES,
    DRAWS,
    RESPONSES,
    Case,
    best_rates,
    family_verdicts,
    pilot,
    run_simulations,
    tables,
    tuned,
)
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results():
    assert DRAWS == 4000
    return averaged([run_simulations(seed) for seed in range(int(os.environ.get("SIMULATIONS", "1")))])


def averaged(parts):
    """The mean of equally nested dictionaries, records and numbers."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: averaged([part[name] for part in parts]) for name in first}
    if isinstance(first, float):
        return float(np.mean(parts))
    columns = zip(*(part if isinstance(part, tuple) else vars(part).values() for part in parts), strict=True)
    return type(first)(*map(averaged, columns))


def test_intervals_cover_at_least_92_percent_in_every_case_and_93_to_97_5_on_average(results):
    covered = {case: rates.covered for case, rates in results.coverage.items()}
    assert min(covered.values()) >= 0.92, min(covered, key=covered.get)
    assert 0.93 <= np.mean(list(covered.values())) <= 0.975


def test_a_false_better_or_worse_is_at_most_6_percent_in_each_case(results):
    false = {case: rates.separated for case, rates in results.coverage.items()}
    assert max(false.values()) <= 0.06, max(false, key=false.get)


def test_a_few_cells_have_no_seed_effect_and_a_few_a_large_one():
    """What the two tests above walk: the design of the simulation itself."""
    for place, values in enumerate(((16, 64), (3, 5, 10), (0.0, 0.25, 1.0, 3.0), (1.0, 3.0, 10.0))):
        assert {case[place] for case in CASES} == set(values)
    assert len(CASES) == 72 and Case(16, 3, 0.0, 10.0) in CASES


def test_a_difference_of_0_001_is_found_in_at_least_70_percent_with_five_seeds(results):
    assert results.verdicts[5].different.better >= 0.70
    assert (
        pilot(5, 54, 0.001, 0.0, np.random.default_rng(1), share=1.0).better >= 0.70
    )  # all the spread in one of the two


def test_equal_cells_are_called_equivalent_in_at_least_90_percent_with_ten_seeds(results):
    assert results.verdicts[10].equal.equivalent >= 0.90


def test_twelve_equal_cells_bring_a_false_verdict_anywhere_in_at_most_8_percent_of_tables(results):
    assert max(verdicts.twelve for verdicts in results.verdicts.values()) <= 0.08


def test_cells_that_differ_by_the_rope_are_called_equivalent_in_at_most_5_percent_of_tables():
    means = np.array([0, 0, 0, 0.001, 0.001, 0.001])
    apart = np.array([means[a] != means[b] for a in range(6) for b in range(a + 1, 6)])
    verdicts = family_verdicts(tables(6, 10, 54, np.random.default_rng(4), means), 0.001)
    assert (verdicts[:, apart] == "equivalent").any(-1).mean() <= 0.05
    assert np.isin(verdicts[:, ~apart], ("better", "worse")).any(-1).mean() <= 0.06


def test_cells_equal_at_their_best_rates_are_called_different_in_at_most_8_percent_tuning_included(results):
    false = {
        case: share for case, share in results.tuning.items() if case[0] in RESPONSES and case[2] == "local parabola"
    }
    assert len(false) == 2 * len(RESPONSES) and max(false.values()) <= 0.08, max(false, key=false.get)
    assert tuned(RESPONSES["steeper above"], 5, 0.5, best_rates, np.random.default_rng(5)).separated <= 0.08


def test_the_luckiest_trial_and_one_global_parabola_exceed_that_error_rate(results):
    assert results.tuning["parabola", 0.5, "luckiest trial"] > 0.15
    assert results.tuning["cliff above", 0.5, "one parabola"] > 0.5


def test_the_documents_tables_are_those_that_the_command_makes(results):
    """Within the third decimal's noise: another version of NumPy may draw other numbers."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in rendered_tables(results).items():
        written = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)[1]
        assert words(written) == words(table), f"type python -m analysis.report.simulation_tables --write ({name})"
        assert numbers(written) == pytest.approx(numbers(table), abs=0.02)


def words(table):
    return re.sub(r"\d\.\d+", "number", table)


def numbers(table):
    return [float(number) for number in re.findall(r"\d\.\d+", table)]


def test_the_document_names_its_command_and_both_languages():
    text = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert "python -m analysis.report.simulation_tables" in text and "置信区间" in text
