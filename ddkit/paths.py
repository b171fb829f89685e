"""A user's paths: expanded and looked at here alone, and what the system refuses put in words.

`pathlib` lets some refusals through and hides others: a link in a circle, a folder that may not be
entered, a user that does not exist. Nothing here is slow to import.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from ddkit.errors import DataError, DDKitError

_REASONS = {
    errno.ELOOP: "its links lead in a circle",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "there is no such file or folder",
}


def reason(error: Exception) -> str:
    """Return in words why the system refused a path or a file: an OSError or a ValueError."""
    number = getattr(error, "errno", None)
    text = _REASONS.get(number or 0) or getattr(error, "strerror", None) or str(error)
    return (text.strip() or type(error).__name__).splitlines()[0]


def expanded(path: Path | str, kind: type[DDKitError] = DataError, what: str = "") -> Path:
    """Return `path` with ``~`` and ``~user`` replaced by the home folders; nothing is looked at.

    Args:
        path: as the user wrote it.
        kind: the error to raise.
        what: where it was written, such as an option's name; the error begins with it.

    Raises:
        DDKitError: of `kind`; it is empty, names an unknown user, or can be no path here.
    """
    text, said = str(path), f"{what}: " if what else ""
    if not text:
        raise kind(f"{said}the path is empty; give one (. is the working directory)")
    if "\0" in text:
        raise kind(f"{said}{text!r}: no path holds a NUL character")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        coding = sys.getfilesystemencoding()
        raise kind(
            f"{said}{text!r}: has characters that names of files cannot hold in this locale "
            f"({coding}); rename it, or set PYTHONUTF8=1"
        ) from None
    try:
        return Path(text).expanduser()
    except RuntimeError:  # all that pathlib says is that there is no home
        user = Path(text).parts[0][1:]
        whose = f"there is no user {user!r} here" if user else "the home folder is not known"
        raise kind(f"{said}{text}: {whose}; give the whole path") from None


def check_text(name: str, kind: type[DDKitError] = DataError, what: str = "") -> None:
    """Refuse a name that no UTF-8 file, such as a recipe or a set, can hold.

    Raises:
        DDKitError: of `kind`; the name is of bytes that are no text in the encoding of this system.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        said, coding = f"{what}: " if what else "", sys.getfilesystemencoding()
        raise kind(
            f"{said}{name!r} is not text in the encoding of names here ({coding}); rename it, or "
            "set PYTHONUTF8=1"
        ) from None


def look(path: Path, kind: type[DDKitError] = DataError) -> os.stat_result | None:
    """Return what the system says of `path`, links followed; None where nothing is.

    Raises:
        DDKitError: of `kind`; that cannot be told: a folder on the way may not be entered, links
            lead in a circle, the name is too long, or the disk does not answer.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise kind(f"{path}: cannot be looked at: {reason(error)}") from None


def is_folder(path: Path, kind: type[DDKitError] = DataError) -> bool:
    """Return whether `path` is a folder; errors as in `look`."""
    found = look(path, kind)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(path: Path, kind: type[DDKitError] = DataError) -> bool:
    """Return whether `path` is a regular file; errors as in `look`."""
    found = look(path, kind)
    return found is not None and stat.S_ISREG(found.st_mode)
