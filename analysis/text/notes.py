"""What stands beside a study's table: how it was done, its limits, and what becomes of it without some of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.records.test_set_ledger import times_read
from analysis.statistics.comparisons import FEW_GROUPS
from analysis.statistics.power import Spread, detectable
from analysis.text.markdown import escaped
from analysis.text.sentences import setting
from analysis.text.wording import Phrases, factor_name, level_name, phrases, place_name
from analysis.verdicts.answer import Answer, Named
from analysis.verdicts.observed_power import observe_power


def method_lines(answer: Answer, language: str) -> list[str]:
    """How the study was done, in five lines: data, training, learning rates, comparisons, cost."""
    study, words, plan = answer.study, phrases("notes", language), answer.study.plan
    settings = plan.get("settings", {})
    lines = [_data(answer, words, language), _training(answer, words)]
    tuning = plan.get("tuning")
    rates = sorted(set(study.finished.rate.dropna())) or [r for r in [settings.get("learning_rate")] if r]
    lines.append(
        words.rates(
            tuned=bool(tuning),
            trials=max((cell.trials for cell in answer.cells), default=0) or (tuning or {}).get("budget", 0),
            rate=rates[0] if len(rates) == 1 and not tuning else None,
            several=len(study.cells) > 1,
            counted=(tuning or {}).get("fit") == "pooled",
        )
    )
    reading = study.reading
    baselines = [escaped(level_name(study, level, language)) for level in reading.baselines.values()]
    planned = [escaped(factor_name(study, factor, language)) for factor in answer.planned]
    if baselines:
        lines.append(
            words.comparisons(
                baselines=baselines,
                several=len(baselines) > 1,
                margin=reading.margin if len(baselines) > 1 else reading.cell_margin,
                cells=reading.cell_margin,
                planned=planned,
                others=answer.exploratory,
                paired=study.paired,
                looks=list(study.looks),
                unit=answer.study.unit,
            )
        )
    if len(study.finished) or len(study.trials):
        lines.append(_spent(answer, words))
    return lines


def thin_test_set(answer: Answer, language: str) -> list[str]:
    """What makes the test set say little: few groups, or images whose scores can only be 0 or 1."""
    words, scores, lines = phrases("notes", language), answer.study.scores, list[str]()
    groups = int(scores.group.nunique())
    if answer.effects and 1 < groups < FEW_GROUPS:
        lines.append(words.few_groups(groups=groups, unit=answer.study.unit))
    extreme = scores.dice.isin([0, 1]).groupby(scores.image).all()
    if answer.effects and extreme.any():
        lines.append(words.all_or_nothing(images=int(extreme.sum()), of=len(extreme)))
    return lines


def limit_lines(answer: Answer, language: str) -> list[str]:
    """What the verdicts do not cover, what could be detected, and what the study file adds by hand."""
    words, observed = phrases("notes", language), observe_power(answer)
    drawn = answer.study.plan.get("settings", {}).get("train_cars") if answer.study.paired else None
    lines = [words.validity(drawn=drawn, unit=answer.study.unit)] if answer.effects else []
    lines += thin_test_set(answer, language)
    if any(max(-c.low, c.high) == 1 for _, c in answer.comparisons()):
        lines.append(words.cut())
    if observed and observed.factors and max(observed.factors.values()) < 1:
        names = {escaped(factor_name(answer.study, f, language)): value for f, value in observed.factors.items()}
        lines.append(words.detectable(main=names, single=observed.cells if len(answer.study.varied) > 1 else None))
    return [*lines, *answer.study.reading.notes.get("limits", {}).get(language, [])]


def sensitivity_lines(answer: Answer, ledger: pd.DataFrame, language: str) -> list[str]:
    """What becomes of the comparisons without some data, the ceiling of the input size, use of the test set."""
    study, words, lines = answer.study, phrases("notes", language), list[str]()
    if answer.interaction is not None:
        lines.append(words.interaction(p=answer.interaction.p))
    for name in ("unstalled", "faultless"):
        found = getattr(answer, name)
        if found is not None and answer.effects:
            changed = [(_named(answer, what, language), before, after) for what, before, after in found.changed]
            matched = {"matched": study.paired, "left": found.seeds} if name == "unstalled" else {}
            lines.append(getattr(words, name)(left_out=found.left_out, changed=changed, **matched))
    done = study.finished
    if len(answer.judged) > 1 and (seeds := np.sqrt(np.mean([cell.sd**2 for cell in answer.judged]))) > 0:
        lines.append(words.separation(combinations=np.std([cell.dice for cell in answer.judged], ddof=1), seeds=seeds))
    best = [abs(cell.dice_best - cell.dice) for cell in answer.measured if cell.dice_best == cell.dice_best]
    if best and not answer.study.half_size_share:  # where it is an epoch at full size, so the last ones
        lines.append(words.best_epoch(most=max(best)))
    ceilings = done.dropna(subset=["ceiling"]).drop_duplicates("size").sort_values("size")
    if len(ceilings):
        sizes = [size.replace("x", "×") for size in ceilings["size"]]
        lines.append(words.ceiling(ceilings=list(zip(sizes, ceilings.ceiling, strict=True))))
    if len(done) and done.device.nunique() > 1:
        lines.append(words.devices(devices=_texts(done.device)))
    lines += [
        words.readings(groups=groups, runs=runs, studies=n, unit=answer.study.unit)
        for groups, runs, n in times_read(ledger, study)
    ]
    kept = [str(cell["cell"]) for cell in study.cells if cell.get("kept")]
    return [*lines, *([words.no_longer_planned(cells=kept)] if kept else [])]


def power_rows(answer: Answer, language: str) -> list[tuple[str, float | None, float | None]]:
    """What was expected beforehand next to what the study's own scores give; none where nothing was planned."""
    words, plan, observed = phrases("notes", language), answer.study.plan, observe_power(answer)
    guessed, planned = plan.get("variances") or {}, plan.get("detectable") or {}
    if guessed and observed is not None:
        planned = _detectable(answer, Spread(*(guessed[name] for name in ("seed", "car", "residual"))))
    main = planned.get("main") or {}
    if not guessed and not planned and observed is None:
        return []
    rows = [
        (text, guessed.get(name), getattr(observed.spread, name) if observed else None)
        for name, text in ({"car": words.between_groups(unit=answer.study.unit)} | words.spread).items()
    ]
    for factor in answer.study.varied:
        name = words.detectable_main(factor=factor_name(answer.study, factor, language))
        rows.append((name, main.get(factor), observed.factors.get(factor) if observed else None))
    return [*rows, (words.detectable_pair, planned.get("pair"), observed.cells if observed else None)]


def _detectable(answer: Answer, expected: Spread) -> dict[str, Any]:
    """What the expected spread would let the study detect, with the seeds and by the rules of the observed one."""
    study, (seeds, groups) = answer.study, next(iter(answer.scores.values())).shape
    levels = {factor: len(study.factors[factor]) for factor in study.varied}
    return detectable(expected, seeds, groups, levels, study.reading.cell_margin, answer.level, study.paired)


def _data(answer: Answer, words: Phrases, language: str) -> str:
    """How large the data are, what was scored and in which pixels."""
    study, scores = answer.study, answer.study.scores
    known = study.plan.get("photographs") or {}
    sets = _texts(study.finished.data) or [str(study.plan.get("settings", {}).get("data", ""))]
    named = study.reading.notes.get("data", {}).get("name", {})
    return str(
        words.data(
            data=[escaped(named.get(language) or words.datasets.get(name, name)) for name in sets],
            images=known.get("photographs"),
            groups=known.get("groups"),
            test_images=scores.image.nunique(),
            test_groups=scores.group.nunique(),
            native=[size.replace("x", "×") for size in known.get("sizes", [])],
            sizes=setting(answer)["sizes"],
            unit=answer.study.unit,
        )
    )


def _training(answer: Answer, words: Phrases) -> str:
    """Budget and settings of the training, those that all runs share."""
    runs, planned = answer.study.finished, answer.study.plan.get("settings", {})

    def shared(name: str) -> str | None:
        values = _texts(runs[name]) if len(runs) else [str(planned.get(name, ""))]
        return escaped(values[0]) if len(values) == 1 and values[0] not in ("", "None") else None

    return str(
        words.training(
            **{name: setting(answer)[name] for name in ("steps", "epochs", "seeds")},
            batch=shared("batch_size"),
            groups=shared("train_cars"),
            unit=answer.study.unit,
            augment=words.augmentations.get(shared("augment"), shared("augment")),
            optimizer=words.optimizers.get(shared("optimizer"), shared("optimizer")),
            schedule=shared("schedule"),
            precision=shared("precision"),
            device=shared("device") if len(runs) else None,
            half_size=shared("progressive") if answer.study.half_size_share else None,
            clip=shared("clip"),
        )
    )


def _spent(answer: Answer, words: Phrases) -> str:
    """What the study cost in runs, trials and hours of training."""
    runs, trials = answer.study.finished, answer.study.trials
    return str(
        words.spent(
            runs=len(runs),
            failed=int((answer.study.runs.state == "failed").sum()),
            trials=len(trials),
            lent=int((trials.seconds.isna() & (trials.state == "finished")).sum()),
            hours=(runs.training_seconds.sum() + trials.seconds.sum()) / 3600,
        )
    )


def _named(answer: Answer, what: Named, language: str) -> str:
    """What a comparison is about, in words."""
    study, baseline = answer.study, answer.study.reading.baselines[what.factor]
    levels = [level_name(study, level, language) for level in (what.level, baseline)]
    place = place_name(study, what.place, language) if what.place else ""
    return phrases("notes", language).difference(levels=levels, place=place)


def _texts(column: pd.Series) -> list[str]:
    """The values that occur, as text."""
    return sorted(set(column.dropna().astype(str)) - {""})
