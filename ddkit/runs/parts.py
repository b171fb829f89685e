"""Large parts of a state in files named after their content: what did not change is not rewritten.

A part is an item of a list, anywhere in nested dicts and lists, such as one network of many. In the
state that is left a reference stands for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from ddkit.errors import CheckpointError
from ddkit.runtime import storage
from ddkit.runtime.memory import tensor_bytes

LARGE = 1 << 20  # bytes of tensors from which on an item is a part
REFERENCE = "kept in the file"
GLOB = "part-*.pt"
SIZE = 16  # bytes of the hash in a name


def put(state: Any, folder: Path) -> Any:
    """Return `state` with references for its large parts, which are in `folder` then.

    A part that is there already is read, and written anew if it is damaged.

    Raises:
        CheckpointError: one cannot be written, or the disk does not give it back.
    """
    if isinstance(state, dict):
        return {k: put(v, folder) for k, v in state.items()}
    if isinstance(state, list):
        large = [tensor_bytes(item) >= LARGE for item in state]
        return [_put(v, folder) if n else v for v, n in zip(state, large, strict=True)]
    return state


def _put(part: Any, folder: Path) -> dict[str, str]:
    memory = io.BytesIO()
    torch.save(part, memory)
    content = memory.getvalue()
    path = folder / f"part-{blake2b(content, digest_size=SIZE).hexdigest()}.pt"

    def write(place: Path) -> None:
        place.write_bytes(content)

    def check(place: Path) -> None:
        if _content(place, path.name) is None:
            raise CheckpointError(f"{path}: the disk does not give back what is written")

    if _content(path, path.name) is None:
        storage.write_atomically(path, write, check)
    return {REFERENCE: path.name}


def _content(path: Path, name: str) -> bytes | None:
    """Return the bytes of the part called `name` if they are at `path`, and whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    whole = name == f"part-{blake2b(content, digest_size=SIZE).hexdigest()}.pt"
    return content if whole else None


def names(state: Any) -> Iterator[str]:
    """Yield the file names of the parts that a state with references refers to."""
    if isinstance(state, dict):
        if state.keys() == {REFERENCE}:
            yield state[REFERENCE]
        for value in state.values():
            yield from names(value)
    elif isinstance(state, list):
        for item in state:
            yield from names(item)


def lacking(state: Any, folder: Path) -> str | None:
    """Return which part is not in `folder`, or not as it was written, in words; None if none."""
    found = next((n for n in names(state) if _content(folder / n, n) is None), None)
    return None if found is None else f"{found}, which belongs to it, is damaged or gone"


def get(state: Any, folder: Path, device: torch.device) -> Any:
    """Return what `put` was given, from its result, on `device`.

    Raises:
        OSError: a part is gone or damaged.
    """
    if isinstance(state, dict) and state.keys() == {REFERENCE}:
        content = _content(folder / state[REFERENCE], state[REFERENCE])
        if content is None:
            raise OSError(f"{state[REFERENCE]} is damaged")
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    if isinstance(state, dict):
        return {k: get(v, folder, device) for k, v in state.items()}
    if isinstance(state, list):
        return [get(item, folder, device) for item in state]
    return state


def there(folder: Path) -> bool:
    """Whether there are parts in `folder`."""
    return any(folder.glob(GLOB))


def keep(folder: Path, kept: set[str]) -> None:
    """Remove the parts in `folder` other than `kept`."""
    for path in folder.glob(GLOB):
        if path.name not in kept:
            storage.remove(path)
