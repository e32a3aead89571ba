"""Masks as Kaggle's Carvana competition wants them: runs of foreground pixels as "start length start length ...".

Pixels are numbered from 1, row by row from the upper left corner (later competitions of Kaggle number column by column).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """The runs of a boolean mask (H, W), in ascending order; an empty text for an empty mask."""
    framed = np.zeros(mask.size + 2, np.int8)
    framed[1:-1] = mask.ravel()
    edges = (
        np.flatnonzero(framed[1:] != framed[:-1]) + 1
    )  # first pixels of runs and, alternating, the pixels after them
    edges[1::2] -= edges[::2]
    return " ".join(map(str, edges.tolist()))
