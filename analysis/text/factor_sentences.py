"""What a study answers about its factors, in sentences, by rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from analysis.statistics.comparisons import Comparison, Family
from analysis.statistics.effects import Interaction
from analysis.text.wording import phrases
from analysis.verdicts.answer import Answer, Effect
from analysis.verdicts.simple_effects import SimpleEffect

OUTCOMES = ("better", "worse", "equivalent", "undecided", "none")


def with_simple_effects(effect: Effect, answer: Answer, language: str) -> list[str]:
    """State a factor's effect and simple effects, these first where factors interact: the average holds for none."""
    parts, average = _one_by_one(effect, answer, language), effect_sentence(effect, language)
    return [*parts, average] if effect.interaction.p <= 0.05 else [average, *parts]


def effect_sentence(effect: Effect, language: str) -> str:
    """A factor's effect over all the others, or over those combinations of them that are judged at both levels."""
    family, words = effect.effect.family, phrases("factors", language)
    levels = list(dict.fromkeys(level for pair in family.comparisons for level in pair))
    number = len(levels)
    if number == 2:
        text = _pairs([levels], family, language)
    elif family.all_are("equivalent"):
        text = words.all_equivalent(number=number)
    elif family.all_are("undecided"):
        text = words.none_separated(number=number)
    elif number == 3:
        text = _pairs(combinations(levels, 2), family, language)
    else:
        text = _top_levels(family, levels, bool(effect.left_out), language)
    return words.effect(
        factor=effect.factor,
        judged=number,
        planned=number + len(effect.left_out),
        scope=_scope(effect, language),
        claim=effect.claim,
        text=text,
        interacts=effect.interaction.p <= 0.05,
    )


def _scope(effect: Effect, language: str) -> str:
    """What a main effect is an average over; of one combination it is none."""
    words, among, planned = phrases("factors", language), effect.combinations, effect.planned
    counts = {len(others) for others in effect.effect.over.values()}
    levels = len({level for pair in effect.effect.over for level in pair})
    if counts == {planned}:
        return words.over_all()
    if len(counts) > 1 or len(among) > max(counts):
        return words.over_each_pairs_own(fewest=min(counts), planned=planned)
    if len(among) == 1:
        return words.within_one(combination=among[0], planned=planned, levels=levels)
    return words.over_some(number=len(among), planned=planned, levels=levels)


def _pairs(pairs: Iterable[Sequence[str]], family: Family[str], language: str) -> str:
    """Comparisons of two levels each, the better one first."""
    found: list[tuple[str, str, Comparison]] = []
    for a, b in pairs:
        if family.comparisons[a, b].verdict == "worse":
            a, b = b, a
        found.append((a, b, family.comparisons[a, b]))
    return phrases("factors", language).pairs(found=found)


def _top_levels(family: Family[str], levels: Sequence[str], partial: bool, language: str) -> str:
    """Name the levels that no other beats, and the rest; only one that beats all others is called better."""
    words, top = phrases("factors", language), list(family.top)
    others = [level for level in levels if level not in top]
    if len(top) == 1 and all(family.comparisons[top[0], other].verdict == "better" for other in others):
        return words.one_best(level=top[0], others=others)
    if not top:  # not every two were compared over the same combinations
        return words.none_best()
    return words.several_best(top=top, others=others, partial=partial)


def _one_by_one(effect: Effect, answer: Answer, language: str) -> list[str]:
    """The outcome of two levels within each combination of the other factors, where the plan asks for simple effects.

    Levels with the same outcomes against the same baseline share a sentence.
    """
    groups: dict[str, list[SimpleEffect]] = {}
    for part in answer.simple.get(effect.factor, []):
        if part.where is not None:
            groups.setdefault(part.difference, []).append(part)
    baseline = answer.study.plan.get("design", {}).get("baseline", {})
    if len(groups) > 1 and effect.factor not in baseline:  # every two of several levels: the table has them
        return []
    alike: dict[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], list[str]] = {}
    for parts in groups.values():
        if len(parts) > 1:
            alike.setdefault((parts[0].a, _places(parts, effect)), []).append(parts[0].b)
    words = phrases("factors", language)
    return [
        words.one_by_one(
            factor=effect.factor,
            levels=levels,
            baseline=other,
            places=dict(places),
            exploratory=not effect.named,
        )
        for (other, places), levels in alike.items()
    ]


def _places(parts: Sequence[SimpleEffect], effect: Effect) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The combinations of the other factors by outcome; those without both cells have none."""
    places: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
    for part in parts:
        places[part.found["dice"].verdict if part.found else "none"].append(str(part.where))
    measured = {part.where for part in parts}
    places["none"] += [where for where in effect.others if where not in measured]
    return tuple((outcome, tuple(where)) for outcome, where in places.items() if where)


def interaction_sentence(found: Interaction, language: str) -> str:
    """The clearest of the squares of cells that show whether two factors interact, for a page."""
    words = phrases("factors", language)
    if found.where is None:
        return words.no_square()
    (a, b), (c, d) = found.where
    return words.clearest_square(a=a, b=b, c=c, d=d, found=found, interacts=found.p <= 0.05)
