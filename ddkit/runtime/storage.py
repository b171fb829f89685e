"""Where ddkit keeps things, and the only place from which it writes them.

Whole files appear in one step and are on the disk when they do. Whatever changes on the disk goes
through `make_folder`, `sync`, `move`, `sync_folder`, `append` and `remove`, where it can be
watched.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from hashlib import blake2b
from pathlib import Path
from stat import S_IMODE

from platformdirs import user_cache_path

from ddkit.errors import CheckpointError, RecipeError
from ddkit.paths import expanded, is_folder
from ddkit.runtime import lock

PARTIAL = ".partial"  # what the names of folders end in where a file is being written
LOCK = ".lock"
NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # where none is known


def home() -> Path:
    """Return ddkit's folder: ``DDKIT_HOME``, else the user's cache folder of the platform."""
    named = os.environ.get("DDKIT_HOME")
    return expanded(named, RecipeError, "DDKIT_HOME") if named else user_cache_path("ddkit")


def data_root() -> Path:
    """Return where datasets are downloaded to and looked for: ``DDKIT_DATA``, else in `home`."""
    named = os.environ.get("DDKIT_DATA")
    return expanded(named, RecipeError, "DDKIT_DATA") if named else home() / "data"


def cache(kind: str) -> Path:
    """Return the folder in which things of one kind (``images``, ``networks``) are cached."""
    return home() / "cache" / kind


def write_atomically(
    path: Path,
    write: Callable[[Path], None],
    check: Callable[[Path], None] | None = None,
    previous: Path | None = None,
) -> None:
    """Let `write` fill a temporary neighbour of `path`, then move it there in one step.

    It is on the disk before it moves, and the move is before this returns. `check` may look at the
    whole file and raise; then it does not move. What was at `path` is kept as `previous`, if given.

    Raises:
        CheckpointError: the folder cannot be written to, or the disk is full.
    """
    try:
        make_folder(path.parent)
        with _temporary(path) as temporary:
            mode = temporary.stat().st_mode  # what the umask allows; some libraries know better
            write(temporary)
            temporary.chmod(S_IMODE(mode))
            sync(temporary)
            if check is not None:
                check(temporary)
            if previous is not None and path.exists():
                move(path, previous)
            move(temporary, path)
        sync_folder(path.parent)
    except Exception as error:
        if not _of_the_disk(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"{path}: cannot be written: {reason}") from None


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield an empty file that is to become `path`, in a folder of its own beside it.

    A folder, for libraries leave temporary files of their own; with a lock in it, so that `sweep`
    knows it from a dead writer's.
    """
    folder = Path(tempfile.mkdtemp(PARTIAL, f".{path.name[:64]}.", path.parent))
    try:
        with lock.try_lock(folder / LOCK) or nullcontext():
            temporary = folder / "new"
            temporary.touch()
            yield temporary
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of_the_disk(error: Exception) -> bool:
    """Whether writing failed: torch and safetensors raise errors of their own at a full disk."""
    return isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError"


def sweep(folder: Path) -> None:
    """Remove what killed writers left in `folder`; never what is a living one's.

    Temporary files, and locks on files of names of their own (``.0000.lock``).
    """
    for path in folder.glob(f".*{PARTIAL}"):
        with suppress(CheckpointError):
            dead = lock.try_lock(path / LOCK)
            if dead is not None and dead.supported:
                shutil.rmtree(path, ignore_errors=True)
            if dead is not None:
                dead.release()
    for path in folder.glob(f".*{LOCK}"):
        with suppress(CheckpointError):
            unheld = lock.try_lock(path)
            if unheld is not None:
                unheld.release()


def is_partial(path: Path) -> bool:
    """Whether `path` is there only while a process works beside it, or after it was killed."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(PARTIAL))


def make_folder(path: Path) -> None:
    """Make a folder and its parents, on the disk when this returns; OSError if it cannot be."""
    lacking = [path]
    while not lacking[-1].exists() and lacking[-1] != lacking[-1].parent:
        lacking.append(lacking[-1].parent)
    path.mkdir(parents=True, exist_ok=True)
    for made in lacking[:-1]:
        sync_folder(made.parent)


def sync(path: Path) -> None:
    """Wait until the content of a file is on the disk; OSError if it does not get there."""
    with path.open("rb+") as file:
        _sync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the platform can."""
    if os.name == "nt":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder to write in, not to read
        return
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def move(path: Path, to: Path) -> None:
    """Give a file another name in one step, in place of what has that name."""
    path.replace(to)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Add `text` to the end of a file that is there: all of it, or on an error nothing.

    Raises:
        CheckpointError: the file is gone or cannot be written, or the disk is full.
    """
    try:
        with path.open("rb+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(text.encode())
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None


def existing(path: Path) -> Path:
    """Return the nearest of `path` and its parents that exists, as far as may be seen."""
    path = path.absolute()
    while not os.path.exists(path) and path != path.parent:  # noqa: PTH110 - never raises
        path = path.parent
    return path


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work that it is to hold; makes its folder.

    Raises:
        CheckpointError: as `write_atomically`.
    """
    if is_folder(path, CheckpointError):
        raise CheckpointError(f"{path}: is a folder; give a file")
    try:
        make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step; errors as in `write_atomically`."""

    def write(place: Path) -> None:
        place.write_text(text, encoding="utf-8", newline="\n")

    write_atomically(path, write)


def digest(path: Path, end: int | None = None) -> str:
    """Return the hash of a file's content, or of its first `end` bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
        EOFError: it has fewer bytes than `end`.
    """
    made, left = blake2b(digest_size=32), path.stat().st_size if end is None else end
    with path.open("rb") as file:
        while left:
            part = file.read(min(left, 1 << 20))
            if not part:
                raise EOFError(f"{path.name} is too short")
            made.update(part)
            left -= len(part)
    return made.hexdigest()
