"""The machine's side of a run: device, precision, and how much goes through at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import torch

from ddkit.errors import RecipeError
from ddkit.recipes.sections import RuntimeSpec
from ddkit.runtime.memory import budget, peak

CPU_MICRO_BATCH = 64  # images per forward pass without gradient: stays in cache
GPU_MICRO_BATCH = 4096


@dataclass(frozen=True)
class Runtime:
    """What ``[runtime]`` resolved to on this machine."""

    device: torch.device
    precision: str = "float32"
    chunk: int | None = None
    micro_batch: int = CPU_MICRO_BATCH

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for forward passes; losses are computed outside it, in float32."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @property
    def budget(self) -> int:
        """Bytes that the activations of one backward pass may take."""
        return budget(self.device)

    def memory(self) -> int:
        """Return the peak memory so far, of the device or, on the CPU, of the process."""
        return peak(self.device)


@contextmanager
def own_settings() -> Iterator[None]:
    """Work with gradients, in float32 and on the CPU by default, whatever the caller has set.

    The caller's switches are as before at the end: gradient, inference and autocast mode, default
    type and device, the precision of float32 products. Deterministic algorithms and the number of
    threads stay as the caller wants them. To be used as a decorator as well.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
        if (dtype := torch.get_default_dtype()) != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if (precision := torch.get_float32_matmul_precision()) != "highest":
            stack.callback(torch.set_float32_matmul_precision, precision)
            torch.set_float32_matmul_precision("highest")
        yield


def open_runtime(spec: RuntimeSpec) -> Runtime:
    """Resolve `spec` on this machine.

    Raises:
        RecipeError: the device does not exist here; or several processes were started.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("WORLD_SIZE is above 1: this release runs in one process; drop torchrun")
    device = _device(spec.device)
    if device.type == "cuda" and spec.precision == "float32":
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    default = GPU_MICRO_BATCH if device.type == "cuda" else CPU_MICRO_BATCH
    return Runtime(
        device=device,
        precision=spec.precision,
        chunk=None if spec.chunk == "auto" else spec.chunk,
        micro_batch=default if spec.micro_batch == "auto" else spec.micro_batch,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"runtime.device: {name!r} cannot be used here: {reason}") from None
    return device
