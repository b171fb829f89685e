"""Locks on files that a process which has ended, however it ended, no longer holds.

The operating system keeps them: `flock` (which Linux carries over NFS), on Windows a locked byte. A
file system that knows no locks is told from one where the lock is taken.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ddkit.errors import CheckpointError

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
FAR = 0x7FFFFFFE  # the byte that is locked on Windows, where nothing is ever written
WAIT = 0.5  # seconds between two looks at a lock that another process holds


class Lock:
    """A lock that this process holds until `release`, which removes the file, or its end."""

    def __init__(self, path: Path, handle: int, supported: bool):
        self.path = path
        self._handle = handle
        self.supported = supported
        """Whether the file system knows locks; if not, nothing is kept out."""

    def release(self) -> None:
        # Removed while it is held: whoever waits on this very file sees that it is gone. Windows
        # refuses, and the file stays, unlocked.
        with suppress(OSError):
            self.path.unlink()
        os.close(self._handle)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_lock(path: Path) -> Lock | None:
    """Lock the file at `path`, made if need be; None if it is locked, by whomever.

    Raises:
        CheckpointError: the file cannot be made.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None
        taken = take(handle)
        if taken is False:
            os.close(handle)
            return None
        if _still_there(path, handle):
            _sign(handle)
            return Lock(path, handle, taken is not None)
        os.close(handle)  # its last holder removed it after we had opened it


def take(handle: int) -> bool | None:
    """Lock an open file; False if it is locked already, None if its file system knows no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in UNSUPPORTED else False
    return True


@contextmanager
def held(path: Path, note: Callable[[str], None], what: str) -> Iterator[Lock]:
    """Hold the lock at `path`, waiting while another holds it, which `note` is told once.

    Raises:
        CheckpointError: as `try_lock`.
    """
    lock = try_lock(path)
    if lock is None:
        note(f"waiting for {what}, which {holder(path)} is at")
    while lock is None:
        time.sleep(WAIT)
        lock = try_lock(path)
    with lock:
        yield lock


def myself() -> dict[str, str | int]:
    """Return what others should know of a holder: its process, its machine, and since when."""
    now = datetime.now(UTC).isoformat(" ", "seconds")
    return {"pid": os.getpid(), "host": platform.node(), "since": now}


def holder(path: Path) -> str:
    """Return who holds the lock at `path`, as far as the file says."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(said['pid'])} on {said['host']!s} (since {said['since']!s})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _still_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False


def _sign(handle: int) -> None:
    with suppress(OSError):  # on a full disk the lock holds all the same, without a name
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(myself()).encode())
