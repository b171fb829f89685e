"""Memory: budgets, what a graph keeps, the peak that a run reached."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ddkit.backbone import embed

CPU_BUDGET = 2 << 30  # bytes of activations kept for one backward pass
GPU_SHARE = 0.4  # of the device's memory, for the same
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def budget(device: torch.device) -> int:
    """Return the bytes that the activations of one backward pass may take on `device`."""
    if device.type != "cuda":
        return CPU_BUDGET
    return int(torch.cuda.get_device_properties(device).total_memory * GPU_SHARE)


def fitting(total: int, per_item: int, most: int) -> int:
    """Return how many items of `per_item` bytes fit `total`, at least one and at most `most`."""
    return max(1, min(most, total // max(1, per_item)))


def saved_bytes(net: nn.Module, image: Tensor) -> int:
    """Return the bytes that autograd keeps to differentiate `net` by one image."""
    kept = 0

    def count(x: Tensor) -> Tensor:
        nonlocal kept
        if not isinstance(x, nn.Parameter):
            kept += x.numel() * x.element_size()
        return x

    with saved_tensors_hooks(count, lambda x: x):
        embed(net, image.clone().requires_grad_())
    return kept


def tensor_bytes(state: Any) -> int:
    """Return the bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(tensor_bytes, state.values()))
    return sum(map(tensor_bytes, state)) if isinstance(state, list | tuple) else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is an allocator's: of a device, of torch on the CPU, or of Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said or "DefaultCPUAllocator" in said or "out of memory" in said
    )


def peak(device: torch.device) -> int:
    """Return the peak memory so far in bytes, of the device or, on the CPU, of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident()


def peak_resident() -> int:
    """Return the peak resident memory of this process in bytes, or 0 where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def physical(device: torch.device) -> int:
    """Return the memory in bytes that `device` has, or on the CPU this process may have.

    0 where it is not known. A limit of the control group (a container's) counts.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return 0
    try:
        limit = int(CGROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max"
        return total
    return min(total, limit)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, instead of returning large blocks to the kernel at once.

    Otherwise every large activation is faulted in again page by page at the next layer, which
    takes up to half of a forward pass on the CPU. Changes no result; elsewhere it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, mmap_max = -1, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)
