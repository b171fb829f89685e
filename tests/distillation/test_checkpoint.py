"""Run folders: whose they are, what is in them, and what a damaged one says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tree

from ddkit.distillation.checkpoint import restore, save
from ddkit.distillation.folder import RunFolder, identity, new_folder, newest_set
from ddkit.errors import CheckpointError
from ddkit.recipes.recipe import Recipe
from ddkit.runtime.storage import write_atomically
from ddkit.testing import Bench


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


def test_a_folder_is_claimed_by_one_run_and_given_back_to_it(tmp_path: Path):
    folder = RunFolder(tmp_path / "deep" / "run")
    assert folder.claim("mine") is False
    assert folder.claim("mine") is False
    with pytest.raises(CheckpointError, match="another recipe or other data"):
        folder.claim("yours")
    folder.finish(seconds=1.0)
    assert folder.claim("mine") is True
    assert folder.status()["seconds"] == 1.0
    with pytest.raises(CheckpointError, match="another recipe"):
        folder.claim("yours")


def test_an_empty_folder_can_be_claimed_and_a_full_one_cannot(tmp_path: Path):
    assert RunFolder(tmp_path).claim("mine") is False
    (tmp_path / "run.json").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="something else"):
        RunFolder(tmp_path).claim("mine")
    assert tree(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", "null", "\x00"])
def test_a_damaged_status_is_refused_in_words(text: str, tmp_path: Path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.json"):
        RunFolder(tmp_path).claim("mine")
    assert (tmp_path / "run.json").read_text() == text


def some_method(loaded: Any) -> Any:
    return loaded.methods["dm"].factory(iterations=4, batch_real=6, momentum=0.9)


@pytest.fixture
def saved(tmp_path: Path, loaded: Any) -> Callable[[], tuple[RunFolder, Any, Any]]:
    """A function that gives a folder with a checkpoint after two steps, and its run and method."""

    def made() -> tuple[RunFolder, Any, Any]:
        method = some_method(loaded)
        run = Bench().run(method, tmp_path)
        for i in range(2):
            method.step(run, i)
        folder = RunFolder(tmp_path / "run")
        save(folder.checkpoint, run, method, 2, "mine")
        return folder, run, method

    return made


def test_a_checkpoint_restores_images_and_optimizer(
    saved: Callable[[], Any], loaded: Any, tmp_path: Path
):
    folder, run, _ = saved()
    method = some_method(loaded)
    fresh = Bench().run(method, tmp_path)
    assert restore(folder.checkpoint, fresh, method, "mine") == 2
    assert torch.equal(fresh.synthetic.images, run.synthetic.images)
    momentum = [o.state_dict()["state"][0]["momentum_buffer"] for o in run.optimizers]
    restored = [o.state_dict()["state"][0]["momentum_buffer"] for o in fresh.optimizers]
    assert torch.equal(momentum[0], restored[0])
    assert fresh.synthetic.images.requires_grad
    assert list(tree(folder.path)) == ["checkpoint.pt"]


def test_no_checkpoint_is_no_step(saved: Callable[[], Any]):
    folder, run, method = saved()
    folder.checkpoint.unlink()
    assert restore(folder.checkpoint, run, method, "mine") == 0


def test_a_checkpoint_of_another_run_is_refused(saved: Callable[[], Any]):
    folder, run, method = saved()
    with pytest.raises(CheckpointError, match="another run"):
        restore(folder.checkpoint, run, method, "yours")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def lacking(key: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        del state[key]
        torch.save(state, path)

    return damage


def other_shape(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["images"] = state["images"][:, :, :3, :5]
    torch.save(state, path)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda p: p.write_bytes(b"") and None,
    "nonsense": lambda p: p.write_bytes(b"nonsense" * 20) and None,
    "truncated": truncated,
    "a list": lambda p: torch.save([1, 2], p),
    "a tensor": lambda p: torch.save(torch.zeros(3), p),
    "no images": lacking("images"),
    "no optimizers": lacking("optimizers"),
    "no step": lacking("step"),
    "another shape": other_shape,
    "code": lambda p: torch.save({"identity": os.getcwd}, p),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_checkpoint_is_refused_in_words(damage: Any, saved: Callable[[], Any]):
    folder, run, method = saved()
    damage(folder.checkpoint)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged") as refusal:
        restore(folder.checkpoint, run, method, "mine")
    assert len(str(refusal.value).splitlines()) == 1


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
