"""A large picture as overlapping tiles, blended where they overlap; one row of tiles is held at a time.

Each tile counts most in its middle and least at its rim (a triangle along each axis), as in nnU-Net's sliding window
(Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; there a Gaussian): near a rim a network lacks what lies beyond.
The weights of all tiles over a pixel sum to one. They are a product of one weight a row and one a column, so the sum over
tiles is, too, and no map of weights is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

OVERLAP = 0.25  # of a tile, at least

Map = NDArray[np.float32]


def blend(shape: tuple[int, int], tile: tuple[int, int], look: Callable[[slice, slice], Map]) -> Iterator[tuple[int, Map]]:
    """(first row, rows (n, W)) from top to bottom of the blended maps that `look(rows, columns)` gives for each tile.

    `shape` is (H, W); `tile` is (width, height), of which a smaller picture takes no more than it has.
    """
    across, down = cuts(shape[1], tile[0]), cuts(shape[0], tile[1])
    band: Map = np.zeros((0, shape[1]), np.float32)  # rows that tiles further down may still add to
    for number, (rows, row_weights) in enumerate(down):
        missing = rows.stop - rows.start - len(band)
        band = np.concatenate([band, np.zeros((missing, shape[1]), np.float32)])
        for columns, column_weights in across:
            band[:, columns] += look(rows, columns) * (row_weights[:, None] * column_weights[None, :])
        finished = (down[number + 1][0].start if number + 1 < len(down) else shape[0]) - rows.start
        yield rows.start, band[:finished]
        band = band[finished:].copy()


def cuts(length: int, tile: int, overlap: float = OVERLAP) -> list[tuple[slice, Map]]:
    """Evenly spaced tiles over an axis of `length`, each with its weights (tile,), which sum to one at every pixel."""
    tile = min(tile, length)
    count = 1 if tile == length else 1 + -(-(length - tile) // max(1, int(tile * (1 - overlap))))
    starts = np.linspace(0, length - tile, count).round().astype(int).tolist()
    triangle = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).astype(np.float64)
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += triangle
    return [(slice(start, start + tile), (triangle / total[start : start + tile]).astype(np.float32)) for start in starts]
