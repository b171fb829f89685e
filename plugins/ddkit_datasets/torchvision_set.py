"""Datasets that torchvision can read and download, with errors that say what to put where."""

from __future__ import annotations

import errno
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ddkit.errors import DataError
from ddkit.paths import is_file, reason

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS})
_TIMEOUT = 30  # seconds without an answer; urllib itself would wait forever


class Stored(NamedTuple):
    """The files of a dataset by path below the data folder, with their published MD5 sums.

    `archives` are downloaded, `contents` are what is unpacked from them and read.
    """

    archives: Mapping[str, str]
    contents: Mapping[str, str | None]


def read(
    kind: str, root: Path, splits: Sequence[Mapping[str, Any]], stored: Callable[[Any], Stored]
) -> list[Any]:
    """Return torchvision's dataset `kind` for each of `splits`, downloaded to `root` if absent.

    Args:
        kind: the class's name in ``torchvision.datasets``.
        root: the data folder.
        splits: keyword arguments, one mapping per split.
        stored: says for the class which files it consists of.

    Raises:
        DataError: torchvision does not import; a file is not the published one; the files are
            absent and cannot be downloaded.
    """
    cls = _class(kind)
    files = stored(cls)
    absent = [name for name in files.contents if not is_file(root / name)]
    if absent:
        _refuse_wrong(files.archives, root)
        _fetch(cls, kind, root, splits, files)
    try:
        return [cls(root=str(root), **split) for split in splits]
    except Exception as error:  # damaged files without a checksum fail in any way
        _refuse_wrong(files.contents, root)
        where = (root / next(iter(files.contents))).parent
        raise DataError(
            f"{where}: cannot be read as {kind} ({_line(error)}); "
            "delete what was unpacked there to have it made again"
        ) from None


def _class(kind: str) -> Any:
    try:
        from torchvision import datasets
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: made for another torch
        raise DataError(
            f"{kind} is read by torchvision, which does not import ({_line(error)}); "
            "install the torchvision that fits the installed torch"
        ) from None
    return getattr(datasets, kind)


def _refuse_wrong(sums: Mapping[str, str | None], root: Path) -> None:
    for name, md5 in sums.items():
        if is_file(root / name) and not _intact(root / name, md5):
            raise DataError(
                f"{root / name}: is not the published file (its MD5 sum is not {md5}); "
                "replace it, or delete it to have it downloaded again"
            )


def _intact(path: Path, md5: str | None) -> bool:
    from torchvision.datasets.utils import check_integrity

    try:
        return bool(check_integrity(path, md5))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None


def _fetch(
    cls: Any, kind: str, root: Path, splits: Sequence[Mapping[str, Any]], files: Stored
) -> None:
    """Download and unpack beside the data folder's files, then move what is whole into it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{kind}.", dir=root) as name:
            temporary = Path(name)
            for archive in files.archives:  # those that are there need no network
                if is_file(root / archive):
                    (temporary / archive).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / archive).symlink_to((root / archive).resolve())
            _download(cls, kind, root, temporary, splits, files)
            for content in files.contents:
                if not is_file(root / content):
                    (root / content).parent.mkdir(parents=True, exist_ok=True)
                    (temporary / content).replace(root / content)
    except OSError as error:
        raise DataError(f"{root}: {kind} cannot be stored there: {reason(error)}") from None


def _download(
    cls: Any,
    kind: str,
    root: Path,
    temporary: Path,
    splits: Sequence[Mapping[str, Any]],
    files: Stored,
) -> None:
    try:
        with _timeout(_TIMEOUT):
            for split in splits:
                cls(root=str(temporary), download=True, **split)
    except Exception as error:  # what torchvision raises differs by dataset, and may name addresses
        wrong = [n for n, md5 in files.archives.items() if _broken(temporary / n, md5)]
        if wrong:
            reason = f"{Path(wrong[0]).name} arrived damaged or is another file"
        elif isinstance(error, OSError) and error.errno in _DISK:
            raise
        else:  # only urllib's own reasons are free of addresses
            why = getattr(error, "reason", None)
            reason = "no answer from the network" + (f" ({why})" if why else "")
        absent = [n for n in files.archives if not is_file(root / n)]
        folder = (root / next(iter(files.archives))).parent
        names = ", ".join(Path(n).name for n in absent)
        raise DataError(
            f"{kind} is not in {root} and cannot be downloaded: {reason}\n"
            f"get {names} from its publisher and put it into {folder}"
        ) from None


def _broken(path: Path, md5: str) -> bool:
    return is_file(path) and not _intact(path, md5)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
