"""How the pixels of a data set are read: one rule for all its files, part of a run's identity.

What the user does not choose is determined once for a data set: the intensity scale from its training images, the
channel that holds the masks from all of them. At its default a choice changes neither the key nor the cache's name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.schema import FOREGROUNDS
from experiments.config.types import MaskChannel, MaskExif
from experiments.data.images import Scale, deep_values, read_headers
from experiments.data.masks import only_alpha_varies
from experiments.runtime.prefetch import prefetch
from registry import InputError

FULL = (0.0, 65535.0)
NARROW = 0.25  # of the range: where nearly all values lie within less, the scale shows little of them
TAILS = (0.1, 99.9)  # percentiles between which nearly all values lie
OF_MASKS = ("foreground", "mask_channel", "mask_exif")  # the choices that are a data set's, not a network's
PICKED = 256  # values of an image that the percentiles are taken of


@dataclass(frozen=True, order=True)
class Reading:
    """The choices that decide how files become pixels; the fields are those of RunConfig."""

    intensity: Scale | None = None
    foreground: tuple[int | str, ...] = ()
    mask_channel: MaskChannel = "auto"
    mask_exif: MaskExif = "own"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Reading:
        """The choices in a config; what it lacks has its default, and that of its data set."""
        names = [field.name for field in dataclasses.fields(cls) if field.name in settings]
        values: dict[str, Any] = {name: settings[name] for name in names}
        for name in ("intensity", "foreground"):  # lists, where the settings come from JSON
            values |= {name: tuple(values[name])} if values.get(name) is not None else {}
        if not values.get("foreground"):
            values["foreground"] = FOREGROUNDS.get(settings.get("data", ""), ())
        return cls(**values)

    @classmethod
    def elsewhere(cls, settings: Mapping[str, Any], data: str) -> Reading:
        """How a run with these settings reads the data set `data`: masks of another than its own by that one's rule."""
        kept = {name: value for name, value in settings.items() if data == settings["data"] or name not in OF_MASKS}
        return cls.of({**kept, "data": data})

    @property
    def suffix(self) -> str:
        """What the name of a cache of such pixels ends in: nothing at the defaults."""
        if self == DEFAULT:
            return ""
        return f"-{hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()[:8]}"


DEFAULT = Reading()


def cache_name(fingerprint: str, size: Sequence[int], reading: Reading) -> str:
    """The name of the folder of decoded pixels: data, (width, height) and reading."""
    return f"{fingerprint}-{size[0]}x{size[1]}{reading.suffix}"


@dataclass(frozen=True)
class ValueRange:
    """The finite values of one image of more than 8 bits, or of several."""

    low: float
    high: float
    integer: bool
    colours: bool
    picked: tuple[float, ...] = ()  # a regular sample, sorted

    @property
    def is_ordinary(self) -> bool:
        """Whether the rule for images without a scale of their own reads it like any of 16 bits."""
        return self.integer and self.low >= 0 and self.high <= 65535 and (self.colours or not 0 < self.high <= 255)


def deep_ranges(images: Iterable[Path]) -> dict[Path, ValueRange]:
    """The range of values of each image of more than 8 bits; 8-bit ones are not decoded, unreadable ones left out."""
    paths = list(images)
    headers = read_headers(paths)
    deep = [path for path, header in zip(paths, headers, strict=True) if header is not None and header.deep]
    ranges = prefetch(_value_range, deep)
    return {path: found for path, found in zip(deep, ranges, strict=True) if found is not None}


def intensity_scale(train: Iterable[ValueRange], others: Iterable[ValueRange] = ()) -> Scale | None:
    """The scale of a data set: its training images' own range; None where the ordinary rule gives the same for all.

    Args:
        train: Of the training images.
        others: Of all other images; they decide only where no training image has more than 8 bits.
    """
    train, others = list(train), list(others)
    known = train or others
    if not known:
        return None
    every, low, high = [*train, *others], min(r.low for r in known), max(r.high for r in known)
    integer = all(r.integer for r in known)
    if integer and low >= 0 and high <= 255 and not any(r.colours for r in every):
        return None if all(r.integer and r.low >= 0 and r.high <= 255 for r in every) else (0.0, 255.0)
    if integer and low >= 0 and 32767 < high <= 65535:
        return None if all(r.is_ordinary for r in every) else FULL
    return (low, high) if high > low else (low, low + 1.0)


def intensity_elsewhere(found: Sequence[ValueRange], learned: Iterable[ValueRange]) -> Scale | None:
    """The scale at which a run without one of its own reads other images; None for the ordinary rule.

    Args:
        found: Of the images to read.
        learned: Of images that the run was trained on, where they are there. Any of 16 bits decides: others are then
            read like these, however dark.
    """
    if not any(r.high > 255 for r in learned):
        return intensity_scale(found)
    fit = all(r.integer and r.low >= 0 and r.high <= FULL[1] for r in found)
    return FULL if fit and not all(r.is_ordinary for r in found) else None


def describe_scale(scale: Scale, ranges: Sequence[ValueRange]) -> str:
    """The sentence for a scale that was determined from images with these ranges."""
    low, high = (f"{end:.10g}" for end in scale)
    text = (
        f"Intensity scale: {len(ranges)} training images have more than 8 bits; of all images, the values {low} to "
        f"{high} become 0 to 255 (--intensity {low}:{high}), and this model keeps that scale."
    )
    picked = np.concatenate([r.picked for r in ranges]) if ranges else np.zeros(0)
    inner = np.percentile(picked, TAILS) if len(picked) else scale
    if inner[1] - inner[0] < NARROW * (scale[1] - scale[0]):
        low, high = (f"{end:.10g}" for end in inner)
        text += f" Nearly all values lie between {low} and {high}; to see more of them, type --intensity {low}:{high}."
    return text


def masks_in_alpha(masks: Iterable[Path]) -> Path | None:
    """The first mask of one colour whose object is in its alpha channel, if there is one."""
    paths = list(masks)
    headers = read_headers(paths)
    with_alpha = [path for path, header in zip(paths, headers, strict=True) if header is not None and header.alpha]
    found = prefetch(_only_alpha_varies, with_alpha)
    return next((path for path, varies in zip(with_alpha, found, strict=True) if varies), None)


def _only_alpha_varies(path: Path) -> bool:
    stat = path.stat()
    return _cached_only_alpha_varies(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=100_000)
def _cached_only_alpha_varies(path: Path, size: int, modified: int) -> bool:
    return only_alpha_varies(path)


def _value_range(path: Path) -> ValueRange | None:
    stat = path.stat()
    return _cached_range(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=100_000)
def _cached_range(path: Path, size: int, modified: int) -> ValueRange | None:
    try:
        values = deep_values(path)
    except InputError:
        return None
    if values is None:
        return None
    integer, colours, flat = values.dtype.kind != "f", values.ndim == 3, values.ravel()
    flat = flat if integer else flat[np.isfinite(flat)]
    if flat.size == 0:
        return None
    picked = np.sort(flat[:: max(1, flat.size // PICKED)].astype(np.float64))
    return ValueRange(float(flat.min()), float(flat.max()), integer, colours, tuple(picked.tolist()))
