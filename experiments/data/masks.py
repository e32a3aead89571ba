"""Masks: which pixels of a file are the object.

A mask is binary (0/1, 0/255, 0/65535), or names classes by values or colours of which some are the object
(`foreground`). It lies in the colours or, as in a cut-out, in the alpha channel. A folder with one file per object is
one mask: what any of its files marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.config.types import NONZERO
from experiments.data.images import deep_greys, open_image, orient, to_turn
from registry import InputError

TOPS = (0, 1, 255, 65535)  # values of the object in a binary mask; 0: it has none
INSTANCES = 8  # labels from 1 on without gaps that look like those of single objects; of more than 8 bits, 2 do
CLASSES = 64  # a mask of more values is taken for a smoothed one, not for one of classes
MANY_COLOURS = ", or --foreground nonzero where every colour but 0,0,0 is the object"
AREA = 16  # sides of a mask from which on classes have an area, of which soft edges have none
EDGE = 12  # values this near to 0 or 255 are what JPEG makes of them
Foreground = Sequence[int | str]  # values or indices, and colours as "255,0,0"; or "nonzero" alone


def mask_files(mask: Path) -> list[Path]:
    """The files of a mask: itself or, of a folder with one file per object, its PNGs, sorted by name."""
    if not mask.is_dir():
        return [mask]
    return sorted(path for path in mask.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith("."))


def read_mask(
    path: Path | str, foreground: Foreground = (), channel: str = "auto", turned: int | None = None
) -> NDArray[np.bool_]:
    """Read a mask as booleans (H, W), True on the object. Palettes and EXIF rotation are honoured.

    Args:
        path: The file, or a folder of PNGs whose objects are merged.
        foreground: The values (of a palette image: indices) and colours that are the object; "nonzero" for any but 0.
            Without any the mask is binary: 0/1 or 0/255 (16 bit: 0/65535).
        channel: "colour", "alpha", or "auto": alpha where it alone varies.
        turned: The EXIF orientation to turn the mask by; None for its own, which a TIFF always has turned already.

    Raises:
        InputError: A file is missing, truncated, not an image, or neither binary nor of classes that are named; a
            folder holds no PNG, or PNGs of several sizes.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path, foreground, channel, turned)
    merged: NDArray[np.bool_] | None = None
    for file in mask_files(path):
        mask = _read_file(file, foreground, channel, turned)
        if merged is not None and merged.shape != mask.shape:
            raise InputError(
                f"The masks in {path} differ in size, such as {file.name}. Restore them or remove the image."
            )
        merged = mask if merged is None else merged | mask
    if merged is None:
        raise InputError(f"The folder of masks {path} holds no PNG. Restore its files, or remove the image.")
    return merged


def _read_file(path: Path, foreground: Foreground, channel: str, turned: int | None) -> NDArray[np.bool_]:
    with open_image(path, "mask") as picture:
        deep = deep_greys(picture, path)
        turned = to_turn(picture, turned)
        alpha = alpha_channel(picture) if channel != "colour" else None
        if alpha is not None and _uses_alpha(picture, alpha, channel):
            return orient(_binary(alpha, path, picture, "alpha channel"), turned)
        values = _levels(picture, bool(foreground)) if deep is None else deep
        if foreground:
            return orient(_is_foreground(values, picture, foreground, path), turned)
        marked = _binary(values, path, picture)
        if channel == "auto" and alpha is not None and _opposite(picture, marked, alpha):
            raise InputError(
                f"The mask {path} marks the opposite in its colours and in its alpha channel. "
                "Say which is right: --mask-channel colour or --mask-channel alpha."
            )
        return orient(marked, turned)


def only_alpha_varies(path: Path) -> bool:
    """Whether a mask has one colour and the object in its alpha channel. Unreadable files have no such thing."""
    try:
        with open_image(path, "mask") as picture:
            alpha = alpha_channel(picture)
            return alpha is not None and not _constant(alpha) and not _colours_vary(picture)
    except InputError:
        return False


def alpha_channel(picture: Image.Image) -> NDArray[np.uint8] | None:
    """The alpha channel (H, W), of a palette image that of its colours; None where there is none."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return None
    return np.asarray(picture.convert("RGBA"))[..., 3]


def _constant(values: NDArray[Any]) -> bool:
    return values.size == 0 or bool((values == values.flat[0]).all())


def _uses_alpha(picture: Image.Image, alpha: NDArray[np.uint8], channel: str) -> bool:
    """Whether the object is in the alpha channel: of masks that are said to have it there, wherever that channel varies
    or the colours do not; of others, where it alone varies."""
    if channel == "alpha":
        return not _constant(alpha) or not _colours_vary(picture)
    return not _constant(alpha) and not _colours_vary(picture)


def _opposite(picture: Image.Image, marked: NDArray[np.bool_], alpha: NDArray[np.uint8]) -> bool:
    """Whether the colours mark just what is transparent; a palette's transparent entry is a matter of display alone."""
    return picture.mode in ("RGBA", "LA") and not _constant(alpha) and np.array_equal(marked, alpha == 0)


def _colours_vary(picture: Image.Image) -> bool:
    rgb = np.asarray(picture.convert("RGBA"))[..., :3]
    return rgb.size > 0 and not bool((rgb == rgb[0, 0]).all())


def _levels(picture: Image.Image, classes: bool) -> NDArray[Any]:
    """The mask's values (H, W), or its colours (H, W, 3) where classes are asked for and colours are no greys.

    Of a palette image they are its colours if they are black and white, otherwise its indices.
    """
    if picture.mode in ("P", "PA") and not classes:
        grey = np.asarray(picture.convert("L"))
        clear = set(np.unique(grey).tolist()) <= {0, 255} and not _share_a_grey(picture, grey)
        return grey if clear else _indices(picture)
    if picture.mode in ("P", "PA"):
        return _indices(picture)
    if picture.mode.startswith(("I", "F")):
        return np.asarray(picture)
    if classes and picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if classes and picture.mode not in ("L", "LA"):
        rgb = np.asarray(picture.convert("RGB"))
        return rgb[..., 0] if _grey(rgb) else rgb
    return np.asarray(picture.convert("L"))


def _indices(picture: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(picture)
    return values if values.ndim == 2 else np.asarray(values[..., 0])  # PA: index and alpha


def _share_a_grey(picture: Image.Image, grey: NDArray[np.uint8]) -> bool:
    """Whether several colours of a palette image are one grey: nearly black ones, say."""
    palette = picture.getpalette("RGB") or []
    used = {tuple(palette[3 * index : 3 * index + 3]) or (0, 0, 0) for index in np.unique(_indices(picture)).tolist()}
    return len(used) > len(np.unique(grey))


def _nearly_black(picture: Image.Image, grey: NDArray[Any]) -> bool:
    """Whether a mask has colours whose greys are 0 and 1, such as the labels 1,0,0 and 2,0,0."""
    if picture.mode in ("1", "L", "LA", "P", "PA") or picture.mode.startswith(("I", "F")):
        return False
    return bool(grey.max(initial=0) < 2) and not _grey(np.asarray(picture.convert("RGB")))


def _grey(rgb: NDArray[np.uint8]) -> bool:
    return bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all())


def _binary(levels: NDArray[Any], path: Path, picture: Image.Image, where: str = "") -> NDArray[np.bool_]:
    top = levels.max(initial=0)
    dim = not where and _nearly_black(picture, levels)
    if dim or top not in TOPS or not bool(((levels == 0) | (levels == top)).all()):
        raise InputError(f"The mask {path} is not binary: {_not_binary(levels, picture, where)}")
    return levels > 0


def _not_binary(levels: NDArray[Any], picture: Image.Image, where: str) -> str:
    """What the mask holds instead, and the advice that fits."""
    values = np.unique(levels)
    shown = ", ".join(f"{value:g}" for value in values[:6]) + (" …" if len(values) > 6 else "")
    held = f"its {where} holds the values {shown}" if where else f"it holds the values {shown}"
    if not where and picture.format != "JPEG" and _seem_instances(values):
        return (
            f"{held}, which look like instance labels, one number for each object (Cellpose, StarDist): type "
            "--foreground nonzero, and any value but 0 is the object. If they are classes, name all values that are "
            "the object in any of the masks, such as --foreground 1."
        )
    colours = [] if picture.mode in ("P", "PA", "L", "LA", "1") else _colours(picture)
    if where or picture.format == "JPEG" or _seem_smoothed(values) or (not colours and _soft_edges(levels)):
        smooth = "Threshold it at half and save it again as PNG, without smoothing or JPEG compression."
        return f"{held}; a mask holds 0 and 1, or 0 and 255. {smooth}"
    if colours:
        others = [colour for colour in colours if colour != "0,0,0"]
        return (
            f"it holds the colours {' and '.join(colours[:6])}{' …' if len(colours) > 6 else ''}. Name those of the "
            f"object, such as --foreground {others[0]}{MANY_COLOURS if len(colours) > 6 else ''}."
        )
    labels = [value for value in values if 0 < value < CLASSES] or [value for value in values if value != 0]
    others = [f"{value:g}" for value in labels]  # 255 beside labels mostly stands for pixels to be ignored
    objects = " ".join(others) if len(others) < 3 else others[0]
    objects += f", or --foreground {' '.join(others)} for all" if 3 <= len(others) <= 6 else ""
    what = f"{held}; a mask without classes holds 0 and 1, or 0 and 255."
    return f"{what} Name all values that are the object in any of the masks, such as --foreground {objects}."


def _seem_instances(values: NDArray[Any]) -> bool:
    """Whether the values of a mask number its objects from 1 on, rather than name classes."""
    labels, deep = values[values > 0], values.dtype.itemsize > 1
    fewest = INSTANCES if not deep else 3 if values.dtype.kind == "f" else 2
    if len(labels) < fewest or not bool((values == np.floor(values)).all()):
        return False
    smoothed = not deep and labels.max() >= 255 - EDGE
    return not smoothed and len(labels) >= 0.8 * float(labels.max())  # an object at the rim may be cut off


def _seem_smoothed(values: NDArray[Any]) -> bool:
    """Whether the values of a mask are those of a blurred or compressed outline, not of classes."""
    bright = (values >= 255 - EDGE) & (values < 255)  # no labels are numbered from there on
    ends = len(values) > 3 and bool(((values <= EDGE) | (values >= 255 - EDGE)).all())
    return len(values) > CLASSES or (ends and bool(bright.any())) or not bool((values == np.floor(values)).all())


def _soft_edges(levels: NDArray[Any]) -> bool:
    """Whether the values between 0 and the highest lie along outlines alone: none has an area, as classes have."""
    top = levels.max(initial=0)
    between = (levels > 0) & (levels < top)
    if top < 128 or min(levels.shape) < AREA or levels.min() > 0 or len(np.unique(levels[between])) < 3:
        return False
    blocks = np.lib.stride_tricks.sliding_window_view(levels, (3, 3))
    inside = between[1:-1, 1:-1]
    return bool((blocks[inside].min((-1, -2)) < blocks[inside].max((-1, -2))).all())


def _colours(picture: Image.Image) -> list[str]:
    """The colours of a mask as R,G,B; none where all are greys."""
    if picture.mode.startswith(("I", "F")):
        return []
    rgb = np.asarray(picture.convert("RGB"))
    codes = np.unique(rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    return [] if _grey(rgb) else [f"{code >> 16},{code >> 8 & 255},{code & 255}" for code in codes.tolist()]


def describe_values(path: Path, channel: str = "auto") -> str:
    """The values or colours that a mask holds, such as "0 and 255", where any may be the object.

    Empty for black alone, where the object is in the alpha channel, for a folder, and for a file that cannot be read.
    """
    if path.is_dir():
        return ""
    try:
        with open_image(path, "mask") as picture:
            alpha = alpha_channel(picture) if channel != "colour" else None
            levels = _levels(picture, True)
            colours = levels.ndim == 3
            held = _colours(picture) if colours else [f"{value:g}" for value in np.unique(levels)]
            if held in (["0"], ["0,0,0"]) or (alpha is not None and _uses_alpha(picture, alpha, channel)):
                return ""
    except InputError:
        return ""
    first, last = ", ".join(held[:-1][:6]), f" and {held[-1]}" if len(held) <= 6 else " …"
    return ("the colours " if colours else "") + (first + last if first else held[0])


def _is_foreground(values: NDArray[Any], picture: Image.Image, foreground: Foreground, path: Path) -> NDArray[np.bool_]:
    most = 2 if NONZERO in foreground else CLASSES
    if picture.format == "JPEG" and len(np.unique(values)) > most:
        raise InputError(
            f"The mask {path} is a JPEG of more than {most} values: compression has smoothed its classes. "
            "Save it again as PNG."
        )
    if NONZERO in foreground:
        there: NDArray[np.bool_] = np.nan_to_num(values) != 0
        return there if there.ndim == 2 else np.asarray(there.any(-1))
    numbers = [value for value in foreground if not isinstance(value, str)]
    named = [value for value in foreground if isinstance(value, str)]
    if values.ndim == 3 and numbers:
        held = " and ".join(_colours(picture)[:6])
        raise InputError(f"The mask {path} has colours ({held}), not values: {_colours_alone(numbers, named)}")
    numbers += [1] if picture.mode == "1" and 255 in numbers else []
    marked = np.isin(values, numbers) if values.ndim == 2 else np.zeros(values.shape[:2], bool)
    if named:
        rgb = np.asarray(picture.convert("RGB"))
        for colour in named:
            marked |= (rgb == np.array(tuple(map(int, colour.split(","))))).all(-1)
    return marked


def _colours_alone(numbers: Sequence[int], colours: Sequence[str]) -> str:
    """The advice where values were named and a mask has colours: a grey value is a colour as well."""
    if not colours:
        return (
            "name colours of the object, such as --foreground 255,0,0, and, where other masks of the folder hold "
            "values, these as colours too, such as 255,255,255 for 255."
        )
    every = dict.fromkeys([*colours, *(f"{value},{value},{value}" for value in numbers if value < 256)])
    return (
        "values and colours cannot be mixed in one folder, so name colours of the object only, a grey value V as "
        f"V,V,V: --foreground {' '.join(every)}."
    )
