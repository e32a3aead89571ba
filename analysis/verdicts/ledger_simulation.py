"""A ledger of many questions in simulation: how often it accepts anything false, and what it finds.

python -m analysis.verdicts.ledger_simulation    run it and keep the rows in docs/simulations/ledger.json

`question_ledger` itself answers; every question is another candidate, and all share one base.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.simulate import keep
from analysis.verdicts.judge import Question
from analysis.verdicts.question_ledger import ACCEPTED, UNDECIDED, decide_with_ledger

QUESTION = Question(rope=0.0)


def ledger_rows(ledgers: int = 120, questions: int = 200, trials: int = 500, seed: int = 0) -> Iterator[dict[str, Any]]:
    """A row for each number of seeds: false acceptances of a ledger, and the power for an improvement of 2 SD."""
    for seeds in (5, 10):
        rng = np.random.default_rng((seed, seeds))
        false = np.mean([_accepts(0.0, questions, seeds, rng) for _ in range(ledgers)])
        found = np.mean([_accepts(2.0, 1, seeds, rng) for _ in range(trials)])
        yield {
            "seeds": seeds,
            f"{questions} questions without an improvement: accepts any": float(false),
            "an improvement of 2 SD: accepted": float(found),
        }


def _accepts(improvement: float, questions: int, seeds: int, rng: np.random.Generator) -> bool:
    """Whether a new ledger accepts any of its questions; a promising candidate runs as many seeds more as asked."""
    base = _table(rng.standard_normal(seeds), 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.json"
        for number in range(questions):
            names = ("base", f"candidate {number}")
            first = improvement + rng.standard_normal(seeds)
            decision = decide_with_ledger(names, base, _table(first, 0), "seeds", QUESTION, path)
            if decision.code != UNDECIDED:
                continue
            more = _table(improvement + rng.standard_normal(seeds), seeds)
            both = pd.concat([_table(first, 0), more])
            if decide_with_ledger(names, base, both, "seeds", QUESTION, path).code == ACCEPTED:
                return True
    return False


def _table(scores: np.ndarray[Any, Any], first: int) -> pd.DataFrame:
    """A row per seed, numbered from `first`, and one column."""
    return pd.DataFrame({"score": scores}, index=range(first, first + len(scores)))


if __name__ == "__main__":
    keep("ledger", ledger_rows())
