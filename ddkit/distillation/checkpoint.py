"""A run's state, saved and restored: what the next step depends on, and nothing else.

The file is one of torch's with the hash of all its bytes at its end; large parts of the method's
state are in files beside it. The one before it is kept.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Iterator
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from ddkit.errors import CheckpointError
from ddkit.method import Method
from ddkit.run import Run
from ddkit.runs import parts
from ddkit.runs.folder import previous
from ddkit.runtime import storage
from ddkit.runtime.memory import tensor_bytes
from ddkit.runtime.progress import JsonLines

VERSIONS = {"ddkit": version("ddkit"), "torch": str(torch.__version__)}
"""Of what computes a run's steps; asked once, for an upgrade may replace the files meanwhile."""

MARK = b"\nddkit checkpoint, blake2b: "
TAIL = len(MARK) + 64  # bytes after those that are hashed
SHARE = 0.02  # of a run's time that checkpoints may take
RARER = 10  # times the interval that was asked for, at most
KEPT_BYTES = 256 << 20  # of a state that is copied in memory between checkpoints
KEPT_SHARE = 0.005  # of the time that may go into such copies
CHEAP = 2e-3  # seconds that one may take whatever its share


def interval(asked: float, cost: float) -> float:
    """Return the seconds between checkpoints of which the last took `cost` seconds."""
    return max(asked, min(cost / SHARE, RARER * asked))


def save(
    path: Path,
    run: Run,
    method: Method,
    step: int,
    run_identity: str,
    lines: JsonLines | None = None,
) -> float:
    """Write to `path` the state after `step` steps; errors, and what is returned, as `write`."""
    return write(path, captured(run, method, step, run_identity), lines)


def captured(run: Run, method: Method, step: int, run_identity: str) -> dict[str, Any]:
    """Return the state after `step` steps, whose tensors the next step may change."""
    return {
        "identity": run_identity,
        "versions": VERSIONS,
        "step": step,
        "chunk": run.chunk,
        "seconds": run.seconds,
        "drawn": run.real.drawn,
        "images": run.synthetic.images.detach(),
        "soft": run.synthetic.soft,
        "optimizers": [o.state_dict() for o in run.optimizers],
        "method": method.state_dict(),
    }


def write(path: Path, captured: dict[str, Any], lines: JsonLines | None = None) -> float:
    """Write a state that was captured; return the seconds that it took.

    It is read back before it takes the place of the last one, which becomes the previous one. All
    `lines` so far are on the disk before it is.

    Raises:
        CheckpointError: the disk is full, gone or does not keep what is written.
    """
    started = time.monotonic()
    if lines is not None:
        lines.flush()
        if not path.parent.is_dir():
            raise CheckpointError(f"{path.parent}: is gone; step {captured['step']} is not saved")
    metrics = None if lines is None else _told(lines.path)
    method = parts.put(captured["method"], path.parent)
    state = {**captured, "metrics": metrics, "method": method}

    def fill(place: Path) -> None:
        with place.open("wb") as file:
            hashing = _Hashing(file)
            torch.save(state, cast(BinaryIO, hashing))
            file.write(MARK + hashing.made.hexdigest().encode())

    def check(place: Path) -> None:
        problem = _problem(place)
        if problem is not None:
            raise CheckpointError(f"{path}: the disk does not give back what is written: {problem}")

    storage.write_atomically(path, fill, check, previous(path))
    if parts.there(path.parent):
        parts.keep(path.parent, {*parts.names(state), *parts.names(_read(previous(path)))})
    return time.monotonic() - started


class _Hashing(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.made = blake2b(digest_size=32)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.made.update(data)
        return self._file.write(data)


def _told(metrics: Path) -> tuple[int, str] | None:
    """Return the size and hash of the lines that are on the disk when this returns."""
    try:
        storage.sync(metrics)
        return metrics.stat().st_size, storage.digest(metrics)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{metrics}: cannot be written: {error.strerror}") from None


def restore(
    path: Path, run: Run, method: Method, run_identity: str, metrics: Path | None = None
) -> int:
    """Load the state at `path` into `run` and `method`; return the steps taken, 0 if there is none.

    A damaged one is passed over for the previous one, which the run's reporter is told.

    Raises:
        CheckpointError: all there are are damaged, or it is of another run or version.
    """
    found, problems = None, []
    for place in filter(Path.exists, (path, previous(path))):
        problem = _problem(place) or parts.lacking(_read(place), path.parent)
        if problem is None:
            found = place
            break
        problems.append(f"{place}: damaged ({problem})")
    if found is None:
        if problems:
            raise CheckpointError(f"{'; '.join(problems)}; remove {path.parent} to start over")
        return 0
    step = _taken_up(found, run, method, run_identity, metrics)
    for text in problems:
        run.reporter.note(f"{text}; the one before it is taken, of step {step}")
    if found != path:
        if not problems:
            run.reporter.note(f"{path}: is gone; the one before it is taken, of step {step}")
        storage.move(found, path)  # or the next one would keep the damaged one as its previous
    return step


def _problem(path: Path) -> str | None:
    """Return what is wrong with the bytes of a checkpoint, or None."""
    try:
        end = path.stat().st_size - TAIL
        if end <= 0:
            return "too short"
        with path.open("rb") as file:
            file.seek(end)
            tail = file.read()
        if not tail.startswith(MARK):
            return "its end is missing"
        same = storage.digest(path, end).encode() == tail[len(MARK) :]
    except (OSError, EOFError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None if same else "its bytes are not those that were written"


def _read(path: Path) -> dict[str, Any]:
    """Return the state in the file, of parts their references; nothing where it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return {}
    return state if isinstance(state, dict) else {}


def _taken_up(path: Path, run: Run, method: Method, run_identity: str, metrics: Path | None) -> int:
    try:
        state = torch.load(path, map_location=run.runtime.device, weights_only=True)
        _check_same(path, state, run, run_identity)
        step = int(state["step"])
        with torch.no_grad():
            run.synthetic.images.copy_(state["images"])
        run.synthetic.soft = state["soft"]
        run.chunk, run.seconds = state["chunk"], float(state["seconds"])
        run.real.drawn = int(state["drawn"])
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        method.load_state_dict(parts.get(state["method"], path.parent, run.runtime.device))
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: cannot be read: {_first_line(error)}") from None
    except (RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: does not fit this run's parts ({_first_line(error)}); if a plugin changed, "
            f"go back to the one it began with, or remove {path.parent} to start over"
        ) from None
    if metrics is not None and state["metrics"] is not None:
        size, told = state["metrics"]
        _check_metrics(metrics, size, told, step, run)
    return step


def _check_same(path: Path, state: dict[str, Any], run: Run, run_identity: str) -> None:
    if state["identity"] != run_identity:
        raise CheckpointError(f"{path}: belongs to another run; remove it")
    begun, here = state["versions"], VERSIONS
    if begun["ddkit"] != here["ddkit"]:
        raise CheckpointError(
            f"{path}: written by ddkit {begun['ddkit']}, this is {here['ddkit']}: finish the run "
            f"with that version, or start anew in another folder"
        )
    if begun["torch"] != here["torch"]:
        run.reporter.note(
            f"{path}: written with torch {begun['torch']}, this is {here['torch']}: the set may "
            f"not be the one of an unbroken run to the last digit"
        )


def _check_metrics(path: Path, size: int, told: str, step: int, run: Run) -> None:
    try:
        same = storage.digest(path, size) == told
    except (OSError, EOFError):
        same = False
    if not same:
        run.reporter.note(
            f"{path}: lines before step {step} are damaged or missing; the run does not depend on "
            f"them, and those that can be read are kept"
        )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class Kept:
    """A copy in memory of the last whole state, for whatever breaks a step off in the middle.

    It is taken before every step where that costs next to nothing, else less often, and not at all
    of a state that is large.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None
        self._at = self._seconds = 0.0

    def look(self, run: Run, method: Method, step: int, key: str) -> None:
        """Take the state after `step` steps, unless that is too dear now."""
        if self._seconds > CHEAP and time.monotonic() - self._at < self._seconds / KEPT_SHARE:
            return
        start = time.thread_time()  # not the clock's, which others' work fills as well
        state = captured(run, method, step, key)
        self.state = _copied(state) if tensor_bytes(state) <= KEPT_BYTES else None
        self._at = time.monotonic()
        self._seconds = time.thread_time() - start


def _copied(value: Any) -> Any:
    """Return nested containers with copies of their tensors."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, list | tuple) else value


def tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
