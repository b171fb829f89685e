"""Run folders: whose they are, what is in them, who works on them, and what damage says."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import another_process_holds, ddkit, recipe_table, tree

from ddkit.errors import CheckpointError, Interrupted
from ddkit.recipes.recipe import Recipe
from ddkit.reporter import Metrics, Silent
from ddkit.runs.folder import RunFolder, new_folder, newest_set, set_file
from ddkit.runs.identity import identity
from ddkit.runtime import lock


def claim(folder: RunFolder, key: str, recipe: Recipe) -> bool:
    with folder.claimed(key, recipe, pytest.fail) as finished:
        return finished


def test_identity_is_of_whatever_determines_the_set(tiny_recipe: Callable[..., Recipe]):
    same = identity(tiny_recipe(), "data")
    assert identity(tiny_recipe(), "data") == same
    assert identity(Recipe.parse(tiny_recipe().table()), "data") == same
    elsewhere = {"name": "folder", "path": "where the same images lie now"}
    assert identity(tiny_recipe(dataset=elsewhere), "data") == same
    others = [
        identity(tiny_recipe(), "other data"),
        identity(tiny_recipe(seed=1), "data"),
        identity(tiny_recipe(synthetic={"ipc": 3}), "data"),
        identity(tiny_recipe(method={"name": "dm", "iterations": 5, "batch_real": 8}), "data"),
        identity(tiny_recipe(runtime={"device": "cpu", "precision": "bfloat16"}), "data"),
    ]
    assert len({same, *others}) == 6


@pytest.mark.parametrize("runtime", [{"checkpoint_seconds": 5.0}, {"device": "auto"}])
def test_identity_is_not_of_what_changes_no_result(
    runtime: dict[str, Any], tiny_recipe: Callable[..., Recipe]
):
    assert identity(tiny_recipe(runtime=runtime), "d") == identity(tiny_recipe(), "d")


def test_a_folder_is_claimed_by_one_run_and_given_back_to_it(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
):
    folder, mine, yours = RunFolder(tmp_path / "deep" / "run"), tiny_recipe(), tiny_recipe(seed=1)
    assert claim(folder, "mine", mine) is False
    assert claim(folder, "mine", mine) is False
    with pytest.raises(CheckpointError, match=r"another recipe \(seed is 0 there, 1 here\)"):
        claim(folder, "yours", yours)
    folder.set.touch()
    folder.finish(seconds=1.0)
    assert claim(folder, "mine", mine) is True
    assert folder.status()["seconds"] == 1.0
    with pytest.raises(CheckpointError, match="another recipe"):
        claim(folder, "yours", yours)


def test_a_refusal_names_the_keys_in_which_the_recipes_differ(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
):
    folder = RunFolder(tmp_path / "run")
    claim(folder, "mine", tiny_recipe())
    method = {"name": "dm", "iterations": 9, "batch_real": 8, "lr_images": 2.0}
    ours = tiny_recipe(method=method, seed=3, synthetic={"ipc": 5, "init": "noise"})
    with pytest.raises(CheckpointError) as refusal:
        claim(folder, "yours", ours)
    said = str(refusal.value)
    assert "method.iterations is 4 there, 9 here" in said
    assert "and 1 more" in said
    assert len(said.splitlines()) == 1
    with pytest.raises(CheckpointError, match=r"data \(dataset\.resolution is 8 there, 16 here"):
        claim(folder, "yours", tiny_recipe(dataset={"name": "digits", "resolution": 16}))
    with pytest.raises(CheckpointError, match="holds a run of other data; choose"):
        claim(folder, "yours", tiny_recipe())


def test_an_empty_folder_can_be_claimed_and_a_full_one_cannot(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
):
    (tmp_path / ".run.json.x.partial").mkdir()  # of one that was killed while it claimed it
    (tmp_path / ".lock").touch()
    assert claim(RunFolder(tmp_path), "mine", tiny_recipe()) is False
    assert set(tree(tmp_path)) == {"run.json", "recipe.toml"}
    (tmp_path / "run.json").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(CheckpointError, match="something else"):
        claim(RunFolder(tmp_path), "mine", tiny_recipe())
    assert tree(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", "null", "\x00", '{"identity": "mine"}'])
def test_a_damaged_status_is_refused_in_words(
    text: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.json"):
        claim(RunFolder(tmp_path), "mine", tiny_recipe())
    assert (tmp_path / "run.json").read_text() == text


def test_what_a_run_killed_as_it_finished_left_is_removed(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    folder = RunFolder(tmp_path / "run")
    claim(folder, "mine", tiny_recipe())
    for path in (folder.set, folder.checkpoint, folder.path / "part-1.pt"):
        path.touch()
    with monkeypatch.context() as patch:
        patch.setattr("ddkit.runs.folder.discard", lambda path: None)
        folder.finish()
    (folder.path / ".lock").touch()
    assert claim(folder, "mine", tiny_recipe()) is True
    assert set(tree(folder.path)) == {"run.json", "recipe.toml", "synthetic.safetensors"}


def test_the_status_says_who_runs_while_one_does(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
):
    folder = RunFolder(tmp_path / "run")
    with folder.claimed("mine", tiny_recipe(), pytest.fail):
        said = folder.status()["running"]
        assert (said["pid"], set(said)) == (os.getpid(), {"pid", "host", "since"})
    assert folder.status()["running"] is None


def test_a_disk_that_keeps_no_locks_is_told_and_used(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "take", lambda handle: None)
    notes: list[str] = []
    with RunFolder(tmp_path / "run").claimed("mine", tiny_recipe(), notes.append) as finished:
        assert not finished
    assert "cannot be locked" in notes[0]


def test_a_folder_that_was_emptied_while_the_run_went_on_is_not_called_finished(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
):
    folder = RunFolder(tmp_path / "run")
    with folder.claimed("mine", tiny_recipe(), pytest.fail):
        for path in folder.path.iterdir():
            path.unlink()
        folder.set.touch()
        with pytest.raises(CheckpointError, match=r"run\.json: is gone"):
            folder.finish()
    assert set(tree(folder.path)) == {"synthetic.safetensors"}


# Two processes


def test_the_second_process_in_a_folder_is_told_who_is_there(
    tmp_path: Path, recipe_file: Callable[..., Path], tiny_recipe: Callable[..., Recipe]
):
    out = tmp_path / "out"
    out.mkdir()
    with another_process_holds(out / ".lock") as first:
        said = ddkit("distill", recipe_file(), "--out", out)
        assert said.code == 1
        (line,) = said.lines
        assert f"process {first.pid} on " in line
        assert "(since 20" in line
        assert list(tree(out)) == [".lock"]
    assert claim(RunFolder(out), "mine", tiny_recipe()) is False  # the dead keep nobody out
    assert set(tree(out)) == {"run.json", "recipe.toml"}


def test_another_run_in_this_process_is_kept_out_too(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
):
    folder = RunFolder(tmp_path / "run")
    with folder.claimed("mine", tiny_recipe(), pytest.fail):
        with pytest.raises(CheckpointError, match=f"process {os.getpid()} on .* works on it"):
            claim(folder, "mine", tiny_recipe())
        assert folder.status()["running"]["pid"] == os.getpid()


# Damage


def flip(path: Path, where: float) -> None:
    raw = bytearray(path.read_bytes())
    raw[int(where * (len(raw) - 1))] ^= 1
    path.write_bytes(raw)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, loaded: Any) -> Path:
    """A run, whole in `whole` and stopped at its fourth step of six in `broken`."""
    from ddkit.distillation.loop import run_recipe

    place = tmp_path_factory.mktemp("folders")
    run_recipe(flippable(), loaded, Stopping(99), place / "whole")
    for step in (2, 2):  # two checkpoints
        with pytest.raises(Interrupted):
            run_recipe(flippable(), loaded, Stopping(step), place / "broken")
    return place


def flippable() -> Recipe:
    method = {"name": "dm", "iterations": 6, "batch_real": 8, "momentum": 0.9}
    return Recipe.parse(recipe_table(method=method))


class Stopping(Silent):
    """Interrupts at the given step, and keeps what was said."""

    def __init__(self, step: int):
        self.left, self.notes = step, list[str]()

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.left -= 1
        if not self.left:
            raise Interrupted("stopped")

    def note(self, text: str) -> None:
        self.notes.append(text)


FILES = {
    "broken": ("run.json", "recipe.toml", "metrics.jsonl", "checkpoint.pt"),
    "whole": ("run.json", "recipe.toml", "synthetic.safetensors"),
}


def test_set_and_metrics_are_on_the_disk_before_a_run_is_called_finished(
    loaded: Any, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ddkit.distillation.loop import run_recipe
    from ddkit.runtime import storage

    synced: dict[str, bytes] = {}
    sync, move = storage.sync, storage.move

    def syncing(path: Path) -> None:
        sync(path)
        synced[path.name] = path.read_bytes()

    def moving(path: Path, to: Path) -> None:
        finished = to.name == "run.json" and b'"finished": true' in path.read_bytes()
        if finished:
            assert synced["metrics.jsonl"] == (to.parent / "metrics.jsonl").read_bytes()
            assert (to.parent / "synthetic.safetensors").exists()
        move(path, to)

    monkeypatch.setattr(storage, "sync", syncing)
    monkeypatch.setattr(storage, "move", moving)
    out = tmp_path / "out"
    run_recipe(tiny_recipe(), loaded, Stopping(99), out)
    assert synced["metrics.jsonl"].count(b"\n") == 4


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("state", "name"), [(s, n) for s in FILES for n in FILES[s]])
def test_a_flipped_byte_is_refused_in_words_or_said_aloud_and_changes_nothing(
    state: str, name: str, where: float, folders: Path, loaded: Any, tmp_path: Path
):
    from ddkit.distillation.loop import run_recipe

    out = tmp_path / "out"
    shutil.copytree(folders / state, out)
    flip(out / name, where)
    reporter = Stopping(99)
    try:
        run_recipe(flippable(), loaded, reporter, out)
    except CheckpointError as error:
        assert name in str(error)
        assert len(str(error).splitlines()) == 1
        return
    assert any(name in note and "damaged" in note for note in reporter.notes)
    whole, made = tree(folders / "whole"), tree(out)
    assert made["synthetic.safetensors"] == whole["synthetic.safetensors"]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_bytes(
    folders: Path, loaded: Any, tmp_path: Path
):
    from ddkit.distillation.loop import run_recipe

    out = tmp_path / "out"
    shutil.copytree(folders / "broken", out)
    flip(out / "checkpoint.pt", 0.5)
    reporter = Stopping(99)
    run_recipe(flippable(), loaded, reporter, out)
    assert 99 - reporter.left == 4  # from the second step
    whole, made = tree(folders / "whole"), tree(out)
    for name in set(whole) - {"run.json"}:
        assert made[name] == whole[name], name


def test_a_folder_that_vanishes_stops_the_run_in_words_and_is_not_made_anew(
    loaded: Any, tiny: Any, tmp_path: Path
):
    from ddkit.distillation.loop import run_recipe

    class Removing(Silent):
        def advance(self, metrics: Metrics, images: int = 0) -> None:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)

    with pytest.raises(CheckpointError, match=r"cannot be written: No such file"):
        run_recipe(flippable(), loaded, Removing(), tmp_path / "out", dataset=tiny)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_stops_the_run_in_words_and_the_same_command_goes_on_to_the_same_bytes(
    folders: Path, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ddkit.distillation.loop import run_recipe

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Filling(Stopping):
        def advance(self, metrics: Metrics, images: int = 0) -> None:
            monkeypatch.setattr(os, "fsync", full)
            super().advance(metrics, images)

    out = tmp_path / "out"
    shutil.copytree(folders / "broken", out)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        run_recipe(flippable(), loaded, Filling(1), out)
    monkeypatch.undo()
    run_recipe(flippable(), loaded, Stopping(99), out)
    whole, made = tree(folders / "whole"), tree(out)
    for name in set(whole) - {"run.json"}:
        assert made[name] == whole[name], name


def test_the_set_of_a_finished_run_is_known_by_its_bytes(folders: Path, tmp_path: Path):
    shutil.copytree(folders / "whole", tmp_path / "run")
    path = tmp_path / "run" / "synthetic.safetensors"
    assert set_file(tmp_path / "run") == set_file(path) == newest_set(tmp_path) == path
    flip(path, 0.9)
    for given in (tmp_path / "run", path):
        with pytest.raises(CheckpointError, match="not the set that the run wrote"):
            set_file(given)
    path.rename(tmp_path / "elsewhere.safetensors")
    assert set_file(tmp_path / "elsewhere.safetensors").is_file()


def test_new_folders_are_numbered(tmp_path: Path):
    names = []
    for _ in range(3):
        folder = new_folder(tmp_path, "dm")
        folder.path.mkdir()
        names.append(folder.path.name)
    assert names == ["dm", "dm-2", "dm-3"]


def test_the_newest_set_is_the_one_written_last(tmp_path: Path):
    with pytest.raises(CheckpointError, match="ddkit distill"):
        newest_set(tmp_path)
    for number, name in enumerate(("b", "c", "a")):
        path = tmp_path / name / "synthetic.safetensors"
        path.parent.mkdir()
        path.touch()
        os.utime(path, (number, number))
    assert newest_set(tmp_path).parent.name == "a"


def test_a_run_that_the_first_release_finished_is_still_read(tmp_path: Path):
    status = {"identity": "x", "finished": True, "seconds": 1.0, "ddkit": "0.1.0"}
    (tmp_path / "run.json").write_text(json.dumps(status), encoding="utf-8")
    assert RunFolder(tmp_path).status() == status
    (tmp_path / "run.json").write_text(json.dumps(status | {"finished": False}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="damaged"):
        RunFolder(tmp_path).status()
