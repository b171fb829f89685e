"""Lists of image files in class folders, with what tells whether a file has changed."""

from __future__ import annotations

import logging
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from ddkit.errors import DataError, shown
from ddkit.paths import check_text, reason
from ddkit_datasets.litter import is_litter

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Image files with a label each; `stamps` are what changes when a file does, as text."""

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

    def names(self, base: Path) -> str:
        """Return the paths relative to `base`, a line each."""
        skip = len(str(base)) + 1
        return "\n".join(path[skip:] for path in self.paths)

    def digest(self, base: Path) -> str:
        """Return a hash of names (relative to `base`), labels and stamps."""
        listed = "\0".join((self.names(base), repr(self.labels), "\n".join(self.stamps)))
        return blake2b(listed.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


class Tree:
    """The folders of one dataset, each read once, and what in them is left out."""

    def __init__(self, base: Path):
        self.base = base
        self.litter: Counter[str] = Counter()
        self.beside: Counter[str] = Counter()
        self._read: dict[Path, list[os.DirEntry[str]]] = {}

    def scan(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return what `folder` holds, by name; hidden files and litter are counted and left out.

        Raises:
            DataError: it is missing, not a folder or not readable.
        """
        if folder not in self._read:
            try:
                with os.scandir(folder) as found:
                    entries = sorted(found, key=lambda e: e.name)
            except OSError as error:
                text = f"{folder}: cannot be read as a folder: {reason(error)}"
                raise DataError(text) from None
            self.litter.update(e.name for e in entries if is_litter(e.name))
            self._read[folder] = [e for e in entries if not is_litter(e.name)]
        return self._read[folder]

    def subfolders(self, folder: Path) -> list[str]:
        """Return the names of the folders in `folder`, in alphabetical order.

        Raises:
            DataError: as `scan`, or a link in it leads nowhere or in a circle.
        """
        return [entry.name for entry in self.scan(folder) if _is_folder(entry)]

    def class_folders(self, folder: Path) -> dict[str, Path]:
        """Return the folders in `folder` by class name, in alphabetical order of these.

        Names are in Unicode's composed form (NFC), for systems differ in how they store an accent,
        and a class is to have one name and one label on all of them.

        Raises:
            DataError: as `subfolders`; two names are one but for the form, or one is not text.
        """
        found: dict[str, Path] = {}
        for stored in self.subfolders(folder):
            path, name = folder / stored, unicodedata.normalize("NFC", stored)
            check_text(name, what=f"{folder}: the name of a class folder")
            if name in found:
                raise DataError(
                    f"{folder}: two class folders are called {name!r}, in different Unicode forms "
                    "(NFC and NFD); put their images into one of them"
                )
            found[name] = path
        self.leave(e.name for e in self.scan(folder) if not _is_folder(e))
        return dict(sorted(found.items()))

    def leave(self, names: Iterable[str]) -> None:
        """Count `names`, of what lies beside the class folders and is not used."""
        self.beside.update(names)

    def tell(self) -> None:
        """Say in one warning what was left out, if anything was."""
        for found, what in (
            (self.litter, "hidden files or what systems leave"),
            (self.beside, "beside what is read"),
        ):
            if found:
                listed = [n if k == 1 else f"{n} ({k} times)" for n, k in found.most_common(5)]
                more = ", ..." if len(found) > 5 else ""
                entries = "1 entry is" if found.total() == 1 else f"{found.total()} entries are"
                names = shown(", ".join(listed)) + more
                _log.warning("%s: %s ignored, %s: %s", shown(str(self.base)), entries, what, names)

    def list_classes(self, folders: Sequence[Path]) -> Files:
        """Return the files of class folders; the label of a file is the position of its folder.

        Files come in alphabetical order within a class.

        Raises:
            DataError: a folder is missing, empty or holds a folder; a file cannot be looked at.
        """
        files = Files([], [], [])
        for label, folder in enumerate(folders):
            entries = self.scan(folder)
            if not entries:
                raise DataError(f"{folder}: the class folder is empty; add images or remove it")
            for entry in entries:
                _add(files, entry, label, folder)
        return files

    def list_labelled(self, folder: Path, labels: dict[str, int]) -> Files:
        """Return the files in `folder` with the labels that `labels` has for their names.

        Raises:
            DataError: a file without a label, or a label without its file.
        """
        files = Files([], [], [])
        entries = self.scan(folder)
        strays = [e.name for e in entries if e.name not in labels]
        if strays:
            raise DataError(f"{folder / strays[0]}: has no label ({len(strays)} such files)")
        absent = sorted(labels.keys() - {e.name for e in entries})
        if absent:
            text = f"{folder / absent[0]}: has a label but is missing ({len(absent)} such)"
            raise DataError(text)
        for entry in entries:
            _add(files, entry, labels[entry.name], folder)
        return files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to nowhere may stand for a missing class."""
    try:
        return entry.is_dir() or (entry.is_symlink() and stat.S_ISDIR(entry.stat().st_mode))
    except OSError as error:
        raise DataError(_unseen(entry, error)) from None


def _unseen(entry: os.DirEntry[str], error: OSError) -> str:
    lost = isinstance(error, FileNotFoundError)
    why = "it is a link to nowhere" if lost else reason(error)
    return f"{entry.path}: cannot be read: {why}; mend or remove it"


def _add(files: Files, entry: os.DirEntry[str], label: int, folder: Path) -> None:
    try:
        status = entry.stat()
    except OSError as error:
        raise DataError(_unseen(entry, error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(
            f"{entry.path}: a folder inside the class folder {folder.name!r}; "
            "images must lie directly in it"
        )
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise DataError(f"{entry.path}: is not a file but a pipe, socket or device; remove it")
    files.paths.append(entry.path)
    files.labels.append(label)
    # Size and time of change survive a replacement (rsync -t, archives with fixed times); the
    # time of the last change of the file's entry (ctime) cannot be set.
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    files.stamps.append(" ".join(map(str, stamp)))
