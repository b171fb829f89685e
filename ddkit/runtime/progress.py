"""Progress kept and handed on: JSON lines, several reporters at once, words for durations."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch

from ddkit.errors import CheckpointError
from ddkit.reporter import Metrics, Reporter
from ddkit.runtime.storage import write_text


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
        """Write what is pending."""
        self._flushed = time.monotonic()
        if not self._pending:
            return
        lines = []
        for values in read_all(self._pending):
            lines.append(json.dumps({"step": self._step} | values) + "\n")
            bad = [f"{k} ({v})" for k, v in values.items() if not math.isfinite(v)]
            if bad:
                self.not_finite[self._step] = bad
            self._step += 1
        self._pending = []
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror}") from None


def keep_lines(path: Path, count: int) -> None:
    """Cut a file of JSON lines down to its first `count`, as a resumed run needs."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    write_text(path, "".join(lines[:count]))


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


def duration(seconds: float) -> str:
    """Return ``42 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
