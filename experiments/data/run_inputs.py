"""A run's data: listed, fingerprinted and split."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.data import splits
from experiments.data.augment import Pipeline
from experiments.data.cache import Pixels
from experiments.data.dataset import ImageDataset
from experiments.data.samples import Sample, fingerprint
from experiments.runtime import progress
from registry import DATASETS, InputError


@dataclass(frozen=True)
class RunInputs:
    """A run's complete configuration, its samples and their split."""

    config: RunConfig
    machine: RuntimeConfig
    samples: list[Sample]
    parts: splits.Split

    def dataset(self, part: str, pixels: Pixels, augmentation: Pipeline | None = None) -> ImageDataset:
        """The images and masks of a part ("train", "val" or "test"), from the cache."""
        row = {sample: number for number, sample in enumerate(self.samples)}
        chosen = getattr(self.parts, part)
        return ImageDataset(chosen, self.config.size, augmentation, self.config.seed, pixels, [row[s] for s in chosen])

    def without_test(self) -> RunInputs:
        """The same without test samples: for whatever must not see them."""
        return dataclasses.replace(self, parts=dataclasses.replace(self.parts, test=[]))


def load_run_inputs(config: RunConfig, machine: RuntimeConfig, check: Callable[[], None] = lambda: None) -> RunInputs:
    """List the samples, fingerprint and split them. `check` is called meanwhile and may raise to stop.

    Raises InputError for data that cannot be used.
    """
    samples = list_samples(config, machine, check)
    return split_inputs(dataclasses.replace(config, data_fingerprint=fingerprint(samples)), machine, samples)


def list_samples(config: RunConfig, machine: RuntimeConfig, check: Callable[[], None] = lambda: None) -> list[Sample]:
    """The samples of the data set that `config` names; synthetic ones are generated first."""
    entry = DATASETS[config.data]
    known = entry.options()
    options: dict[str, Any] = {"data_dir": machine.data_dir}
    if "group_pattern" in known:
        options["group_pattern"] = config.group_pattern
    if "progress" not in known:
        return entry.build(**options)
    with progress.progress_counter(f"making synthetic cars in {machine.data_dir}", check) as show:
        return entry.build(**options, progress=show)


def split_inputs(config: RunConfig, machine: RuntimeConfig, samples: list[Sample]) -> RunInputs:
    """The inputs of the run `config`, whose fingerprint is that of `samples`, split as it says."""
    if machine.split_file:
        parts = splits.read_manifest(machine.split_file, samples)
        config = dataclasses.replace(config, split=f"file:{_manifest_hash(parts)}")
    elif config.split in splits.ARMS:
        parts = splits.arm(samples, config.split, config.train_cars, config.fold)
    else:
        parts = splits.split(samples, by=config.split, seed=config.seed, fold=config.fold)
    if config.train_draw == "seed" and (config.train_cars is None or config.split in splits.ARMS):
        raise InputError("--train-draw seed draws --train-cars N of the training cars, from --split car: add both.")
    if config.train_cars is not None and config.split not in splits.ARMS:
        seed = config.seed if config.train_draw == "seed" else None
        parts = dataclasses.replace(parts, train=splits.some_cars(parts.train, config.train_cars, seed))
    if config.test_views is not None:
        parts = dataclasses.replace(parts, test=splits.some_views(parts.test, config.test_views))
    return RunInputs(config, machine, samples, parts)


def _manifest_hash(parts: splits.Split) -> str:
    lines = sorted(f"{s.name},{name}\n" for name in splits.PARTS for s in getattr(parts, name))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
