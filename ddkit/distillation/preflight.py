"""What a run will need, said before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from ddkit.distillation.compose import Composition
from ddkit.errors import CheckpointError
from ddkit.method import Method
from ddkit.run import Run
from ddkit.runtime import storage
from ddkit.runtime.device import Runtime
from ddkit.runtime.memory import tensor_bytes

HEADROOM = 64 << 20  # bytes for metrics, pictures and checkpoints besides the tensors


def facts(parts: Composition, runtime: Runtime, out: Path) -> list[str]:
    """Return lines on the device, the data, the set, the pool and the disk."""
    info, spec = parts.dataset.info, parts.recipe.synthetic
    pixels = info.channels * info.height * info.width
    stored = spec.ipc * info.num_classes * pixels * 4
    resident = (len(parts.dataset.train.labels) + len(parts.dataset.test.labels)) * pixels
    parameters = sum(p.numel() for p in parts.make().parameters())
    lines = [
        f"device     {runtime.device}, {runtime.precision}",
        f"data       {info.name}: {len(parts.dataset.train.labels)} training images of "
        f"{'x'.join(map(str, info.shape))}, {info.num_classes} classes, {_size(resident)}",
        f"backbone   {parts.recipe.backbone}, {parameters:,} parameters",
        f"set        {spec.ipc * info.num_classes} images, {_size(stored)}",
        f"disk       {_size(disk_free(out))} free",
    ]
    if parts.proxies is not None:
        missing = len(parts.proxies.missing())
        lines.append(
            f"proxies    {parts.proxies.spec.count} x {parts.proxies.spec.backbone}, "
            f"{missing} of them to train"
        )
    teacher = parts.recipe.eval.teacher
    if teacher is not None:
        lines.append(f"teacher    {teacher.count} x {teacher.backbone}, {teacher.epochs} epochs")
    return lines


def check_disk(parts: Composition, out: Path) -> None:
    """Refuse a disk that the run might fill.

    Raises:
        CheckpointError: less is free under `out` than the run may write.
    """
    info, spec = parts.dataset.info, parts.recipe.synthetic
    stored = 4 * spec.ipc * info.num_classes * info.channels * info.height * info.width
    # the set, and a checkpoint with optimizer state, twice; the method's state comes to it later
    _check_free(out, 6 * stored + HEADROOM, "the run")
    if parts.proxies is not None:
        size = sum(p.numel() * p.element_size() for p in parts.proxies.build().parameters())
        pool = size * len(parts.proxies.missing())
        _check_free(parts.proxies.folder, pool, "the pool of proxies")


def check_checkpoints(run: Run, method: Method, out: Path) -> None:
    """Refuse a disk that two checkpoints, as large as they may become, and the set do not fit.

    Raises:
        CheckpointError: less is free under `out`.
    """
    images = tensor_bytes(run.synthetic.images)
    _check_free(out, images + 2 * (3 * images + method.state_bytes()), "the checkpoints")


def _check_free(path: Path, need: int, what: str) -> None:
    free = disk_free(path)
    if free < need:
        raise CheckpointError(f"{path}: {_size(free)} free, but {what} may write {_size(need)}")


def disk_free(path: Path) -> int:
    """Return the free bytes on the disk that `path` is or will be on."""
    try:
        return shutil.disk_usage(storage.existing(path)).free
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be used: {error.strerror}") from None


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
