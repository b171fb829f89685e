"""Progress for callers from Python: a line that is redrawn in a notebook, lines in a script."""

from __future__ import annotations

import sys
import time
from typing import Any

from ddkit.errors import shown
from ddkit.reporter import Metrics, Reporter
from ddkit.runtime.progress import duration, read_all

DRAWS, LINES = 0.5, 5.0  # seconds between drawings in a notebook, between lines


def shell() -> Any:
    """Return the IPython that runs in this process as a notebook's kernel, or None."""
    ipython = sys.modules.get("IPython")
    running = ipython.get_ipython() if ipython is not None else None
    return ipython if type(running).__name__ == "ZMQInteractiveShell" else None


class Lines(Reporter):
    """Writes notes, and every few seconds how far a task is, as lines on standard error."""

    every = LINES

    def __init__(self) -> None:
        self._name = ""
        self._total = self._done = self._first = 0
        self._started = self._drawn = 0.0

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self._name, self._total = task, total
        self._done = self._first = done
        self._started = self._drawn = time.monotonic()

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._drawn > self.every:
            self._drawn = now
            values = " ".join(f"{k} {v:.4g}" for k, v in read_all([metrics])[0].items())
            each = (now - self._started) / (self._done - self._first)
            left = duration(each * (self._total - self._done))
            self.draw(f"{self._name} {self._done}/{self._total}  {values}  {left} left")

    def note(self, text: str) -> None:
        self.write(text)

    def end(self) -> None:
        if self._name:
            spent = duration(time.monotonic() - self._started)
            self.draw(f"{self._name} {self._done}/{self._total} in {spent}")
        self._name = ""

    def draw(self, line: str) -> None:
        """Show how far the task is."""
        self.write(line)

    def write(self, line: str) -> None:
        """Show a line that stays."""
        sys.stderr.write(shown(line) + "\n")


class Live(Lines):
    """Redraws one line for each task below the cell of a notebook."""

    every = DRAWS

    def __init__(self, ipython: Any):
        super().__init__()
        self._display: Any = ipython.display.display
        self._handle: Any = None

    def begin(self, task: str, total: int, done: int = 0) -> None:
        super().begin(task, total, done)
        self._handle = self._display(_plain(f"{task} {done}/{total}"), raw=True, display_id=True)

    def draw(self, line: str) -> None:
        self._handle.update(_plain(shown(line)), raw=True)


def _plain(text: str) -> dict[str, str]:
    return {"text/plain": text}


def suited(progress: bool | None) -> Reporter | None:
    """Return what shows progress here: in a notebook unless it is False, elsewhere if True."""
    ipython = shell()
    if progress is False or (progress is None and ipython is None):
        return None
    return Lines() if ipython is None else Live(ipython)
