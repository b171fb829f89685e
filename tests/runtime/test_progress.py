"""Metrics on the disk: every step once, whatever stopped the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ddkit.errors import CheckpointError
from ddkit.runtime.progress import JsonLines, keep_lines


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 0.5}) + "\n"


def steps(path: Path) -> list[int]:
    return [json.loads(text)["step"] for text in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        line(0) + line(1) + line(2) + line(3),
        line(0) + line(1) + line(2) + '{"step": 3, "lo',
        line(0) + line(1) + line(2) + "\0" * 40,
        line(0) + line(1) + line(1) + line(2),
        line(0) + line(1) + "[3]\n" + '{"step": true}\n' + "\n" + line(2),
    ],
    ids=["longer", "torn", "zeros", "doubled", "nonsense"],
)
def test_of_what_a_killed_run_left_every_step_is_kept_once(text: str, tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    keep_lines(path, 3)
    assert steps(path) == [0, 1, 2]


def test_bytes_that_are_no_text_are_dropped(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(0).encode() + b'{"step": 1, "\xff": 1}\n' + line(2).encode())
    keep_lines(path, 5)
    assert steps(path) == [0, 2]


def test_lines_that_cannot_be_read_are_refused_in_words(tmp_path: Path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: cannot be read: .*; remove it"):
        keep_lines(tmp_path / "metrics.jsonl", 5)


def test_lines_that_the_disk_refused_are_written_with_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path, every=1e9)
    lines.begin("distill", 3)

    def full(path: Path, text: str) -> None:
        raise CheckpointError("full")

    lines.advance({"loss": torch.tensor(1.0)})
    with monkeypatch.context() as patch:
        patch.setattr("ddkit.runtime.storage.append", full)
        with pytest.raises(CheckpointError):
            lines.flush()
    lines.advance({"loss": torch.tensor(torch.inf)})
    lines.end()
    assert steps(path) == [0, 1]
    assert list(lines.not_finite) == [1]
