"""Progress for callers from Python: what shows where, and that it is one line in a notebook."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddkit.python import notebook


class ZMQInteractiveShell:
    """What IPython runs in a notebook."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a stand-in for IPython in a notebook displays: first drawn, then updated."""
    said: list[str] = []

    def update(data: dict[str, str], raw: bool) -> None:
        said.append(f"update: {data['text/plain']}")

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Any:
        said.append(f"new: {data['text/plain']}")
        return SimpleNamespace(update=update)

    ipython = SimpleNamespace(
        get_ipython=ZMQInteractiveShell, display=SimpleNamespace(display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return said


def work(reporter: Any) -> None:
    reporter.begin("distill", 2)
    reporter.advance({"loss": torch.tensor(0.5)})
    reporter.advance({"loss": torch.tensor(0.25)})
    reporter.note("a note")
    reporter.end()


def test_a_notebook_shows_one_line_that_is_redrawn(
    shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(notebook.Live, "every", 0.0)
    work(notebook.suited(None))
    assert shown[0] == "new: distill 0/2"
    assert shown[1].startswith("update: distill 1/2  loss 0.5 ")
    assert shown[-1].startswith("update: distill 2/2 in ")
    assert capsys.readouterr().err == "a note\n"


def test_a_notebook_is_silent_when_asked_to_be(shown: list[str]):
    assert notebook.suited(False) is None


def test_a_script_is_silent_unless_progress_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert notebook.suited(None) is None
    monkeypatch.setattr(notebook.Lines, "every", 0.0)
    work(notebook.suited(True))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["distill 1/2", "distill 2/2"]
    assert lines[2] == "a note"
    assert len(lines) == 4
