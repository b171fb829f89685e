"""Parts of a state in files of their own: written once, known by their bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ddkit.errors import CheckpointError
from ddkit.runs import parts
from ddkit.runtime import storage

CPU = torch.device("cpu")


def net(value: float, size: int = 1 << 18) -> dict[str, Any]:
    return {"weight": torch.full((size,), value), "seen": 3}


def test_large_items_are_kept_in_files_and_come_back(tmp_path: Path):
    state = {"made": 3, "members": [net(0.0), net(1.0), net(2.0, size=4)]}
    left = parts.put(state, tmp_path)
    assert len(list(tmp_path.iterdir())) == len(list(parts.names(left))) == 2
    again = parts.get(left, tmp_path, CPU)
    assert (again["made"], len(again["members"])) == (3, 3)
    for ours, theirs in zip(again["members"], state["members"], strict=True):
        assert torch.equal(ours["weight"], theirs["weight"])
        assert ours["seen"] == 3


def test_what_did_not_change_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    members = [net(0.0), net(1.0)]
    parts.put(members, tmp_path)
    written: list[str] = []
    real = storage.write_atomically

    def watched(path: Path, *rest: Any) -> None:
        written.append(path.name)
        real(path, *rest)

    monkeypatch.setattr(storage, "write_atomically", watched)
    members[1]["weight"][7] = 5.0
    left = parts.put(members, tmp_path)
    assert written == list(parts.names(left))[1:]
    os.truncate(tmp_path / written[0], 50)  # a damaged one is written again
    assert parts.lacking(left, tmp_path) is not None
    parts.put(members, tmp_path)
    assert written == 2 * written[:1]
    assert parts.lacking(left, tmp_path) is None
    parts.keep(tmp_path, set(parts.names(left)))
    assert {p.name for p in tmp_path.iterdir()} == set(parts.names(left))


def test_a_part_that_the_disk_does_not_give_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "sync", lambda path: os.truncate(path, 50))
    with pytest.raises(CheckpointError, match="does not give back"):
        parts.put([net(0.0)], tmp_path)
    assert list(tmp_path.iterdir()) == []
