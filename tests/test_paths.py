"""Paths as users write them: expanded, looked at, and refused in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ddkit.errors import CheckpointError, DataError, RecipeError
from ddkit.paths import check_text, expanded, is_file, is_folder, look, reason


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))


def test_a_tilde_is_the_home_folder_and_other_paths_stay_as_they_are(tmp_path: Path):
    assert expanded("~/x") == tmp_path / "x"
    assert expanded(Path("~")) == tmp_path
    for path in ("x/~", "../x", "/x y", "ein-é"):
        assert expanded(path) == Path(path)


@pytest.mark.parametrize(
    "path, said",
    [
        ("~nosuchuser/x", "~nosuchuser/x: there is no user 'nosuchuser' here; give the whole path"),
        ("", "the path is empty"),
        ("a\0b", "no path holds a NUL character"),
        ("a\ud800b", "has characters that names of files cannot hold"),
    ],
)
def test_what_can_be_no_path_is_refused_in_words_with_where_it_was_written(path: str, said: str):
    for kind in (RecipeError, DataError, CheckpointError):
        with pytest.raises(kind) as caught:
            expanded(path, kind, "--out")
        assert str(caught.value).startswith("--out: ")
        assert said in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        str(caught.value).encode()  # may be printed anywhere


def test_a_name_of_bytes_that_are_not_text_may_be_looked_at_but_not_written_down():
    name = os.fsdecode(b"caf\xe9") if os.name != "nt" else "caf\udce9"
    assert expanded(name) == Path(name)
    with pytest.raises(RecipeError, match=r"dataset.path: 'caf.udce9' is not text") as caught:
        check_text(name, RecipeError, "dataset.path")
    str(caught.value).encode()
    check_text("caf\u00e9")


def test_files_folders_and_nothing_are_told_apart(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    assert is_file(tmp_path / "file") and not is_folder(tmp_path / "file")
    assert is_folder(tmp_path / "link") and not is_file(tmp_path / "link")
    for nothing in ("none", "none/below", "file/below"):
        assert look(tmp_path / nothing) is None
        assert not is_file(tmp_path / nothing) and not is_folder(tmp_path / nothing)


def test_links_in_a_circle_and_names_too_long_are_refused_in_words(tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="loop: cannot be looked at: its links lead in a"):
        is_folder(tmp_path / "loop", CheckpointError)
    with pytest.raises(DataError, match="cannot be looked at: the name is too long"):
        is_file(tmp_path / ("x" * 300))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_system_refuses_is_refused_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DataError, match=f"x: cannot be looked at: {os.strerror(number)}"):
        look(tmp_path / "x")


def test_a_reason_is_one_line_and_never_empty():
    assert reason(ValueError("one\ntwo")) == "one"
    assert reason(ValueError()) == "ValueError"
    assert reason(OSError("truncated")) == "truncated"
