"""A synthetic car in a studio: camera, light, wall and floor, and the photograph with its exact mask.

Colours are RGB in [0, 1]. The car is painted on a canvas of thrice the image size with four channels; the fourth is
the mask, so that photo and mask come from the very same strokes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from experiments.data.synthetic.body import MATERIALS, Body, car_body
from experiments.data.synthetic.studio import SHIFT, Camera, Room, car_materials, fit_camera, make_room, studio_colours

VIEWS = 16
SCALE = 3  # supersampling; odd, so that no pixel is covered by exactly half
GLASS, SOLID = 128, 255
GLOSS = {"roof": 0.6, "glass": 1.0, "chrome": 0.9, "lamp": 0.9, "rim": 0.5}


def car_pictures(rng: np.random.Generator, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The 16 views of one car: photo (H, W, 3) uint8 RGB and mask (H, W) uint8 in {0, 1}."""
    body = car_body(rng)
    camera = fit_camera(body, size, rng)
    wall, floor = studio_colours(rng)
    materials = car_materials(rng, wall, floor)
    room = make_room(rng, camera, wall, floor, materials["paint"])
    look = Look(*rng.uniform((0.05, 0.35, 0.0, 0.25, 0.0), (0.35, 0.8, 0.6, 0.9, 2 * np.pi)))
    start = np.radians(rng.uniform(-5, 5))
    for view in range(VIEWS):
        angle, roll = start + 2 * np.pi * view / VIEWS, np.radians(np.clip(rng.normal(0, 0.15), -0.4, 0.4))
        zoom, shake = rng.uniform(0.99, 1.01), np.clip(rng.normal(0, 0.0015, 2), -0.004, 0.004) * size[0]
        shot = replace(camera, angle=angle, roll=roll, focal=camera.focal * zoom, offset=tuple(shake))
        yield photograph(body, shot, room, materials, look, rng)


@dataclass(frozen=True)
class Look:
    """What a car's pictures share: strength of the floor's reflection, of the shadow, of what is seen through glass,
    of the paint's gloss; `light`: direction of the side light in radians."""

    mirror: float
    shadow: float
    through: float
    gloss: float
    light: float


def photograph(
    body: Body, camera: Camera, room: Room, materials: dict, look: Look, rng
) -> tuple[np.ndarray, np.ndarray]:
    """One view: photo (H, W, 3) uint8 and mask (H, W) uint8."""
    colours = shade(body, camera, materials, room, look)
    canvas = draw_car(body, camera, colours, SCALE)
    cover = shrink(np.uint8(255) * (canvas[..., 3] > 0), camera)
    scene = move(room.picture, camera)
    reflect(scene, body, camera, colours, look)
    scene *= shadow(body, camera, look)
    compose(scene, canvas, cover, camera, look)
    return develop(scene, room, rng), (cover >= 127).astype(np.uint8)  # more than half of the pixel


def shrink(canvas: np.ndarray, camera: Camera) -> np.ndarray:
    return cv2.resize(canvas, camera.size, interpolation=cv2.INTER_AREA)


def blend(scene: np.ndarray, image: np.ndarray, weight: np.ndarray) -> None:
    """scene += weight * (image - scene), in place; image (H, W, 3), weight (H, W)."""
    scene += cv2.merge([weight] * 3) * (image - scene)


def move(picture: np.ndarray, camera: Camera) -> np.ndarray:
    """The room as this shot's camera shake shows it."""
    matrix = cv2.getRotationMatrix2D((camera.size[0] / 2, camera.horizon), -np.degrees(camera.roll), 1.0)
    matrix[:, 2] += np.array(camera.offset)
    return cv2.warpAffine(picture, matrix, camera.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shade(body: Body, camera: Camera, materials: dict, room: Room, look: Look) -> np.ndarray:
    """One colour (N, 4) per quad, uint8: diffuse light from above and one side, and reflections of the room."""
    base = np.stack([materials[name] for name in MATERIALS])[body.material]
    gloss = np.array([GLOSS.get(name, 0.1) for name in MATERIALS])[body.material, None]
    gloss = np.where(body.material[:, None] == MATERIALS.index("paint"), look.gloss, gloss)
    away = camera.eye - body.centres
    away /= np.sqrt(dot(away, away))[:, None]
    facing = np.clip(dot(body.normals, away), 0, 1)[:, None]
    side = camera.axes @ (np.cos(look.light), np.sin(look.light), 0.35)
    diffuse = 0.42 + 0.36 * (0.5 + 0.5 * body.normals[:, 2:]) + 0.28 * np.clip(body.normals @ side, 0, 1)[:, None]
    bounce = 2 * facing * body.normals - away
    mirrored = surroundings(bounce[:, 2:], room) * (0.06 + 0.94 * (1 - facing) ** 4) + 0.2 * lamps(bounce[:, 2:])
    alpha = np.where(body.material == MATERIALS.index("glass"), GLASS, SOLID)
    return np.column_stack([np.clip(base * diffuse + gloss * mirrored, 0, 1) * 255, alpha]).astype(np.uint8)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)


def surroundings(up: np.ndarray, room: Room) -> np.ndarray:
    """Colour that a ray of slope `up` (N, 1) hits: floor below, wall at eye level, grey ceiling above."""
    below, above = 1 + 0.6 * np.clip(up, -1, 0), 1 - 0.4 * np.clip(up, 0, 1)
    return np.where(up < 0, room.floor * below, room.wall * above)


def lamps(up: np.ndarray) -> np.ndarray:
    """Two bands of ceiling lamps, brightness (N, 1)."""
    return 2.5 * np.exp(-(((up - 0.8) / 0.13) ** 2)) + 1.2 * np.exp(-(((up - 0.4) / 0.1) ** 2))


def draw_car(body: Body, camera: Camera, colours: np.ndarray, scale: int, mirrored: bool = False) -> np.ndarray:
    """Paint the quads that face the eye from the farthest to the nearest: a canvas (H * scale, W * scale, 4) uint8.
    `mirrored`: as seen in the floor, that is from an eye below it."""
    flip = np.array([1, 1, -1 if mirrored else 1])
    eye = camera.eye * flip
    away = eye - body.centres
    layer = np.where(body.plane[:, :3] @ eye > body.plane[:, 3], body.layer, body.far_layer)
    order = np.lexsort((-dot(away, away), layer))
    order = order[dot(body.normals, away)[order] >= 0]
    # OpenCV counts from the middle of the first pixel, the camera from its corner.
    pixels = np.rint((camera.project(body.quads[order] * flip) * scale - 0.5) * 2**SHIFT).astype(np.int32)
    width, height = camera.size
    canvas = np.zeros((height * scale, width * scale, 4), np.uint8)
    thick = round(1.5 * scale * max(1, width / 480))  # of the antenna; thinner it would leave gaps in the mask
    rods = body.material[order] == MATERIALS.index("antenna")
    for quad, colour, rod in zip(pixels, colours[order].tolist(), rods.tolist(), strict=True):
        if rod:
            cv2.polylines(canvas, [quad[:3]], False, colour, thick, shift=SHIFT)
        else:
            cv2.fillConvexPoly(canvas, quad, colour, shift=SHIFT)
    return canvas


def crop(cover: np.ndarray) -> tuple[slice, slice]:
    """The rectangle that holds all of the car: work elsewhere would be wasted."""
    x, y, width, height = cv2.boundingRect(cover)
    return slice(y, y + height), slice(x, x + width)


def reflect(scene: np.ndarray, body: Body, camera: Camera, colours: np.ndarray, look: Look) -> None:
    """Lay the car upside down into the shiny floor; not a part of the mask."""
    image = draw_car(body, camera, colours, 1, mirrored=True)
    image[..., 3] = np.uint8(255) * (image[..., 3] > 0)
    image = cv2.GaussianBlur(image, (0, 0), 0.003 * camera.size[0])
    box = crop(image[..., 3].copy())
    image = image[box].astype(np.float32) / 255
    blend(scene[box], image[..., :3], image[..., 3] * np.float32(look.mirror))


def shadow(body: Body, camera: Camera, look: Look) -> np.ndarray:
    """How much light (H, W, 3) reaches the floor: a dark contact under the car and a wide soft edge."""
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    flat = np.sign(circle) * np.abs(circle) ** 0.4 * body.footprint * 0.98
    outline = (camera.project(np.column_stack([flat, 0 * angle])) / 4 * 2**SHIFT).astype(np.int32)
    width, height = camera.size
    patch = np.zeros((height // 4, width // 4), np.float32)
    cv2.fillConvexPoly(patch, outline, 1.0, shift=SHIFT)
    contact, wide = (cv2.GaussianBlur(patch, (0, 0), sigma * width / 4) for sigma in (0.008, 0.035))
    light = cv2.resize(1 - look.shadow * (0.65 * contact + 0.35 * wide), camera.size, interpolation=cv2.INTER_LINEAR)
    return cv2.merge([light] * 3)


def compose(scene: np.ndarray, canvas: np.ndarray, cover: np.ndarray, camera: Camera, look: Look) -> None:
    """Put the car before the scene; a part of the wall shines through its windows."""
    box = crop(cover)
    car = (
        shrink(canvas, camera)[box][..., :3].astype(np.float32) / 255
    )  # black outside, so already weighted by its cover
    glass = shrink(np.uint8(255) * (canvas[..., 3] == GLASS), camera)[box] * np.float32(look.through / 255)
    hidden = cover[box] / np.float32(255)
    car += cv2.merge([1 - hidden] * 3) * scene[box]
    blend(car, 0.7 * scene[box], glass)
    scene[box] = car


def develop(scene: np.ndarray, room: Room, rng) -> np.ndarray:
    """Lens softness, vignette, exposure and sensor noise: (H, W, 3) float -> uint8."""
    scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.3, 0.75))
    scene = cv2.multiply(scene, room.lens, scale=255 * rng.uniform(0.95, 1.05))
    noise = rng.standard_normal(scene.shape, np.float32) * np.float32(255 * rng.uniform(0.008, 0.025))
    return cv2.add(scene, noise, dtype=cv2.CV_8U)  # rounds and saturates
