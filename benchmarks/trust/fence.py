"""What every fuzzed case must keep to: refused in words or taken, in time, in memory, in place."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

from ddkit.errors import DDKitError

SECONDS = 60  # until a case counts as hanging; honest ones take one on a busy machine
MEMORY = 512 << 20  # bytes by which a case may raise the process's peak
LONGEST = 700  # characters of a line of an error: a list of known options takes 500
LINES = 24  # of an error: one for each mistake, which a recipe may have several of
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Kind = Literal["loaded", "refused"]


class Fault(Exception):
    """A case broke the rule."""


class Hang(BaseException):
    """A case takes too long; no ``except Exception`` of the code under test catches it."""


@dataclass(frozen=True)
class Sandbox:
    """The folders of a case: `given` is its own, `home` ddkit's, and nothing else may change.

    `given` lies so deep that a name like ``../../x`` still leads to a watched folder.
    """

    root: Path

    @property
    def given(self) -> Path:
        return self.root / "a" / "b" / "c" / "given"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def fresh(self) -> None:
        """Empty the case's folder."""
        shutil.rmtree(self.given, ignore_errors=True)
        self.given.mkdir(parents=True)

    def around(self) -> dict[str, tuple[int, int, int]]:
        """Return what lies around the case's folder: by path the kind, size and time of change."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            here = Path(folder)
            for name in (*folders, *files):
                status = (here / name).lstat()
                at = 0 if here / name in self.given.parents else status.st_mtime_ns
                found[str(here / name)] = (status.st_mode, status.st_size, at)
            folders[:] = [n for n in folders if here / n not in (self.given, self.home)]
        found.pop(str(self.given), None)
        found.pop(str(self.home), None)
        return found


@contextmanager
def sandbox(root: Path) -> Iterator[Sandbox]:
    """Make a sandbox at `root`, and work in it, with built-in plugins alone, until the end."""
    made = Sandbox(root.resolve())
    for folder in (made.given, made.home, made.work):
        folder.mkdir(parents=True)
    (made.work / "canary").write_text("alive")
    names = {"DDKIT_HOME": str(made.home), "HOME": str(made.work), "DDKIT_LOAD_PLUGINS": ""}
    kept, before = {k: os.environ.get(k) for k in names}, Path.cwd()
    os.environ.update(names)
    os.chdir(made.work)
    try:
        yield made
    finally:
        os.chdir(before)
        for key, value in kept.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


class Outcome(NamedTuple):
    """How a case went, and its seconds."""

    kind: Kind
    seconds: float


def judged(run: Callable[[Any, Sandbox], None], case: Any, box: Sandbox) -> Outcome:
    """Run one case, which returns or raises a `DDKitError`.

    Raises:
        Fault: it broke the rule; the cause is the exception that it let through, if any.
    """
    box.fresh()
    around, peak, start = box.around(), _peak(), time.perf_counter()
    kind: Kind = "loaded"
    try:
        with _limited():
            run(case, box)
    except DDKitError as error:
        kind = "refused"
        check_words(str(error))
    except Fault:
        raise
    except Hang:
        raise Fault(f"hangs: not done after {SECONDS} s") from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Fault(f"lets {type(error).__name__} through: {str(error)[:300]}") from error
    seconds = time.perf_counter() - start
    if (grown := _peak() - peak) > MEMORY:
        raise Fault(f"takes {grown >> 20} MiB")
    now = box.around()
    changed = sorted(k for k in {**around, **now} if around.get(k) != now.get(k))
    if changed:
        raise Fault(f"changes what is not its own: {changed[:3]}")
    return Outcome(kind, seconds)


def check_words(text: str) -> None:
    """Refuse an error that is not a few lines of plain text."""
    lines = text.split("\n")
    if not text.strip():
        raise Fault("an error says nothing")
    if len(lines) > LINES or max(map(len, lines)) > LONGEST:
        longest = max(map(len, lines))
        raise Fault(f"an error of {len(lines)} lines, the longest of {longest}: {text[:300]!r}")
    check_plain(text)


def check_plain(text: str) -> None:
    """Refuse text that would act on a terminal."""
    if found := RAW.search(text):
        near = text[max(0, found.start() - 60) : found.end() + 20]
        raise Fault(f"a raw {found[0]!r} is told: {near!r}")


def _peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _limited() -> Iterator[None]:
    """Raise `Hang` in the block when the time of a case is over."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
