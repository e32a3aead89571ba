"""The notes beside a table: ceiling, power, protocol, use of the test cars, interactions, one learning rate for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.records.test_set_ledger import times_read
from analysis.statistics.seed_pairing import seed_correlation
from analysis.text.wording import Phrases, phrases
from analysis.verdicts.answer import Answer, Effect
from analysis.verdicts.observed_power import observe_power


def study_notes(answer: Answer, ledger: pd.DataFrame, language: str) -> list[str]:
    """List the notes, a line of plain text each; a note whose numbers are not known says so."""
    study, words = answer.study, phrases("notes", language)
    closing = [*_no_longer_planned(answer, words), *(getattr(words, kind)(count=n) for kind, n in study.notices)]
    if not len(study.finished):
        spent = len(study.trials) or len(study.runs[study.runs.state == "failed"])
        return [_design(answer, words), *([_spent(answer, words)] if spent else []), *closing]
    return [
        words.legend(rope=study.rope),
        *_images(answer, words),
        _ceiling(study.finished, words),
        _design(answer, words),
        _protocol(study.finished, words),
        *(words.readings(cars=cars, runs=runs, studies=n) for cars, runs, n in times_read(ledger, study)),
        *interactions(answer, language),
        *_conditions(answer, words),
        *_correlation(answer, words),
        *one_rate(answer, language),
        *_faulty_masks(answer, words),
        _spent(answer, words),
        *closing,
    ]


def _images(answer: Answer, words: Phrases) -> list[str]:
    """How large the data are, and in which pixels everything was scored: copies of one data set differ in both."""
    known, scores = answer.study.plan.get("photographs"), answer.study.scores
    if not known:
        return []
    return [
        words.images(
            data=_texts(answer.study.finished.data),
            images=known["photographs"],
            groups=known["groups"],
            test_images=scores.image.nunique(),
            test_groups=scores.group.nunique(),
            sizes=known["sizes"],
        )
    ]


def _ceiling(runs: pd.DataFrame, words: Phrases) -> str:
    known = runs.dropna(subset=["ceiling"]).drop_duplicates("size").sort_values("size")
    return words.ceiling(ceilings=list(zip(known["size"], known.ceiling, strict=True)))


def _design(answer: Answer, words: Phrases) -> str:
    """What the plan expected to detect, and what the spread of the scores gives."""
    detectable = answer.study.plan.get("detectable") or {}
    planned = {"main": {}, "pair": None, "equivalent": None} | {k: v for k, v in detectable.items() if v is not None}
    source = (answer.study.plan.get("variances") or {}).get("source", "")
    return words.design(
        planned=planned if detectable else None, source=source, observed=observe_power(answer) if detectable else None
    )


def _protocol(runs: pd.DataFrame, words: Phrases) -> str:
    return words.protocol(
        devices=_texts(runs.device),
        precisions=_texts(runs.precision),
        threads=_texts(runs.threads),
        protocols=_texts(runs.protocol),
        epochs=_numbers(runs.epochs),
        steps=_numbers(runs.epoch_steps),
        batches=_numbers(runs.batch_size),
    )


def _conditions(answer: Answer, words: Phrases) -> list[str]:
    """On what the verdicts are conditional."""
    judged, runs = [answer.scores[row.cell] for row in answer.judged], answer.study.finished
    if len(judged) < 2:
        return []
    sets = len(runs[["split", "fold", "train_cars"]].drop_duplicates()) * (1 + (runs.split == "image").any())
    trials = max(row.trials for row in answer.judged) if answer.study.plan.get("tuning") else 0
    return [
        words.conditions(
            seeds=sorted({len(scores) for scores in judged}),
            cars=judged[0].shape[1],
            epochs=_texts(runs.epochs),
            steps=_numbers(runs.epoch_steps),
            trials=trials,
            one_a_rate=not answer.study.trials.duplicated(["cell", "rate"]).any(),
            data=_texts(runs.data),
            sizes=_texts(runs["size"]),
            one_training_set=sets == 1,
            rope=answer.study.rope,
        )
    ]


def _correlation(answer: Answer, words: Phrases) -> list[str]:
    """The seeds' correlation between cells, where it can be measured."""
    cells = {row.cell: answer.scores[row.cell] for row in answer.judged}
    if len(cells) < 2 or len({len(scores) for scores in cells.values()}) > 1:
        return []
    found = seed_correlation(cells)
    return [] if np.isnan(found.overall) else [words.seed_correlation(correlation=found.overall, p=found.p)]


def _faulty_masks(answer: Answer, words: Phrases) -> list[str]:
    """What the publicly listed faulty masks among the test images change."""
    without = answer.faultless
    if without is None or not answer.measured:
        return []
    if not without.images:
        return [words.no_faulty_masks()]
    most = max(abs(without.dice[row.cell] - row.dice) for row in answer.measured)
    return [words.faulty_masks(images=without.images, most=most, changed=without.changed)]


def _no_longer_planned(answer: Answer, words: Phrases) -> list[str]:
    """The cells that only an earlier plan had."""
    cells = [str(cell["cell"]) for cell in answer.study.cells if cell.get("kept")]
    return [words.no_longer_planned(cells=cells)] if cells else []


def _spent(answer: Answer, words: Phrases) -> str:
    """What the study cost in runs, trials and hours of training."""
    runs, trials = answer.study.finished, answer.study.trials
    return words.spent(
        runs=len(runs),
        failed=int((answer.study.runs.state == "failed").sum()),
        trials=len(trials),
        lent=int((trials.seconds.isna() & (trials.state == "finished")).sum()),
        hours=(runs.training_seconds.sum() + trials.seconds.sum()) / 3600,
    )


def _texts(column: pd.Series) -> list[str]:
    """The values that occur, as text."""
    return sorted(set(column.dropna().astype(str)))


def _numbers(column: pd.Series) -> list[Any]:
    """The whole numbers that occur."""
    return sorted(set(column.dropna().astype(int)))


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
