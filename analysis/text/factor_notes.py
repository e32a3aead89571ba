"""Notes on factors, beside a study's table: interactions between them, and one learning rate for all cells."""

from __future__ import annotations

import numpy as np
from scipy import stats

from analysis.text.wording import phrases
from analysis.verdicts.answer import Answer, Effect


def interactions(answer: Answer, language: str) -> list[str]:
    """State the clearest departure from additivity for each pair of crossed factors, a shared square once."""
    squares: dict[object, Effect] = {}
    for effect in answer.effects:  # two factors may share a square, whose p is adjusted over the squares of each
        if effect.interaction.where:
            place = _square(effect)
            squares[place] = min(squares.get(place, effect), effect, key=lambda effect: effect.interaction.p)
    lines = [_interaction(effect, language) for effect in squares.values()]
    checked = {effect.factor for effect in answer.effects if effect.interaction.where}
    varied = [factor for factor, levels in answer.study.factors.items() if len(levels) > 1]
    missing = [factor for factor in varied if factor not in checked] if len(varied) > 1 and answer.family else []
    return [*lines, phrases("notes", language).interaction_unchecked(factors=missing)] if missing else lines


def _square(effect: Effect) -> frozenset[frozenset[tuple[str, str]]]:
    """The four cells of an interaction, each by its factors and levels, whichever factor comes first."""
    assert effect.interaction.where is not None
    firsts, seconds = effect.interaction.where
    return frozenset(effect.others[second] | {(effect.factor, first)} for first in firsts for second in seconds)


def _interaction(effect: Effect, language: str) -> str:
    """The two differences whose difference it is, the larger one first and turned so that it is not negative."""
    found, mean = effect.interaction, effect.means
    assert found.where is not None
    (a, b), (c, d) = found.where
    first, second, low, high = mean[a, c] - mean[b, c], mean[a, d] - mean[b, d], found.low, found.high
    if abs(second) > abs(first):
        (c, d), first, second, low, high = (d, c), second, first, -high, -low
    if first < 0:
        (a, b), first, second, low, high = (b, a), -first, -second, -high, -low
    levels, numbers = {"a": a, "b": b, "c": c, "d": d}, {"first": first, "second": second, "low": low, "high": high}
    evidence = {"p": found.p, "checked": found.checked, "interacts": found.p <= 0.05}
    return phrases("notes", language).interaction(**levels, **numbers, **evidence)


def one_rate(answer: Answer, language: str) -> list[str]:
    """Compare the highest cell at each shared learning rate with the highest of the runs at their own rates.

    The runs' validation Dice counts, not the top of the curve through the trials, which the luckiest of them draws up.
    """
    study, labels = answer.study, {row.cell: row.label for row in answer.rows}
    trials, own = study.trials, study.finished.groupby("cell").val_dice_last.mean()
    scores = trials.groupby(["rate", "cell"]).value
    means = scores.agg(lambda values: values.mean(skipna=False)).unstack("cell").dropna(how="all")
    means = means[means.notna().sum(axis=1) == trials.cell.nunique()]
    complete = len(study.finished) == len(study.runs) and own.notna().all()
    if trials.cell.nunique() < 2 or not len(means) or not complete or set(means) != set(own.index):
        return []
    highest: dict[str, list[str]] = {}
    for rate, cell in means.idxmax(axis=1).items():
        highest.setdefault(labels[str(cell)], []).append(f"{rate:.2g}")
    best, own = labels[str(own.idxmax())], own[list(means)]
    table = means.to_numpy()
    return [
        phrases("notes", language).one_rate(
            trials=sorted({scores.size().min(), scores.size().max()}),
            highest=highest,
            leads=[float(high - second) for *_, second, high in np.sort(table, axis=1)],
            best=best,
            others=len(means) - len(highest.get(best, [])),
            rates=len(means),
            taus=[float(stats.kendalltau(row, own.to_numpy()).statistic) for row in table],
        )
    ]
