"""Run-length encoding of masks as in Kaggle's Carvana competition: "start length start length ..." of the foreground.

Pixels are numbered from 1, row by row from the upper left corner (later Kaggle competitions number column by column).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """The runs of a boolean mask (H, W), in ascending order; an empty string for an empty mask."""
    framed = np.zeros(mask.size + 2, np.int8)
    framed[1:-1] = mask.ravel()
    edges = np.flatnonzero(framed[1:] != framed[:-1]) + 1  # alternating: first pixel of a run, first pixel after it
    edges[1::2] -= edges[::2]
    return " ".join(map(str, edges.tolist()))
