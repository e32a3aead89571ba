"""Score a study's trained models on corrupted and foreign images (`run.py robustness`).

The last weights of every finished run are scored on the study's own test images under five corruptions, and on a
folder of foreign images if one is given. Each condition is a file in outputs/studies/NAME/robustness, so the same
command resumes; `report` renders the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from analysis.records.files import read_json, write_atomically
from analysis.records.robustness_files import COLUMNS, PLACE, file_name, read_file
from analysis.records.study_results import DIGITS
from experiments.config.resolve import find_device
from experiments.data import folder
from experiments.data.cache import resize
from experiments.data.corruptions import CLEAN, CONDITIONS, CORRUPTIONS, corrupt
from experiments.data.dataset import ImageDataset
from experiments.data.reading import Reading
from experiments.data.run_inputs import determine_reading_elsewhere, read_as
from experiments.data.samples import Sample
from experiments.evaluation import evaluator
from experiments.inference.trained_model import TrainedModel
from experiments.runtime import interrupts, progress
from experiments.runtime.interrupts import Stop
from experiments.studies.definition import Study
from experiments.studies.looks import load_looks
from experiments.studies.plan import Plan, build
from experiments.studies.tuning import load_rates
from experiments.training.run_folder import LAST, RunFolder
from registry import InputError


class CorruptedDataset(ImageDataset):
    """Images as a model sees them under a condition (a corruption and its strength)."""

    def __init__(self, samples: Sequence[Sample], size: tuple[int, int], condition: str) -> None:
        super().__init__(samples, size)
        self.condition = condition

    def image(self, index: int) -> NDArray[np.uint8]:
        """The image, corrupted at its own size and then resized: RGB (H, W, 3). A clean one is as in the run's test."""
        if self.condition == CLEAN:
            return super().image(index)
        sample = self.samples[index]
        return resize(corrupt(sample.read_image(), self.condition, sample.name), self.size)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The corrupted image (H, W, 3) and its mask (H, W) of 0 and 1."""
        return self.image(index), super().pair(index)[1]


def score_robustness(study: Study, machine: Mapping[str, Any], elsewhere: Path | None, views: int) -> int:
    """Score what has not been scored yet; the exit code. Raises InputError where the study has no finished run here.

    Args:
        elsewhere: a folder of images/ and masks/ to score as one more condition.
        views: score at most so many images of each test car.
    """
    place = None if elsewhere is None else file_name(elsewhere.resolve().name).removesuffix(".csv")
    if place in {file_name(name).removesuffix(".csv") for name in (*CONDITIONS, *CORRUPTIONS)}:
        raise InputError(f"A folder called {place} would be taken for a corruption. Give it another name.")
    others = [] if elsewhere is None else folder.build(elsewhere)

    def work(stop: Stop) -> int:
        plan = build(study, machine, stop.check)
        load_rates(plan)
        load_looks(plan)
        runs = dict(_finished(plan))
        if not runs:
            raise InputError(
                f"The study {study.name} has no finished run with weights under {plan.machine.runs_dir} "
                f"{_made_otherwise(plan) or 'yet.'}"
            )
        for condition in CONDITIONS:
            _score(plan, runs, condition, None, views, stop)
        if place is not None:
            _score(plan, runs, place, others, len(others), stop)
        print(f"Next: python run.py report {study.name}{plan.machine.output_flag}")
        return 0

    return interrupts.interruptible(work)


def _finished(plan: Plan) -> Iterator[tuple[str, tuple[TrainedModel, list[Sample]]]]:
    """The key of each finished run, its last weights and its test images."""
    for cell, seed in plan.runs():
        prepared = plan.run(cell, seed)
        if prepared is None:
            continue
        record = RunFolder(plan.machine.runs_dir / prepared.config.key)
        if record.result() is not None and (record.folder / LAST).exists():
            yield prepared.config.key, (TrainedModel(record.folder / LAST, prepared.config, {}), prepared.parts.test)


def _made_otherwise(plan: Plan) -> str:
    """How a finished run of the study's plan on disk differs from what is planned now; empty where none is there."""
    varied = ("seed", "learning_rate")  # within a cell
    planned = {cell.id: cell.config.to_dict() for cell in plan.cells}
    for cell in (read_json(plan.folder / "plan.json") or {}).get("cells", ()):
        for key in cell["runs"].values():
            saved, now = RunFolder(plan.machine.runs_dir / key).saved().get("config", {}), planned.get(cell["cell"], {})
            names = [name for name in now if name not in varied and name in saved and saved[name] != now[name]]
            if names and (plan.machine.runs_dir / key / "result.json").exists():
                differ = ", ".join(f"{name.replace('_', ' ')} {saved[name]} (here {now[name]})" for name in names)
                how = f" (OMP_NUM_THREADS={saved['threads']} before the command)" if "threads" in names else ""
                return f"with these settings: its runs were made with {differ}. Use the same here{how}."
    return ""


def _score(
    plan: Plan,
    runs: Mapping[str, tuple[TrainedModel, list[Sample]]],
    condition: str,
    others: list[Sample] | None,
    views: int,
    stop: Stop,
) -> None:
    """Add to a condition's file the runs that it lacks, or has on other images (of other `views`, or another folder).

    Runs on the same images at the same size share the loading.
    """
    path = plan.folder / PLACE / file_name(condition)
    known = read_file(path)
    scored = known.groupby("key")["image"].agg(set)
    batches: dict[tuple[tuple[int, int], tuple[Sample, ...]], list[TrainedModel]] = {}
    notices: dict[str, None] = {}
    for key, (trained, test) in runs.items():
        images = test
        if others is not None:
            images, said = _as_the_run_reads(trained, test, others)
            notices |= dict.fromkeys(said)
        samples = tuple(_subset(images, views))
        if scored.get(key) != {sample.name for sample in samples}:
            known = known[known.key != key]
            batches.setdefault((trained.config.size, samples), []).append(trained)
    for notice in notices:
        print(notice, flush=True)
    device = torch.device(find_device("auto"))
    rows: list[dict[str, Any]] = []
    for (size, samples), batch in batches.items():
        models = [trained.model().to(device) for trained in batch]
        dataset = CorruptedDataset(samples, size, condition if others is None else CLEAN)
        with progress.progress_counter(f"{condition}, {len(models)} networks", stop.check) as show:
            for done, image in enumerate(evaluator.evaluate(models, dataset, device, "test"), 1):
                for trained, row in zip(batch, image.rows, strict=True):
                    rows.append({"key": trained.key, "condition": condition, **row})
                show(done, len(samples))
    if rows:
        table = pd.concat([known, pd.DataFrame(rows)[list(COLUMNS)]], ignore_index=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, table.round(DIGITS).to_csv(index=False, lineterminator="\n").encode())


def _as_the_run_reads(
    trained: TrainedModel, test: Sequence[Sample], others: Sequence[Sample]
) -> tuple[list[Sample], list[str]]:
    """Foreign images as a run reads them, and sentences about what is determined from them."""
    reading = Reading.elsewhere(vars(trained.config), "folder")
    reading, notices = determine_reading_elsewhere(reading, others, lambda: test)
    return read_as(others, reading), notices


def _subset(samples: Sequence[Sample], views: int) -> list[Sample]:
    """At most `views` images of each group, evenly spaced."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    return [sample for group in groups.values() for sample in group[:: math.ceil(len(group) / views)]]
