"""What happened to a run that failed, in a sentence with advice."""

from __future__ import annotations

import torch

from experiments import checkpoint
from experiments.config import RunConfig
from experiments.errors import RunFailed, disk_trouble

NO_MEMORY = (  # the words of PyTorch, the system, C++, CUDA and CUDA's libraries
    "can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc", "out of memory", "STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
)  # fmt: skip


def explain(error: BaseException, config: RunConfig) -> str | None:
    """What happened to a run, in a sentence with advice; None for what nobody foresaw, which deserves its traceback."""
    text = str(error)
    if isinstance(error, RunFailed):
        return text
    if isinstance(error, checkpoint.Damaged):
        return f"{error}. The same command trains the run again."
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in text for words in NO_MEMORY):
        return f"Out of memory. Try a smaller --batch-size than {config.batch_size}, a smaller --size, or fewer --workers."
    if isinstance(error, OSError) and (sentence := disk_trouble(error)):
        return sentence
    if "DataLoader worker" in text:
        return f"A worker that loads photographs died ({' '.join(text.split())}). Try --workers 0, or fewer, and repeat the command: it resumes."
    return None
