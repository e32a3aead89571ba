"""A study's models beside each other on a few photographs that may be shown: synthetic cars, or others with their credit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from analysis.plots.panels import Shown, png, strip
from analysis.records.places import Places, load_study, one_study
from analysis.verdicts.answer import Answer, answer_study
from experiments.config.schema import DATA_DIRS
from experiments.data import folder
from experiments.data.cache import load_image
from experiments.data.samples import Sample, read_image, read_mask
from experiments.data.synthetic import cars
from experiments.evaluation.evaluator import enlarge, predict_logits
from experiments.inference.trained_model import TrainedModel
from experiments.runtime.files import write_atomically
from experiments.studies.reproduce import load_config
from registry import InputError

MODELS, SHOWN = 5, 3  # beside each other; photographs


@dataclass(frozen=True)
class TrainedCell:
    """A cell's trained network and the size at which it looks at photographs."""

    label: str
    model: nn.Module
    size: tuple[int, int]


def command(places: Places, asked: str | None, photographs: str, credit: str | None) -> None:
    """`report --photographs`: draw the strip beside the study's other pictures."""
    name = one_study(places, asked, f"--photographs {photographs}")
    content = draw_strip(answer_study(load_study(places, name)), places.output_dir, photographs, credit)
    (places.results / name).mkdir(parents=True, exist_ok=True)
    write_atomically(places.results / name / "strip.png", content)


def draw_strip(found: Answer, output_dir: Path, photographs: str, credit: str | None) -> bytes:
    """The strip as a PNG: the highest cells' last weights, of their first seed, on `photographs` ("synthetic", or images/ and masks/).

    Raises InputError where the weights are not under `output_dir`, and for photographs without a credit.
    """
    samples, credit = _samples(photographs, credit)
    showers = list(_trained_cells(found, output_dir))
    if not showers:
        raise InputError(
            f"No checkpoint of the study {found.study.name} lies under {output_dir / 'runs'}, so its models cannot be shown."
        )
    step = max(1, len(samples) // SHOWN)
    shown = [_shown(sample, showers) for sample in samples[::step][:SHOWN]]
    return png(strip(shown, [shower.label for shower in showers], credit))


def _samples(photographs: str, credit: str | None) -> tuple[list[Sample], str]:
    """The photographs, and what is said of where they come from."""
    if photographs == "synthetic":
        return cars.build(DATA_DIRS["synthetic"]), "Synthetic cars, made by this project."
    if (Path(photographs) / "train_masks").exists():
        raise InputError(
            f"{photographs} has Kaggle's layout: those photographs may not be shown. Type --photographs synthetic, or name other ones."
        )
    if not credit:
        raise InputError(
            f"Say whose the photographs in {photographs} are: --credit 'name, licence', or type --photographs synthetic."
        )
    return folder.build(photographs), credit


def _trained_cells(found: Answer, output_dir: Path) -> Iterator[TrainedCell]:
    """The networks of the highest cells whose checkpoints lie under `output_dir`."""
    for row in found.measured[:MODELS]:
        path = output_dir / "runs" / row.keys[0] / "last.ckpt"
        if row.keys[0] not in found.study.configs or not path.exists():
            continue
        config = load_config(found.study, row.keys[0])
        model = TrainedModel(path, config, {}).model()  # with all its weights from the checkpoint: nothing is fetched
        yield TrainedCell(row.label, model, config.size)


def _shown(sample: Sample, showers: list[TrainedCell]) -> Shown:
    truth = read_mask(sample.mask)
    height, width = truth.shape
    predictions = []
    for shower in showers:
        image = load_image(sample.image, shower.size)
        (logits,) = predict_logits(shower.model, image[None], torch.device("cpu"))
        predictions.append(enlarge(logits, (width, height)) > 0)
    photo = cv2.resize(read_image(sample.image), (width, height), interpolation=cv2.INTER_AREA)
    return Shown(np.asarray(photo, np.uint8), truth, predictions, sample.name)
