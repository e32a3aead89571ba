"""What is told of the interactions between factors, beside a study's table."""

from __future__ import annotations

from analysis.answer import Answer, Effect
from analysis.wording import Say


def interactions(answer: Answer, say: Say) -> list[str]:
    """How clear the clearest departure from additivity is, for each pair of factors that are crossed; one square is told once."""
    once: dict[object, Effect] = {}
    for effect in answer.effects:  # two factors may share a square, whose p is adjusted over the squares of each
        if effect.interaction.where:
            place = _square(effect)
            once[place] = min(once.get(place, effect), effect, key=lambda one: one.interaction.p)
    found = [_interaction(effect, say) for effect in once.values()]
    told = {effect.factor for effect in answer.effects if effect.interaction.where}
    varied = [factor for factor, levels in answer.study.factors.items() if len(levels) > 1]
    missing = [factor for factor in varied if factor not in told] if len(varied) > 1 and answer.family else []
    names, among = ", ".join(missing), "、".join(missing)
    return found + [say(
        f"Interaction of {names} with the others: not checked, too few cells are judged for that.",
        f"{among} 与其余因素的交互作用：已判定的单元太少，没有检查。",
    )] * bool(missing)  # fmt: skip


def _square(effect: Effect) -> frozenset[frozenset[tuple[str, str]]]:
    """The four cells of an interaction, each by its factors and levels, whichever way round it is told."""
    assert effect.interaction.where is not None
    firsts, seconds = effect.interaction.where
    return frozenset(effect.others[second] | {(effect.factor, first)} for first in firsts for second in seconds)


def _interaction(effect: Effect, say: Say) -> str:
    """The two differences whose difference it is, the larger one first and turned so that it is not negative."""
    found = effect.interaction
    assert found.where is not None
    (a, b), (c, d) = found.where
    at = effect.means
    first, second, low, high = at[a, c] - at[b, c], at[a, d] - at[b, d], found.low, found.high
    if abs(second) > abs(first):
        (c, d), first, second, low, high = (d, c), second, first, -high, -low
    if first < 0:
        (a, b), first, second, low, high = (b, a), -first, -second, -high, -low
    size = f"{first - second:+.4f} [{low:+.4f}, {high:+.4f}]"
    clear = found.p <= 0.05
    among = say("the only one that could be checked", "唯一可检查的一个") if found.checked == 1 else say(
        f"the clearest of the {found.checked} that could be checked", f"可检查的 {found.checked} 个中最明显的")  # fmt: skip
    return say(
        f"Interaction: {a} minus {b} is {first:+.4f} with {c}, and {second:+.4f} with {d}; the first less the second: {size}, p {found.p:.3f} "
        f"({among}). "
        + (
            "The difference is not the same everywhere: read the cells."
            if clear
            else "Not found, which does not prove that there is none."
        ),
        f"交互作用：{a} 与 {b} 之差在 {c} 下为 {first:+.4f}，在 {d} 下为 {second:+.4f}；前者减后者：{size}，p = {found.p:.3f}（{among}）。"
        + ("这个差别并非处处相同：请看各个单元。" if clear else "未发现交互作用，但这并不证明没有。"),
    )
