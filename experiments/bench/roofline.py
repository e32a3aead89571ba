"""Upper bounds on this machine: matrix-product peak, memory bandwidth, and a network's roofline under both.

Roofline: Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785. An operation takes at least its
arithmetic divided by the machine's peak, and at least its memory traffic divided by the bandwidth. Summed over the
operations of the forward and backward pass, executed one by one, this is the minimum time per image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from experiments.bench.step import Workload

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def step_flop(work: Workload) -> float:
    """Count the floating-point operations per image, forward and backward; a multiply-add is two."""

    def count(device: str) -> float:
        with FlopCounterMode(display=False) as counter:
            _forward_and_backward(work, torch.float32, device)
        return counter.get_total_flops() / 2

    return _counted(count, work)


def matrix_peak(device: str, dtype: torch.dtype, size: int, repeats: int = 6) -> float:
    """Measure operations per second of a square matrix product, best of `repeats`."""
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(_seconds(device, lambda: a @ b) for _ in range(repeats))


def bandwidth(device: str, megabytes: int, repeats: int = 6) -> float:
    """Measure bytes per second (read and written) of copying an array larger than the caches, best of `repeats`."""
    source = torch.zeros(megabytes * 1_000_000, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(_seconds(device, lambda: target.copy_(source)) for _ in range(repeats))


def machine_peaks(device: str) -> dict[str, float]:
    """Measure this machine's peaks: operations per second in fp32 and bf16, and bandwidth in bytes per second."""
    size, megabytes = (8192, 2000) if device == "cuda" else (2048, 400)
    peaks = {name: matrix_peak(device, DTYPES[name], size) for name in ("fp32", "bf16")}
    return {**peaks, "bandwidth": bandwidth(device, megabytes)}


def roofline(work: Workload, peak: float, bytes_a_second: float) -> float:
    """Return the upper bound on images per second when the network's operations run one after another."""

    def bound(device: str) -> float:
        with _MinimumTime(peak, bytes_a_second) as minimum:
            _forward_and_backward(work, DTYPES[work.config.precision], device)
        return 2 / minimum.seconds

    return _counted(bound, work)


class _MinimumTime(TorchDispatchMode):
    """Sum the minimum times of all operations executed in its context."""

    def __init__(self, peak: float, bytes_a_second: float) -> None:
        super().__init__()
        self.peak, self.bytes_a_second, self.seconds = peak, bytes_a_second, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func._schema.name not in ("aten::detach", "aten::empty", "aten::_unsafe_view"):
            tensors = {id(t): t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)}
            traffic = sum(t.numel() * t.element_size() for t in tensors.values())
            count = flop_registry.get(func._overloadpacket)
            flop = count(*args, **(kwargs or {}), out_val=result) if count else 0
            self.seconds += max(flop / self.peak, traffic / self.bytes_a_second)
        return result


def _counted(count: Callable[[str], float], work: Workload) -> float:
    """`count` on the meta device, which propagates shapes and computes nothing; else where the network trains."""
    try:
        return count("meta")
    except Exception:  # the network reads values, or creates a tensor on the CPU
        return count(work.config.device)


def _forward_and_backward(work: Workload, dtype: torch.dtype, device: str) -> None:
    """Pass two images through the network; where values are computed, in `dtype` as training does."""
    width, height = work.config.size
    if device == "meta":
        model = work.model().to(device, dtype)
        model(torch.empty(2, 3, height, width, device=device, dtype=dtype)).sum().backward()
        return
    with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
        work.model().to(device)(torch.zeros(2, 3, height, width, device=device, dtype=dtype)).sum().backward()


def _seconds(device: str, work: Any) -> float:
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
