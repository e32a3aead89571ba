"""The answer of a study in sentences, by rule; they never say more than the verdicts do."""

from __future__ import annotations

from collections.abc import Collection

from analysis.text.factor_sentences import effect_sentence, with_simple_effects
from analysis.text.wording import phrases
from analysis.verdicts.answer import Answer, Row


def answer_sentences(answer: Answer, language: str) -> list[str]:
    """State what a study answers: the answer first, then the other comparisons, then what has no verdict.

    What the plan names as confirmatory comes first, then the factors whose simple effects it asks for; everything else
    is called exploratory. The answer of an incomplete study begins with its progress.
    """
    words = phrases("sentences", language)
    done, planned = len(answer.study.finished), len(answer.study.runs)
    if not done:
        return [words.nothing_measured(planned=planned), *_unjudged(answer, language, skip={"not measured"})]
    cells = _cells(answer, language)
    if answer.family and not answer.pairs_named:
        cells = words.exploratory(sentence=cells)
    leading = {effect.factor for effect in answer.effects if effect.named or effect.factor in answer.simple}
    effects = sorted(answer.effects, key=lambda effect: not effect.named)  # stable: in the order of the plan otherwise
    asked = [
        text for effect in effects if effect.factor in leading for text in with_simple_effects(effect, answer, language)
    ]
    others = [effect_sentence(effect, language) for effect in effects if effect.factor not in leading]
    first, *rest = [cells, *asked, *others] if answer.pairs_named or not asked else [*asked, cells, *others]
    if done < planned:
        first = words.incomplete(done=done, planned=planned, sentence=first)
    at_budget = [row.label for row in answer.judged if not row.eligibility.converged]
    rest += [words.at_budget(labels=at_budget)] if at_budget else []
    return [first, *rest, *_unjudged(answer, language)]


def _cells(answer: Answer, language: str) -> str:
    """What can be said of the cells."""
    words, judged, family = phrases("sentences", language), answer.judged, answer.family
    if family is None:
        return words.too_few_cells()
    if min(len(answer.scores[row.cell]) for row in judged) < 2 and family.all_are("undecided"):
        return words.one_seed()
    number, partial, rope = len(judged), _is_partial(answer), answer.study.rope
    if family.all_are("equivalent"):
        return words.all_equivalent(number=number, partial=partial, rope=rope)
    if family.all_are("undecided"):
        return words.none_separated(number=number, partial=partial)
    top = [row for row in judged if row.top]
    if len(top) == 1:
        return _one_best(top[0], answer, language)
    if len(top) == number:
        return words.none_worse(number=number, partial=partial)
    return words.several_best(labels=[row.label for row in top], rest=number - len(top), partial=partial)


def _is_partial(answer: Answer) -> bool:
    """Whether some cells have no verdict: each of them may be better than any."""
    return len(answer.judged) < len(answer.rows)


def _one_best(row: Row, answer: Answer, language: str) -> str:
    """The only cell that no other is better than; whether it is better than all, and by more than the rope."""
    assert answer.family is not None
    found = [answer.family.comparisons[row.cell, other.cell] for other in answer.judged if other is not row]
    words, partial = phrases("sentences", language), _is_partial(answer)
    beaten = sum(comparison.verdict == "better" for comparison in found)
    if beaten < len(found):
        return words.one_unbeaten(label=row.label, beaten=beaten, others=len(found), partial=partial)
    beyond = all(comparison.exceeds_rope for comparison in found)
    return words.one_best(label=row.label, others=len(found), partial=partial, beyond=beyond, rope=answer.study.rope)


def _unjudged(answer: Answer, language: str, skip: Collection[str] = ()) -> list[str]:
    """The cells without a verdict, a sentence for each reason."""
    labels: dict[str, list[str]] = {}
    for row in answer.rows:
        if row.eligibility.kind not in ("judged", *skip):
            labels.setdefault(row.eligibility.kind, []).append(row.label)
    words = phrases("sentences", language)
    return [words.unjudged(kind=kind, labels=names) for kind, names in labels.items()]


def verdict(row: Row, language: str) -> str:
    """State a cell's verdict: against how many of the other judged cells it is what, or why it has none."""
    words, eligibility = phrases("sentences", language), row.eligibility
    if eligibility.kind == "judged":
        counts = {kind: count for kind, count in row.verdicts.items() if count}
        return words.judged_verdict(counts=counts, doubt=eligibility.doubt, rise=eligibility.rise)
    return words.no_verdict(
        kind=eligibility.kind, reason=eligibility.reason, doubt=eligibility.doubt, rise=eligibility.rise
    )
