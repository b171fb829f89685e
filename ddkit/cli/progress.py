"""Progress on standard error: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from statistics import mean, stdev
from types import FrameType

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
from rich.table import Table

from ddkit.errors import Interrupted
from ddkit.evaluation.verdict import Verdict
from ddkit.reporter import Metrics
from ddkit.runtime.memory import peak_resident
from ddkit.runtime.progress import duration, read_all

DRAWS = 0.25  # seconds between readings of the metrics
LINES = 5.0  # seconds between plain lines


class Terminal:
    """Draws progress, and turns SIGINT and SIGTERM into `Interrupted` between two steps.

    The first signal inside a task waits for the end of the step, so that state can be saved; a
    second one, or one outside a task, stops at once.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal and not quiet
        self._stop = False
        self._task: TaskID | None = None
        self._progress: Progress | None = None
        self._name = ""
        self._total = self._done = self._first = 0
        self._images = 0
        self._started = self._drawn = 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signal)

    def _signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop or not self._name:
            raise Interrupted("stopped")
        self._stop = True
        self.note("stopping after this step; once more stops at once")

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
        if self._stop:
            kept = "; finished networks are kept in the cache" if self._name == "proxies" else ""
            self.end()
            raise Interrupted(f"stopped{kept}")

    def _draw(self, metrics: Metrics, now: float) -> None:
        seconds = max(now - self._started, 1e-9)
        values = " ".join(f"{k} {v:.4g}" for k, v in read_all([metrics])[0].items())
        facts = f"{values}  {self._images / seconds:,.0f} img/s  {_memory()}"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done, facts=facts)
            return
        left = seconds / max(1, self._done - self._first) * (self._total - self._done)
        print(
            f"{self._name} {self._done}/{self._total}  {facts}  {duration(left)} left",
            file=sys.stderr,
            flush=True,
        )

    def note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done)
            self._progress.stop()
            self._progress = None
        elif not self.quiet and self._name:
            seconds = duration(time.monotonic() - self._started)
            print(f"{self._name} {self._done}/{self._total} in {seconds}", file=sys.stderr)
        self._name = ""


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
        console=console,
        refresh_per_second=4,
    )


def _memory() -> str:
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB GPU"
    return f"{peak_resident() / 2**30:.1f} GiB"


def print_verdict(verdict: Verdict) -> None:
    """Print the table of an evaluation on standard output."""
    table = Table(title=f"test accuracy, %, last epoch; protocol {verdict.protocol}")
    table.title_justify = "left"
    for name, side in (("network", "left"), ("trained on", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    best = any(result.best for result in verdict.results)
    for name in ("accuracy", *(["best*"] if best else []), "n", "seconds"):
        table.add_column(name, justify="right")
    for result in verdict.results:
        preset = ", ".join(f"{k} {v}" for k, v in result.preset.items())
        table.add_row(
            f"{result.arch} \\[{preset}]" if preset else result.arch,
            result.subject,
            percent(result.accuracies),
            *([percent(result.best)] if best else []),
            str(result.n),
            f"{result.seconds:.0f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        "± is the sample standard deviation over n networks; each random network has its own draw.",
        highlight=False,
    )

    if best:
        console.print("best*: the best of several tests, selected on the test data; not a result.")


def percent(accuracies: Sequence[float]) -> str:
    """Return ``48.9 ± 0.6``."""
    spread = f" ± {100 * stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{100 * mean(accuracies):.1f}{spread}"
