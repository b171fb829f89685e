"""What breaks a run off in the middle: named, its state kept, and taken up again once mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ddkit.data import Dataset
from ddkit.distillation import checkpoint, loop
from ddkit.distillation.loop import Outcome, run_recipe
from ddkit.errors import BrokenPluginError, CheckpointError, DivergedError, OutOfMemoryError
from ddkit.plugins import Component, Plugins, Registry
from ddkit.recipes.recipe import Recipe
from ddkit.regularizer import Match, Regularizer
from ddkit.reporter import Silent
from ddkit.run import Run
from ddkit_methods.dm import DM
from ddkit_methods.idm import IDM

RAISES: dict[str, int] = {}
"""Where the plugin raises, and at which step; empty once it is mended."""


def maybe(place: str, step: int = 0) -> None:
    if RAISES.get(place) == step:
        raise ZeroDivisionError("the plugin's own mistake\nin two lines")


@dataclass
class Sad(DM):
    """DM of a third party."""

    sad: bool = field(default=True)

    def __post_init__(self) -> None:
        maybe("factory")

    def setup(self, run: Run) -> None:
        maybe("setup")
        super().setup(run)

    def step(self, run: Run, i: int) -> Any:
        maybe("step", i)
        metrics = super().step(run, i)
        maybe("late", i)  # the images have moved
        return metrics

    def finish(self, run: Run) -> None:
        maybe("finish")


class Term(Regularizer):
    """A term of the same."""

    requires: ClassVar[frozenset[str]] = frozenset({"syn"})

    def __init__(self) -> None:
        self.calls = 0  # of this object: another one is tried before the run

    def loss(self, m: Match) -> Tensor:
        self.calls += 1
        maybe("loss", self.calls)
        return m.syn.square().sum()


@pytest.fixture
def third(loaded: Plugins) -> Plugins:
    """The registries with a third party's method and regularizer."""
    RAISES.clear()

    def part(kind: str, registry: Registry, factory: Any) -> Registry:
        component = Component(factory, "ddkit-sad:sad", "ddkit-sad")
        return Registry(kind, {**registry, "sad": component}, [])

    return replace(
        loaded,
        methods=part("methods", loaded.methods, Sad),
        regularizers=part("regularizers", loaded.regularizers, Term),
    )


@pytest.fixture
def run(third: Plugins, tiny: Dataset) -> Callable[..., Outcome]:
    return lambda recipe, out, reporter=None: run_recipe(
        recipe, third, reporter or Silent(), out, dataset=tiny
    )


@pytest.fixture
def sad(tiny_recipe: Any) -> Recipe:
    method = {"name": "sad", "iterations": 6, "batch_real": 8, "momentum": 0.9}
    return tiny_recipe(method=method, regularizers=[{"name": "sad", "weight": 0.01}])


@pytest.mark.parametrize(
    ("place", "step", "kept"),
    [
        ("factory", 0, 0),
        ("setup", 0, 0),
        ("step", 0, 0),
        ("step", 3, 3),
        ("late", 3, 3),
        ("loss", 4, 3),
        ("finish", 0, 6),
    ],
)
def test_a_plugin_that_raises_is_named_and_its_run_goes_on_once_it_is_mended(
    place: str, step: int, kept: int, run: Any, sad: Recipe, tmp_path: Path
):
    run(sad, tmp_path / "whole")
    RAISES[place] = step
    out = tmp_path / "out"
    with pytest.raises(BrokenPluginError) as refusal:
        run(sad, out)
    said = str(refusal.value)
    assert len(said.splitlines()) == 1
    kind = "regularizer" if place == "loss" else "method"
    assert f"the {kind} 'sad' of plugin ddkit-sad:sad" in said
    assert "ZeroDivisionError: the plugin's own mistake" in said
    assert refusal.value.exit_code == 1
    assert (out / "checkpoint.pt").is_file() == bool(kept)
    if place != "factory":
        assert "Traceback" in (out / "error.txt").read_text()
        assert str(out / "error.txt") in said
    if kept:
        assert f"after step {kept} of 6 is saved" in said
        assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == kept
    RAISES.clear()
    run(sad, out)
    for name in ("synthetic.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (out / "error.txt").exists()


def test_a_mistake_of_built_in_code_keeps_its_traceback_and_the_state(
    run: Any, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = Run.backward

    def backward(self: Run, *arguments: Any) -> Any:
        if self.at == 2:
            raise ZeroDivisionError("ours")
        return original(self, *arguments)

    monkeypatch.setattr(Run, "backward", backward)
    with pytest.raises(ZeroDivisionError, match="ours") as bug:
        run(tiny_recipe(), tmp_path / "out")
    assert any("after step 2 of 4 is saved" in note for note in bug.value.__notes__)
    assert torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)["step"] == 2
    assert "ours" in (tmp_path / "out/error.txt").read_text()


def test_a_state_too_large_to_copy_leaves_the_last_checkpoint(
    run: Any, sad: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint, "KEPT_BYTES", 0)
    RAISES["step"] = 3
    with pytest.raises(BrokenPluginError):
        run(sad, tmp_path / "out")
    assert not (tmp_path / "out/checkpoint.pt").exists()


def test_a_state_that_cannot_be_saved_does_not_hide_what_broke_the_run(
    run: Any, sad: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(loop, "write", full)
    RAISES["step"] = 3
    with pytest.raises(BrokenPluginError, match="own mistake"):
        run(sad, tmp_path / "out")


# Memory


def starved(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
    """Let DM's step fail with more than `most` classes at once."""
    original = Run.compare

    def compare(self: Run, net: Any, real: Any, syn: Any, *rest: Any) -> Any:
        if self.at >= 1 and len(syn[1].classes) > most:
            raise error
        return original(self, net, real, syn, *rest)

    monkeypatch.setattr(Run, "compare", compare)


ALLOCATORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("error", ALLOCATORS, ids=lambda e: type(e).__name__)
def test_where_memory_does_not_suffice_a_run_goes_on_with_smaller_chunks_and_says_so(
    error: Exception, run: Any, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = run(tiny_recipe(), tmp_path / "whole").synthetic.images
    starved(monkeypatch, 1, error)
    noting = Noting()
    ours = run(tiny_recipe(), tmp_path / "out", noting).synthetic.images
    assert "out of memory in step 1: going on with 1 classes at once" in noting.notes
    assert any("continuing" in note and "at step 1 of 4" in note for note in noting.notes)
    torch.testing.assert_close(ours, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("chunk", "most", "advice"),
    [(3, 1, "--set runtime.chunk=1"), ("auto", 0, "--set method.batch_real=4")],
)
def test_where_no_smaller_chunk_helps_the_option_and_a_size_are_named(
    chunk: Any,
    most: int,
    advice: str,
    run: Any,
    tiny_recipe: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    starved(monkeypatch, most, MemoryError("2 GiB"))
    with pytest.raises(OutOfMemoryError, match=r"out of memory in step 1 .*2 GiB") as refusal:
        run(tiny_recipe(runtime={"device": "cpu", "chunk": chunk}), tmp_path / "out")
    assert advice in str(refusal.value)
    assert (tmp_path / "out/checkpoint.pt").is_file()


# Divergence


def test_a_network_that_diverges_is_not_blamed_on_the_images_rate(
    run: Any, tiny_recipe: Any, tmp_path: Path
):
    assert IDM.lr_networks == 0.01
    method = {"name": "idm", "iterations": 6, "batch_real": 8, "lr_networks": 1e30}
    with pytest.raises(DivergedError, match=r"method\.lr_networks") as refusal:
        run(tiny_recipe(method=method), tmp_path / "out")
    assert "lr_images" not in str(refusal.value)
