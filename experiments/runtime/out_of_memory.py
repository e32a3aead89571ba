"""Out of memory: how the libraries say so, and a pass over a batch in parts that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")

NO_MEMORY = (  # the words of PyTorch, the system, C++, CUDA and CUDA's libraries
    "can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc", "out of memory",
    "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: that of the device, or of this process."""
    words = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(part in words for part in NO_MEMORY)


def in_fitting_parts(run: Callable[[int, int], Result], count: int, size: int) -> tuple[list[Result], int]:
    """Call `run(start, stop)` on ranges of at most `size` of `count` items; where memory runs out, on half as many.

    Returns the results in order, and the size that fitted, which is `size` unless memory ran out. An error of a single
    item is raised.
    """
    results: list[Result] = []
    start = 0
    while start < count:
        stop = min(start + size, count)
        try:
            results.append(run(start, stop))
            start = stop
        except Exception as error:
            if stop - start == 1 or not is_out_of_memory(error):
                raise
            size = (stop - start) // 2
    return results, size
