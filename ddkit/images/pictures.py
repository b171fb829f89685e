"""Pictures of a set: a grid with one row of images per class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddkit.errors import DataError
from ddkit.images.synthetic import SyntheticSet
from ddkit.runtime.storage import write_atomically

MARGIN = 2
SIDE = 64  # small images are enlarged to about this many pixels
LONGEST = 4096


def grid(syn: SyntheticSet, per_class: int = 10) -> Tensor:
    """Return uint8 [H,W,3]: a row for each class, up to `per_class` stored images wide."""
    pixels = (syn.pixels() * 255).round().to(torch.uint8)
    enlarge = max(1, SIDE // max(pixels.shape[-2:]))
    pixels = pixels.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    colored = as_color(pixels)
    height, width = colored.shape[-2:]
    columns = min(per_class, syn.ipc)
    rows = min(syn.info.num_classes, LONGEST // (height + MARGIN))
    canvas = torch.full(
        (rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, 3),
        255,
        dtype=torch.uint8,
    )
    for row in range(rows):
        for column, image in enumerate(colored[syn.labels == row][:columns]):
            top, left = MARGIN + row * (height + MARGIN), MARGIN + column * (width + MARGIN)
            canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    return canvas


def as_color(pixels: Tensor) -> Tensor:
    """Return [N,3,H,W] of grey, colour or many-channel images; of the last, the first channel."""
    return pixels if pixels.shape[1] == 3 else pixels[:, :1].expand(-1, 3, -1, -1)


def write_grid(syn: SyntheticSet, path: Path, per_class: int = 10) -> None:
    """Write the grid as PNG; without time or other metadata, so that equal sets look equal."""
    image = Image.fromarray(grid(syn, per_class).numpy())
    write_atomically(path, lambda p: image.save(p, format="PNG"))


def export(syn: SyntheticSet, folder: Path) -> int:
    """Write the stored images as ``<class>/<number>.png``; return how many.

    Eight bits per channel: the last digits of learned pixels are rounded away.

    Raises:
        DataError: the folder exists and is not empty, or images are neither grey nor colour.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; choose another folder")
    if syn.info.channels not in (1, 3):
        raise DataError(f"images of {syn.info.channels} channels cannot be written as PNG")
    pixels = (syn.pixels() * 255).round().to(torch.uint8)
    numbers: dict[int, int] = {}
    folders = folder_names(syn.info.classes)
    for image, label in zip(pixels, syn.labels.tolist(), strict=True):
        number = numbers.get(label, 0)
        numbers[label] = number + 1
        array = image.permute(1, 2, 0).numpy()
        picture = Image.fromarray(np.squeeze(array, 2) if array.shape[2] == 1 else array)
        path = folder / folders[label] / f"{number:04d}.png"
        write_atomically(path, lambda p, picture=picture: picture.save(p, format="PNG"))  # type: ignore[misc]
    return len(pixels)


def folder_names(classes: Sequence[str]) -> list[str]:
    """Return a folder name for each class: safe everywhere, and no two alike."""
    names: list[str] = []
    for number, name in enumerate(classes):
        safe = re.sub(r"[^\w .,()'+-]", "-", name).strip(" .") or f"class {number}"
        taken = {n.casefold() for n in names}
        names.append(safe if safe.casefold() not in taken else f"{safe} {number}")
    return names
