"""A page on scores that others published, judged by the engine of `run.py judge`: MedSegBench's table.

The scores are facts of Kuş and Aydin 2024 (doi:10.1038/s41597-024-04159-2), committed as
analysis/results/medsegbench/scores.csv.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import pandas as pd

from analysis.records.score_table import Columns, read_score_tables
from analysis.statistics import compare
from analysis.text.markdown import escaped, table_of
from analysis.text.wording import phrases
from analysis.verdicts.judge import Judgement, Question, judge

NAME = "medsegbench"
COLUMNS = Columns(score="f1", cells=("encoder",), seed="seed", dataset="dataset")
POINTS = 100  # scores are shown times 100
COMMAND = f"""python run.py judge analysis/results/{NAME}/scores.csv --score f1 \\
    --cell encoder --seed seed --dataset dataset"""


def scores_path(results: Path) -> Path:
    """Where the published scores stand."""
    return results / NAME / "scores.csv"


def published_page(results: Path, language: str) -> str:
    """The page in Markdown: what the table says, data set by data set, and what it does not say."""
    scores = read_score_tables(scores_path(results), COLUMNS)
    found = judge(scores, "", True, Question())
    words, separated = phrases("published", language), sum(one.leaders_differ is True for one in found)
    repeated = [one for one in found if one.repeats]
    sizes = [len(one.best_set) for one in found]
    facts = {
        "datasets": len(found),
        "encoders": max(len(one.means) for one in found),
        "seeds": max(max(one.seeds.values()) for one in found),
        "separated": separated,
        "depends": sum(one.depends_on_seed for one in found),
        "single": sizes.count(1),
        "excluding": sum(len(one.best_set) < len(one.means) for one in found),
        "detectable": median(math.inf if one.detectable is None else one.detectable for one in found),
    }
    parts = [
        f"# {words.title()}",
        words.links(),
        f"**{words.answer(**facts)}** {words.conclusions(**facts)}",
        f"## {words.heading_datasets}",
        words.legend(),
        table_of(words.columns, [_row(one, scores[one.name], language) for one in found], left=3),
        f"## {words.heading_encoders}",
        words.encoders_note(),
        table_of(words.encoder_columns, _encoders(found)),
        f"## {words.heading_repeats}",
        "\n".join(f"- {escaped(_repeat(one, language))}" for one in repeated),
        f"## {words.heading_limits}",
        words.limits(),
        f"## {words.heading_command}",
        f"```bash\n{COMMAND}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _row(one: Judgement, scores: Mapping[str, pd.DataFrame], language: str) -> list[str]:
    """A data set: first and second, their difference alone, the winners of single seeds, the best set."""
    first, second = list(one.means)[:2]
    alone = compare(scores[first].to_numpy(float), scores[second].to_numpy(float), rope=0)
    ends = f"{POINTS * alone.low:+.2f}, {POINTS * alone.high:+.2f}"
    possible = alone.low > -1 and alone.high < 1  # a wider interval says nothing
    words = phrases("published", language)
    return [
        one.name,
        f"{first} {POINTS * one.means[first]:.2f}",
        f"{second} {POINTS * one.means[second]:.2f}",
        f"{POINTS * alone.difference:+.2f} {f'[{ends}]' if possible else ''}".strip().replace("-", "−"),
        "▲" if alone.verdict == "better" else words.tie if alone.difference == 0 else "≈",
        str(len(set(one.winner_by_seed.values()))),
        f"{len(one.best_set)}/{len(one.means)}",
    ]


def _encoders(found: Sequence[Judgement]) -> list[list[str]]:
    """In how many data sets each encoder has the highest mean, and in how many it cannot be excluded as the best."""
    best = Counter(name for one in found for name in one.best_set)
    first = Counter(next(iter(one.means)) for one in found)
    tried = Counter(name for one in found for name in one.means)
    return [[name, str(first[name]), f"{best[name]}/{tried[name]}"] for name in sorted(tried, key=lambda n: -best[n])]


def _repeat(one: Judgement, language: str) -> str:
    repeat = one.repeats[0]
    cells = len({cell for cell, _ in repeat.places})
    score = f"{repeat.score:g}"
    words = phrases("published", language)
    return words.repeat(dataset=one.name, score=score, runs=len(repeat.places), encoders=cells)
