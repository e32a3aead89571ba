"""Tuned learning rates of a study: the fit of each network's trials, and what their uncertainty costs comparisons."""

from __future__ import annotations

import json

import pandas as pd

from analysis.records.study_results import Study
from analysis.statistics.pooled_learning_rates import PooledRates, fit_pooled_rates
from analysis.statistics.rate_cost import RateCost, study_rate_cost


def pooled_fits(study: Study) -> dict[str, PooledRates]:
    """By cell, the fit of its network's trials; nothing for a study whose plan fits each cell by itself."""
    fits: dict[str, PooledRates] = {}
    networks = _networks(study)
    for network in dict.fromkeys(networks.values()):
        trials = {cell: part for cell, part in trials_of(study).items() if networks[cell] == network}
        trials = {cell: part for cell, part in trials.items() if part[1].notna().sum() > 1}
        try:
            fits |= dict.fromkeys(trials, fit_pooled_rates(trials))
        except ValueError:
            continue  # too few trials for a curve
    return fits


def rate_cost(study: Study) -> RateCost | None:
    """What the uncertainty of the rates adds to every comparison; None where they were given, or fitted cell by cell.

    Raises ValueError where a network has too few trials for its fit.
    """
    networks = _networks(study)
    if not networks:
        return None
    rates = study.finished.groupby("cell").rate.first()
    tuned = {cell: trials for cell, trials in trials_of(study).items() if cell in networks and cell in rates}
    if not tuned:
        return None
    return study_rate_cost(tuned, networks, {cell: float(rates[cell]) for cell in tuned})


def trials_of(study: Study) -> dict[str, tuple[pd.Series, pd.Series]]:
    """By cell, the rates and scores of its trials; a trial that did not finish has NaN."""
    return {
        str(cell): (part.rate.astype(float), part.value.where(part.state == "finished").astype(float))
        for cell, part in study.trials.groupby("cell", sort=False)
    }


def _networks(study: Study) -> dict[str, str]:
    """By cell, the name of the network with which its trials are fitted; nothing for fits cell by cell."""
    if (study.plan.get("tuning") or {}).get("fit") != "pooled":
        return {}
    settings = {cell["cell"]: cell.get("settings", {}) for cell in study.cells}
    return {
        cell: json.dumps([of.get("model"), of.get("model_kwargs")], sort_keys=True) for cell, of in settings.items()
    }
