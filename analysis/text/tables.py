"""The table of a study's cells, as text in English or Chinese; Markdown, LaTeX and HTML show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from analysis.text.sentences import sentences, verdict
from analysis.text.wording import KINDS, VERDICTS, interval
from analysis.verdicts.answer import Answer, Effect, Row
from analysis.verdicts.simple_effects import SCORES, Part

TOP = "★"

COLUMNS = {
    "mark": ("", ""),
    "rate": ("rate (trials)", "学习率（试验数）"),
    "dice": ("Dice [95 %]", "Dice [95 %]"),
    "iou": ("IoU", "IoU"),
    "boundary_iou": ("boundary IoU", "边界 IoU"),
    "hd95": ("HD95, median px (failures)", "HD95 中位数，像素（失败数）"),
    "verdict": ("verdict", "判定"),
    "parameters": ("parameters", "参数量"),
    "gmacs": ("GMACs", "GMACs"),
    "training_seconds": ("training s", "训练秒数"),
    "images_per_second": ("images/s", "张/秒"),
    "peak_memory_gb": ("memory GB", "内存 GB"),
    "seeds": ("seeds", "随机种子数"),
    "dice_best": ("Dice, best epoch", "Dice，最佳轮"),
    "key": ("key", "运行键"),
    "commit": ("commit", "提交"),
}

WITHIN = {
    "en": (("difference", "with", "the first is … the second"), {}),
    "zh": (("差", "其余因素", "前者……后者"), {"boundary_iou": "边界 IoU"}),
}

FORMATS: dict[str, Callable[[float], str]] = {
    "parameters": lambda n: f"{n / 1e6:.2f} M" if n >= 1e5 else f"{n:.0f}", "gmacs": lambda n: f"{n:.3g}",
    "training_seconds": lambda n: f"{n:.0f}" if n >= 10 else f"{n:.1f}", "images_per_second": lambda n: f"{n:.0f}" if n >= 10 else f"{n:.1f}",
    "peak_memory_gb": lambda n: f"{n:.2f}",
}  # fmt: skip


def table(answer: Answer, language: str) -> pd.DataFrame:
    """A row for each cell, the highest Dice first and what has not been measured last; all values are text.

    Where nothing has been measured at all, only the columns that say so are left.
    """
    which = 0 if language == "en" else 1
    headings = {name: heading[which] for name, heading in COLUMNS.items()}
    rows = [cells(row, language) for row in answer.rows]
    measured = len(answer.study.finished) > 0
    shown = list(COLUMNS)[1:] if measured else ["verdict", "seeds"]
    names = [*["mark"] * measured, *answer.study.factors, *shown]
    frame = pd.DataFrame([[row.get(f"factor {n}", row.get(n, "")) for n in names] for row in rows], columns=names)
    frame.columns = pd.Index([headings.get(name, name) for name in names])
    return frame


def cells(row: Row, language: str) -> dict[str, str]:
    """One row's texts by column; a factor's column is called `factor NAME`."""
    missing = "not measured" if language == "en" else KINDS["zh"]["not measured"]
    found = {"mark": TOP if row.top else "", **{f"factor {name}": level for name, level in row.levels.items()}}
    found |= {"rate": _rate(row, missing), "dice": _dice(row, missing, language)}
    found |= {
        name: f"{getattr(row, name):.4f}" if _known(row.dice) else missing
        for name in ("iou", "boundary_iou", "dice_best")
    }
    found |= {
        "hd95": f"{row.hd95:.1f} ({row.failures})" if _known(row.hd95) else missing,
        "verdict": verdict(row, language),
    }
    found |= {name: FORMATS[name](value) if _known(value) else missing for name, value in row.cost.items()}
    seeds, planned = row.standing.seeds, row.standing.planned
    of = f"{seeds} of {planned}" if language == "en" else f"{seeds} / {planned}"
    found["seeds"] = str(seeds) if seeds == planned else of
    found["key"] = _first(row.keys, 8) or missing
    return found | {"commit": ", ".join(_commit(one) for one in row.commits) or missing}


def simple_effects(parts: Sequence[Part], language: str) -> pd.DataFrame:
    """A row for each part of a factor's effect; all values are text."""
    first, names = WITHIN[language]
    columns = [f"{names.get(name, shown)} [95 %]" for name, shown in SCORES.items()]
    rows = [(part.difference, held(part, language), *_judgement(part, language)) for part in parts]
    return pd.DataFrame(rows, columns=[*first, *columns])


def main_effects(effects: Sequence[Effect], language: str) -> pd.DataFrame:
    """Every two levels of every factor, over the combinations of the others in which both are judged: difference and verdict."""
    which = 0 if language == "en" else 1
    headings = [("factor", "因素"), ("difference", "差"), ("combinations of the others", "其余因素的组合数"),
                ("the first is … the second", "前者……后者"), ("Dice [95 %]", "Dice [95 %]")]  # fmt: skip
    rows = [
        (
            effect.factor,
            f"{b} − {a}",
            f"{len(others)} / {effect.planned}",
            VERDICTS[language][found.verdict],
            interval(found),
        )
        for effect in effects
        for (a, b), others in effect.effect.over.items()
        for found in (effect.effect.family.comparisons[b, a],)
    ]
    return pd.DataFrame(rows, columns=[names[which] for names in headings])


def held(part: Part, language: str) -> str:
    """At which levels a part's difference holds the other factors, in words."""
    if part.where is not None:
        return part.where
    judged, planned = part.of
    if judged == planned:
        return "over all the others" if language == "en" else "对其余因素取平均"
    return (
        f"over the {judged} of {planned} with a verdict"
        if language == "en"
        else f"对有判定的 {judged} 种（共 {planned} 种）取平均"
    )


def _judgement(part: Part, language: str) -> tuple[str, ...]:
    """A part's verdict and its differences by score."""
    if part.found:
        return VERDICTS[language][part.found["dice"].verdict], *(interval(part.found[name]) for name in SCORES)
    doubts = (", " if language == "en" else "、").join(KINDS[language].get(kind, kind) for kind in part.doubts)
    told = f"no verdict ({doubts})" if language == "en" else f"无判定（{doubts}）"
    return told, *(f"{part.values[name]:+.4f}" for name in SCORES)


def latex(answer: Answer) -> str:
    """The table for a paper that loads booktabs, the answer as its caption; long words are escaped by pandas."""
    plain = table(answer, "en").map(lambda text: " ".join(str(text).split()).replace(TOP, "*"))
    caption, label = _tex(" ".join(sentences(answer, "en"))), f"tab:{answer.study.name}"
    return plain.to_latex(index=False, escape=True, caption=caption, label=label, position="t")


def _tex(text: str) -> str:
    """`text` escaped as pandas escapes the cells."""
    return str(
        pd.DataFrame([text]).style.format(escape="latex").hide(axis=0).hide(axis=1).to_latex().split("\n")[1]
    ).rstrip(" \\")


def _rate(row: Row, missing: str) -> str:
    if not _known(row.rate):
        return missing
    return f"{row.rate:.3g} ({row.trials})"


def _dice(row: Row, missing: str, language: str) -> str:
    if not _known(row.dice):
        return missing
    if row.high == float("inf"):
        return f"{row.dice:.4f} ({'no interval' if language == 'en' else '无区间'})"
    return f"{row.dice:.4f} [{row.low:.4f}, {row.high:.4f}]"


def _first(names: Sequence[str], letters: int) -> str:
    """The first name, shortened, and how many more there are."""
    if not names:
        return ""
    return names[0][:letters] + (f" +{len(names) - 1}" if len(names) > 1 else "")


def _commit(commit: str) -> str:
    return commit[:7] + ("+" if commit.endswith("+") else "")


def _known(value: float) -> bool:
    return value == value
