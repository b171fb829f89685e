"""Image files to uint8 arrays of one shape, on several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddkit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1  # of what `decode` makes of a file; raise it when that changes, and caches are remade

# Pillow's other formats are rare, and one of them (EPS) starts a program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_GREY = frozenset({"1", "L"})
_PLAIN = _GREY | {"P", "RGB"}
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
            upright, and modes that would lose information are refused.
        resize: the shorter side is resized to it instead of to `resolution`.
    """

    resolution: int | None
    channels: Literal[1, 3] | None = None
    published: bool = False
    resize: int | None = None


class Flaw(NamedTuple):
    """Why a file cannot be used; flaws of the worst rank are reported first."""

    rank: int
    text: str


def decode(paths: Sequence[str], form: Form) -> Tensor:
    """Return the images at `paths` as uint8 [N,C,H,W].

    Raises:
        DataError: files that are not images, damaged ones, more than three channels, or different
            sizes where `form` has no resolution; it names the first and counts them.
    """
    channels = form.channels or 3
    height, width = _size(paths, form)
    images = np.empty((len(paths), channels, height, width), dtype=np.uint8)
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
            image = _open(path, form)
        except Exception:  # `_decode_into` will say what is wrong with it
            continue
        return image.height, image.width
    return 1, 1


def _open(path: str, form: Form) -> Image:
    from PIL import Image, ImageOps

    image: Image.Image = Image.open(BytesIO(Path(path).read_bytes()), formats=_FORMATS)
    if not form.published and "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    return image


def _decode_into(path: str, out: np.ndarray, form: Form, grey: np.ndarray) -> Flaw | None:
    """Write an image into `out`, uint8 [C,H,W], and whether it is grey into `grey`."""
    from PIL import UnidentifiedImageError

    try:
        image = _open(path, form)
        if image.mode not in _PLAIN and not form.published:
            return Flaw(1, _unsupported(image))
        grey[0] = image.mode in _GREY
        image = image.convert("L" if out.shape[0] == 1 else "RGB")
        if form.resolution is not None:
            image = _squared(image, form.resize or form.resolution, form.resolution)
        if (image.height, image.width) != out.shape[1:]:
            found, other = f"{image.width}x{image.height}", f"{out.shape[2]}x{out.shape[1]}"
            return Flaw(2, f"is {found}, others are {other}; give dataset.resolution")
        out[...] = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    except UnidentifiedImageError:
        return Flaw(0, "is not an image (JPEG, PNG, BMP, GIF, PPM, TIFF or WebP)")
    except MemoryError:
        raise
    except Exception as error:  # parsers of damaged files raise nearly anything
        return Flaw(0, f"is damaged: {_line(error)}")
    return None


def _squared(image: Image, shorter: int, side: int) -> Image:
    """Resize the shorter side and keep the square in the centre, rounding as torchvision does."""
    from PIL import Image

    width, height = image.size
    if width <= height:
        size = shorter, int(shorter * height / width)
    else:
        size = int(shorter * width / height), shorter
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    if size == (side, side):
        return image
    left, top = round((size[0] - side) / 2.0), round((size[1] - side) / 2.0)
    return image.crop((left, top, left + side, top + side))


def _unsupported(image: Image) -> str:
    bands = len(image.getbands())
    if bands > 3:
        return f"has {bands} channels ({image.mode}); at most 3 are supported, convert it to RGB"
    return f"has pixels of type {image.mode}; convert it to 8-bit grey or RGB"


def _refuse(flaws: list[tuple[str, Flaw]]) -> None:
    rank = min(flaw.rank for _, flaw in flaws)
    same = [(path, flaw.text) for path, flaw in flaws if flaw.rank == rank]
    path, text = same[0]
    more = f" ({len(same)} such files)" if len(same) > 1 else ""
    raise DataError(f"{path}: {text}{more}")


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
