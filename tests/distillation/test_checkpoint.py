"""Checkpoints: what they restore, and what becomes of damaged ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tree

from ddkit.distillation import checkpoint, preflight
from ddkit.distillation.checkpoint import interval, restore, save
from ddkit.distillation.preflight import check_checkpoints
from ddkit.errors import CheckpointError
from ddkit.reporter import Silent
from ddkit.runs import parts
from ddkit.runs.folder import RunFolder, discard, previous
from ddkit.runtime import storage
from ddkit.runtime.memory import tensor_bytes
from ddkit.runtime.progress import JsonLines
from ddkit.testing import Bench


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


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


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(where: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[min(int(where * len(raw)), len(raw) - 1)] ^= 1
        path.write_bytes(raw)

    return damage


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda p: p.write_bytes(b"") and None,
    "nonsense": lambda p: p.write_bytes(b"nonsense" * 200) and None,
    "torn": torn,
    "of torch alone": lambda p: torch.save({"step": 3}, p),
    **{f"flipped at {where}": flipped(where) for where in (0, 0.001, 0.3, 0.5, 0.9, 0.99, 1)},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_for_a_damaged_checkpoint_the_one_before_it_is_taken_and_said_aloud(
    damage: Any, saved: Callable[[], Any], loaded: Any, tmp_path: Path
):
    folder, run, method = saved()
    before = run.synthetic.images.detach().clone()
    method.step(run, 2)
    save(folder.checkpoint, run, method, 3, "mine")
    damage(folder.checkpoint)
    method = some_method(loaded)
    fresh = Bench().run(method, tmp_path)
    fresh.reporter = heard = Notes()
    assert restore(folder.checkpoint, fresh, method, "mine") == 2
    assert torch.equal(fresh.synthetic.images, before)
    (note,) = heard.notes
    assert "checkpoint.pt: damaged" in note
    assert "of step 2" in note
    save(folder.checkpoint, fresh, method, 3, "mine")
    folder.checkpoint.unlink()  # the one before it is the good one, not the damaged one
    assert restore(folder.checkpoint, fresh, method, "mine") == 2


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_where_all_checkpoints_are_damaged_the_run_is_refused_in_words(
    damage: Any, saved: Callable[[], Any]
):
    folder, run, method = saved()
    save(folder.checkpoint, run, method, 3, "mine")
    damage(folder.checkpoint)
    damage(previous(folder.checkpoint))
    before = tree(folder.path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged.*to start over") as refusal:
        restore(folder.checkpoint, run, method, "mine")
    assert "checkpoint.previous.pt" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert tree(folder.path) == before


@pytest.mark.parametrize("key", ["images", "optimizers", "step", "method"])
def test_a_whole_checkpoint_that_lacks_something_is_refused_in_words(
    key: str, saved: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
):
    folder, run, method = saved()
    whole = torch.save

    def lacking(state: dict[str, Any], *rest: Any) -> None:
        whole({k: v for k, v in state.items() if k != key}, *rest)

    monkeypatch.setattr(torch, "save", lacking)
    save(folder.checkpoint, run, method, 3, "mine")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: does not fit"):
        restore(folder.checkpoint, run, method, "mine")


def test_code_in_a_checkpoint_is_not_run(saved: Callable[[], Any], monkeypatch: pytest.MonkeyPatch):
    folder, run, method = saved()
    whole = torch.save
    monkeypatch.setattr(torch, "save", lambda s, *rest: whole({**s, "step": os.getcwd}, *rest))
    save(folder.checkpoint, run, method, 3, "mine")
    with pytest.raises(CheckpointError, match="cannot be read"):
        restore(folder.checkpoint, run, method, "mine")


def test_a_checkpoint_that_the_disk_does_not_give_back_takes_no_place(
    saved: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
):
    folder, run, method = saved()
    before = tree(folder.path)
    monkeypatch.setattr(storage, "sync", lambda path: flipped(0.5)(path))
    with pytest.raises(CheckpointError, match="does not give back"):
        save(folder.checkpoint, run, method, 3, "mine")
    assert tree(folder.path) == before


def test_a_run_of_another_version_is_not_taken_up(
    saved: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
):
    folder, run, method = saved()
    begun = checkpoint.VERSIONS
    monkeypatch.setattr(checkpoint, "VERSIONS", {**begun, "ddkit": "99.0"})
    with pytest.raises(CheckpointError, match=rf"by ddkit {begun['ddkit']}, this is 99\.0"):
        restore(folder.checkpoint, run, method, "mine")
    monkeypatch.setattr(checkpoint, "VERSIONS", {**begun, "torch": "99.1"})
    run.reporter = heard = Notes()
    assert restore(folder.checkpoint, run, method, "mine") == 2
    assert "this is 99.1" in heard.notes[0]


def test_a_vanished_folder_is_not_made_anew_for_a_checkpoint(
    saved: Callable[[], Any], tmp_path: Path
):
    _, run, method = saved()
    gone = tmp_path / "gone" / "checkpoint.pt"
    with pytest.raises(CheckpointError, match="is gone"):
        save(gone, run, method, 3, "mine", JsonLines(gone.with_name("metrics.jsonl")))
    assert not gone.parent.exists()


def test_metrics_that_are_not_those_of_the_checkpoint_are_told(saved: Callable[[], Any]):
    folder, run, method = saved()
    lines = JsonLines(folder.metrics, every=1e9)
    lines.begin("distill", 4)
    for loss in (1.5, 2.5):
        lines.advance({"loss": torch.tensor(loss)})
    save(folder.checkpoint, run, method, 2, "mine", lines)  # which writes what is pending
    assert len(folder.metrics.read_text().splitlines()) == 2
    with folder.metrics.open("a") as file:
        file.write('{"step": 2, "lo')  # torn, and after those that count
    run.reporter = heard = Notes()
    assert restore(folder.checkpoint, run, method, "mine", folder.metrics) == 2
    assert heard.notes == []
    folder.metrics.write_text('{"step": 0, "loss": 1.7}\n{"step": 1, "loss": 2.5}\n')
    assert restore(folder.checkpoint, run, method, "mine", folder.metrics) == 2
    assert "lines before step 2 are damaged" in heard.notes[0]


def test_a_checkpoint_that_is_slow_to_write_is_written_more_rarely():
    assert interval(60, 0.1) == 60
    assert interval(60, 3.0) == pytest.approx(150)
    assert interval(60, 1000.0) == 600  # but a crash never costs more than ten times what was asked


def test_networks_that_did_not_change_are_shared_by_checkpoints_and_all_are_restored(
    loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parts, "LARGE", 1)
    options = {"batch_real": 4, "train_batch": 4, "train_steps": 1, "train_networks": 1}
    path = tmp_path / "run" / "checkpoint.pt"

    def fresh() -> tuple[Any, Any]:
        method = loaded.methods["idm"].factory(pool_size=9, pool_interval=1, **options)
        return Bench().run(method, tmp_path), method

    run, method = fresh()
    held = []
    for i in range(4):
        method.step(run, i)
        save(path, run, method, i + 1, "mine")
        held.append({p.name for p in path.parent.glob("part-*")})
    assert len(held[-1]) == len(method._queue.members) + 1  # and what was one before its training
    again, other = fresh()
    assert restore(path, again, other, "mine") == 4
    for ours, theirs in zip(method._queue.members, other._queue.members, strict=True):
        mine, yours = ours.net.state_dict(), theirs.net.state_dict()
        assert all(torch.equal(mine[k], yours[k]) for k in mine)
    newest = checkpoint._read(path)
    before = set(parts.names(checkpoint._read(previous(path))))
    ours = next(n for n in parts.names(newest) if n not in before)
    flipped(0.5)(path.parent / ours)
    again.reporter = heard = Notes()
    assert restore(path, again, other, "mine") == 3  # the one before has the network as it was
    assert ours in heard.notes[0]
    flipped(0.5)(path.parent / before.pop())
    with pytest.raises(CheckpointError, match=r"part-\w+\.pt, which belongs to it, is damaged"):
        restore(path, again, other, "mine")
    discard(path)
    assert tree(path.parent) == {}


def test_the_disk_must_hold_two_checkpoints_with_all_networks_that_the_method_will_keep(
    loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small = {"batch_real": 4, "train_batch": 4, "train_steps": 1, "pool_interval": 1}
    method = loaded.methods["idm"].factory(pool_size=6, **small)
    run = Bench().run(method, tmp_path)
    for i in range(6):  # until the queue is full, and all its networks were trained
        method.step(run, i)
        method._queue.train(run, i, 6)
    held = method.state_dict()
    grown = sum(tensor_bytes([m["net"], m["optimizer"]]) for m in held["members"])
    assert method.state_bytes() == grown
    need = 7 * tensor_bytes(run.synthetic.images) + 2 * grown
    monkeypatch.setattr(preflight, "disk_free", lambda path: need)
    check_checkpoints(run, method, tmp_path)
    monkeypatch.setattr(preflight, "disk_free", lambda path: need - 1)
    with pytest.raises(CheckpointError, match="free, but the checkpoints may write"):
        check_checkpoints(run, method, tmp_path)
