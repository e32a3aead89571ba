"""A study's verdicts into MLflow: the tag `verdict.<study>` of each of its runs, and `top.<study>` on the set not separated from the top."""

from __future__ import annotations

from pathlib import Path

from analysis.answer import Answer
from analysis.sentences import verdict
from experiments import tracking
from experiments.errors import InputError
from experiments.progress import say


def write(found: Answer, output_dir: Path, uri: str | None) -> None:
    """Tag the study's runs in the store at `uri` (or under `output_dir`); runs of an earlier plan lose its tags. Raises InputError where there is no store."""
    if uri is None and not (output_dir / "mlflow.db").exists():
        raise InputError(f"There is no MLflow store under {output_dir}: name one with --tracking-uri, or leave out --tag.")
    name = found.study.name
    with tracking.session(uri, output_dir, say) as session:
        for row in found.rows:
            for key in row.keys:
                session.tag(key, {f"verdict.{name}": verdict(row, "en"), f"top.{name}": str(row.top).lower()})
        session.leave_out(name, {key for row in found.rows for key in row.keys})
    if not session.away:
        print(f"The verdicts are in MLflow, as the tags verdict.{name} and top.{name}.")
