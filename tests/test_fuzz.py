"""What careless and malicious people bring: a few cases of each kind; see benchmarks/trust."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings

FOLDER = ROOT / "benchmarks" / "trust"
MODULES = {path.stem for path in FOLDER.glob("*.py")}
CASES = {
    "recipes": 60,
    "overrides": 60,
    "sets": 50,
    "folders": 50,
    "plugins": 40,
    "streams": 40,
    "runs": 12,
}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def box(scripts: None, tmp_path: Path) -> Iterator[Any]:
    """A sandbox to work in."""
    from fence import sandbox

    logging.disable(logging.WARNING)
    with sandbox(tmp_path / "box") as made:
        yield made
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", CASES)
def test_whatever_is_brought_is_taken_or_refused_in_words(name: str, box: Any):
    from fence import judged
    from targets import TARGETS

    target = TARGETS[name]

    @settings(
        max_examples=CASES[name],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.draw())
    def run(case: Any) -> None:
        judged(target.run, case, box)

    run()


def _raises(case: Any, box: Any) -> None:
    raise KeyError(case)


def _says_it_raw(case: Any, box: Any) -> None:
    from ddkit.errors import DDKitError

    class Raw(DDKitError):
        __str__ = Exception.__str__

    raise Raw("\x1b[2J")


def _writes(case: Any, box: Any) -> None:
    (box.work / "left").touch()


def _hangs(case: Any, box: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.pause()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (_raises, "lets KeyError through"),
        (_says_it_raw, "a raw"),
        (_writes, "changes what is not its own"),
        (_hangs, "hangs"),
    ],
)
def test_the_fence_notices(run: Any, words: str, box: Any):
    from fence import Fault, judged

    with pytest.raises(Fault, match=words):
        judged(run, "case", box)


def test_the_long_form_counts_and_repeats_a_case(scripts: None, capsys: pytest.CaptureFixture[str]):
    import fuzz

    assert fuzz.main(["--target", "overrides", "--cases", "9", "--seed", "1"]) == 0
    assert fuzz.main(["--target", "recipes", "--case", "b'seed = 1'"]) == 0
    said = capsys.readouterr().out
    assert "9 cases, 0 faults" in said and "1 refused" in said


def test_the_long_form_tells_what_repeats_a_fault_and_fails(
    scripts: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import fuzz
    from targets import TARGETS

    monkeypatch.setitem(TARGETS, "recipes", TARGETS["recipes"]._replace(run=_raises))
    assert fuzz.main(["--target", "recipes", "--case", "b'seed = 1'"]) == 1
    said = capsys.readouterr().out
    assert "lets KeyError through" in said and """--case "b'seed = 1'\"""" in said
