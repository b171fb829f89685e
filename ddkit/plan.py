"""What a run will need, said before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from ddkit.compose import Composition
from ddkit.errors import CheckpointError
from ddkit.runtime import Runtime

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
    return lines


def check_disk(parts: Composition, out: Path) -> None:
    """Refuse a disk that the run might fill.

    Raises:
        CheckpointError: less is free under `out` than the run may write.
    """
    info, spec = parts.dataset.info, parts.recipe.synthetic
    stored = 4 * spec.ipc * info.num_classes * info.channels * info.height * info.width
    need = 6 * stored + HEADROOM  # the set, and a checkpoint with optimizer state, twice
    if disk_free(out) < need:
        free = _size(disk_free(out))
        raise CheckpointError(f"{out}: {free} free, but the run may write {_size(need)}")


def disk_free(path: Path) -> int:
    """Return the free bytes on the disk that `path` is or will be on."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
