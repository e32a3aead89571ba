"""The one door to image files: which formats are opened, how large they may be, and how their pixels become RGB.

All files are read with Pillow: unlike OpenCV it refuses a truncated JPEG instead of filling it up with grey, handles
palettes, and decodes a JPEG at 1/2, 1/4 or 1/8 of its size (`draft`). OpenCV reads only the colours of 16 bits, of
which Pillow has 8.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from registry import InputError

# Pillow refuses more than twice this: 268 million pixels, 16384x16384. A damaged header may claim any number.
Image.MAX_IMAGE_PIXELS = 2**27
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a user's images may be large
warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata of an image whose pixels are complete
TiffImagePlugin.OPEN_INFO.setdefault((b"II", 1, (3,), 1, (64,), ()), ("F", "F;64F"))

# Everything else that Pillow could decode (EPS, PDF, FPX, ICNS, PSD …) is nobody's image here and somebody's exploit.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
SHOWN = "JPEG, PNG, TIFF, BMP, WebP, GIF, PNM, JPEG 2000 and AVIF"
HEIC = {".heic", ".heif", ".hif"}
HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
NO_HEIC = "HEIC images need the package pillow-heif: type pip install pillow-heif, or convert them"
FOREIGN = {  # first bytes of files that are often taken for images
    b"%!PS": "a PostScript file", b"%PDF": "a PDF document", b"\xd0\xcf\x11\xe0": "a FlashPix or Office file",
    b"icns": "an Apple icon", b"8BPS": "a Photoshop file", b"\0\0\1\0": "a Windows icon", b"PK\3\4": "a zip archive",
    b"<svg": "an SVG drawing", b"<!DO": "a web page", b"<htm": "a web page", b"DICM": "a DICOM file",
    b"\x93NUM": "a NumPy array", b"\x89HDF": "an HDF5 file", b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer", b"qoif": "a QOI image", b"DDS ": "a DDS texture",
}  # fmt: skip
ORIENTATION, SAMPLE_FORMAT, BITS = 0x0112, 339, 258  # tags of EXIF and TIFF
UNSIGNED, SIGNED = 1, 2  # values of SAMPLE_FORMAT
ROWS = 64  # of an image that are scaled at a time
Scale = tuple[float, float]  # the values that become 0 and 255


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image tell: nothing is decoded."""

    deep: bool  # more than 8 bits per value
    colours: bool  # deep, and of several channels
    orientation: int  # of EXIF, 1 to 8; 1 is upright
    alpha: bool
    pages: int = 1  # of a TIFF, whose first one is read


@contextlib.contextmanager
def open_image(path: Path | IO[bytes], what: str = "image") -> Iterator[Image.Image]:
    """Open an image file of one of FORMATS, for the length of a `with` block that may decode it.

    Args:
        path: The file (or an open one).
        what: The word for it in messages.

    Raises:
        InputError: The file is missing, damaged, too large, or of another format; so does whatever fails in the block.
    """
    if not isinstance(path, Path):
        with Image.open(path, formats=FORMATS) as picture:
            yield picture
        return
    try:
        # of a path Pillow maps uncompressed pixels into memory, and takes the rows of a turned TIFF for its columns
        with open(path, "rb") as file, Image.open(file, formats=_formats(path)) as picture:
            yield picture
    except InputError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly every exception there is
        raise InputError(_refusal(what, path, error)) from None


def read_image(
    path: Path | str, at_least: tuple[int, int] | None = None, intensity: Scale | None = None
) -> NDArray[np.uint8]:
    """Read an image as RGB (H, W, 3) uint8, rotated as its EXIF data says.

    Args:
        path: The file.
        at_least: (width, height) in pixels: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, but not below this.
        intensity: The values that become 0 and 255, for images of more than 8 bits. Without it 16 bits are divided by
            257 (where no value exceeds 255: left as they are), and negative, larger and floating-point ones refused.

    Raises:
        InputError: The file is missing, truncated or not an image, or needs `intensity`.
    """
    path = Path(path)
    with open_image(path) as picture:
        deep = _is_deep(picture)  # before anything is decoded: then the layout in the file is forgotten
        turned = to_turn(picture)
        if at_least is not None:
            # applied before the rotation: a rotated image must keep enough of both sides
            picture.draft("RGB", (max(at_least), max(at_least)) if turned >= 5 else at_least)
        return orient(_rgb(picture, path, intensity, deep), turned)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image after EXIF rotation, read once in a process: Pillow decodes a PNG to look for EXIF.

    Raises InputError for a file that is missing or not an image.
    """
    return _image_size(path, *_size_and_time(path))


@functools.lru_cache(maxsize=100_000)
def _image_size(path: Path, size: int, modified: int) -> tuple[int, int]:
    with open_image(path) as picture:
        return (picture.height, picture.width) if to_turn(picture) >= 5 else picture.size


def read_header(path: Path) -> Header | None:
    """The image's header; None for a file that cannot be opened, which decoding will refuse."""
    return _header(path, *_size_and_time(path))


def read_headers(paths: Sequence[Path]) -> list[Header | None]:
    """The headers of many images, in order; those that have not changed are read once in a process."""
    return _headers(tuple((path, *_size_and_time(path)) for path in paths))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return -1, 0
    return stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=8)  # every cell of a study asks for the same ones
def _headers(files: tuple[tuple[Path, int, int], ...]) -> list[Header | None]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda file: _header(*file), files))


@functools.lru_cache(maxsize=100_000)  # of size and time too: a changed file is another one
def _header(path: Path, size: int, modified: int) -> Header | None:
    try:
        with open_image(path) as picture:
            deep = _is_deep(picture)
            alpha = "A" in picture.getbands() or "transparency" in picture.info
            png = picture.format == "PNG"  # to look behind the pixels for EXIF data, Pillow would decode them
            turned = orientation(picture) if not png or "exif" in picture.info else 1
            colours = deep and not picture.mode.startswith(("I", "F", "L"))
            return Header(deep, colours, turned, alpha, _pages(picture))
    except InputError:
        return None


def _pages(picture: Image.Image) -> int:
    """The number of pages of a TIFF, 1 where they cannot be counted and for other formats; leaves the first page."""
    try:
        return int(getattr(picture, "n_frames", 1)) if picture.format == "TIFF" else 1
    except Exception:  # a damaged chain of pages behind a first one that may be complete
        return 1


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where it is missing or unreadable."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except InputError:
        raise
    except Exception:  # damaged EXIF data of an image whose pixels may be complete
        return 1
    return value if value in range(1, 9) else 1


def to_turn(picture: Image.Image, asked: int | None = None) -> int:
    """The orientation by which the pixels are still to be turned: their own, or the one that is asked for.

    1 for a TIFF with a tag of its own, which Pillow turns while it decodes it.
    """
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and orientation(picture) > 1:
        return 1
    return orientation(picture) if asked is None else asked


def orient(pixels: NDArray[Any], turned: int) -> NDArray[Any]:
    """Turn pixels (H, W, ...) as EXIF orientation `turned` asks, so that they are shown upright."""
    if turned >= 5:
        pixels = pixels.swapaxes(0, 1)
    across, down = turned in (2, 3, 6, 7), turned in (3, 4, 7, 8)
    pixels = pixels[:, ::-1] if across else pixels
    return np.ascontiguousarray(pixels[::-1] if down else pixels)


def deep_values(path: Path) -> NDArray[Any] | None:
    """The values of an image of more than 8 bits, unscaled, (H, W) or (H, W, 3); None for one of 8 bits.

    Raises InputError for a file that cannot be read.
    """
    with open_image(path) as picture:
        return _deep_values(picture, path) if _is_deep(picture) else None


def scaled(values: NDArray[Any], intensity: Scale) -> NDArray[np.uint8]:
    """Values of any type as 0 to 255: `intensity` names those that become 0 and 255; what lies beyond is clipped."""
    low, high = intensity
    levels = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), ROWS):  # as float64, a large image as a whole would need much memory
        block = values[top : top + ROWS].astype(np.float64)
        share = (np.nan_to_num(block, nan=low) - low) / (high - low)
        levels[top : top + ROWS] = (share.clip(0.0, 1.0) * 255).round()
    return levels


def read_for_display(path: Path, intensity: Scale | None = None) -> tuple[NDArray[np.uint8], bytes | None]:
    """Read an image as RGB (H, W, 3) for a picture that people look at, and the ICC profile of those colours, if any.

    An RGB profile is kept; colours of CMYK with a profile are converted by it to sRGB, which needs none. A network is
    given `read_image` instead. Raises InputError as `read_image` does.
    """
    with open_image(path) as picture:
        profile = picture.info.get("icc_profile")
        if not profile:
            return read_image(path, intensity=intensity), None
        if picture.mode != "CMYK":
            usable = profile[16:20] == b"RGB " and picture.mode not in ("L", "LA", "1", "I;16", "I", "F")
            return read_image(path, intensity=intensity), profile if usable else None
        converted = in_srgb(picture, profile)
        if converted is None:
            return read_image(path, intensity=intensity), None
        return orient(np.asarray(converted), to_turn(picture)), None


def in_srgb(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """The colours of an ICC profile as sRGB, which needs none; None for a damaged profile, or one of other colours."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        return ImageCms.profileToProfile(picture, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def decode_with_opencv(path: Path) -> NDArray[np.uint8]:
    """The image as OpenCV decodes it, BGR (H, W, 3): other bits than Pillow's, for what was made with them.

    Raises InputError for a file that is no image or is not complete.
    """
    with open_image(path) as picture:
        picture.load()
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError("OpenCV does not read it")
        return np.asarray(pixels, np.uint8)


def heic_available() -> bool:
    """Whether HEIC images can be read: whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def _formats(path: Path) -> tuple[str, ...]:
    """The formats as which a file may be opened."""
    if path.suffix.lower() == ".tga":  # has no signature: any bytes might be one
        return ("TGA",)
    if _is_heic(path) and heic_available():
        _register_heic()
        return ("HEIF",)
    return FORMATS


def _is_heic(path: Path) -> bool:
    first = _first_bytes(path)
    return first[4:8] == b"ftyp" and first[8:12] in HEIC_BRANDS


@functools.cache
def _register_heic() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(132)
    except OSError:
        return b""


def _is_deep(picture: Image.Image) -> bool:
    if picture.mode.startswith(("I", "F")):
        return True
    tiff = getattr(picture, "tag_v2", None) if picture.format == "TIFF" else None
    signed = tiff is not None and SIGNED in tiff.get(SAMPLE_FORMAT, ())
    return signed or (picture.mode in ("RGB", "RGBA", "LA") and ";16" in _raw_mode(picture))


def _raw_mode(picture: Image.Image) -> str:
    """The layout of the values in the file, such as RGB;16B. Known until they are decoded."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def deep_greys(picture: Image.Image, path: Path) -> NDArray[Any] | None:
    """The values (H, W) of an undecoded image with three equal channels of 16 bits, where none is above 255.

    Of those Pillow keeps the upper 8 bits, which are 0.
    """
    if picture.mode not in ("RGB", "RGBA") or not _is_deep(picture):
        return None
    try:
        values = _deep_values(picture, path)[..., :3]
    except ValueError:
        return None
    return values[..., 0] if values.max(initial=0) < 256 and bool((values == values[..., :1]).all()) else None


def _deep_values(picture: Image.Image, path: Path) -> NDArray[Any]:
    tiff = getattr(picture, "tag_v2", {}) if picture.format == "TIFF" else {}
    kind, bits = tiff.get(SAMPLE_FORMAT, (UNSIGNED,))[0], tiff.get(BITS, (16,))[0]
    if picture.mode in ("RGB", "RGBA", "LA"):
        picture.load()  # Pillow refuses what is damaged
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.shape[:2] != (picture.height, picture.width):
            raise ValueError("colours of 16 bits that OpenCV does not read")
        return pixels if pixels.ndim == 2 else np.asarray(pixels[..., 2::-1])
    values = np.asarray(picture)
    if picture.mode == "L":
        return values.view(np.int8)  # Pillow takes signed values for unsigned ones
    return values.view(np.uint32) if picture.mode == "I" and kind == UNSIGNED and bits == 32 else values


def _rgb(picture: Image.Image, path: Path, intensity: Scale | None, deep: bool) -> NDArray[np.uint8]:
    if not deep or (intensity is None and picture.mode in ("RGB", "RGBA", "LA")):
        return np.asarray(picture.convert("RGB"))  # of 16 bits Pillow keeps the upper 8
    values = _deep_values(picture, path)
    grey = _ordinary(values, path) if intensity is None else scaled(values, intensity)
    return np.repeat(grey[..., None], 3, axis=2) if grey.ndim == 2 else grey


def _ordinary(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Values of 16 bits as 0 to 255, by the rule for images without a scale of their own."""
    low, high = (float(np.nanmin(values)), float(np.nanmax(values))) if values.size else (0.0, 0.0)
    if values.dtype.kind == "f" or low < 0 or high > 65535:
        kind = "floating-point values" if values.dtype.kind == "f" else "values"
        raise InputError(
            f"The image {path} holds {kind} from {low:.10g} to {high:.10g}, which need an intensity scale: train with "
            f"--intensity {low:.10g}:{high:.10g}, use a run that was, or save the image with 8 or 16 bits."
        )
    return np.asarray((values.astype(np.float32) / (257.0 if high > 255 else 1.0)).round(), np.uint8)


def _refusal(what: str, path: Path, error: Exception) -> str:
    """The sentence for a file that cannot be read."""
    first, reason = _first_bytes(path), str(error).lower()
    starts = (first, first[128:])  # DICOM begins after 128 bytes of anything
    foreign = next((name for magic, name in FOREIGN.items() if any(s.startswith(magic) for s in starts)), "")
    if not path.exists():
        instead = "remove its image" if what == "mask" else "leave it out"
        return f"The {what} {path} is missing. Restore it, or {instead}."
    if path.is_dir():
        return f"The {what} {path} is a folder. Name the images in it, or remove it."
    if path.stat().st_size == 0:
        return f"The {what} {path} is empty (0 bytes). Fetch it again, or remove it."
    if isinstance(error, PermissionError):
        return f"The {what} {path} may not be read by this user. Change its permissions, or remove it."
    if _is_heic(path) and not heic_available():
        return f"The {what} {path} cannot be read: {NO_HEIC}."
    if foreign:
        return f"The {what} {path} is {foreign}. Convert it to one of {SHOWN}, or remove it."
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"The {what} {path} is damaged, or larger than 268 million pixels. Fetch it again, or shrink or remove it."
        )
    if isinstance(error, MemoryError):
        return f"The {what} {path} is damaged, or needs more memory than there is. Fetch it again, or remove it."
    if "truncated" in reason or "broken" in reason:
        return f"The {what} {path} is truncated or damaged. Fetch it again, or remove it."
    return f"The {what} {path} cannot be read as an image ({SHOWN} are read). Fetch it again, or remove it."
