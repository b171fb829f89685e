"""Progress on standard error: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ddkit.cli import screen
from ddkit.errors import shown
from ddkit.reporter import Metrics
from ddkit.runtime.memory import peak_resident
from ddkit.runtime.progress import duration, read_all

DRAWS = 0.25  # seconds between readings of the metrics
LINES = 5.0  # seconds between plain lines


class Terminal:
    """Draws progress."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self._task: TaskID | None = None
        self._progress: Progress | None = None
        self._name = ""
        self._total = self._done = self._first = 0
        self._images = 0
        self._started = self._drawn = 0.0

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self._name, self._total = task, total
        self._done = self._first = done
        self._images = 0
        self._started = self._drawn = time.monotonic()
        if self.live:
            self._progress = _progress(self.console)
            self._progress.start()
            self._task = self._progress.add_task(task, total=total, completed=done, facts="")

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self._done += 1
        self._images += images
        now = time.monotonic()
        if not self.quiet and now - self._drawn > (DRAWS if self.live else LINES):
            self._drawn = now
            self._draw(metrics, now)

    def _draw(self, metrics: Metrics, now: float) -> None:
        seconds = max(now - self._started, 1e-9)
        values = " ".join(f"{k} {v:.4g}" for k, v in read_all([metrics])[0].items())
        facts = f"{values}  {self._images / seconds:,.0f} img/s  {_memory()}"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done, facts=shown(facts))
            return
        left = seconds / max(1, self._done - self._first) * (self._total - self._done)
        screen.note(f"{self._name} {self._done}/{self._total}  {facts}  {duration(left)} left")

    def note(self, text: str) -> None:
        if self._progress is not None:
            self.console.print(shown(text), soft_wrap=True)
        elif not self.quiet:
            screen.note(text)

    def end(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done)
            self._progress.stop()
            self._progress = None
        elif not self.quiet and self._name:
            seconds = duration(time.monotonic() - self._started)
            screen.note(f"{self._name} {self._done}/{self._total} in {seconds}")
        self._name = ""


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        console=console,
        refresh_per_second=4,
    )


def _memory() -> str:
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB GPU"
    return f"{peak_resident() / 2**30:.1f} GiB"
