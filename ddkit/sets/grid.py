"""A set as one picture: a row of images for each class."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddkit.images.synthetic import SyntheticSet
from ddkit.runtime.storage import write_atomically

MARGIN = 2
SIDE = 64  # small images are enlarged to about this many pixels
LONGEST = 4096


def grid(syn: SyntheticSet, per_class: int = 10) -> Tensor:
    """Return uint8 [H,W,3]: a row for each class, up to `per_class` stored images wide."""
    height, width = syn.info.shape[1:]
    enlarge = max(1, SIDE // max(height, width))
    height, width = height * enlarge, width * enlarge
    columns = min(per_class, syn.ipc)
    count = min(syn.info.num_classes, max(1, LONGEST // (height + MARGIN)))
    canvas = torch.full(
        (count * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, 3),
        255,
        dtype=torch.uint8,
    )
    for row in range(count):
        chosen = (syn.labels == row).nonzero()[:columns, 0]
        pixels = as_color(as_bytes(syn.raw_pixels(chosen)))
        pixels = pixels.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
        for column, image in enumerate(pixels):
            top, left = MARGIN + row * (height + MARGIN), MARGIN + column * (width + MARGIN)
            canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas


def as_bytes(pixels: Tensor) -> Tensor:
    """Return uint8 of pixels in [0, 1], clipped where they leave it."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def as_color(pixels: Tensor) -> Tensor:
    """Return [N,3,H,W] of grey, colour or many-channel images; of the last, the first channel."""
    return pixels if pixels.shape[1] == 3 else pixels[:, :1].expand(-1, 3, -1, -1)


def write_grid(syn: SyntheticSet, path: Path, per_class: int = 10) -> None:
    """Write the grid as PNG; without time or other metadata, so that equal sets look equal."""
    image = Image.fromarray(grid(syn, per_class).numpy())
    write_atomically(path, lambda p: image.save(p, format="PNG"))


def is_png(path: Path) -> bool:
    """Whether `path` is a file that begins as PNG pictures do, as far as it may be read."""
    if not os.path.isfile(path):  # noqa: PTH113 - raises nothing where it may not be read
        return False
    try:
        with path.open("rb") as file:
            return file.read(8) == b"\x89PNG\r\n\x1a\n"
    except OSError:
        return False
