"""How often each set of test cars has been read: analysis/results/ledger.csv, committed, never shortened.

Repeated evaluation on the same test set overfits to it (adaptive overfitting). So every run of a reported study is
entered here once, by its key; repeating a run with the same key reads nothing new.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from analysis.records.study_results import Study

COLUMNS = ("study", "data_fingerprint", "split", "test_cars", "cars_sha256", "runs", "keys")
SET = ["data_fingerprint", "split", "test_cars", "cars_sha256"]


def read_ledger(results: Path) -> pd.DataFrame:
    """The ledger, a row for each study and set of test cars; empty where there is none yet."""
    path = results / "ledger.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.read_csv(path, dtype=str, keep_default_na=False)[list(COLUMNS)].astype({"test_cars": int, "runs": int})


def as_csv(ledger: pd.DataFrame) -> bytes:
    """The file of a ledger."""
    return ledger.to_csv(index=False, lineterminator="\n").encode()


def entered(ledger: pd.DataFrame, study: Study) -> pd.DataFrame:
    """`ledger` with the study's finished runs."""
    keys_of = {tuple(row[:-2]): set(row[-1].split()) for row in ledger[list(COLUMNS)].itertuples(index=False)}
    for run in readings(study).itertuples(index=False):
        keys_of.setdefault((study.name, *run[1:]), set()).add(run.key)
    lines = [(*place, len(keys), " ".join(sorted(keys))) for place, keys in sorted(keys_of.items())]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def readings(study: Study) -> pd.DataFrame:
    """List the finished runs: key, data fingerprint, split (with its fold), number and digest of the test cars."""
    cars = study.scores.groupby(["cell", "seed"], observed=True).group.agg(lambda g: "\n".join(sorted(set(g))))
    digests = {place: hashlib.sha256(text.encode()).hexdigest()[:16] for place, text in cars.items()}
    runs = study.finished
    fold = runs.fold.where(runs.fold == "", " fold " + runs.fold)
    found = runs.assign(
        split=runs.split + fold, cars_sha256=[digests[c, s] for c, s in zip(runs.cell, runs.seed, strict=True)]
    )
    return found[["key", *SET]]


def times_read(ledger: pd.DataFrame, study: Study) -> list[tuple[int, int, int]]:
    """For each set of test cars that the study read: (cars, runs, studies) over the whole ledger.

    However the other cars were split: every evaluation on the same cars of the same data counts.
    """
    found, cars = [], [name for name in SET if name != "split"]
    for row in readings(study)[cars].drop_duplicates().itertuples(index=False):
        same = ledger[(ledger[cars] == pd.Series(row._asdict())).all(axis=1)]
        keys = {key for line in same["keys"] for key in line.split()}
        found.append((int(row.test_cars), len(keys), same.study.nunique()))
    return found
