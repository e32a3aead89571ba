"""The words that sentences and tables share, in English and Chinese.

句子与表格共用的词语，中英文各一套。
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.statistics.comparisons import Comparison, Family

LANGUAGES = ("en", "zh")
NAMED = 6  # cells that a sentence names; the table has them all
VERDICTS = {
    "en": {
        "better": "better than",
        "worse": "worse than",
        "equivalent": "equivalent to",
        "undecided": "undecided against",
    },
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


def speaker(language: str) -> Say:
    """Of two texts, English and Chinese, the one in this language."""
    return (lambda en, zh: en) if language == "en" else (lambda en, zh: zh)


def against(verdict: str, what: str, language: str) -> str:
    """A verdict and what it is against: "better than unet"."""
    words = VERDICTS[language][verdict]
    return (
        f"与 {what}{'' if what.endswith('个') else ' '}{words}"
        if (language, verdict) == ("zh", "undecided")
        else f"{words} {what}"
    )


def interval(found: Comparison) -> str:
    """A difference and its interval."""
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def listed(names: Sequence[str], say: Say) -> str:
    """The first `NAMED` of them, and how many more."""
    shown = say(", ", "、").join(names[:NAMED])
    more = len(names) - NAMED
    return shown + (say(f" and {more} more", f" 以及另外 {more} 个") if more > 0 else "")


def all_are(family: Family[str], verdict: str) -> bool:
    """Whether every comparison has this verdict."""
    return all(found.verdict == verdict for found in family.comparisons.values())
