"""Stopping: signals that wait for the end of a step, so that its state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
ENDING = (signal.default_int_handler, signal.SIG_DFL)
"""What handles a signal that nobody has claimed or ignores."""


class Stop:
    """Whether the user has asked to stop. While `holding`, the first request waits."""

    def __init__(self, note: Callable[[str], None]):
        self._note = note
        self.asked = False
        self.holding = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: remember it, or stop at once.

        Raises:
            KeyboardInterrupt: nothing is held back, or this is the second request.
        """
        if self.asked or not self.holding:
            raise KeyboardInterrupt(signal.Signals(number).name)
        self.asked = True
        self._note("stopping after this step; once more stops at once")


@contextmanager
def stoppable(note: Callable[[str], None]) -> Iterator[Stop]:
    """Let SIGINT, SIGTERM and SIGHUP ask to stop inside the block; give them back after it.

    A signal that the caller handles or ignores (``nohup``) stays the caller's; so do all of them in
    a thread that is not the main one, which Python shows no signals.
    """
    stop, before = Stop(note), {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler in ENDING:
                    before[number] = handler
                    signal.signal(number, stop.hear)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
