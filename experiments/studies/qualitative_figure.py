"""Draw a study's models next to each other on a few publishable images: synthetic cars, or others with a credit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from analysis.plots.panels import Shown, png, strip
from analysis.records.study_paths import StudyPaths, load_study, one_study
from analysis.text.wording import cell_name
from analysis.verdicts.answer import Answer, answer_study
from experiments.config.schema import DATA_DIRS
from experiments.data import folder
from experiments.data.cache import load_image
from experiments.data.images import Scale
from experiments.data.samples import Sample
from experiments.data.synthetic import cars
from experiments.evaluation.evaluator import enlarge, predict_logits
from experiments.inference.trained_model import TrainedModel
from experiments.studies.reproduce import load_config
from registry import InputError

MODELS, IMAGES = 5, 3  # columns and rows of the figure


@dataclass(frozen=True)
class TrainedCell:
    """A cell's trained model and its input size (width, height)."""

    label: str
    model: nn.Module
    size: tuple[int, int]
    intensity: Scale | None = None


def command(paths: StudyPaths, asked: str | None, photographs: str, credit: str | None) -> None:
    """`report --photographs`: write the strip next to the study's other figures."""
    name = one_study(paths, asked, f"--photographs {photographs}")
    content = draw_strip(answer_study(load_study(paths, name)), paths.output_dir, photographs, credit)
    paths.write_results({paths.results / name / "strip.png": content})


def draw_strip(answers: Answer, output_dir: Path, photographs: str, credit: str | None) -> bytes:
    """The strip as a PNG: the last weights of the highest cells, of their first seed.

    Args:
        photographs: "synthetic", or a folder of images/ and masks/.
        credit: whose the images are; needed for a folder.

    Raises:
        InputError: the weights are not in `output_dir`, or a folder has no credit.
    """
    samples, credit = _samples(photographs, credit)
    cells = list(_trained_cells(answers, output_dir))
    if not cells:
        raise InputError(
            f"There is no checkpoint of the study {answers.study.name} in {output_dir / 'runs'}, so its models cannot "
            "be shown."
        )
    step = max(1, len(samples) // IMAGES)
    rows = [_row(sample, cells) for sample in samples[::step][:IMAGES]]
    return png(strip(rows, [cell.label for cell in cells], credit))


def _samples(photographs: str, credit: str | None) -> tuple[list[Sample], str]:
    """The images and their credit."""
    if photographs == "synthetic":
        return cars.build(DATA_DIRS["synthetic"]), "Synthetic cars, made by this project."
    if (Path(photographs) / "train_masks").exists():
        raise InputError(
            f"{photographs} has Kaggle's layout, and those images may not be published. Type --photographs synthetic, "
            "or name other ones."
        )
    if not credit:
        raise InputError(
            f"Whose are the images in {photographs}? Add --credit 'name, licence', or type --photographs synthetic."
        )
    return folder.build(photographs), credit


def _trained_cells(answers: Answer, output_dir: Path) -> Iterator[TrainedCell]:
    """The models of the highest cells that have a checkpoint in `output_dir`."""
    for cell in [cell for cell in answers.ranked if cell.keys][:MODELS]:
        path = output_dir / "runs" / cell.keys[0] / "last.ckpt"
        if cell.keys[0] not in answers.study.configs or not path.exists():
            continue
        config = load_config(answers.study, cell.keys[0])
        model = TrainedModel(path, config, {}).model()  # all weights are in the checkpoint: nothing is downloaded
        yield TrainedCell(cell_name(answers.study, cell.levels, "en"), model, config.size, config.intensity)


def _row(sample: Sample, cells: list[TrainedCell]) -> Shown:
    truth = sample.read_mask()
    height, width = truth.shape
    predictions = []
    for cell in cells:
        image = load_image(sample.image, cell.size, cell.intensity)
        (logits,) = predict_logits(cell.model, image[None], torch.device("cpu"))
        predictions.append(enlarge(logits, (width, height)) > 0)
    photo = cv2.resize(sample.read_image(), (width, height), interpolation=cv2.INTER_AREA)
    return Shown(np.asarray(photo, np.uint8), truth, predictions, sample.name)
