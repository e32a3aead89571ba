"""The answer of a study in words, by rule, in English and Chinese. It never says more than the verdicts do.

用规则把一项研究的结论写成句子；句子所说的从不多于判定所说的。
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from analysis.text.factor_sentences import effect_sentence, with_parts
from analysis.text.wording import KINDS, Say, against, all_are, listed, speaker
from analysis.verdicts.answer import Answer, Row


def sentences(answer: Answer, language: str) -> list[str]:
    """What the study answers: the first sentence is the answer; then the other comparisons, then what has no verdict.

    What the plan names as confirmatory comes first, then the factors whose parts it asks for; what it does not name is called
    exploratory. A study that is not complete begins with how far it is.
    """
    say = speaker(language)
    if not len(answer.study.finished):
        planned = len(answer.study.runs)
        text = say(
            f"Nothing has been measured yet: 0 of {planned} runs.", f"尚未测量任何结果：{planned} 次运行中完成 0 次。"
        )
        return [text, *_unjudged(answer, say, {"not measured"})]
    cells = _cells(answer, say)
    if answer.family and not answer.pairs_named:
        cells += say(
            " (Exploratory: the plan does not name pairs of cells as confirmatory.)",
            "（探索性：计划未将逐对比较列为确证性。）",
        )
    leading = {effect.factor for effect in answer.effects if effect.named or effect.factor in answer.simple}
    effects = sorted(answer.effects, key=lambda effect: not effect.named)  # stable: in the order of the plan otherwise
    asked = [text for one in effects if one.factor in leading for text in with_parts(one, answer, say)]
    others = [effect_sentence(effect, say) for effect in effects if effect.factor not in leading]
    first, *rest = [cells, *asked, *others] if answer.pairs_named or not asked else [*asked, cells, *others]
    return [_progress(answer, say) + first, *rest, *_at_budget(answer, say), *_unjudged(answer, say)]


def _cells(answer: Answer, say: Say) -> str:
    """What can be said of the cells."""
    judged, family = answer.judged, answer.family
    if family is None:
        return say(
            "No verdict: a comparison needs two cells that may be judged.", "无法判定：至少需要两个可判定的单元。"
        )
    if min(len(answer.scores[row.cell]) for row in judged) < 2 and all_are(family, "undecided"):
        return say(
            "Undecided: one seed does not show how far the next would fall.",
            "未决：只有一个随机种子，看不出下一个会相差多少。",
        )
    if all_are(family, "equivalent"):
        return _all_equivalent(answer, say)
    if all_are(family, "undecided"):
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
    names, number, which = listed([row.label for row in top], say), len(answer.judged), _which(answer, say)
    if len(top) == number:
        return say(
            f"None of the {number} {which}cells was found worse than another: which is best is undecided.",
            f"{number} 个{which}单元中没有发现任何一个劣于另一个：哪个最好尚未决定。",
        )
    rest = number - len(top)
    others, others_zh = (
        (f"Each of the other {rest}", f"其余 {rest} 个各自") if rest > 1 else ("The other one", "另外一个")
    )
    return say(
        f"Which {which}cell is best is undecided among {len(top)}: {names}. {others} is worse than at least one cell.",
        f"{which}单元中哪一个最好，在以下 {len(top)} 个之间未决：{names}。{others_zh}至少劣于一个单元。",
    )


def _progress(answer: Answer, say: Say) -> str:
    done, planned = len(answer.study.finished), len(answer.study.runs)
    if not planned or done == planned:
        return ""
    return say(
        f"Incomplete, {done} of {planned} runs are finished. So far: ",
        f"不完整，{planned} 次运行中完成了 {done} 次。目前：",
    )


def _at_budget(answer: Answer, say: Say) -> list[str]:
    """The cells that are judged although more training might have changed them."""
    names = [row.label for row in answer.judged if not row.standing.converged]
    if not names:
        return []
    named = listed(names, say)
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
        names = listed([row.label for row in answer.rows if row.standing.kind == kind], say)
        found.append(say(f"No verdict ({kind}): {names}.", f"无判定（{KINDS['zh'][kind]}）：{names}。"))
    return found


def verdict(row: Row, language: str) -> str:
    """A cell's verdict in the words of the table: against how many of the other judged cells it is what."""
    say = speaker(language)
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
