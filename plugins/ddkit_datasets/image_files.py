"""Lists of image files in class folders, with what tells whether a file has changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from ddkit.errors import DataError

_LITTER = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})


@dataclass(frozen=True)
class Files:
    """Image files with a label each; `stamps` are their sizes and times of change, as text."""

    paths: list[str]
    labels: list[int]
    stamps: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> Tensor:
        """Labels, int64 [N]."""
        return torch.tensor(self.labels, dtype=torch.int64)

    def where(self, keep: Sequence[bool]) -> Files:
        """Return the files at which `keep` is true."""
        rows = [i for i, wanted in enumerate(keep) if wanted]
        return Files(
            [self.paths[i] for i in rows],
            [self.labels[i] for i in rows],
            [self.stamps[i] for i in rows],
        )

    def digest(self, base: Path) -> str:
        """Return a hash of names (relative to `base`), labels, sizes and times of change."""
        skip = len(str(base)) + 1
        names = "\n".join(path[skip:] for path in self.paths)
        listed = "\0".join((names, repr(self.labels), "\n".join(self.stamps)))
        return blake2b(listed.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return what `folder` holds, by name, less hidden files and what file managers leave.

    Raises:
        DataError: it is missing, not a folder or not readable.
    """
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith(".") and e.name not in _LITTER]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read as a folder: {error.strerror}") from None
    return sorted(kept, key=lambda e: e.name)


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in `folder`, in alphabetical order."""
    return [entry.name for entry in scan(folder) if entry.is_dir()]


def list_classes(folders: Sequence[Path]) -> Files:
    """Return the files of class folders; the label of a file is the position of its folder.

    Files come in alphabetical order within a class.

    Raises:
        DataError: a folder is missing, empty or holds a folder; a file cannot be looked at.
    """
    files = Files([], [], [])
    for label, folder in enumerate(folders):
        entries = scan(folder)
        if not entries:
            raise DataError(f"{folder}: the class folder is empty; add images or remove it")
        for entry in entries:
            _add(files, entry, label, folder)
    return files


def list_labelled(folder: Path, labels: dict[str, int]) -> Files:
    """Return the files in `folder` with the labels that `labels` has for their names.

    Raises:
        DataError: a file without a label, or a label without its file.
    """
    files = Files([], [], [])
    entries = scan(folder)
    strays = [e.name for e in entries if e.name not in labels]
    if strays:
        raise DataError(f"{folder / strays[0]}: has no label ({len(strays)} such files)")
    absent = sorted(labels.keys() - {e.name for e in entries})
    if absent:
        raise DataError(f"{folder / absent[0]}: has a label but is missing ({len(absent)} such)")
    for entry in entries:
        _add(files, entry, labels[entry.name], folder)
    return files


def _add(files: Files, entry: os.DirEntry[str], label: int, folder: Path) -> None:
    try:
        if entry.is_dir():
            raise DataError(
                f"{entry.path}: a folder inside the class folder {folder.name!r}; "
                "images must lie directly in it"
            )
        status = entry.stat()
    except OSError as error:  # such as a link to nowhere
        raise DataError(f"{entry.path}: cannot be read: {error.strerror}") from None
    files.paths.append(entry.path)
    files.labels.append(label)
    files.stamps.append(f"{status.st_size} {status.st_mtime_ns}")
