"""A run's data: listed, fingerprinted and split."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.data import splits
from experiments.data.cache import Pixels, ceiling
from experiments.data.checks import raw_masks
from experiments.data.groups import near_copies, ungrouped
from experiments.data.images import read_headers
from experiments.data.listing import Listing, unusable_names
from experiments.data.reading import (
    Reading,
    deep_ranges,
    describe_scale,
    intensity_elsewhere,
    intensity_scale,
    masks_in_alpha,
)
from experiments.data.samples import Sample, fingerprint
from experiments.data.used_images import used_before
from experiments.runtime import progress
from experiments.runtime.progress import count
from registry import DATASETS, InputError

if TYPE_CHECKING:  # they need torch, which `data verify` does not
    from experiments.data.augment import Pipeline
    from experiments.data.dataset import ImageDataset

MEASURED = 8  # masks of which the ceiling is taken before training
LOW_CEILING = 0.9  # Dice of the reduced masks themselves, below which the input size is said to lose much
INVISIBLE = 0.5  # and below which objects are said to be too small to be seen
CHECKED = 32  # images that are decoded at full size before training, at most
PARTS = {"train": "training", "val": "validation"}  # the parts that are learned from or chosen by, in words
KNOWN_GROUPS = ("carvana", "synthetic")  # whose names say what belongs together
PATTERN, MANIFEST = "Put them into one group with --group-pattern.", "Put them into one part with --split-file."


@dataclass(frozen=True)
class RunInputs:
    """A run's complete configuration, its samples and their split."""

    config: RunConfig
    machine: RuntimeConfig
    samples: list[Sample]
    parts: splits.Split

    def dataset(self, part: str, pixels: Pixels, augmentation: Pipeline | None = None) -> ImageDataset:
        """The images and masks of a part ("train", "val" or "test"), from the cache."""
        from experiments.data.dataset import ImageDataset

        row = {sample: number for number, sample in enumerate(self.samples)}
        chosen = getattr(self.parts, part)
        return ImageDataset(chosen, self.config.size, augmentation, self.config.seed, pixels, [row[s] for s in chosen])

    def objects(self, part: str, pixels: Pixels) -> int:
        """The number of images of a part whose mask, at the input size, is not empty."""
        row = {sample: number for number, sample in enumerate(self.samples)}
        return sum(bool(pixels.masks[row[sample]].any()) for sample in getattr(self.parts, part))

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
    """The samples of the data set that `config` names, to be read as it says; synthetic ones are generated first."""
    entry = DATASETS[config.data]
    known = entry.options()
    own = {"group_pattern": config.group_pattern, "mask_pattern": machine.mask_pattern}
    options: dict[str, Any] = {"data_dir": machine.data_dir} | {k: v for k, v in own.items() if k in known}
    if "progress" in known:
        with progress.progress_counter(f"making synthetic cars in {machine.data_dir}", check) as show:
            samples = entry.build(**options, progress=show)
    else:
        samples = entry.build(**options)
    return read_as(as_samples(config.data, samples), Reading.of(vars(config)))


def list_folder(data: str, folder: Path, group_pattern: str | None, mask_pattern: str | None) -> Listing:
    """What lies in a data set's folder. A data set of one's own that cannot list is built instead.

    Raises InputError for a pattern that the data set does not take.
    """
    entry, options = DATASETS[data], dict[str, Any](data_dir=folder)
    given = {"group_pattern": (group_pattern, "groups"), "mask_pattern": (mask_pattern, "masks")}
    for option, (pattern, what) in given.items():
        if pattern is not None and option not in entry.options():
            raise InputError(f"--{option.replace('_', '-')} is for --data folder; {data} knows its {what}.")
        options |= {option: pattern} if pattern is not None else {}
    list_files = getattr(importlib.import_module(entry.load().__module__), "listing", None)
    return list_files(**options) if list_files else Listing(as_samples(data, entry.build(**options)))


def as_samples(data: str, found: Any) -> list[Sample]:
    """What a data set's function returned, as samples: these themselves, or (image, mask) or (image, mask, group).

    They are sorted: the rows of a cache follow this order, which the fingerprint in its name does not know.
    Raises InputError for anything else, for nothing, and for names that no table can hold.
    """
    wanted = "it should return a list of Sample, or of (image, mask) or (image, mask, group): paths, and a group's name"
    if not isinstance(found, Iterable) or isinstance(found, (str, bytes, Mapping)):
        raise InputError(f"The data set '{data}' returns {type(found).__name__}; {wanted}.")
    samples = []
    for entry in found:
        if isinstance(entry, Sample):
            image, mask = Path(entry.image), Path(entry.mask)
            samples.append(dataclasses.replace(entry, image=image, mask=mask, group=str(entry.group)))
        elif (
            isinstance(entry, (tuple, list))
            and len(entry) in (2, 3)
            and all(isinstance(x, str | Path) for x in entry[:2])
            and all(isinstance(x, str | Path | Integral) for x in entry[2:])
        ):
            image, mask, *group = entry
            samples.append(Sample(Path(image), Path(mask), str(*group)))
        else:
            raise InputError(f"The data set '{data}' returns {type(entry).__name__} entries; {wanted}.")
    if not samples:
        raise InputError(f"The data set '{data}' returns no images. Check --data-dir.")
    if unusable := unusable_names(path for sample in samples for path in (sample.image, sample.mask)):
        raise InputError(unusable[0].text)
    return _named_apart(data, samples)


def _named_apart(data: str, samples: list[Sample]) -> list[Sample]:
    """The samples by name, each with one of its own: where file names repeat, the path below the common folder.

    A group that is not given is that name without suffix. Raises InputError for an image that is there twice.
    """
    if len({sample.name for sample in samples}) < len(samples):
        root = os.path.commonpath([sample.image.absolute().parent for sample in samples])
        samples = [dataclasses.replace(s, place=s.image.absolute().relative_to(root).as_posix()) for s in samples]
    grouped = [dataclasses.replace(s, group=s.group or Path(s.name).with_suffix("").as_posix()) for s in samples]
    grouped.sort(key=lambda sample: sample.name)
    for one, other in itertools.pairwise(grouped):
        if one.name == other.name:
            raise InputError(f"The data set '{data}' returns the image {one.image} twice. Return each image once.")
    return grouped


def read_as(samples: Sequence[Sample], reading: Reading) -> list[Sample]:
    """The same samples, to be read as `reading` says."""
    return [dataclasses.replace(sample, reading=reading) for sample in samples]


def split_inputs(config: RunConfig, machine: RuntimeConfig, samples: list[Sample]) -> RunInputs:
    """The inputs of the run `config`, whose fingerprint is that of `samples`, split and read as it says.

    What it leaves open about the reading is determined here, and reported once.
    """
    config, parts = _split(config, machine, samples)
    reading, notices = determine_reading(Reading.of(vars(config)), samples, parts.train)
    notices += _suspicions(config, read_as(samples, reading))
    for notice in notices:
        _log_once(notice)
    config = dataclasses.replace(config, intensity=reading.intensity, mask_channel=reading.mask_channel)
    parts = splits.Split(*(read_as(getattr(parts, name), reading) for name in splits.PARTS))
    return RunInputs(config, machine, read_as(samples, reading), parts)


def determine_reading(
    reading: Reading, samples: Sequence[Sample], train: Sequence[Sample]
) -> tuple[Reading, list[str]]:
    """`reading` with what it leaves open: the intensity scale and the masks' channel; and a sentence about each.

    Args:
        reading: What the user chose.
        samples: The data set.
        train: Its training samples, which alone decide the scale where any has more than 8 bits.
    """
    notices = []
    if reading.intensity is None:
        ranges = deep_ranges(sample.image for sample in samples)
        learned = {sample.image for sample in train} & set(ranges)
        known = [ranges[image] for image in sorted(learned)]
        scale = intensity_scale(known, [found for image, found in ranges.items() if image not in learned])
        if scale is not None:
            reading = dataclasses.replace(reading, intensity=scale)
            notices.append(describe_scale(scale, known))
    reading, channel = _determine_channel(reading, samples)
    return reading, notices + channel


def determine_reading_elsewhere(
    reading: Reading, samples: Sequence[Sample], learned: Callable[[], Sequence[Sample]], advice: str = ""
) -> tuple[Reading, list[str]]:
    """How a trained model reads a data set of which its run knew nothing: one rule for all files, as in training.

    Args:
        reading: The run's, with what the user chose instead.
        samples: The data set.
        learned: Images of the run's own data, as far as they are there: they tell whether it reads 16 bits as such.
        advice: A sentence to be added to that about the scale.
    """
    reading, notices = _determine_channel(reading, samples)
    ranges = deep_ranges(sample.image for sample in samples) if reading.intensity is None else {}
    if not ranges:
        return reading, notices
    own = learned()
    known = deep_ranges(sample.image for sample in own[:: max(1, len(own) // CHECKED)][:CHECKED])
    scale = intensity_elsewhere(list(ranges.values()), known.values())
    if scale is None:
        return reading, notices
    notices.append(
        f"Intensity scale: the run has none, and {len(ranges)} of {len(samples)} images have more than 8 bits; of all "
        f"these, the values {scale[0]:.10g} to {scale[1]:.10g} become 0 to 255. {advice}".rstrip()
    )
    return dataclasses.replace(reading, intensity=scale), notices


def _determine_channel(reading: Reading, samples: Sequence[Sample]) -> tuple[Reading, list[str]]:
    """`reading` with alpha as the masks' channel, if that is open and any mask has its object there; and a sentence."""
    if reading.mask_channel != "auto" or not (first := masks_in_alpha(sample.mask for sample in samples)):
        return reading, []
    notice = (
        f"Masks are read from their alpha channel: the colours of {first} say nothing (--mask-channel alpha; "
        "--mask-channel colour reads the colours)."
    )
    return dataclasses.replace(reading, mask_channel="alpha"), [notice]


def _suspicions(config: RunConfig, samples: Sequence[Sample]) -> list[str]:
    """Sentences about what a folder of one's own may hide: groups in the names, masks on raw pixels, further pages."""
    grouped = "" if config.group_pattern is not None or not takes_pattern(config.data) else ungrouped(samples)
    return [notice for notice in (describe_turned(samples), describe_pages(samples), grouped) if notice]


def describe_pages(samples: Sequence[Sample]) -> str:
    """The sentence about TIFFs of several pages, images or masks; empty without such files."""
    tiffs = [path for sample in samples for path in sample.files if path.suffix.lower() in (".tif", ".tiff")]
    pages = {path: header.pages for path, header in zip(tiffs, read_headers(tiffs), strict=True) if header is not None}
    several = [path for path, number in pages.items() if number > 1]
    if not several:
        return ""
    return (
        f"{len(several)} of {len(tiffs)} TIFF files have several pages, such as {several[0]} ({pages[several[0]]} "
        "pages: only the first is read)."
    )


def describe_turned(samples: Sequence[Sample]) -> str:
    """The sentence about images that EXIF turns, and about masks that seem not to follow; empty without such images."""
    turned = sum(header is not None and header.orientation > 1 for header in read_headers([s.image for s in samples]))
    if not turned:
        return ""
    return raw_masks(samples, CHECKED) or f"EXIF turns {turned} of {len(samples)} images."


def takes_pattern(data: str) -> bool:
    """Whether the groups of a data set are named by the user, with --group-pattern."""
    return "group_pattern" in DATASETS[data].options()


def warn_before_training(inputs: RunInputs, pixels: Pixels, tuning: bool = False) -> None:
    """Report, once, what makes the training of these decoded images pointless or its score too good.

    Empty masks in a whole part, objects that vanish at the input size, and near-duplicates across the split.
    Raises InputError where early stopping or tuning would have to choose by validation images without object.
    """
    config, row = inputs.config, {sample: number for number, sample in enumerate(inputs.samples)}
    _warn_of_initial_weights(inputs)
    _warn_of_foreground(inputs, pixels)
    without = [what for part, what in PARTS.items() if getattr(inputs.parts, part) and not inputs.objects(part, pixels)]
    for sentence, concerned in _nothing_to_find(inputs, without):
        if PARTS["val"] in concerned and (tuning or config.early_stopping):
            instead = "Set the learning rate instead of tuning it." if tuning else "Type --early-stopping 0."
            raise InputError(f"{sentence.removeprefix('WARNING: ')} {instead}")
        _log_once(sentence)
    if config.data in KNOWN_GROUPS or config.group_pattern is not None:
        return
    listed = [(sample, name) for name in splits.PARTS for sample in getattr(inputs.parts, name)]
    rows, parts = [row[sample] for sample, _ in listed], [name for _, name in listed]
    if leak := near_copies(pixels.images, rows, parts, [sample.name for sample, _ in listed]):
        leak += f" {PATTERN if takes_pattern(config.data) else MANIFEST}"
        _log_once(leak)


def _warn_of_foreground(inputs: RunInputs, pixels: Pixels) -> None:
    """Say if most training masks, but not all, have nothing that --foreground names."""
    config, number = inputs.config, len(inputs.parts.train)
    empty = number - inputs.objects("train", pixels) if config.foreground else 0
    if number / 2 < empty < number:
        _log_once(
            f"WARNING: {empty} of {number} masks of the training images are empty at {config.size[0]}x{config.size[1]} "
            f"(--foreground {' '.join(map(str, config.foreground))}). See what they hold: python run.py data verify."
        )


def _warn_of_initial_weights(inputs: RunInputs) -> None:
    """Say if the run that --init names, or one before it, learned from this run's validation or test images."""
    own = inputs.machine.runs_dir / inputs.config.key
    earlier, unknown = used_before(own, inputs.machine.init_file)
    if unknown:
        _log_once(f"{unknown}: if any is among its validation or test images, its scores are too high.")
    samples = [*inputs.parts.val, *inputs.parts.test]
    known = (item for used in earlier for item in used.parts(samples).items())
    if learned := len({name for name, part in known if part != "test"}):
        _log_once(
            f"WARNING: the weights of --init have learned from {count(learned, 'image')} of this run's validation and "
            "test images: its scores are too high. Keep the split of the run that they come from."
        )


def _mean_ceiling(config: RunConfig, train: Sequence[Sample]) -> float:
    """The mean ceiling of a few training images with an object; 1 without any."""
    masks = (sample.read_mask() for sample in train[:: max(1, len(train) // MEASURED)][:MEASURED])
    ceilings = [ceiling(mask, config.size) for mask in masks if mask.any()]
    return sum(ceilings) / len(ceilings) if ceilings else 1.0


def _nothing_to_find(inputs: RunInputs, without: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(sentence, the parts that it concerns) for empty masks, and for objects that are too small for the input size.

    `without`: the parts, by the words of PARTS, that have no object at the input size.
    """
    config = inputs.config
    by_word = {what: getattr(inputs.parts, part) for part, what in PARTS.items()}
    empty = [what for what in without if not _any_object(by_word[what])]
    if empty:
        hint = f" (--foreground {' '.join(map(str, config.foreground))})" if config.foreground else ""
        masks = ", and ".join(
            f"all {len(by_word[what])} masks of the {what} images are empty{hint}"
            if len(by_word[what]) > 1
            else f"the mask of the only {what} image is empty{hint}"
            for what in empty
        )
        advice = "Look at them: python run.py data verify."
        yield f"WARNING: {masks}: nothing can be learned from or chosen by them. {advice}", empty
    vanished = [what for what in without if what not in empty]
    at, best = f"WARNING: at {config.size[0]}x{config.size[1]}", _mean_ceiling(config, inputs.parts.train)
    score = f"the training masks themselves, reduced to that size, score a Dice of {best:.2f} on average"
    if vanished:
        lost = f"{at} no object of the {' and '.join(vanished)} images is left: each covers less than half a pixel"
        low = f", and {score}" if best < LOW_CEILING else ""
        yield f"{lost}{low}. Choose a larger --size.", vanished
    elif best < LOW_CEILING:
        loss = "the objects are too small to be seen" if best < INVISIBLE else "much of the objects' shape is lost"
        yield f"{at} {loss}: {score}. Choose a larger --size.", []


def _any_object(part: Sequence[Sample]) -> bool:
    """Whether a mask of some samples has an object at its own size; of many, CHECKED are looked at."""
    return any(sample.read_mask().any() for sample in part[:: max(1, len(part) // CHECKED)])


@functools.cache
def _log_once(notice: str) -> None:
    print(notice, flush=True)  # not `progress.log`: also where runs are quiet, as in a study


def _split(config: RunConfig, machine: RuntimeConfig, samples: list[Sample]) -> tuple[RunConfig, splits.Split]:
    if machine.split_file:
        parts = splits.read_manifest(machine.split_file, samples)
        config = dataclasses.replace(config, split=f"file:{_manifest_hash(parts)}")
    else:
        parts = splits.divide(samples, config.split, config.seed, config.fold, config.train_cars)
    if config.train_draw == "seed" and (config.train_cars is None or config.split in splits.ARMS):
        raise InputError("--train-draw seed draws --train-cars N of the training cars, from --split car: add both.")
    if config.train_cars is not None and config.split not in splits.ARMS:
        seed = config.seed if config.train_draw == "seed" else None
        parts = dataclasses.replace(parts, train=splits.some_cars(parts.train, config.train_cars, seed))
    if config.test_views is not None:
        parts = dataclasses.replace(parts, test=splits.some_views(parts.test, config.test_views))
    return config, parts


def _manifest_hash(parts: splits.Split) -> str:
    lines = sorted(f"{s.name},{name}\n" for name in splits.PARTS for s in getattr(parts, name))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
