"""A stranger's folder: pairs of every size, format and mode that people have, made on the spot."""

import numpy as np
from PIL import Image

NAMES = ("grey", "sixteen", "clear", "press", "turned", "scan", "old", "flat", "web", "tall", "deep", "small")


def scene(width, height, seed):
    """A photograph (H, W, 3) of a bright ellipse before a wall, and its mask (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    mask = ((x - rng.uniform(0.4, 0.6)) / 0.3) ** 2 + ((y - rng.uniform(0.4, 0.6)) / 0.25) ** 2 < 1
    wall = rng.uniform(20, 90, (6, 8, 3)).repeat(-(-height // 6), 0).repeat(-(-width // 8), 1)[:height, :width]
    photo = np.where(mask[..., None], rng.uniform(150, 230, 3), wall) + rng.normal(0, 6, (height, width, 3))
    return photo.clip(0, 255).astype(np.uint8), mask


def write_strangers_folder(root):
    """Twelve pairs: JPEG, PNG, TIFF, BMP, WebP and GIF; grey, 16 bit, transparent, CMYK, palette, turned by EXIF."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        width, height = 90 + 14 * number, 150 - 9 * number
        photo, mask = scene(width, height, number)
        _save(root / "images", name, photo)
        drawn = Image.fromarray(mask.astype(np.uint8) * 255)
        drawn.save(root / "masks" / (f"{name}_mask.gif" if name == "old" else f"{name}.png"))
    return root


def _save(folder, name, photo):
    picture = Image.fromarray(photo)
    if name == "grey":
        picture.convert("L").save(folder / f"{name}.png")
    elif name == "sixteen":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / f"{name}.png")
    elif name == "clear":
        picture.convert("RGBA").save(folder / f"{name}.png")
    elif name == "press":
        picture.convert("CMYK").save(folder / f"{name}.JPG", "JPEG", quality=95)
    elif name == "turned":
        stored = picture.transpose(Image.Transpose.ROTATE_90)  # what EXIF orientation 6 turns back
        exif = stored.getexif()
        exif[0x0112] = 6
        stored.save(folder / f"{name}.jpeg", exif=exif, quality=95)
    elif name == "deep":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / f"{name}.tif")
    else:
        forms = {"scan": "tiff", "old": "gif", "flat": "bmp", "web": "webp", "tall": "png"}
        (picture.convert("P") if name == "old" else picture).save(folder / f"{name}.{forms.get(name, 'jpg')}")
