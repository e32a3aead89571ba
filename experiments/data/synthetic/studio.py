"""The studio of one synthetic car: a camera that sees all of it, colours, and the empty room with its lettered wall.

Colours are RGB in [0, 1]; pixels count from the corner of the first one.
"""

import colorsys
from dataclasses import dataclass, replace

import cv2
import numpy as np

from experiments.data.synthetic.body import Body

SHIFT = 4  # binary digits of a pixel that OpenCV's polygons are placed to
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)


@dataclass(frozen=True)
class Camera:
    """A pinhole at (0, -distance, height) looking along y, its image shifted so that the horizon is at row `horizon`.

    `focal` and `horizon` are in pixels, `angle` (rotation of the car) and `roll` in radians; `bend` is the radial
    distortion.
    """

    size: tuple[int, int]
    distance: float
    height: float
    focal: float = 1.0
    horizon: float = 0.0
    bend: float = 0.0
    angle: float = 0.0
    roll: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def axes(self) -> np.ndarray:
        """Rows: where the car's x, y and z point in the studio."""
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        return np.array([[-sin, -cos, 0], [cos, -sin, 0], [0, 0, 1]])

    @property
    def eye(self) -> np.ndarray:
        """The camera's place in the car's coordinates."""
        return self.axes @ (0, -self.distance, self.height)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the car, in metres -> pixels (..., 2)."""
        x, y, z = np.moveaxis(points @ self.axes, -1, 0)
        image = np.stack([x, self.height - z], -1) / (y + self.distance)[..., None]
        image *= 1 + self.bend * (image[..., :1] ** 2 + image[..., 1:] ** 2)
        turn = np.array([[np.cos(self.roll), np.sin(self.roll)], [-np.sin(self.roll), np.cos(self.roll)]])
        return self.focal * image @ turn + (self.size[0] / 2 + self.offset[0], self.horizon + self.offset[1])


@dataclass(frozen=True)
class Room:
    """The empty studio. `picture` and `lens` (H, W, 3) float32: the room, and what exposure, white balance and vignette
    make of white; `wall` and `floor`: mean colours, for what the car mirrors."""

    picture: np.ndarray
    lens: np.ndarray
    wall: np.ndarray
    floor: np.ndarray


def fit_camera(body: Body, size: tuple[int, int], rng) -> Camera:
    """A camera in which all 16 views lie inside the photo."""
    camera = Camera(size, rng.uniform(5.6, 7.5), rng.uniform(1.25, 1.9), bend=rng.uniform(-0.04, 0.04))
    turned = [replace(camera, size=(0, 0), angle=2 * np.pi * view / 32) for view in range(32)]
    seen = np.concatenate([view.project(body.quads.reshape(-1, 3)) for view in turned])
    (left, top), (right, bottom) = seen.min(0), seen.max(0)
    wide = size[0] * rng.uniform(0.61, 0.96) / (2 * max(right, -left))
    focal = min(wide, 0.88 * size[1] / (bottom - top))
    centre = size[1] * rng.uniform(0.54, 0.62)
    centre = np.clip(centre, focal * (bottom - top) / 2 + 0.05 * size[1], 0.95 * size[1] - focal * (bottom - top) / 2)
    return replace(camera, focal=focal, horizon=centre - focal * (top + bottom) / 2)


def studio_colours(rng) -> tuple[np.ndarray, np.ndarray]:
    wall = rng.uniform(0.72, 0.95) + rng.normal(0, 0.012, 3)
    floor = rng.uniform(0.42, 0.75) + rng.normal(0, 0.015, 3)
    return np.clip(wall, 0, 1), np.clip(floor, 0, 1)


def car_materials(rng, wall: np.ndarray, floor: np.ndarray) -> dict[str, np.ndarray]:
    """Colours of one car. A third of the paints are the wall's or the floor's own colour: the hard cases."""
    hue = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.35, 0.9), rng.uniform(0.2, 0.85)))
    grey, black = rng.uniform(0.3, 0.75) + rng.normal(0, 0.02, 3), rng.uniform(0.02, 0.1) + rng.normal(0, 0.01, 3)
    choices = [wall + rng.normal(0, 0.02, 3), floor + rng.normal(0, 0.02, 3), grey, black, hue]
    paint = np.clip(choices[rng.choice(5, p=[0.2, 0.15, 0.15, 0.15, 0.35])], 0.01, 0.97)
    dark = rng.uniform(0.03, 0.12)
    return {
        "paint": paint,
        "roof": np.full(3, dark) if rng.random() < 0.2 else paint,
        "trim": np.full(3, dark + 0.03),
        "glass": np.array([0.9, 1.0, 1.0]) * rng.uniform(0.03, 0.16),
        "tyre": np.full(3, rng.uniform(0.04, 0.12)),
        "rim": np.full(3, rng.choice([0.12, 0.4, 0.62, 0.8])),
        "gap": np.full(3, rng.uniform(0.02, 0.06)),
        "lamp": np.array([0.8, 0.82, 0.85]),
        "tail": np.array([0.6, 0.05, 0.06]),
        "chrome": np.full(3, 0.6),
        "plate": np.array([[0.9, 0.9, 0.9], [0.9, 0.8, 0.3], [0.5, 0.65, 0.9]])[rng.integers(3)],
        "antenna": np.full(3, dark),
    }


def make_room(rng, camera: Camera, wall: np.ndarray, floor: np.ndarray, paint: np.ndarray) -> Room:
    """A lettered wall, a soft corner, a shiny floor with turntable and platform."""
    width, height = camera.size
    corner = camera.horizon + camera.focal * camera.height / (camera.distance + rng.uniform(3.5, 6))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    spot = 1 - rng.uniform(0, 0.15) * np.abs(columns / width - rng.uniform(0.3, 0.7))
    upper = spot[..., None] * wall
    letter(upper, rng, corner, paint, floor)
    down = np.clip((rows - corner) / (height - corner), 0, 1)
    lower = (1 + rng.uniform(-0.25, 0.35) * (down - 0.4))[..., None] * floor
    furnish(lower, rng, camera)
    soft = 1 / (1 + np.exp(-(rows - corner) / (height * rng.uniform(0.002, 0.02))))[..., None]
    blotches = cv2.resize(rng.normal(1, 0.015, (9, 12)), (width, height), interpolation=cv2.INTER_CUBIC)
    picture = (upper * (1 - soft) + lower * soft) * blotches[..., None]
    return Room(picture.astype(np.float32), lens(rng, camera.size), wall, floor)


def lens(rng, size: tuple[int, int]) -> np.ndarray:
    y, x = np.linspace(-1, 1, size[1])[:, None], np.linspace(-1, 1, size[0])
    vignette = 1 - rng.uniform(0, 0.12) * (x * x + y * y)
    return (vignette[..., None] * rng.uniform(0.9, 1.1) * rng.uniform(0.97, 1.03, 3)).astype(np.float32)


def letter(wall: np.ndarray, rng, corner: float, paint: np.ndarray, floor: np.ndarray) -> None:
    """Write words on the wall, some in the car's paint, low enough for the car to hide a part of them."""
    height, width = wall.shape[:2]
    for line in range(int(rng.integers(1, 4))):
        word = "".join(rng.choice(list("ABCDEHKLMNORSTUVXZ"), rng.integers(4, 10)))
        font, thick = int(rng.choice(FONTS)), int(rng.integers(1, 9))
        reach = rng.uniform(0.7, 1.0) if line == 0 else rng.uniform(0.15, 0.5)
        (across, tall), _ = cv2.getTextSize(word, font, 1.0, 1)
        scale = min(reach * width / across, 0.3 * height / tall)
        left = rng.uniform(0, 1) * (width - scale * across)
        base = corner - height * rng.uniform(0.0, 0.1 if line == 0 else 0.35)
        colour = [np.full(3, rng.uniform(0.15, 0.5)), paint, floor][rng.choice(3, p=[0.6, 0.25, 0.15])]
        strokes = max(1, round(thick * width / 480))
        ink = np.zeros((height, width), np.uint8)  # OpenCV 5 writes on 8 bits only
        cv2.putText(ink, word, (int(left), int(base)), font, scale, 255, strokes, cv2.LINE_AA)
        wall += ink[..., None] / 255 * (colour - wall)


def furnish(floor: np.ndarray, rng, camera: Camera) -> None:
    """Rings of the turntable and the dark end of its platform: edges that are not the car's."""
    around = np.linspace(0, 2 * np.pi, 90)
    for radius in rng.uniform(2.2, 4.0, rng.integers(1, 3)):
        radius = min(radius, 0.9 * camera.distance)
        circle = camera.project(np.stack([radius * np.cos(around), radius * np.sin(around), 0 * around], -1))
        tone = floor.mean((0, 1)) * rng.uniform(0.7, 1.15)
        cv2.polylines(
            floor, [(circle * 16).astype(np.int32)], True, tone.tolist(), int(rng.integers(1, 3)), cv2.LINE_AA, SHIFT
        )
    if rng.random() < 0.3:
        edge = int(floor.shape[0] * rng.uniform(0.9, 0.97))
        floor[edge:] *= rng.uniform(0.2, 0.6)
