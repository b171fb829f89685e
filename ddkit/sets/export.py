"""A set as a folder of class folders, with what no folder can say in a file beside them."""

from __future__ import annotations

import json
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddkit.errors import DataError
from ddkit.images.synthetic import SyntheticSet
from ddkit.sets.grid import as_bytes

MANIFEST = "classes.json"
_UNSAFE = re.compile(r"[^\w .,()'-]|^[. ]|[. ]\Z")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])(\..*)?", re.IGNORECASE)
_LITTER = ("__macosx", "desktop.ini", "system volume information", "thumbs.db")  # not read back
_BYTES = 180  # of a folder's name; file systems take 255


@dataclass(frozen=True)
class Exported:
    """What an export wrote; `clipped` of `values` numbers lay outside of what pixels can show."""

    images: int
    values: int
    clipped: int
    numbered: bool
    """Whether folders carry the number of their class."""


def export(syn: SyntheticSet, folder: Path) -> Exported:
    """Write the stored images as ``<class>/<number>.png``, and what they are as `MANIFEST`.

    Eight bits per channel: the last digits of learned pixels are rounded away, and what is darker
    than black or lighter than white is clipped. A folder that exists must be empty; nothing but
    the whole export is left in it.

    Raises:
        DataError: the folder is not empty or cannot be written, or images are neither grey nor
            colour.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: exists and is not empty; choose another folder")
        if syn.info.channels not in (1, 3):
            raise DataError(f"images of {syn.info.channels} channels cannot be written as PNG")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as unfinished:
            names, numbered = folder_names(syn.info.classes)
            clipped = _write_classes(syn, Path(unfinished), names)
            done = Exported(len(syn), syn.images.numel(), clipped, numbered)
            text = json.dumps(_manifest(syn, names, done), indent=2) + "\n"
            (Path(unfinished) / MANIFEST).write_text(text, encoding="ascii")
            for name in (*names, MANIFEST):
                (Path(unfinished) / name).rename(folder / name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{folder}: cannot be written: {reason.lower()}") from None
    return done


def _write_classes(syn: SyntheticSet, folder: Path, names: Sequence[str]) -> int:
    """Write a folder for each class, empty ones too; return how many values were clipped."""
    clipped, slack = 0, 0.5 / 255  # which rounding to bytes takes in any case
    for label, name in enumerate(names):
        (folder / name).mkdir()
        for number, row in enumerate((syn.labels == label).nonzero()):
            pixels = syn.raw_pixels(row)
            clipped += int(((pixels < -slack) | (pixels > 1 + slack)).sum())
            array = as_bytes(pixels)[0].permute(1, 2, 0).numpy()
            picture = Image.fromarray(np.squeeze(array, 2) if array.shape[2] == 1 else array)
            picture.save(folder / name / f"{number:04d}.png", format="PNG")
    return clipped


def _manifest(syn: SyntheticSet, names: Sequence[str], done: Exported) -> dict[str, object]:
    """Return what folders of pictures do not say: names and labels, statistics, what was lost."""
    info = syn.info
    listed = zip(info.classes, names, syn.per_class, strict=True)
    return {
        "dataset": info.name,
        "classes": [
            {"label": label, "name": name, "folder": folder, "images": count}
            for label, (name, folder, count) in enumerate(listed)
        ],
        "shape": info.shape,
        "mean": info.mean,
        "std": info.std,
        "tiles": syn.formation.factor,
        "soft_labels_left_out": syn.soft is not None,
        "values": done.values,
        "values_clipped": done.clipped,
    }


def folder_names(classes: Sequence[str]) -> tuple[list[str], bool]:
    """Return a folder name for each class, and whether they carry the numbers of their classes.

    Readers of image folders label classes in alphabetical order. Where that is not the order of
    `classes`, or two names would be one folder somewhere, all names begin with their number.
    """
    names = [_safe(name) for name in classes]
    alike = {unicodedata.normalize("NFKC", n).casefold() for n in (*names, MANIFEST)}
    if len(alike) == len(names) + 1 and names == sorted(names):
        return names, False
    digits = len(str(len(names) - 1))
    return [f"{number:0{digits}d} {name}" for number, name in enumerate(names)], True


def _safe(name: str) -> str:
    """Return `name` as the name of a folder on every system, ``%2F`` for ``/``.

    No two give one, but for very long ones, which are cut. None is hidden, reserved on Windows, or
    taken for a system's own folder.
    """
    safe = _UNSAFE.sub(lambda m: _escaped(m[0]), name) or "%"
    if _RESERVED.fullmatch(safe) or safe.casefold() in _LITTER:
        safe = _escaped(safe[0]) + safe[1:]
    while len(safe.encode()) > _BYTES:
        safe = safe[:-1].rstrip(". ")
    return safe


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
