"""Where ddkit keeps what it can make again: datasets, decoded images, trained networks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from ddkit.errors import CheckpointError


def home() -> Path:
    """Return ddkit's folder: ``DDKIT_HOME``, else the user's cache folder of the platform."""
    named = os.environ.get("DDKIT_HOME")
    return Path(named).expanduser() if named else user_cache_path("ddkit")


def data_root() -> Path:
    """Return where datasets are downloaded to and looked for: ``DDKIT_DATA``, else in `home`."""
    named = os.environ.get("DDKIT_DATA")
    return Path(named).expanduser() if named else home() / "data"


def cache(kind: str) -> Path:
    """Return the folder in which things of one kind (``images``, ``networks``) are cached."""
    return home() / "cache" / kind


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then move it there in one step.

    Raises:
        CheckpointError: the folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner may read
        temporary.replace(path)
    except Exception as error:
        if not _of_the_disk(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"{path}: cannot be written: {reason}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _of_the_disk(error: Exception) -> bool:
    """Whether writing failed: torch and safetensors raise errors of their own at a full disk."""
    return isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError"


def existing(path: Path) -> Path:
    """Return the nearest of `path` and its parents that exists, as far as may be seen."""
    path = path.absolute()
    while not os.path.exists(path) and path != path.parent:  # noqa: PTH110 - never raises
        path = path.parent
    return path


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work that it is to hold; writes nothing.

    Raises:
        CheckpointError: as `write_atomically`.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step; errors as in `write_atomically`."""

    def write(place: Path) -> None:
        place.write_text(text, encoding="utf-8")

    write_atomically(path, write)
