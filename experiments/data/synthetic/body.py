"""The shape of one synthetic car: a lower body and a cabin, wheels and small parts, all as quads in metres.

x points forward, y to the car's left, z up; the wheels stand on z = 0. Both shells are stacks of rounded rectangles
(superellipses) whose length and width change with height; windows, lights and seams are pieces of the same surface, so
that they lie on it from every side.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

MATERIALS = ("paint", "roof", "trim", "glass", "tyre", "rim", "gap", "lamp", "tail", "plate", "chrome", "antenna")

# What is drawn after what. Depth alone cannot order pieces that lie on the same surface.
UNDER, BODY, ON_BODY, WHEEL, RIM, ON_DECK, CABIN, ON_CABIN, OUTSIDE = range(9)


class Style(NamedTuple):
    """Proportions of a kind of car, in metres.

    `hood`, `belt` and `deck` are fractions of the height; `cabin` has fractions of half the length: foot of the
    windscreen, front and rear end of the roof, foot of the rear window.
    """

    length: float
    width: float
    height: float
    clearance: float
    wheel: float
    hood: float
    belt: float
    deck: float
    cabin: tuple[float, float, float, float]
    panes: int


STYLES = {
    "sedan": Style(4.7, 1.80, 1.45, 0.20, 0.32, 0.60, 0.66, 0.69, (0.42, 0.12, -0.40, -0.72), 2),
    "hatchback": Style(4.0, 1.74, 1.49, 0.19, 0.31, 0.60, 0.64, 0.66, (0.52, 0.20, -0.68, -0.93), 3),
    "estate": Style(4.7, 1.80, 1.48, 0.19, 0.32, 0.60, 0.65, 0.66, (0.42, 0.14, -0.76, -0.94), 3),
    "suv": Style(4.6, 1.88, 1.72, 0.27, 0.37, 0.60, 0.65, 0.65, (0.46, 0.24, -0.76, -0.93), 3),
    "van": Style(4.8, 1.92, 1.92, 0.22, 0.34, 0.52, 0.56, 0.57, (0.74, 0.44, -0.90, -0.96), 3),
    "pickup": Style(5.3, 1.90, 1.80, 0.32, 0.39, 0.60, 0.64, 0.66, (0.42, 0.22, -0.12, -0.20), 2),
    "coupe": Style(4.4, 1.84, 1.31, 0.15, 0.34, 0.62, 0.68, 0.72, (0.34, 0.03, -0.28, -0.78), 1),
}


@dataclass(frozen=True)
class Shell:
    """A stack of superellipses. `levels` (L, 4): height t in [0, 1], front x, rear x, half width;
    `profile` (K, 3): x, lower z, upper z of the side view; t in (1, 2] closes it with a lid that rises by `crown`."""

    levels: np.ndarray
    profile: np.ndarray
    crown: float
    power: float

    @property
    def centre(self) -> np.ndarray:
        return np.array([self.levels[:, 1:3].mean(), 0.0, self.profile[:, 1:].mean()])

    def points(self, face: str, across: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Points (len(across), len(t), 3) of one of the faces front, rear, left, right; `across` in [-1, 1]."""
        across, t = np.meshgrid(across, t, indexing="ij")
        wall, lid = np.minimum(t, 1), np.clip(2 - t, 0, 1)
        front, rear, width = (np.interp(wall, self.levels[:, 0], column) for column in self.levels.T[1:])
        bulge = (1 - np.abs(across) ** self.power) ** (1 / self.power)
        along, aside = (across, bulge) if face in ("left", "right") else (bulge, across)
        x = (front + rear) / 2 + (front - rear) / 2 * lid * along * (-1 if face == "rear" else 1)
        y = width * lid * aside * (-1 if face == "right" else 1)
        low, high = (np.interp(x, self.profile[:, 0], column) for column in self.profile.T[1:])
        return np.stack([x, y, low + wall * (high - low) + self.crown * (1 - lid**2)], -1)


@dataclass(frozen=True)
class Body:
    """N quads.

    A piece that the car may hide has a plane: from beyond it (eye . normal > offset) the piece is drawn in `layer`,
    from elsewhere in `far_layer`.
    """

    quads: np.ndarray  # (N, 4, 3)
    normals: np.ndarray  # (N, 3), outward; 0 for the antenna, which has no back
    material: np.ndarray  # (N,) index into MATERIALS
    layer: np.ndarray  # (N,)
    far_layer: np.ndarray  # (N,)
    plane: np.ndarray  # (N, 4): normal, offset

    @cached_property
    def centres(self) -> np.ndarray:
        return self.quads.mean(1)

    @cached_property
    def footprint(self) -> np.ndarray:
        """Half the length and half the width of what stands over the floor."""
        return np.abs(self.quads[self.layer <= BODY]).max((0, 1))[:2]


Pieces = list[Body]


def add(pieces: Pieces, grid, material, layer: int, centre, far_layer=None, plane=(0, 0, 0, -1)) -> None:
    """Add the cells of a grid of points (A, B, 3), facing away from `centre`; `material`: a name, or one per cell."""
    quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], 2).reshape(-1, 4, 3)
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normals *= np.sign((normals * (quads.mean(1) - centre)).sum(1, keepdims=True))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    names = [material] * len(quads) if isinstance(material, str) else material
    layers = [np.full(len(quads), layer), np.full(len(quads), layer if far_layer is None else far_layer)]
    index = np.array([MATERIALS.index(name) for name in names])
    pieces.append(Body(quads, normals, index, layers[0], layers[1], np.tile(np.array(plane, float), (len(quads), 1))))


def join(pieces: Pieces) -> Body:
    return Body(**{part.name: np.concatenate([getattr(piece, part.name) for piece in pieces]) for part in fields(Body)})


def car_body(rng: np.random.Generator) -> Body:
    """One car of a random kind with proportions of its own."""
    kind = str(rng.choice(list(STYLES)))
    style = vary(STYLES[kind], rng)
    pieces: Pieces = []
    lower, cabin = lower_shell(style, rng), cabin_shell(style, rng)
    add_lower(pieces, lower, style, rng)
    add_wheels(pieces, style, rng)
    add_cabin(pieces, cabin, style, rng, panelled=kind == "van" and rng.random() < 0.4)
    add_mirrors(pieces, cabin, style, rng)
    if kind in ("suv", "estate", "van") and rng.random() < 0.6:
        add_rails(pieces, cabin, style)
    if kind in ("sedan", "coupe") and rng.random() < 0.6:
        add_spoiler(pieces, style, rng)
    if rng.random() < 0.8:
        add_antenna(pieces, cabin, lower, style, rng)
    return join(pieces)


def vary(style: Style, rng) -> Style:
    """The same kind of car by another maker."""
    factors = rng.uniform(0.92, 1.08, 5)
    heights = rng.uniform(-0.025, 0.025, 3)
    sizes = np.array(style[:5]) * factors * (1, 1 / factors[1] ** 0.5, 1, 1, 1)  # widths differ less
    cabin = tuple(np.array(style.cabin) + rng.uniform(-0.04, 0.04, 4) * (1, 1, 1, 0.4))
    numbers = [*sizes.tolist(), *(np.array(style[5:8]) + heights).tolist()]
    return style._replace(**dict(zip(Style._fields, numbers, strict=False)), cabin=cabin)


def lower_shell(style: Style, rng) -> Shell:
    half, top = style.length / 2, style.height
    nose, tail = rng.uniform(0.80, 0.90), rng.uniform(0.88, 0.96)
    levels = np.array(
        [
            [0.00, 0.93, 0.94, 0.90],
            [0.15, 0.985, 0.99, 0.975],
            [0.35, 1.00, 1.00, 1.00],
            [0.60, 0.985, 0.985, 0.995],
            [0.80, (2 + nose) / 3 + 0.01, (2 + tail) / 3, 0.975],
            [0.93, (1 + nose) / 2, (1 + tail) / 2, 0.93],
            [1.00, nose, tail, 0.87],
        ]
    )
    foot, _, _, back = style.cabin
    x = half * np.array([-1.0, -0.9, back, (foot + back) / 2, foot, nose, 1.0])
    low = style.clearance + np.array([0.12, 0.04, 0, 0, 0, 0.03, 0.06])
    deck, belt, hood = style.deck, style.belt, style.hood
    high = top * np.array([deck - 0.04, deck, max(belt, deck), belt, belt - 0.01, hood - 0.04, hood - 0.10])
    return Shell(levels * (1, half, -half, style.width / 2), smooth(x, low, high), 0.03, rng.uniform(4.0, 6.5))


def cabin_shell(style: Style, rng) -> Shell:
    half, (foot, front, rear, back) = style.length / 2, style.cabin
    top, base = rng.uniform(0.70, 0.78), rng.uniform(0.90, 0.94)
    levels = np.array(
        [
            [0.00, foot, back, base],
            [0.88, front + 0.12 * (foot - front), rear + 0.12 * (back - rear), top + 0.12 * (base - top)],
            [0.97, front - 0.03, rear + 0.02, top - 0.03],
            [1.00, front - 0.07, rear + 0.05, top - 0.08],
        ]
    )
    x = half * np.linspace(back, foot, 5)
    high = style.height * np.array([0.965, 0.985, 1.0, 0.985, 0.95]) - 0.03
    low = np.full(5, style.height * style.belt - 0.08)  # a little below the top of the lower body
    return Shell(levels * (1, half, half, style.width / 2), smooth(x, low, high), 0.03, 7.0)


def smooth(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A side profile (64, 3) through control points, its corners rounded."""
    fine = np.linspace(x[0], x[-1], 64)
    bell = np.exp(-0.5 * (np.arange(-6, 7) / 2.5) ** 2)
    curves = [
        np.convolve(np.pad(np.interp(fine, x, z), 6, mode="edge"), bell / bell.sum(), "valid") for z in (low, high)
    ]
    return np.stack([fine, *curves], 1)


def skin(pieces: Pieces, shell: Shell, faces: dict[str, int], t: np.ndarray, material, layer: int) -> None:
    """Cover whole faces of a shell; neighbouring faces meet where both are equally far across."""
    edge = 2 ** (-1 / shell.power)
    for face, cells in faces.items():
        add(pieces, shell.points(face, np.linspace(-edge, edge, cells + 1), t), material, layer, shell.centre)


def piece(
    pieces: Pieces, shell: Shell, face: str, across, t, material: str, layer: int, cells: tuple[int, int] = (1, 1)
) -> None:
    """A rectangle of a shell's surface in another material, from across[0] to across[1] and t[0] to t[1]."""
    grid = shell.points(face, np.linspace(across[0], across[1], cells[0] + 1), np.linspace(t[0], t[1], cells[1] + 1))
    add(pieces, grid, material, layer, shell.centre)


def add_lower(pieces: Pieces, shell: Shell, style: Style, rng) -> None:
    faces = {"front": 12, "rear": 12, "left": 26, "right": 26}
    t = np.array([0, 0.07, 0.15, 0.25, 0.35, 0.48, 0.6, 0.72, 0.8, 0.87, 0.93, 0.97, 1, 1.06, 1.2, 1.4, 1.6, 1.8, 2])
    skin(pieces, shell, faces, t, "paint", BODY)
    if rng.random() < 0.5:  # sills and bumpers of bare plastic
        skin(pieces, shell, dict.fromkeys(faces, 8), np.array([0, rng.uniform(0.08, 0.2)]), "trim", ON_BODY)
    handle = "chrome" if rng.random() < 0.5 else "gap"
    for side in ("left", "right"):
        for seam in np.linspace(style.cabin[0] * 0.8, style.cabin[2] * 0.9, style.panes + 1 if style.panes < 3 else 3):
            piece(pieces, shell, side, (seam, seam + 0.007), (0.1, 1.0), "gap", ON_BODY, (1, 5))
            piece(pieces, shell, side, (seam + 0.02, seam + 0.07), (0.76, 0.80), handle, ON_BODY)
    add_face(pieces, shell, "front", "lamp", rng)
    add_face(pieces, shell, "rear", "tail", rng)


def add_face(pieces: Pieces, shell: Shell, face: str, lamp: str, rng) -> None:
    """Lights that reach round the corner, grille and number plate."""
    inner, low, high = rng.uniform(0.45, 0.66), rng.uniform(0.58, 0.66), rng.uniform(0.78, 0.9)
    forward = 1 if face == "front" else -1
    edge, reach = 2 ** (-1 / shell.power), rng.uniform(0.9, 0.96)
    for sign in (-1, 1):
        piece(pieces, shell, face, (sign * inner, sign * edge), (low, high), lamp, ON_BODY, (4, 2))
    for side in ("left", "right"):
        piece(
            pieces, shell, side, (forward * edge, forward * min(reach, edge - 0.01)), (low, high), lamp, ON_BODY, (2, 2)
        )
    grille = rng.uniform(0.3, 0.62)
    if face == "front":
        piece(pieces, shell, face, (-grille, grille), (0.42, low + 0.06), "gap", ON_BODY, (6, 3))
        piece(pieces, shell, face, (-0.8 * grille, 0.8 * grille), (0.55, 0.57), "chrome", ON_BODY, (6, 1))
    piece(pieces, shell, face, (-0.75, 0.75), (0.08, 0.22), "gap", ON_BODY, (6, 1))
    plate = rng.uniform(0.3, 0.5)
    piece(pieces, shell, face, (-0.2, 0.2), (plate, plate + 0.12), "plate", RIM, (2, 1))


def ring(x: float, y, radius, angles: np.ndarray, z: float) -> np.ndarray:
    """Points (len(angles), len(radius), 3) of circles about the axle at (x, z); `y` is one number or one a radius."""
    radius, y = np.asarray(radius, float), np.broadcast_to(y, np.shape(radius))
    cos, sin, one = np.cos(angles), np.sin(angles), np.ones_like(angles)
    return np.stack([x + np.outer(cos, radius), np.outer(one, y), z + np.outer(sin, radius)], -1)


def add_wheels(pieces: Pieces, style: Style, rng) -> None:
    """Four wheels: arches and outer faces lie on the body, treads and inner faces behind it."""
    half, r, track = style.length / 2, style.wheel, style.width / 2 - 0.015
    around, upper = np.linspace(0, 2 * np.pi, 25), np.linspace(-0.3, np.pi + 0.3, 17)
    rim, spokes = rng.uniform(0.6, 0.76), int(rng.choice([3, 4, 6, 8]))
    pattern = ["rim" if cell % (24 // spokes) < 24 // spokes * 0.6 else "gap" for cell in range(24)]
    for x in (half * rng.uniform(0.58, 0.66), -half * rng.uniform(0.54, 0.64)):
        for side in (-1, 1):
            inside, outside = np.array([x, side * (track - 0.3), r]), np.array([x, side * track, r])
            arch = ring(x, side * (track + 0.02), [0.3 * r, 1.14 * r], upper, r)
            arch[..., 2] = np.maximum(arch[..., 2], style.clearance + 0.02)
            add(pieces, arch, "gap", ON_BODY, inside)
            add(pieces, ring(x, side * track, [rim * r, r], around, r), "tyre", WHEEL, inside)
            add(pieces, ring(x, side * (track - 0.01), [0.03 * r, rim * r * 0.9], around, r), pattern, RIM, inside)
            add(pieces, ring(x, side * (track - 0.01), [rim * r * 0.88, rim * r], around, r), "rim", RIM, inside)
            add(pieces, ring(x, side * np.array([track, track - 0.24]), [r, r], around, r), "tyre", UNDER, outside)
            add(pieces, ring(x, side * (track - 0.24), [0.02, r], around, r), "tyre", UNDER, outside)


def add_cabin(pieces: Pieces, shell: Shell, style: Style, rng, panelled: bool) -> None:
    t = np.array([0, 0.15, 0.35, 0.55, 0.72, 0.88, 0.93, 0.97, 1, 1.1, 1.3, 1.5, 1.75, 2])
    faces = {"front": 10, "rear": 10, "left": 16, "right": 16}
    skin(pieces, shell, faces, t[:7], "paint", CABIN)
    skin(pieces, shell, faces, t[6:], "roof", CABIN)
    low, high, pillar = rng.uniform(0.2, 0.27), rng.uniform(0.82, 0.9), rng.uniform(0.03, 0.07)
    piece(pieces, shell, "front", (-0.86, 0.86), (low - 0.08, high + 0.03), "glass", ON_CABIN, (10, 6))
    piece(pieces, shell, "rear", (-0.80, 0.80), (low, high), "glass", ON_CABIN, (10, 6))
    cuts = np.linspace(-0.84, 0.86, style.panes + 1) + np.pad(rng.uniform(-0.08, 0.08, max(style.panes - 1, 0)), 1)
    for side in ("left", "right"):
        for rear, front in list(pairwise(cuts))[-1 if panelled else 0 :]:
            piece(pieces, shell, side, (rear + pillar / 2, front - pillar / 2), (low, high), "glass", ON_CABIN, (6, 5))


def ellipsoid(centre: np.ndarray, radii) -> np.ndarray:
    """A grid (13, 7, 3) over a boxy ellipsoid."""
    around, up = np.meshgrid(np.linspace(0, 2 * np.pi, 13), np.linspace(-np.pi / 2, np.pi / 2, 7), indexing="ij")
    unit = np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], -1)
    return centre + np.asarray(radii) * np.sign(unit) * np.abs(unit) ** 0.6


def add_mirrors(pieces: Pieces, shell: Shell, style: Style, rng) -> None:
    size = np.array([0.07, 0.12, 0.08]) * rng.uniform(0.85, 1.35)
    material = str(rng.choice(["paint", "trim", "chrome"], p=[0.6, 0.3, 0.1]))
    for side, sign in (("left", 1), ("right", -1)):
        foot = shell.points(side, np.array([0.72]), np.array([0.2]))[0, 0]
        plane = (0, sign, 0, style.width / 2)  # seen from the other side the car is in front of it
        head = np.array([foot[0], sign * (style.width / 2 + size[1] * 0.75), foot[2] + 0.05])
        arm = (foot + head) / 2 - np.array([0, 0, 0.05])
        add(
            pieces, ellipsoid(arm, [0.04, abs(head[1] - foot[1]) / 2 + 0.04, 0.035]), "trim", OUTSIDE, arm, UNDER, plane
        )
        add(pieces, ellipsoid(head, size), material, OUTSIDE, head, UNDER, plane)


def add_rails(pieces: Pieces, shell: Shell, style: Style) -> None:
    for side, sign in (("left", 1), ("right", -1)):
        foot = shell.points(side, np.array([-0.1]), np.array([1.1]))[0, 0]
        radii = [(shell.levels[-1, 1] - shell.levels[-1, 2]) * 0.42, 0.025, 0.05]
        add(
            pieces,
            ellipsoid(foot + np.array([0, 0, 0.03]), radii),
            "chrome",
            OUTSIDE,
            foot,
            ON_DECK,
            (0, sign, 0, abs(foot[1])),
        )


def add_spoiler(pieces: Pieces, style: Style, rng) -> None:
    centre = np.array([-style.length / 2 * 0.93, 0, style.height * style.deck + rng.uniform(0.05, 0.14)])
    plane = (-1, 0, 0, style.length / 2)
    post = np.array([0.05, style.width * 0.30, centre[2] - style.height * style.deck + 0.03])
    add(pieces, ellipsoid(centre - (0, 0, post[2] / 2), post * (1, 1, 0.6)), "gap", OUTSIDE, centre, ON_DECK, plane)
    add(pieces, ellipsoid(centre, [0.12, style.width * 0.42, 0.03]), "paint", OUTSIDE, centre, ON_DECK, plane)


def add_antenna(pieces: Pieces, cabin: Shell, lower: Shell, style: Style, rng) -> None:
    """A rod on the roof, or on a wing, where the cabin may hide it: one quad, whose width the painter adds."""
    if rng.random() < 0.7:
        foot, plane = cabin.points("rear", np.array([0.0]), np.array([1.08]))[0, 0], (0, 0, 0, -1)
    else:
        foot, plane = lower.points("left", np.array([style.cabin[0] + 0.12]), np.array([1.1]))[0, 0], (1, 0, 0, 0)
    tip = foot + rng.uniform(0.25, 0.6) * np.array([-rng.uniform(0.1, 0.8), 0, 1])
    rod = np.stack([foot - np.array([0, 0, 0.05]), (foot + tip) / 2, tip, (foot + tip) / 2])
    layers = np.array([OUTSIDE]), np.array([ON_DECK])
    pieces.append(
        Body(rod[None], np.zeros((1, 3)), np.array([MATERIALS.index("antenna")]), *layers, np.array([plane], float))
    )
