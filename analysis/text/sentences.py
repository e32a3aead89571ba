"""What a study answers, in sentences, by rule: effect first, then interval, the verdict as an adverb.

One comparison is one sentence, the better level first. The first sentence says how large images, seeds and training
were; the last one what to take if one must choose. The words are in templates/sentences.*.j2.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analysis.statistics.comparisons import Comparison
from analysis.text.advice import advice, caveats
from analysis.text.wording import Phrases, factor_name, finite, level_name, listed, phrases, place_name
from analysis.verdicts.answer import Answer, CellResult, Sensitivity, last_look
from analysis.verdicts.planned_contrasts import EffectsWithin, FactorEffects

CLEAR = ("better", "worse")
VERDICTS = ("better", "worse", "equivalent", "undecided")
SINGLY = 3  # comparisons of one verdict that get a sentence each


def answer_sentences(answer: Answer, language: str) -> list[str]:
    """The answer of a study, a sentence each; what holds for all comparisons first, what to take last."""
    return Writer(answer, language).sentences()


def finding(answer: Answer, language: str) -> str:
    """The study in one sentence: its first clear effect, or that none was found."""
    return findings(answer, language)[0]


def findings(answer: Answer, language: str) -> list[str]:
    """The finding, then those of further planned factors, and where it differs.

    It may differ at the last combination that has an effect of its own, and under corruptions.
    """
    writer = Writer(answer, language)
    first = writer.sentences()[0]
    said = [writer.first_clear or first, *writer.further_planned, writer.elsewhere, *caveats(answer, language)[:1]]
    return [sentence for sentence in said if sentence]


def finding_and_status(answer: Answer, language: str) -> list[str]:
    """The finding, and whether it was planned: what stands above a table that leaves its page."""
    status = Writer(answer, language).status() if answer.effects and answer.seeds > 1 else []
    return [*findings(answer, language), *status]


def cell_verdict(answer: Answer, name: str, language: str) -> str:
    """Whether a cell can be excluded as the best of its study, or why nothing is said of it; a few words."""
    words = phrases("sentences", language)
    (cell,) = (cell for cell in answer.cells if cell.name == name)
    if not cell.eligibility.judged:
        return str(words.kinds[cell.eligibility.kind]) + (f" ({cell.eligibility.reason})" if _failed(cell) else "")
    if answer.seeds < 2 or len(answer.judged) < 2:
        return str(words.no_comparison())
    if name not in answer.best:
        return str(words.cell_verdicts["excluded"])
    return str(words.cell_verdicts["open" if len(answer.best) > 1 else "best"])


def combination(answer: Answer, cell: CellResult, language: str) -> str:
    """A cell as a sentence names it, by its levels of the factors that vary."""
    varied = answer.study.varied or answer.study.factors
    return place_name(answer.study, [cell.levels[factor] for factor in varied], language) or cell.name


def setting(answer: Answer) -> dict[str, Any]:
    """How large a study is: image sizes, seeds, training steps (or epochs); what was planned where nothing has run."""
    study, runs = answer.study, answer.study.finished
    planned = study.plan.get("settings", {})
    if len(runs):
        sizes, epochs = sorted(set(runs["size"]) - {""}), sorted(set(runs.epochs.dropna()))
    else:
        sizes = ["x".join(map(str, planned["size"]))] if isinstance(planned.get("size"), list) else []
        epochs = [planned["epochs"]] if "epochs" in planned else []
    known = len(runs) and runs.epoch_steps.notna().all()
    return {
        "sizes": [str(size).replace("x", "×") for size in sizes],
        "seeds": answer.seeds or len(study.plan.get("design", {}).get("seeds", [])),
        "steps": sorted(set((runs.epochs * runs.epoch_steps).astype(int))) if known else [],
        "epochs": [int(n) for n in epochs],
    }


@dataclass
class Writer:
    """The sentences of one answer in one language."""

    answer: Answer
    language: str
    interval_explained: bool = False
    first_clear: str = ""  # the first sentence that states a clear effect
    further_planned: list[str] = field(default_factory=list)  # the first such sentence of every further planned factor
    elsewhere: str = ""  # where that effect holds within some combinations: what is found at the last of them

    @property
    def words(self) -> Phrases:
        return phrases("sentences", self.language)

    def sentences(self) -> list[str]:
        answer = self.answer
        if not len(answer.study.finished):
            planned, failed = len(answer.study.runs), int((answer.study.runs.state == "failed").sum())
            return [self.words.nothing_measured(planned=planned, failed=failed, **setting(answer))]
        if not answer.effects or answer.seeds < 2:
            reason = "too few" if len(answer.judged) < 2 else "one seed" if answer.seeds == 1 else "no baseline"
            if answer.study.looks and not last_look(answer.study):
                first = self.words.no_verdict(reason="no look", **self._opening())
                return [first, self.words.first_look(seeds=answer.study.looks[0])]
            first = self.words.no_verdict(reason=reason, **self._opening())
            return [first, *self._unjudged(), *advice(answer, self.language)]
        first = self.words.headline(**self._headline(), **self._opening())
        return [
            first,
            *self._effects(),
            *self._bound(),
            *self._winners(),
            *self._marks(),
            *self._unjudged(),
            *self.status(),
            *advice(answer, self.language),
            *caveats(answer, self.language),
        ]

    def _opening(self) -> dict[str, Any]:
        """What the first sentence says of the study: its size, and how much of it has run."""
        runs = self.answer.study.runs
        done = int((runs.state == "finished").sum())
        ended = done + int((runs.state == "failed").sum())
        partial = ended < len(runs)
        return {**setting(self.answer), "done": done if partial else None, "planned": len(runs)}

    def _headline(self) -> dict[str, Any]:
        """The finding in a few words: a dependence, the factors that matter, or that none was found to."""
        answer = self.answer
        for part in answer.within:
            if part.difference and part.difference.verdict in CLEAR:
                others = [self._factor(other) for other in part.within]
                return {"kind": "depends", "factors": [self._factor(part.factor)], "others": others}
        clear = [effects.factor for effects in answer.effects if _any(effects.comparisons.values(), CLEAR)]
        verdicts = {c.verdict for effects in answer.effects for c in effects.comparisons.values()}
        equal = verdicts == {"equivalent"} and not self._interacts()
        kind = "clear" if clear else "equivalent" if equal else "nothing"
        names = [self._factor(factor) for factor in (clear or [effects.factor for effects in answer.effects])]
        return {"kind": kind, "factors": names, "others": []}

    def _effects(self) -> list[str]:
        """The effects of each factor. Where factors interact, those within combinations first, and the averages after.

        Whether they do is one test over all factors; with one effect at each of two combinations, their difference.
        """
        answer, parts = self.answer, list[str]()
        test, interacts = answer.interaction, self._interacts()
        shown = [part for part in answer.within if _shows(part, interacts)]
        if interacts and test is not None:
            parts.append(self.words.interacts(p=test.p))
        for part in shown:
            parts += self._within(part)
        for effects in answer.effects:
            parts += self._average(effects, after=any(part.factor == effects.factor for part in shown))
        clear = any(_any(effects.comparisons.values(), CLEAR) for effects in answer.effects)
        if clear and test is not None and not interacts and math.isfinite(test.p):
            parts.append(self.words.no_interaction(p=test.p))
        return parts

    def _interacts(self) -> bool:
        """Whether the test of interaction found that averages hide differences between combinations."""
        return self.answer.interaction is not None and self.answer.interaction.p <= 1 - self.answer.level

    def _average(self, effects: FactorEffects, after: bool) -> list[str]:
        """The levels of a factor against its baseline; what is averaged over is said once, and where it changes."""
        lines, said, clear_before = list[str](), None, bool(self.first_clear)
        for verdict in VERDICTS:
            same = [(level, c) for level, c in effects.comparisons.items() if c.verdict == verdict]
            same.sort(key=lambda pair: (effects.over[pair[0]], -abs(pair[1].difference)))
            for _, alike in itertools.groupby(same, key=lambda pair: effects.over[pair[0]]):
                for group in _groups(list(alike), verdict):
                    levels, comparisons = [level for level, _ in group], [c for _, c in group]
                    scope = self._scope(effects, levels[0], after)
                    unsaid, said = (scope if scope != said else {}), scope
                    hides = "over" in scope and self._interacts()
                    lines.append(
                        self._sentence(levels, effects.baseline, comparisons, verdict, effects.margin, hides, **unsaid)
                    )
        if clear_before and not after and effects.confirmatory and _any(effects.comparisons.values(), CLEAR):
            self.further_planned.append(lines[0])  # clear verdicts come first
        return lines

    def _scope(self, effects: FactorEffects, level: str, after: bool) -> dict[str, Any]:
        others = [factor for factor in self.answer.study.varied if factor != effects.factor]
        places = effects.over[level]
        if not others:
            return {}
        if len(places) == 1 and effects.planned > 1:
            return {"place": place_name(self.answer.study, places[0], self.language)}
        plural = phrases("names", self.language).plural
        names = [plural(name=self._factor(other)) for other in others]
        part = (len(places), effects.planned) if len(places) < effects.planned else None
        return {"over": names, "part": part, "after": after}

    def _within(self, part: EffectsWithin) -> list[str]:
        """The effect of a factor at each combination of some others; of several levels only the clear ones."""
        study, lines = self.answer.study, list[str]()
        for level in dict.fromkeys(level for level, _ in part.comparisons):
            before, known = len(lines), self.first_clear
            at = [(place, c) for (other, place), c in part.comparisons.items() if other == level]
            for verdict in VERDICTS:
                same = [(place, c) for place, c in at if c.verdict == verdict]
                for group in _groups(same, verdict):
                    places = [place_name(study, place, self.language) for place, _ in group]
                    lines.append(
                        self._sentence(
                            [level],
                            part.baseline,
                            [c for _, c in group],
                            verdict,
                            part.margin,
                            place=listed(places, self.language),
                        )
                    )
            if self.first_clear != known and len(lines) > before + 1:
                self.elsewhere = lines[-1]
        if part.difference and part.difference.verdict in CLEAR:
            lines.append(self.words.difference(comparison=part.difference))
        if len(part.differences) > 1:
            lines += self._differences(part)
        return lines

    def _differences(self, part: EffectsWithin) -> list[str]:
        """Where an effect is clearly larger or smaller than at the baselines."""
        reference = place_name(self.answer.study, part.reference, self.language)
        found = []
        for verdict in CLEAR:
            at = [
                (place_name(self.answer.study, place, self.language), c if verdict == "better" else c.mirrored())
                for place, c in part.differences.items()
                if c.verdict == verdict
            ]
            if at:
                found.append(str(self.words.effect_differs(verdict=verdict, at=at, reference=reference)))
        return found

    def _sentence(
        self,
        levels: Sequence[str],
        baseline: str,
        comparisons: Sequence[Comparison],
        verdict: str,
        margin: float,
        hides: bool = False,
        place: str = "",
        over: Sequence[str] = (),
        part: tuple[int, int] | None = None,
        after: bool = False,
    ) -> str:
        """One comparison, the better level first; or several of one verdict, with the range of their intervals.

        `hides`: this is an average over combinations that differ, so a small one is not called equal.
        """
        study, language, first = self.answer.study, self.language, comparisons[0]
        names = [level_name(study, level, language) for level in levels]
        a, b = listed(names, language), level_name(study, baseline, language)
        scope = {"place": place, "over": list(over), "part": part, "after": after, "margin": margin}
        known = all(map(finite, comparisons))
        if verdict == "equivalent" and hides:
            widest = replace(first, low=min(c.low for c in comparisons), high=max(c.high for c in comparisons))
            return str(self.words.small_average(a=a, b=b, comparison=widest, confidence=self._confidence(), **scope))
        if len(comparisons) > 1:
            apart = [abs(c.difference) for c in comparisons]
            bounds = {"low": min(c.low for c in comparisons), "high": max(c.high for c in comparisons)}
            bounds |= {"smallest": min(apart), "largest": max(apart)}
            say = functools.partial(self.words.alike, a=a, b=b, verdict=verdict, **bounds, **scope)
        else:
            if first.difference < 0:
                a, b, first = b, a, first.mirrored()
            say = functools.partial(
                self.words.comparison, a=a, b=b, comparison=first, verdict=first.verdict, finite=known, **scope
            )
        if verdict in CLEAR and not self.first_clear:
            self.first_clear = say(confidence=self.words.confidence(looks=bool(study.looks)))
        return str(say(confidence=self._confidence() if known else ""))

    def _confidence(self) -> str:
        """What stands before the first interval of the answer."""
        if self.interval_explained:
            return ""
        self.interval_explained = True
        return str(self.words.confidence(looks=bool(self.answer.study.looks)))

    def _bound(self) -> list[str]:
        """Where nothing was found: beyond which difference none is compatible with the intervals."""
        found = [c for effects in self.answer.effects for c in effects.comparisons.values()]
        if {c.verdict for c in found} != {"undecided"} or not all(map(finite, found)):
            return []
        largest = max(max(abs(c.low), abs(c.high)) for c in found)
        if largest >= 1:  # as wide as Dice allows: nothing is ruled out
            return []
        several = len(self.answer.study.varied) > 1
        return [self.words.averages_ruled_out(largest=largest) if several else self.words.ruled_out(largest=largest)]

    def _winners(self) -> list[str]:
        """How much one seed alone would have misled."""
        winners = self.answer.winners()
        different = len(set(winners.values()))
        return [self.words.winners(different=different, tries=len(winners))] if different > 1 else []

    def _marks(self) -> list[str]:
        """What the marks † and ‡ mean here, and what images with faulty masks change."""
        answer, lines = self.answer, []
        rising = [cell for cell in answer.judged if cell.eligibility.still_improving]
        if rising:
            some = self._cells(rising) if len(rising) <= SINGLY else ""
            lines.append(self.words.still_improving(names=some, rising=len(rising), number=len(answer.judged)))
        stalled = [cell for cell in answer.judged if cell.eligibility.stalled]
        if stalled:
            runs = sum(len(cell.eligibility.stalled) for cell in stalled)
            names = self._cells(stalled) if len(stalled) == 1 else ""
            of, without = len(answer.study.finished), answer.unstalled
            matched = {"matched": answer.study.paired, "left": without.seeds if without else 0}
            lines.append(self.words.stalled(runs=runs, of=of, names=names, **matched, **_changes(without)))
        if answer.faultless and answer.faultless.changed:
            lines.append(self.words.without_faulty(images=answer.faultless.left_out, **_changes(answer.faultless)))
        return lines

    def _unjudged(self) -> list[str]:
        """The cells without a verdict, by reason."""
        kinds = [kind for kind in self.words.kinds if kind != "judged"]
        lines = []
        for kind in kinds:
            cells = [cell for cell in self.answer.cells if cell.eligibility.kind == kind]
            if cells:
                some = self._cells(cells) if len(cells) <= SINGLY else ""
                lines.append(self.words.unjudged(kind=kind, names=some, number=len(cells), of=len(self.answer.cells)))
        return lines

    def status(self) -> list[str]:
        """Whether the comparisons were planned, and whether the study has come to its end."""
        answer, design = self.answer, self.answer.study.plan.get("design", {})
        lines = []
        if answer.exploratory and not design.get("extended_from"):
            planned = [factor_name(answer.study, factor, self.language) for factor in answer.planned]
            if planned and not self._named():
                lines.append(self.words.partly_planned(factors=planned))
            else:
                lines.append(self.words.baselines_not_named() if self._named() else self.words.exploratory())
        if before := design.get("extended_from"):
            lines.append(self.words.extended(before=list(before), now=answer.seeds))
        if answer.study.looks:
            still = sum(c.verdict == "undecided" for e in answer.effects for c in e.comparisons.values())
            lines.append(self.words.look(open=still, seeds=answer.seeds, most=max(answer.study.looks)))
        return lines

    def _named(self) -> bool:
        """Whether the plan named every factor before the runs, and only the baselines of some were chosen later."""
        study, effects = self.answer.study, self.answer.effects
        return (
            bool(effects)
            and {e.factor for e in effects} <= study.reading.named
            and not all(e.confirmatory for e in effects)
        )

    def _factor(self, factor: str) -> str:
        return factor_name(self.answer.study, factor, self.language)

    def _cells(self, cells: Iterable[CellResult]) -> str:
        return listed([combination(self.answer, cell, self.language) for cell in cells], self.language)


def _shows(part: EffectsWithin, interacts: bool) -> bool:
    """Whether the effects within combinations are part of the answer: where they differ, and one level is compared."""
    if part.differences:
        return (interacts and len(part.differences) > 1) or _any(part.differences.values(), CLEAR)
    return interacts and len({level for level, _ in part.comparisons}) == 1


def _groups(found: Sequence[tuple[Any, Comparison]], verdict: str) -> list[list[tuple[Any, Comparison]]]:
    """Which comparisons of one verdict share a sentence: those that found nothing, and clear ones if they are many."""
    if not found:
        return []
    if len(found) > (SINGLY if verdict in CLEAR else 1):
        return [list(found)]
    return [[one] for one in found]


def _changes(sensitivity: Sensitivity | None) -> dict[str, Any]:
    """How many verdicts change, and from what to what if that is the same for all."""
    changed = sensitivity.changed if sensitivity else []
    kinds = Counter((before.verdict, after.verdict) for _, before, after in changed)
    uniform = next(iter(kinds)) if len(kinds) == 1 else ("", "")
    return {"changed": len(changed), "before": uniform[0], "after": uniform[1]}


def _any(comparisons: Iterable[Comparison], verdicts: Sequence[str]) -> bool:
    return any(comparison.verdict in verdicts for comparison in comparisons)


def _failed(cell: CellResult) -> bool:
    return cell.eligibility.kind == "failed" and bool(cell.eligibility.reason)
