"""What image files hold, as one hash, which is kept so that they are read once only."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from ddkit.errors import CheckpointError, DataError
from ddkit.paths import reason
from ddkit.runtime.storage import cache, write_text
from ddkit_datasets.image_decode import workers
from ddkit_datasets.image_files import Files

_log = logging.getLogger(__name__)
_BYTES = 16


def content(base: Path, files: Files) -> str:
    """Return a hash of the names (relative to `base`), labels and bytes of `files`.

    It is cached under what changes when a file does, so that all files are read the first time
    alone; a cache that cannot be written is reported as a warning.

    Raises:
        DataError: a file cannot be read.
    """
    path = cache("contents") / f"{files.digest(base)}.txt"
    known = _known(path)
    if known is None:
        known = _hash(base, files)
        try:
            write_text(path, known)
        except CheckpointError as error:
            _log.warning("%s; the images will be read again next time", error)
    return known


def _known(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(f"[0-9a-f]{{{2 * _BYTES}}}", text) else None


def _hash(base: Path, files: Files) -> str:
    names = "\0".join((files.names(base), repr(files.labels)))
    whole = blake2b(names.encode("utf-8", "surrogateescape"), digest_size=_BYTES)
    with ThreadPoolExecutor(workers()) as pool:
        for digest in pool.map(_hash_file, files.paths):
            whole.update(digest)
    return whole.hexdigest()


def _hash_file(path: str) -> bytes:
    try:
        return blake2b(Path(path).read_bytes(), digest_size=_BYTES).digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None
