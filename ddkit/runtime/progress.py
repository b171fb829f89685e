"""Progress kept and handed on: JSON lines, several reporters at once, words for durations."""

from __future__ import annotations

import json
import math
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ddkit.errors import CheckpointError, Interrupted
from ddkit.reporter import Metrics, Reporter, Silent
from ddkit.runtime import storage


class JsonLines:
    """Writes every step's metrics as one JSON line, in batches, so that the device rarely waits."""

    def __init__(self, path: Path, every: float = 1.0):
        self.path = path
        self.every = every
        self._pending: list[Metrics] = []
        self._step = 0
        self._flushed = time.monotonic()
        self.not_finite: dict[int, list[str]] = {}
        """By step, the metrics that are no numbers; of steps taken since `begin`."""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self._step = done
        keep_lines(self.path, done)

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self._pending.append({k: v.detach() for k, v in metrics.items()})
        if time.monotonic() - self._flushed > self.every:
            self.flush()

    def note(self, text: str) -> None: ...

    def end(self) -> None:
        self.flush()

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            CheckpointError: it cannot be written, and waits for the next time.
        """
        self._flushed = time.monotonic()
        if not self._pending:
            return
        lines, not_finite = [], {}
        for step, values in enumerate(read_all(self._pending), self._step):
            lines.append(json.dumps({"step": step} | values) + "\n")
            bad = [f"{k} ({v})" for k, v in values.items() if not math.isfinite(v)]
            if bad:
                not_finite[step] = bad
        storage.append(self.path, "".join(lines))  # what it refuses stays pending
        self.not_finite |= not_finite
        self._step += len(lines)
        self._pending = []


def keep_lines(path: Path, count: int) -> None:
    """Cut a file of JSON lines down to those of its first `count` steps, as a resumed run needs.

    Lines that are torn, damaged or there twice are dropped.

    Raises:
        CheckpointError: it cannot be read or written.
    """
    try:
        found = path.read_bytes().splitlines(keepends=True) if count and path.exists() else []
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; remove it") from None
    kept, last = [], -1
    for line in found:
        step = _step(line)
        if step is not None and last < step < count:
            kept.append(line.decode())
            last = step
    storage.write_text(path, "".join(kept))


def _step(line: bytes) -> int | None:
    """Return the step that a whole line is of, None if it is none."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if line.endswith(b"\n") and type(step) is int else None


def read_all(batch: list[Metrics]) -> list[dict[str, float]]:
    """Return the values of many steps' metrics with one transfer from the device."""
    flat = [v.float().reshape(()) for metrics in batch for v in metrics.values()]
    values = iter(torch.stack(flat).tolist() if flat else [])
    return [{k: next(values) for k in metrics} for metrics in batch]


class Tee:
    """Hands everything to several reporters, in order."""

    def __init__(self, *reporters: Reporter):
        self.reporters = reporters

    def begin(self, task: str, total: int, done: int = 0) -> None:
        for r in self.reporters:
            r.begin(task, total, done)

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        for r in self.reporters:
            r.advance(metrics, images)

    def note(self, text: str) -> None:
        for r in self.reporters:
            r.note(text)

    def end(self) -> None:
        for r in self.reporters:
            r.end()


class Guarded:
    """Hands everything to a reporter until it raises; one that does is dropped, never the work.

    `Interrupted` passes: it is how a reporter asks to stop.
    """

    def __init__(self, reporter: Reporter):
        self._reporter: Reporter = reporter

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self._call("begin", task, total, done)

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self._call("advance", metrics, images)

    def note(self, text: str) -> None:
        self._call("note", text)

    def end(self) -> None:
        self._call("end")

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            getattr(self._reporter, name)(*arguments)
        except Interrupted:
            raise
        except Exception as error:
            if "reentrant call" in str(error):  # a note by a signal's handler, inside a write
                return
            dropped, self._reporter = type(self._reporter).__name__, Silent()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            with suppress(Exception):  # where the warning cannot be written either
                warnings.warn(
                    f"the reporter {dropped} is dropped, the work goes on: {reason}", stacklevel=3
                )


def duration(seconds: float) -> str:
    """Return ``42 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
