"""One summary run per cell of a study in MLflow, so that cells, not only their runs, can be compared there.

Mean and standard deviation over seeds, the difference to the baseline's cell with its interval, the verdict and a
picture of the interval. They are an experiment of their own, written by `study` at its end and by `sync`; writing them
again changes nothing. A summary is found by its tag `key` (`summary/STUDY/CELL`).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

from analysis.records.study_paths import StudyPaths, load_study
from analysis.text.sentences import cell_verdict
from analysis.verdicts.answer import Answer, CellResult, answer_study
from experiments.data.images import open_image
from experiments.runtime import progress
from experiments.tracking.tracker import Session
from registry import InputError


def summarise_study(name: str, output_dir: Path, session: Session, results: Path | None = None) -> None:
    """Write the summary of every judged cell of a study; a study that cannot be judged gets a line in the log.

    Args:
        name: of the study, whose plan lies under `output_dir`.
        output_dir: the folder of the records.
        session: the connection to MLflow.
        results: the folder of committed results that count beside the records, if any do.
    """
    try:
        paths = StudyPaths(output_dir, results if results is not None else output_dir / "no results")
        found = answer_study(load_study(paths, name))
    except InputError as error:
        progress.log(f"The study {name} has no summary in MLflow: {error}")
        return
    for cell in found.judged:
        session.submit(lambda cell=cell: _summarise(session, found, cell))  # type: ignore[misc]


def _summarise(session: Session, found: Answer, cell: CellResult) -> None:
    """Create or update one cell's summary; nothing is sent where MLflow has this state of it."""
    from experiments.tracking import store

    study, metrics = found.study.name, _metrics(found, cell)
    tags = {
        "key": f"summary/{study}/{cell.name}",
        "summary": study,
        "cell": cell.name,
        **{f"level.{factor}": level for factor, level in cell.levels.items()},
        "verdict": cell_verdict(found, cell.name, "en"),
    }
    tags["state"] = hashlib.sha256(json.dumps([tags, metrics], sort_keys=True).encode()).hexdigest()[:16]
    picture = f"{cell.name}.png"
    run_id = store.summary_run(session.client, session.uri, session.output_dir, tags, f"{study}: {cell.name}")
    run = session.client.get_run(run_id)
    if run.data.tags.get("state") == tags["state"] and run.info.status == "FINISHED":
        return
    for name, value in metrics.items():
        session.client.log_metric(run_id, name, value)
    session.client.log_image(run_id, _picture(found, cell), artifact_file=f"pictures/{picture}")
    for name, text in tags.items():  # the state comes last: until then the summary counts as incomplete
        session.client.set_tag(run_id, name, text)
    session.client.set_terminated(run_id, "FINISHED")


def _metrics(found: Answer, cell: CellResult) -> dict[str, float]:
    """What is known of a cell in numbers, by their names in MLflow."""
    numbers = {"mean/dice": cell.dice, "sd/dice": cell.sd, "mean/iou": cell.iou, "seeds": float(cell.eligibility.seeds)}
    against = found.against_baseline.get(cell.name)
    if against is not None:
        numbers |= {"difference/dice": against.difference, "difference/low": against.low}
        numbers |= {"difference/high": against.high, "difference/p": against.p}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _picture(found: Answer, cell: CellResult) -> Any:
    """The cell's difference to the baseline with its interval, as a PIL image."""
    from analysis.plots.effects import cell_interval
    from analysis.plots.style import style

    content = io.BytesIO()
    with style():
        cell_interval(found, cell.name).savefig(content, format="png", dpi=110, facecolor="white")
    with open_image(content) as picture:
        return picture.copy()
