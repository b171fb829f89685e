"""Files that appear whole or not at all, and what killed writers leave."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import tree

from ddkit.errors import CheckpointError
from ddkit.runtime import storage
from ddkit.runtime.storage import append, sweep, write_atomically, write_text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        write_atomically(path, fail)
    assert tree(tmp_path) == {"file": b"old"}

    def bug(temporary: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(path, bug)
    assert tree(tmp_path) == {"file": b"old"}


def test_written_files_can_be_read_by_whom_the_umask_allows(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, lambda p: json.dump({}, p.open("w")))
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_is_before_we_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    did: list[tuple[str, str]] = []
    for name in ("sync", "move", "sync_folder"):
        real = getattr(storage, name)

        def watched(*paths: Path, name: str = name, real: Any = real) -> None:
            did.append((name, paths[-1].name))
            real(*paths)

        monkeypatch.setattr(storage, name, watched)
    write_text(tmp_path / "new" / "file", "text")
    assert did == [
        ("sync_folder", tmp_path.name),  # which names the new folder
        ("sync", "new"),
        ("move", "file"),
        ("sync_folder", "new"),
    ]


def test_a_folder_made_to_see_whether_it_can_be_written_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[Path] = []
    monkeypatch.setattr(storage, "sync_folder", synced.append)
    storage.check_writable(tmp_path / "a" / "b" / "eval.json")
    assert {tmp_path, tmp_path / "a"} <= set(synced)


def test_what_a_check_refuses_takes_no_place(tmp_path: Path):
    path = tmp_path / "file"
    write_text(path, "old")

    def refuse(place: Path) -> None:
        raise CheckpointError(place.read_text())

    with pytest.raises(CheckpointError, match="new"):
        write_atomically(path, lambda p: p.write_text("new") and None, check=refuse)
    assert tree(tmp_path) == {"file": b"old"}


def test_a_disk_that_cannot_be_synced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    number = errno.EIO
    with pytest.raises(CheckpointError, match="cannot be written: Input/output error"):
        write_text(tmp_path / "file", "text")
    assert tree(tmp_path) == {}
    number = errno.EINVAL  # a disk that knows no such thing
    write_text(tmp_path / "file", "text")
    assert tree(tmp_path) == {"file": b"text"}


WRITER = """
import sys, time
from pathlib import Path
from ddkit.runtime.storage import write_atomically

def write(place):
    place.write_text("half")
    print("writing", flush=True)
    time.sleep(60)

write_atomically(Path(sys.argv[1]), write)
"""


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        (left,) = tmp_path.iterdir()
        sweep(tmp_path)
        assert (left / "new").read_text() == "half"
        writer.kill()
    assert left.exists()
    assert storage.is_partial(left)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_appended_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    with pytest.raises(CheckpointError, match="No such file"):
        append(path, "x")  # a run folder that vanished is not filled anew
    path.write_text("a\n")
    append(path, "b\n")
    script = (
        "import resource, sys; from pathlib import Path; from ddkit.runtime.storage import append;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6, 6)); append(Path(sys.argv[1]), 'c\\n' * 9)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert "cannot be written: File too large" in said.stderr
    assert path.read_text() == "a\nb\n"
