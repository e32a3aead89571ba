"""What a study answers about its factors, in words, by rule, in English and Chinese.

用规则把一项研究关于各因素的结论写成句子，中英文各一份。
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from analysis.statistics.comparisons import Family
from analysis.text.wording import PARTS, Say, against, all_are, interval, listed, speaker
from analysis.verdicts.answer import Answer, Effect
from analysis.verdicts.simple_effects import Part


def with_parts(effect: Effect, answer: Answer, say: Say) -> list[str]:
    """A factor's effect and its parts; where the factors interact, the parts come first, for the average holds for none of them."""
    parts, whole = _within(effect, answer, say), effect_sentence(effect, say)
    return [*parts, whole] if effect.interaction.p <= 0.05 else [whole, *parts]


def effect_sentence(effect: Effect, say: Say) -> str:
    """What can be said of a factor over all the others, or over those combinations of them that are judged at both levels."""
    family, factor = effect.effect.family, effect.factor
    levels = list(dict.fromkeys(level for pair in family.comparisons for level in pair))
    kind = _kind(effect, say)
    judged, planned = len(levels), len(levels) + len(effect.left_out)
    which = say(f", {judged} of {planned} levels", f"（{planned} 个水平中的 {judged} 个）") if effect.left_out else ""
    if judged == 2:
        text = _pair(levels, family, say)
    elif all_are(family, "equivalent"):
        text = say(f"all {judged} are equivalent", f"{judged} 个全部等效")
    elif all_are(family, "undecided"):
        text = say(f"undecided, none of {judged} is separated from another", f"未决，{judged} 个中没有任何一对能被区分")
    elif judged == 3:
        text = say("; ", "；").join(_pair(pair, family, say) for pair in combinations(levels, 2))
    else:
        text = _top_levels(family, levels, say(" judged" if which else "", "已判定的" if which else ""), say)
    warning = (
        say(" The factors interact: read the cells.", "因素之间有交互作用：请看各个单元。")
        if effect.interaction.p <= 0.05
        else ""
    )
    return say(
        f"By {factor}{which}, {over(effect, 'en')}{kind}: {text}.{warning}",
        f"按 {factor}{which}，{over(effect, 'zh')}{kind}：{text}。{warning}",
    )


def _kind(effect: Effect, say: Say) -> str:
    """Whether the plan named it; what it named is not what is left where cells without a verdict are left out."""
    if not effect.named:
        return say(" (exploratory)", "（探索性）")
    return "" if effect.as_planned else say(
        " (planned as confirmatory, but cells without a verdict are left out)",
        "（计划为确证性，但没有判定的单元未计入）",
    )  # fmt: skip


def over(effect: Effect, language: str) -> str:
    """What a main effect is an average over, in words; of one combination it is none."""
    say = speaker(language)
    among, planned = effect.combinations, effect.planned
    counts = {len(others) for others in effect.effect.over.values()}
    if counts == {planned}:
        return say("over all the other factors", "对其余因素取平均")
    if max(counts) > min(counts) or len(among) > max(counts):
        return say(
            f"each two levels over the combinations of the other factors in which both are judged (at least {min(counts)} of {planned})",
            f"每两个水平对其余因素中两者都已判定的组合取平均（{planned} 种中至少 {min(counts)} 种）",
        )
    number = len({level for pair in effect.effect.over for level in pair})
    both, both_zh = ("both", "两个") if number == 2 else (f"all {number}", f"全部 {number} 个")
    if len(among) == 1:
        return say(
            f"within {among[0]} alone, the only one of {planned} combinations of the other factors in which {both} levels are judged",
            f"仅在 {among[0]} 之内，因为其余因素的 {planned} 种组合中只有这一种的{both_zh}水平都已判定",
        )
    return say(
        f"over the {len(among)} of {planned} combinations of the other factors in which {both} levels are judged",
        f"对其余因素的 {planned} 种组合中{both_zh}水平都已判定的 {len(among)} 种取平均",
    )


def _within(effect: Effect, answer: Answer, say: Say) -> list[str]:
    """In which combinations of the other factors the difference of two levels has which verdict, where the plan asks for that."""
    groups: dict[str, list[Part]] = {}
    for part in answer.simple.get(effect.factor, []):
        if part.where is not None:
            groups.setdefault(part.difference, []).append(part)
    baseline = answer.study.plan.get("design", {}).get("baseline", {})
    if len(groups) > 1 and effect.factor not in baseline:  # every two of several levels: the table has them
        return []
    alike: dict[tuple[str, str], list[str]] = {}  # levels of which the same is told against the same other
    for parts in groups.values():
        if len(parts) > 1:
            alike.setdefault((parts[0].a, _places(parts, effect, say)), []).append(parts[0].b)
    kind = "" if effect.named else say(" (exploratory)", "（探索性）")
    return [
        say(
            f"By {effect.factor}, {listed(levels, say)} against {other}, one by one{kind}: {told}.",
            f"按 {effect.factor}，{listed(levels, say)} 相对于 {other}，逐一来看{kind}：{told}。",
        )
        for (other, told), levels in alike.items()
    ]


def _places(parts: Sequence[Part], effect: Effect, say: Say) -> str:
    """One difference of two levels in all combinations of the other factors, by verdict."""
    places: dict[str, list[str]] = {kind: [] for kind in PARTS}
    for part in parts:
        places[part.found["dice"].verdict if part.found else "none"].append(str(part.where))
    places["none"] += [where for where in effect.others if where not in {part.where for part in parts}]
    return say("; ", "；").join(
        say(f"{PARTS[kind][0]} with {', '.join(where)}", f"在 {'、'.join(where)} 之内{PARTS[kind][1]}")
        for kind, where in places.items()
        if where
    )


def _pair(levels: Sequence[str], family: Family[str], say: Say) -> str:
    a, b = levels
    if family.comparisons[a, b].verdict == "worse":
        a, b = b, a
    found = family.comparisons[a, b]
    language = say("en", "zh")
    told = against(found.verdict, b, language)
    return say(f"{a} is {told} ({interval(found)})", f"{a} {told}（{interval(found)}）")


def _top_levels(family: Family[str], levels: Sequence[str], which: str, say: Say) -> str:
    """The levels that no other is better than, and those that some other is; only one that beats all others is called better."""
    top = list(family.top)
    others = [level for level in levels if level not in top]
    if len(top) == 1 and all(family.comparisons[top[0], other].verdict == "better" for other in others):
        return say(
            f"{top[0]} is better than each of {listed(others, say)}", f"{top[0]} 优于 {listed(others, say)} 中的每一个"
        )
    if not top:  # not every two were compared over the same combinations
        return say("none is best: each is worse than some other", "没有最好的：每一个都劣于另外某一个")
    best = say(
        f"no other{which} level is better than {listed(top, say)}", f"没有其他{which}水平优于 {listed(top, say)}"
    )
    if not others:
        return best
    each, each_zh = ("each of ", " 各自") if len(others) > 1 else ("", " ")
    return best + say(
        f"; {each}{listed(others, say)} is worse than at least one other",
        f"；{listed(others, say)}{each_zh}至少劣于另外一个",
    )
