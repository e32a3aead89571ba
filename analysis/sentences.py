"""The answer of a study in words, by rule, in English and Chinese. It never says more than the verdicts do.

用规则把一项研究的结论写成句子；句子所说的从不多于判定所说的。
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations

from analysis.answer import Answer, Effect, Row
from analysis.simple_effects import Part
from analysis.statistics import Comparison, Family

LANGUAGES = ("en", "zh")
NAMED = 6  # cells that a sentence names; the table has them all
VERDICTS = {
    "en": {"better": "better than", "worse": "worse than", "equivalent": "equivalent to", "undecided": "undecided against"},
    "zh": {"better": "优于", "worse": "劣于", "equivalent": "等效于", "undecided": "高下未决"},
}
PARTS = {
    "better": ("better", "更好"), "worse": ("worse", "更差"), "equivalent": ("equivalent", "等效"), "undecided": ("undecided", "高下未决"),
    "none": ("no verdict", "没有判定"),
}  # fmt: skip
KINDS = {
    "en": {},
    "zh": {
        "judged": "已判定",
        "not measured": "未测量",
        "failed": "失败",
        "not converged": "未收敛",
        "rate at the edge": "学习率在范围边缘",
    },
}
Say = Callable[[str, str], str]


def sentences(answer: Answer, language: str) -> list[str]:
    """What the study answers: the first sentence is the answer; then the other comparisons, then what has no verdict.

    What the plan names as confirmatory comes first, then the factors whose parts it asks for; what it does not name is called
    exploratory. A study that is not complete begins with how far it is.
    """
    say: Say = (lambda en, zh: en) if language == "en" else (lambda en, zh: zh)
    if not len(answer.study.finished):
        planned = len(answer.study.runs)
        text = say(f"Nothing has been measured yet: 0 of {planned} runs.", f"尚未测量任何结果：{planned} 次运行中完成 0 次。")
        return [text, *_unjudged(answer, say, {"not measured"})]
    cells = _cells(answer, say)
    if answer.family and not answer.pairs_named:
        cells += say(
            " (Exploratory: the plan does not name pairs of cells as confirmatory.)", "（探索性：计划未将逐对比较列为确证性。）"
        )
    leading = {effect.factor for effect in answer.effects if effect.named or effect.factor in answer.simple}
    effects = sorted(answer.effects, key=lambda effect: not effect.named)  # stable: in the order of the plan otherwise
    asked = [text for one in effects if one.factor in leading for text in _with_parts(one, answer, say)]
    others = [_effect(effect, say) for effect in effects if effect.factor not in leading]
    first, *rest = [cells, *asked, *others] if answer.pairs_named or not asked else [*asked, cells, *others]
    return [_progress(answer, say) + first, *rest, *_at_budget(answer, say), *_unjudged(answer, say)]


def _cells(answer: Answer, say: Say) -> str:
    """What can be said of the cells."""
    judged, family = answer.judged, answer.family
    if family is None:
        return say("No verdict: a comparison needs two cells that may be judged.", "无法判定：至少需要两个可判定的单元。")
    if min(len(answer.scores[row.cell]) for row in judged) < 2 and _all(family, "undecided"):
        return say(
            "Undecided: one seed does not show how far the next would fall.", "未决：只有一个随机种子，看不出下一个会相差多少。"
        )
    if _all(family, "equivalent"):
        return _all_equivalent(answer, say)
    if _all(family, "undecided"):
        n, which = len(judged), _which(answer, say)
        return say(
            f"Undecided: none of the {n} {which}cells is separated from another.",
            f"未决：{n} 个{which}单元中没有任何一对能被区分。",
        )
    top = [row for row in judged if row.top]
    return _one(top[0], answer, say) if len(top) == 1 else _several(top, answer, say)


def _which(answer: Answer, say: Say) -> str:
    """The word that says that not all cells are meant: one without a verdict may be better than any."""
    return "" if len(answer.judged) == len(answer.rows) else say("judged ", "已判定的")


def _all_equivalent(answer: Answer, say: Say) -> str:
    number, which, rope = len(answer.judged), _which(answer, say), answer.study.rope
    return say(
        f"All {number} {which}cells are equivalent: the interval of every difference in Dice lies within ±{rope:g}.",
        f"{number} 个{which}单元全部等效：每个 Dice 之差的区间都在 ±{rope:g} 之内。",
    )


def _one(row: Row, answer: Answer, say: Say) -> str:
    """The only cell that no other is better than; whether it is better than all, and by more than matters, is said too."""
    others = [other.cell for other in answer.judged if other is not row]
    assert answer.family is not None
    found = [answer.family.comparisons[row.cell, other] for other in others]
    which = _which(answer, say)
    if not all(c.verdict == "better" for c in found):
        beaten = sum(c.verdict == "better" for c in found)
        return say(
            f"Only {row.label} is beaten by no other {which}cell; it is better than {beaten} of {len(others)}, and from the others it is not separated.",
            f"只有 {row.label} 没有被判为劣于任何其他{which}单元；它优于其余 {len(others)} 个中的 {beaten} 个，与另外的未能区分。",
        )
    beyond = all(c.exceeds_rope for c in found)
    rope = answer.study.rope
    much = say(f", each time by more than {rope:g}", f"，且每次都超过 {rope:g}") if beyond else say(
        f", though not surely by more than {rope:g}", f"，但不能确定差距超过 {rope:g}")  # fmt: skip
    return say(
        f"{row.label} is better than each of the other {len(others)} {which}cells{much}.",
        f"{row.label} 优于其余 {len(others)} 个{which}单元中的每一个{much}。",
    )


def _several(top: Sequence[Row], answer: Answer, say: Say) -> str:
    names, number, which = _names([row.label for row in top], say), len(answer.judged), _which(answer, say)
    if len(top) == number:
        return say(
            f"None of the {number} {which}cells was found worse than another: which is best is undecided.",
            f"{number} 个{which}单元中没有发现任何一个劣于另一个：哪个最好尚未决定。",
        )
    rest = number - len(top)
    others, others_zh = (f"Each of the other {rest}", f"其余 {rest} 个各自") if rest > 1 else ("The other one", "另外一个")
    return say(
        f"Which {which}cell is best is undecided among {len(top)}: {names}. {others} is worse than at least one cell.",
        f"{which}单元中哪一个最好，在以下 {len(top)} 个之间未决：{names}。{others_zh}至少劣于一个单元。",
    )


def _effect(effect: Effect, say: Say) -> str:
    """What can be said of a factor over all the others, or over those combinations of them that are judged at both levels."""
    family, factor = effect.effect.family, effect.factor
    levels = list(dict.fromkeys(level for pair in family.comparisons for level in pair))
    kind = "" if effect.named else say(" (exploratory)", "（探索性）")
    judged, planned = len(levels), len(levels) + len(effect.left_out)
    which = say(f", {judged} of {planned} levels", f"（{planned} 个水平中的 {judged} 个）") if effect.left_out else ""
    if judged == 2:
        text = _pair(levels, family, say)
    elif _all(family, "equivalent"):
        text = say(f"all {judged} are equivalent", f"{judged} 个全部等效")
    elif _all(family, "undecided"):
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


def over(effect: Effect, language: str) -> str:
    """What a main effect is an average over, in words; of one combination it is none."""
    say: Say = (lambda en, zh: en) if language == "en" else (lambda en, zh: zh)
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


def _with_parts(effect: Effect, answer: Answer, say: Say) -> list[str]:
    """A factor's effect and its parts; where the factors interact, the parts come first, for the average holds for none of them."""
    parts, whole = _within(effect, answer, say), _effect(effect, say)
    return [*parts, whole] if effect.interaction.p <= 0.05 else [whole, *parts]


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
            f"By {effect.factor}, {_names(levels, say)} against {other}, one by one{kind}: {told}.",
            f"按 {effect.factor}，{_names(levels, say)} 相对于 {other}，逐一来看{kind}：{told}。",
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


def against(verdict: str, what: str, language: str) -> str:
    """A verdict and what it is against: "better than unet"."""
    words = VERDICTS[language][verdict]
    return (
        f"与 {what}{'' if what.endswith('个') else ' '}{words}"
        if (language, verdict) == ("zh", "undecided")
        else f"{words} {what}"
    )


def _top_levels(family: Family[str], levels: Sequence[str], which: str, say: Say) -> str:
    """The levels that no other is better than, and those that some other is; only one that beats all others is called better."""
    top = list(family.top)
    others = [level for level in levels if level not in top]
    if len(top) == 1 and all(family.comparisons[top[0], other].verdict == "better" for other in others):
        return say(f"{top[0]} is better than each of {_names(others, say)}", f"{top[0]} 优于 {_names(others, say)} 中的每一个")
    if not top:  # not every two were compared over the same combinations
        return say("none is best: each is worse than some other", "没有最好的：每一个都劣于另外某一个")
    best = say(f"no other{which} level is better than {_names(top, say)}", f"没有其他{which}水平优于 {_names(top, say)}")
    if not others:
        return best
    each, each_zh = ("each of ", " 各自") if len(others) > 1 else ("", " ")
    return best + say(
        f"; {each}{_names(others, say)} is worse than at least one other",
        f"；{_names(others, say)}{each_zh}至少劣于另外一个",
    )


def _progress(answer: Answer, say: Say) -> str:
    done, planned = len(answer.study.finished), len(answer.study.runs)
    if not planned or done == planned:
        return ""
    return say(
        f"Incomplete, {done} of {planned} runs are finished. So far: ", f"不完整，{planned} 次运行中完成了 {done} 次。目前："
    )


def _at_budget(answer: Answer, say: Say) -> list[str]:
    """The cells that are judged although more training might have changed them."""
    names = [row.label for row in answer.judged if not row.standing.converged]
    if not names:
        return []
    named = _names(names, say)
    return [
        say(
            f"All this is at the budgets that were given: not shown to have converged {'are' if len(names) > 1 else 'is'} {named}.",
            f"以上均只针对给定的训练预算：尚未显示收敛的单元有 {named}。",
        )
    ]


def _unjudged(answer: Answer, say: Say, but: Collection[str] = ()) -> list[str]:
    """The cells without a verdict, by the reason, `but` for some."""
    kinds = dict.fromkeys(row.standing.kind for row in answer.rows if row.standing.kind not in ("judged", *but))
    found = []
    for kind in kinds:
        names = _names([row.label for row in answer.rows if row.standing.kind == kind], say)
        found.append(say(f"No verdict ({kind}): {names}.", f"无判定（{KINDS['zh'][kind]}）：{names}。"))
    return found


def verdict(row: Row, language: str) -> str:
    """A cell's verdict in the words of the table: against how many of the other judged cells it is what."""
    say: Say = (lambda en, zh: en) if language == "en" else (lambda en, zh: zh)
    standing = row.standing
    if standing.kind == "judged":
        if not row.verdicts:
            return say("nothing to compare with", "无可比较")
        counts = {kind: say(f"{count}", f"{count} 个") for kind, count in row.verdicts.items() if count}
        found = say(", ", "，").join(against(kind, count, language) for kind, count in counts.items())
        budget = say(f"; at this budget ({standing.reason})", f"；就此训练预算而言（{standing.reason_zh}）")
        return found + (budget if standing.reason else "")
    kind = KINDS[language].get(standing.kind, standing.kind)
    if standing.kind in ("not measured", "rate at the edge"):
        return kind
    return say(f"{kind} ({standing.reason})", f"{kind}（{standing.reason_zh or standing.reason}）")


def _names(names: Sequence[str], say: Say) -> str:
    shown = say(", ", "、").join(names[:NAMED])
    more = len(names) - NAMED
    return shown + (say(f" and {more} more", f" 以及另外 {more} 个") if more > 0 else "")


def interval(found: Comparison) -> str:
    """A difference and its interval."""
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _all(family: Family[str], verdict: str) -> bool:
    return all(found.verdict == verdict for found in family.comparisons.values())
