"""Stopping: the first signal waits while something is held, and every handler is given back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from ddkit.runtime.stopping import SIGNALS, stoppable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")


@pytest.fixture(autouse=True)
def as_python_starts() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def no_note(text: str) -> None: ...


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_waits_and_is_told_and_the_second_does_not(number: signal.Signals):
    notes: list[str] = []
    with stoppable(notes.append) as stop:
        stop.holding = True
        signal.raise_signal(number)
        assert stop.asked
        assert notes == ["stopping after this step; once more stops at once"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nothing_is_held_a_signal_stops_at_once(number: signal.Signals):
    with stoppable(no_note), pytest.raises(KeyboardInterrupt, match=number.name):
        signal.raise_signal(number)


def test_handlers_are_given_back_whatever_happens():
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(ZeroDivisionError), stoppable(no_note):
        assert [signal.getsignal(n) for n in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_signal_that_the_caller_ignores_or_handles_stays_the_callers():
    heard: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    with stoppable(no_note) as stop:
        stop.holding = True
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert not stop.asked
    assert heard == [signal.SIGTERM]


def test_of_two_that_are_nested_the_outer_one_has_the_signals():
    with stoppable(no_note) as outer, stoppable(no_note) as inner:
        outer.holding = True
        signal.raise_signal(signal.SIGINT)
        assert (outer.asked, inner.asked) == (True, False)
