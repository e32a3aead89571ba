"""Row 29 of docs/reliability.md: pictures made to harm are read whole or refused in one sentence."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.data import images
from experiments.data.masks import read_mask
from registry import InputError
from tests.conftest import FUZZ

GREY = (np.add.outer(np.arange(40), np.arange(56)) * 2).astype(np.uint8)
COLOURS = np.dstack([GREY, GREY.T.repeat(2, 1)[:40, :56] if GREY.T.shape[0] >= 40 else GREY, GREY[::-1]])


def encoded(picture, kind, **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def whole_pictures():
    """One valid file of each kind that is read, by its suffix."""
    rgb, exif = Image.fromarray(COLOURS), Image.Exif()
    exif[0x0112] = 6
    deep = {
        "16.png": GREY.astype(np.uint16) * 257,
        "rgb16.png": COLOURS.astype(np.uint16) * 257,
        "f.tif": GREY.astype(np.float32),
        "i16.tif": GREY.astype(np.int16) - 100,
    }
    made = {name: cv2.imencode(f".{name.rpartition('.')[2]}", pixels)[1].tobytes() for name, pixels in deep.items()}
    return made | {
        "jpg": encoded(rgb, "JPEG", exif=exif),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "png": encoded(rgb, "PNG", exif=exif),
        "p.png": encoded(rgb.quantize(8), "PNG"),
        "rgba.png": encoded(rgb.convert("RGBA"), "PNG"),
        "gif": encoded(rgb.quantize(4), "GIF"),
        "bmp": encoded(rgb, "BMP"),
        "webp": encoded(rgb, "WEBP"),
        "raw.tif": encoded(rgb, "TIFF"),
        "lzw.tif": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "g4.tif": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "ppm": encoded(rgb, "PPM"),
        "jp2": encoded(rgb, "JPEG2000"),
        "tga": encoded(rgb, "TGA"),
    }


WHOLE = whole_pictures()


def spoilt(content, rng):
    """A file with some bytes changed, cut out, repeated or replaced by large numbers, mostly in its header."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        near = len(data) if rng.random() < 0.4 else min(len(data), 120)
        at = int(rng.integers(0, max(1, near)))
        match rng.integers(0, 5):
            case 0:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 1:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
            case 2:
                del data[at : at + int(rng.integers(1, 40))]
            case 3:
                data[at:at] = data[at : at + int(rng.integers(1, 40))]
            case _:
                del data[at + 20 :]
    return bytes(data)


def read_every_way(path):
    """Read a file in every way there is; returns how often it was refused."""
    refused, sentences = 0, []
    ways = (
        images.read_image,
        lambda p: images.read_image(p, (32, 32)),
        lambda p: images.read_image(p, None, (-5.0, 9.0)),
        images.image_size,
        images.deep_values,
        images.read_for_display,
        read_mask,
        lambda p: read_mask(p, (1, "255,0,0"), "alpha"),
    )
    for read in ways:
        try:
            result = read(path)
        except InputError as error:
            refused += 1
            sentences.append(str(error))
        else:
            assert read is not images.read_image or (result.dtype == np.uint8 and result.shape[2:] == (3,))
    images.read_header(path)
    for sentence in sentences:
        assert str(path) in sentence and len(sentence.splitlines()) == 1 and sentence.endswith("."), sentence
    return refused


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.fault(29)
def test_a_damaged_picture_is_read_or_refused_in_one_sentence(tmp_path, name):
    rng = np.random.default_rng((29, zlib.crc32(name.encode())))
    path = tmp_path / f"photo.{name}"
    path.write_bytes(WHOLE[name])
    assert images.read_image(path, intensity=(0.0, 255.0)).shape in ((40, 56, 3), (56, 40, 3))
    refused = 0
    for number in range(40 * FUZZ):
        path = tmp_path / f"{number}.{name}"
        path.write_bytes(spoilt(WHOLE[name], rng))
        refused += read_every_way(path)
        path.unlink()
    assert refused, "no file was damaged enough to be refused"


def png(width, height, *chunks):
    """A PNG of 8-bit grey with a valid header of any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


PIXELS = (b"IDAT", zlib.compress(b"\0" * 72))
HOSTILE = {
    "giant.png": png(60000, 60000, (b"IDAT", zlib.compress(b"\0" * 1000))),
    "widest.png": png(2**31 - 1, 2**31 - 1, (b"IDAT", zlib.compress(b"\0"))),
    "text-bomb.png": png(8, 8, (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 200_000_000)), PIXELS),
    "loop.tif": b"II*\0\x08\0\0\0\0\0\x08\0\0\0" + b"\0" * 50,
    "many-tags.tif": b"II*\0\x08\0\0\0\xff\xff" + b"\0\1\3\0\xff\xff\xff\xff\0\0\0\0" * 400,
    "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch RAN) (w) file\n",
    "flash.jpg": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 2000,
    "pdf.jpg": b"%PDF-1.4\n1 0 obj <<>> endobj\n", "icon.png": b"icns\0\0\x10\0" + b"\0" * 100,
    "photoshop.tif": b"8BPS\0\1" + b"\0" * 100, "huge.ppm": b"P6 99999 99999 255\n" + b"\0" * 100,
    "deep.ppm": b"P5 8 8 99999999999\n" + b"\0" * 200, "huge.bmp": b"BM" + b"\xff" * 60, "nothing.tga": b"\0" * 18,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.fault(29)
def test_a_picture_made_to_harm_is_refused_without_running_or_swallowing_anything(tmp_path, monkeypatch, name):
    import resource

    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name == "text-bomb.png":  # text is not needed: the pixels may be read, but the text may not fill the memory
        read_every_way(path)
    else:
        assert read_every_way(path) >= 5
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert os.listdir(tmp_path) == [name] and grown < 300_000, f"{grown} KB"
