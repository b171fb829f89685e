"""Locks: who holds one is told, and a process that has ended holds none."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from conftest import another_process_holds

from ddkit.errors import CheckpointError
from ddkit.runtime import lock


def test_a_lock_is_held_once_and_can_be_had_again_when_released(tmp_path: Path):
    path = tmp_path / "lock"
    with lock.try_lock(path) or pytest.fail("free"):
        assert lock.try_lock(path) is None
        assert f"process {os.getpid()} on " in lock.holder(path)
    assert not path.exists()
    again = lock.try_lock(path)
    assert again is not None
    assert again.supported
    again.release()


def test_a_killed_process_holds_nothing(tmp_path: Path):
    path = tmp_path / "lock"
    with another_process_holds(path) as process:
        assert lock.try_lock(path) is None
        assert f"process {process.pid} on " in lock.holder(path)
    assert path.exists()
    with lock.try_lock(path) or pytest.fail("held by the dead"):
        pass


def test_whoever_waits_is_told_for_whom_and_goes_on_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "WAIT", 0.01)
    notes: list[str] = []
    first = lock.try_lock(tmp_path / "lock")
    assert first is not None
    threading.Timer(0.1, first.release).start()
    start = time.monotonic()
    with lock.held(tmp_path / "lock", notes.append, "network 3"):
        assert time.monotonic() - start > 0.05
    assert len(notes) == 1
    assert notes[0].startswith(f"waiting for network 3, which process {os.getpid()} on ")


def test_a_lock_on_a_file_that_its_holder_removed_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "lock"
    first = lock.try_lock(path)
    real = lock.take

    def late(handle: int) -> bool | None:
        monkeypatch.setattr(lock, "take", real)
        assert first is not None
        first.release()  # between our opening the file and locking it
        return real(handle)

    monkeypatch.setattr(lock, "take", late)
    with lock.try_lock(path) or pytest.fail("free"):
        assert path.exists()
        assert lock.try_lock(path) is None


def test_a_disk_without_locks_is_told_from_one_where_the_lock_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import fcntl

    def fail(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with lock.try_lock(tmp_path / "lock") or pytest.fail("free") as taken:
        assert not taken.supported


def test_a_place_where_no_lock_can_be_made_is_told_in_words(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot be written: No such file"):
        lock.try_lock(tmp_path / "nowhere" / "lock")
