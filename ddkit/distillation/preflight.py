"""What a run will need and whether it can work, said before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ddkit.data import Dataset
from ddkit.distillation.compose import Composition, compose
from ddkit.distillation.contract import tried
from ddkit.distillation.start import Origin, run_identity
from ddkit.errors import CheckpointError
from ddkit.findings import Finding, looked
from ddkit.images.real import count_classes
from ddkit.method import Method
from ddkit.networks.fresh import build
from ddkit.networks.pool import ProxyPool
from ddkit.plugins import Plugins
from ddkit.recipes.recipe import Recipe
from ddkit.run import Run
from ddkit.runs.folder import RunFolder, new_folder
from ddkit.runtime import storage
from ddkit.runtime.blame import blamed, used_parts
from ddkit.runtime.device import Runtime, open_runtime
from ddkit.runtime.memory import tensor_bytes

HEADROOM = 64 << 20  # bytes for metrics, pictures and checkpoints besides the tensors
FEW = 10  # images of a class that are worth a word
SMALL_TILE = 8  # pixels a side, of which little can be seen


class Plan(NamedTuple):
    """A run that has not begun: its live parts, its folder, and what is found of them."""

    runtime: Runtime
    parts: Composition
    folder: RunFolder
    found: list[Finding]


def plan(
    recipe: Recipe, plugins: Plugins, out: Path | None, name: str, dataset: Dataset | None = None
) -> Plan:
    """Return the run of `recipe` into `out`, or into a new folder under ``runs/`` called `name`.

    Writes nothing. `dataset` replaces the recipe's.

    Raises:
        DDKitError: as `compose`, and `open_runtime`.
    """
    runtime = open_runtime(recipe.runtime)
    with blamed(used_parts(recipe, plugins)):
        parts = compose(recipe, plugins, runtime, dataset)
        folder = RunFolder(out) if out is not None else new_folder(Path("runs"), name)
        found = facts(parts, runtime, folder) + tried(parts.recipe, plugins, parts.dataset.info)
        return Plan(runtime, parts, folder, found)


def facts(parts: Composition, runtime: Runtime, folder: RunFolder) -> list[Finding]:
    """Return what is known without reading images or training: a run is refused by these.

    On the device, the data, the set, the pool, the run folder and the disk.
    """
    info = parts.dataset.info
    pixels = info.channels * info.height * info.width
    resident = (len(parts.dataset.train.labels) + len(parts.dataset.test.labels)) * pixels
    net = build(parts.make, torch.device("cpu"), 0, "facts")
    parameters = sum(p.numel() for p in net.parameters())
    found = [
        Finding("ok", "device", f"{runtime.device}, {runtime.precision}"),
        Finding(
            "ok",
            "data",
            f"{info.name}: {len(parts.dataset.train.labels):,} training images of "
            f"{'x'.join(map(str, info.shape))}, {info.num_classes} classes, {size(resident)}",
        ),
        *looked("classes", lambda: _classes(parts.dataset)),
        Finding("ok", "backbone", f"{parts.recipe.backbone}, {parameters:,} parameters"),
        *_set(parts),
    ]
    pool, teacher = parts.proxies, parts.recipe.eval.teacher
    if pool is not None:
        found += looked("proxies", lambda: _pool(pool, _chance(parts)))
    if teacher is not None:
        text = f"{teacher.count} x {teacher.backbone}, {teacher.epochs} epochs"
        found.append(Finding("ok", "teacher", text))
    found += looked("folder", lambda: [_folder(parts, folder)])
    return found + looked("disk", lambda: [_disk(parts, folder.path)])


def brief(parts: Composition, runtime: Runtime, found: list[Finding]) -> Iterator[str]:
    """Yield the lines for the start of a run: what runs where on what, and what is odd of it."""
    info, ipc = parts.dataset.info, parts.recipe.synthetic.ipc
    yield (
        f"{runtime.device}, {runtime.precision}; {info.name}: "
        f"{len(parts.dataset.train.labels):,} training images of {'x'.join(map(str, info.shape))}, "
        f"{info.num_classes} classes; {ipc * info.num_classes} images to learn"
    )
    yield from (f"note: {f.subject}: {f.text}" for f in found if f.level == "note")


def _classes(data: Dataset) -> Iterator[Finding]:
    """Yield what labels say: the order of classes, images per class in both splits.

    Raises:
        DataError: a class has no training images.
    """
    count_classes(data.info, data.train.labels)
    names = data.info.classes
    order = "alphabetical order" if list(names) == sorted(names) else "the order of the data"
    yield Finding("ok", "classes", f"{len(names)} in {order}: {_few(names)}")
    for split, source in (("train", data.train), ("test", data.test)):
        counts = torch.bincount(source.labels, minlength=len(names))
        low, middle, high = int(counts.min()), int(counts.median()), int(counts.max())
        text = f"{len(source.labels):,} images; per class {low} (least), {middle}, {high} (most)"
        empty = [names[c] for c in (counts == 0).nonzero()[:, 0].tolist()]
        small = [names[c] for c in (counts < FEW).nonzero()[:, 0].tolist()]
        if empty:
            yield Finding("note", split, f"{text}; without any: {_few(empty)}")
        elif small and split == "train":
            yield Finding("note", split, f"{text}; few images of {_few(small)}: add some")
        else:
            yield Finding("ok", split, text)


def _set(parts: Composition) -> Iterator[Finding]:
    """Yield what is to be learned, against the sizes of images and classes."""
    info, spec = parts.dataset.info, parts.recipe.synthetic
    count, tiles = spec.ipc * info.num_classes, spec.factor**2
    text = f"{count} images, {size(stored_bytes(parts))}"
    if tiles == 1:
        yield Finding("ok", "set", text)
    else:
        sides = [-(-side // spec.factor) for side in info.shape[1:]]
        tiled = f"{text}; mosaics of {tiles} tiles of {'x'.join(map(str, sides))}"
        small = min(sides) < SMALL_TILE
        odd = f"{tiled}: little is to be seen in them; lower synthetic.factor"
        yield Finding("note" if small else "ok", "set", odd if small else tiled)
    fewest = int(parts.dataset.train.labels.bincount(minlength=info.num_classes).min())
    if spec.ipc * tiles > fewest:
        text = (
            f"{spec.ipc * tiles} random images per class cannot stand beside the set: a class has "
            f"{fewest}; it will be judged without"
        )
        yield Finding("note", "baseline", text)


def _pool(pool: ProxyPool, chance: float) -> Iterator[Finding]:
    """Yield how many networks are there, and whether those that are have learned anything."""
    missing = len(pool.missing())
    text = f"{pool.spec.count} x {pool.spec.backbone}, {missing} of them to train"
    yield Finding("ok", "proxies", text)
    cached = pool.cached()
    if len(cached) < pool.spec.count - missing:
        damaged = pool.spec.count - missing - len(cached)
        text = f"{damaged} cached networks are damaged or of other data; remove {pool.folder}"
        yield Finding("note", "proxies", text)
    known = [value for value in cached.values() if value is not None]
    if not known:
        return
    mean, worst = sum(known) / len(known), min(known)
    text = f"{100 * mean:.1f} % of the test images right, the worst {100 * worst:.1f} %"
    if worst < chance + min(chance / 2, (1 - chance) / 10):
        text += (
            f", where guessing gets {100 * chance:.1f} %: raise proxies.epochs, or change its lr"
        )
        yield Finding("note", "proxies", text)
    else:
        yield Finding("ok", "proxies", text)


def _chance(parts: Composition) -> float:
    """Return the share of the test images that the commonest class is: what guessing gets."""
    labels = parts.dataset.test.labels
    return int(labels.bincount().max()) / len(labels)


def _folder(parts: Composition, folder: RunFolder) -> Finding:
    """Return whether the run may have the folder; errors as `RunFolder.check`."""
    if folder.check(run_identity(parts, Origin.of(folder)), parts.recipe):
        return Finding("ok", "folder", f"{folder.path}: holds this very run, finished")
    what = "an unfinished run, which goes on" if folder.status() else "a new run"
    return Finding("ok", "folder", f"{folder.path}: {what}")


def _disk(parts: Composition, out: Path) -> Finding:
    check_disk(parts, out)
    return Finding("ok", "disk", f"{size(disk_free(out))} free, {size(_need(parts))} needed")


def check_disk(parts: Composition, out: Path) -> None:
    """Refuse a disk that the run might fill.

    Raises:
        CheckpointError: less is free under `out` than the run may write.
    """
    check_free(out, _need(parts), "the run")
    if parts.proxies is not None:
        one = sum(p.numel() * p.element_size() for p in parts.proxies.build().parameters())
        pool = one * len(parts.proxies.missing())
        check_free(parts.proxies.folder, pool, "the pool of proxies")


def check_checkpoints(run: Run, method: Method, out: Path) -> None:
    """Refuse a disk that two checkpoints, as large as they may become, and the set do not fit.

    Raises:
        CheckpointError: less is free under `out`.
    """
    images = tensor_bytes(run.synthetic.images)
    check_free(out, images + 2 * (3 * images + method.state_bytes()), "the checkpoints")


def _need(parts: Composition) -> int:
    """Return the bytes of the set, and of a checkpoint with optimizer state, twice.

    The method's state comes to it later: see `check_checkpoints`.
    """
    return 6 * stored_bytes(parts) + HEADROOM


def stored_bytes(parts: Composition) -> int:
    """Return the bytes of the set's images."""
    info = parts.dataset.info
    images = parts.recipe.synthetic.ipc * info.num_classes
    return 4 * images * info.channels * info.height * info.width


def check_free(path: Path, need: int, what: str) -> None:
    """Refuse less than `need` free bytes where `path` is.

    Raises:
        CheckpointError: saying how much is free and needed.
    """
    free = disk_free(path)
    if free < need:
        raise CheckpointError(f"{path}: {size(free)} free, but {what} may write {size(need)}")


def disk_free(path: Path) -> int:
    """Return the free bytes on the disk that `path` is or will be on."""
    try:
        return shutil.disk_usage(storage.existing(path)).free
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be used: {error.strerror}") from None


def size(count: float) -> str:
    """Return ``512 B``, ``4 MiB`` or ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f", … {len(names)} in all" if len(names) > 5 else "")
