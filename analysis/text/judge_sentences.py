"""What `run.py judge` says of a table of scores: a sentence per comparison, and what holds for the whole of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.statistics.comparisons import Comparison
from analysis.verdicts.judge import Judgement, Pair, Question, Repeat

MOST_NAMES = 6  # in a list; more are counted
MOST_SENTENCES = 150


def digits(judgement: Judgement) -> int:
    """Decimals that show two significant digits of the typical interval."""
    widths = sorted(p.comparison.high - p.comparison.low for p in judgement.pairs)
    finite = [width for width in widths if math.isfinite(width) and width > 0]
    size = finite[len(finite) // 2] / 2 if finite else max(map(abs, judgement.means.values()), default=1.0) / 1000
    return 4 if size <= 0 else min(max(1 - math.floor(math.log10(size)), 0), 6)


def places(judgement: Judgement) -> int:
    """Decimals for the means in a table."""
    return max(digits(judgement), 4 if max(map(abs, judgement.means.values())) <= 1 else 2)


def score_table(judgement: Judgement) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row per cell, the best first; without seeds nothing of seeds, without a verdict no best."""
    decimals, seeded, judged = places(judgement), max(judgement.seeds.values()) > 1, decides(judgement)
    headings = ["cell", "mean", *(["SD over seeds", "seeds"] if seeded else []), *(["possible best"] if judged else [])]
    rows = []
    for cell, mean in judgement.means.items():
        spread = judgement.spreads[cell]
        row = [cell, f"{mean:.{decimals}f}"]
        row += ["-" if math.isnan(spread) else f"{spread:.{decimals}f}", str(judgement.seeds[cell])] if seeded else []
        row += ["yes" if cell in judgement.best_set else ""] if judged else []
        rows.append(row)
    return headings, rows


def sentences(judgement: Judgement, question: Question) -> list[str]:
    """A sentence for each comparison, up to a number that somebody may read."""
    told = [sentence(pair, judgement, question) for pair in judgement.pairs[:MOST_SENTENCES]]
    more = len(judgement.pairs) - len(told)
    return told + ([f"{more} more comparisons: --json FILE has all, --baseline NAME asks for fewer."] if more else [])


def decides(judgement: Judgement) -> bool:
    """Whether there are enough scores for any verdict at all."""
    return any(math.isfinite(pair.comparison.low) for pair in judgement.pairs)


def sentence(pair: Pair, judgement: Judgement, question: Question) -> str:
    """One comparison: the better cell first, the effect, its interval, the verdict."""
    a, b, comparison = pair.a, pair.b, pair.comparison
    if (comparison.difference < 0) == question.higher_is_better and comparison.difference:
        a, b, comparison = b, a, comparison.mirrored()
    effect = interval(comparison, digits(judgement), question.level)
    if not math.isfinite(comparison.low):
        return f"{a} and {b}: no verdict ({effect})."
    if comparison.verdict == "equivalent":
        return f"{a} and {b} are equivalent within ±{question.rope:g}: {effect}."
    if comparison.verdict == "undecided":
        return f"{a} and {b} do not differ clearly: {effect}{_more(pair, judgement)}."
    return f"{a} is better than {b}: {effect}."


def interval(comparison: Comparison, places: int, level: float) -> str:
    """A difference and its interval, as in +0.0012 (95 % interval -0.0003 to +0.0027)."""
    effect = f"{comparison.difference:+.{places}f}"
    if not math.isfinite(comparison.low):
        return f"{effect}, no interval"
    return f"{effect} ({100 * level:g} % interval {comparison.low:+.{places}f} to {comparison.high:+.{places}f})"


def _more(pair: Pair, judgement: Judgement) -> str:
    unit = f"{judgement.unit}s in all" if judgement.kind == "groups" else "seeds of each"
    if pair.units_to_decide is None:
        return ""
    return f"; about {pair.units_to_decide} {unit} would decide it at this spread"


def summary(judgement: Judgement, question: Question) -> list[str]:
    """What holds for the whole data set: possible bests, winner by seed, detectable difference, repeats."""
    lines = [_best(judgement)] if decides(judgement) else []
    if _excluded_without_a_clear_difference(judgement):
        lines.append(
            "Whether one can be excluded is a test of its own, against all others at once and by each one's own "
            "spread: it may exclude one that differs clearly from no single other."
        )
    winners = judgement.winner_by_seed
    if len(winners) > 1:
        told = "; ".join(
            f"{seed}: {'a tie' if winner is None else winner}" for seed, winner in list(winners.items())[:MOST_NAMES]
        )
        more = f"; and {len(winners) - MOST_NAMES} more" if len(winners) > MOST_NAMES else ""
        depends = "The winner depends on the seed" if judgement.depends_on_seed else "Every seed names the same winner"
        lines.append(f"{depends} ({told}{more}).")
    if judgement.detectable is not None:
        size = f"{judgement.detectable:.{digits(judgement)}f}"
        where = " in half of the comparisons" if len(judgement.pairs) > 1 else ""
        lines.append(f"True differences of {size} or more are found with 80 % power{where}, as the scores spread here.")
    return [*lines, *(repeated(one) for one in judgement.repeats)]


def _best(judgement: Judgement) -> str:
    count, of = len(judgement.best_set), len(judgement.means)
    if count == of:
        return f"None of the {of} can be excluded as the best."
    names = [cell for cell in judgement.means if cell in judgement.best_set]
    return f"Cannot be excluded as the best: {listed(names)} ({count} of {of})."


def _excluded_without_a_clear_difference(judgement: Judgement) -> bool:
    clear = {cell for pair in judgement.pairs if pair.comparison.verdict != "undecided" for cell in (pair.a, pair.b)}
    return any(cell not in judgement.best_set and cell not in clear for cell in judgement.means)


def repeated(repeat: Repeat) -> str:
    """One score that several runs hold digit for digit."""
    cells = list(dict.fromkeys(cell for cell, _ in repeat.places))
    return (
        f"The score {repeat.score:g} stands in {len(repeat.places)} runs ({listed(cells)}), digit for digit: "
        "collapsed models or copied rows?"
    )


def overall(judgements: Sequence[Judgement]) -> str:
    """One line over several data sets."""
    known = [one for one in judgements if one.leaders_differ is not None]
    differ = sum(bool(one.leaders_differ) for one in known)
    seeded = [one for one in judgements if len(one.winner_by_seed) > 1]
    parts = [f"First and second are separated in {differ} of {len(known)} data sets (each alone, uncorrected)"]
    if seeded:
        depends = sum(one.depends_on_seed for one in seeded)
        parts.append(f"the winner depends on the seed in {depends} of {len(seeded)}")
    return "; ".join(parts) + "."


def shared_conditions(judgements: Sequence[Judgement]) -> list[str]:
    """On what the verdicts of several data sets rest: each sentence once, with the range of what differs."""
    numbers = sorted({len(one.pairs) for one in judgements})
    lines = list(dict.fromkeys(line for one in judgements for line in one.conditions))
    adjusted = [line for line in lines if " Holm-adjusted over the " in line]
    if len(adjusted) < 2:
        return lines
    kept = [line for line in lines if line not in adjusted[1:]]
    said = f"Intervals and verdicts are Holm-adjusted over the {numbers[0]} to {numbers[-1]} comparisons of a data set."
    return [said if line == adjusted[0] else line for line in kept]


def listed(names: Sequence[str]) -> str:
    """Names in a row; the first few, and how many more."""
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown
