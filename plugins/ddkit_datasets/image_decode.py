"""Image files to uint8 arrays of one shape, on several threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ddkit.errors import DataError
from ddkit_datasets.picture import Flaw, largest, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 2  # of what `decode` makes of a file; raise it when that changes, and caches are remade

_CHUNK = 256


@dataclass(frozen=True)
class Form:
    """The form that images are brought to.

    Args:
        resolution: the shorter side is resized to it (bilinear) and the square in the centre kept;
            None keeps images as they are, which must then be of one size.
        channels: 1 or 3; None is 1 where every image is grey, else 3.
        published: read images as published code does through torchvision: whatever their mode,
            they are converted, and the camera's orientation is ignored. Else they are turned
            upright, and what would lose something is refused: see `picture.open_picture`.
        resize: the shorter side is resized to it instead of to `resolution`.
    """

    resolution: int | None
    channels: Literal[1, 3] | None = None
    published: bool = False
    resize: int | None = None


def decode(paths: Sequence[str], form: Form) -> Tensor:
    """Return the images at `paths` as uint8 [N,C,H,W].

    Raises:
        DataError: files that are not images, damaged ones, more than three channels, or different
            sizes where `form` has no resolution; it names the first and counts them.
    """
    channels = form.channels or 3
    height, width = _size(paths, form)
    images = _empty(len(paths), channels, height, width)
    grey = np.zeros(len(paths), dtype=bool)

    # Small batches are shared out too; large chunks would leave threads idle at the end.
    chunk = max(1, min(_CHUNK, -(-len(paths) // workers())))

    def run(start: int) -> list[tuple[str, Flaw]]:
        flaws = []
        for row in range(start, min(start + chunk, len(paths))):
            flaw = _decode_into(paths[row], images[row], form, grey[row : row + 1])
            if flaw:
                flaws.append((paths[row], flaw))
        return flaws

    flaws = [flaw for part in _spread(run, range(0, len(paths), chunk)) for flaw in part]
    if flaws:
        _refuse(flaws)
    if form.channels is None and bool(grey.all()):
        images = images[:, :1].copy()
    return torch.from_numpy(images)


def _empty(*shape: int) -> np.ndarray:
    try:
        return np.empty(shape, dtype=np.uint8)
    except MemoryError:
        count, channels, height, width = shape
        raise DataError(
            f"{count:,} images of {width}x{height} with {channels} channels take "
            f"{math.prod(shape) / 1e9:,.1f} GB, which this machine does not give; "
            "give a smaller dataset.resolution"
        ) from None


def workers() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _spread(
    run: Callable[[int], list[tuple[str, Flaw]]], starts: Iterable[int]
) -> Iterable[list[tuple[str, Flaw]]]:
    with ThreadPoolExecutor(workers()) as pool:
        yield from pool.map(run, starts)


def _size(paths: Sequence[str], form: Form) -> tuple[int, int]:
    """Return the common height and width: of `form`, else of the first image that opens."""
    if form.resolution is not None:
        return form.resolution, form.resolution
    for path in paths:
        try:
            image, _ = open_picture(path, form.published)
        except Flaw:  # `_decode_into` will say it
            continue
        return image.height, image.width
    return 1, 1


def _decode_into(path: str, out: np.ndarray, form: Form, grey: np.ndarray) -> Flaw | None:
    """Write an image into `out`, uint8 [C,H,W], and whether it is grey into `grey`."""
    try:
        image, grey[0] = open_picture(path, form.published)
        image = image.convert("L" if out.shape[0] == 1 else "RGB")
        if form.resolution is not None:
            image = _squared(image, form.resize or form.resolution, form.resolution)
        if (image.height, image.width) != out.shape[1:]:
            found, other = f"{image.width}x{image.height}", f"{out.shape[2]}x{out.shape[1]}"
            raise Flaw(2, f"is {found}, others are {other}; give dataset.resolution")
        out[...] = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    except Flaw as flaw:
        return flaw
    return None


def _squared(image: Image, shorter: int, side: int) -> Image:
    """Resize the shorter side and keep the square in the centre, rounding as torchvision does."""
    from PIL import Image

    width, height = image.size
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    if size[0] * size[1] > largest():
        raise Flaw(
            1, f"is {width}x{height}, too narrow to be resized to {shorter} on its shorter side"
        )
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    if size == (side, side):
        return image
    left, top = round((size[0] - side) / 2.0), round((size[1] - side) / 2.0)
    return image.crop((left, top, left + side, top + side))


def _refuse(flaws: list[tuple[str, Flaw]]) -> None:
    rank = min(flaw.rank for _, flaw in flaws)
    same = [(path, flaw.text) for path, flaw in flaws if flaw.rank == rank]
    path, text = same[0]
    more = f" ({len(same)} such files)" if len(same) > 1 else ""
    raise DataError(f"{path}: {text}{more}")
