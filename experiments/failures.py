"""What happened to a run that failed, in a sentence with advice."""

from __future__ import annotations

import torch

from experiments.config import RunConfig
from experiments.errors import RunFailed, disk_trouble


def explain(error: BaseException, config: RunConfig) -> str | None:
    """What happened to a run, in a sentence with advice; None for what nobody foresaw, which deserves its traceback."""
    text = str(error)
    if isinstance(error, RunFailed):
        return text
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text or "bad_alloc" in text:
        return f"Out of memory. Try a smaller --batch-size than {config.batch_size}, or a smaller --size."
    if isinstance(error, OSError) and (sentence := disk_trouble(error)):
        return sentence
    if "DataLoader worker" in text:
        return f"A worker that loads photographs died ({' '.join(text.split())}). Try --workers 0, or fewer, and repeat the command: it resumes."
    return None
