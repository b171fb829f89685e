"""What a run is refused for, and what is noted, before it starts: one piece of code for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_POOL, numbered

from ddkit.data import Dataset, MemoryImages
from ddkit.distillation import preflight
from ddkit.distillation.loop import run_recipe
from ddkit.distillation.preflight import brief, plan
from ddkit.errors import CheckpointError, DataError
from ddkit.findings import Finding, failed, refuse
from ddkit.networks.pool import ProxyPool
from ddkit.plugins import Plugins
from ddkit.recipes.sections import Part, ProxySpec
from ddkit.reporter import Silent
from ddkit.runtime.device import Runtime
from ddkit.testing import stand_in, tiny_dataset


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def of(found: list[Finding], subject: str, level: str) -> str:
    """Return the texts of findings on `subject` of one level."""
    return "\n".join(f.text for f in found if (f.subject, f.level) == (subject, level))


def test_a_healthy_recipe_has_nothing_to_note(
    tiny_recipe: Callable[..., Any], loaded: Plugins, tmp_path: Path
):
    found = plan(tiny_recipe(), loaded, tmp_path / "out", "run").found
    assert {f.level for f in found} == {"ok"}
    assert "140 (least), 144, 147 (most)" in of(found, "train", "ok")
    assert "alphabetical" in of(found, "classes", "ok")
    assert "a new run" in of(found, "folder", "ok")
    assert not (tmp_path / "out").exists()


def test_a_run_begins_with_a_line_on_device_and_data_and_one_for_each_note(
    tiny_recipe: Callable[..., Any], loaded: Plugins, tmp_path: Path
):
    reporter = Notes()
    recipe = tiny_recipe(synthetic={"ipc": 200, "init": "noise"})
    run_recipe(recipe, loaded, reporter, tmp_path / "out")
    first, second = reporter.notes[:2]
    assert first.startswith("cpu, float32; digits: 1,442 training images of 1x8x8, 10 classes;")
    assert first.endswith("2000 images to learn")
    assert second.startswith("note: baseline: 200 random images per class cannot stand beside")
    planned = plan(recipe, loaded, tmp_path / "out", "run")
    assert [first, second] == list(brief(planned.parts, planned.runtime, planned.found))
    assert "this very run, finished" in of(planned.found, "folder", "ok")


def test_a_class_of_one_image_is_named(
    tiny_recipe: Callable[..., Any], loaded: Plugins, tmp_path: Path, tiny: Dataset
):
    labels = tiny.train.labels
    rows = torch.cat([(labels != 1).nonzero()[:, 0], (labels == 1).nonzero()[:1, 0]])
    train = MemoryImages(tiny.train.fetch(rows), labels[rows])
    data = replace(tiny, train=train)
    found = plan(tiny_recipe(synthetic={"ipc": 1}), loaded, tmp_path, "run", data).found
    assert "few images of class 1" in of(found, "train", "note")
    assert "class 0" not in of(found, "train", "note")


def test_a_class_without_training_images_is_refused_before_anything_is_written(
    tiny_recipe: Callable[..., Any], loaded: Plugins, tmp_path: Path
):
    net = {"name": "mlp"}
    recipe = tiny_recipe(
        synthetic={"ipc": 1, "init": "noise"}, backbone=net, eval={"archs": [net], "epochs": 1}
    )
    data = numbered([0, 0, 2, 2])
    found = plan(recipe, loaded, tmp_path / "out", "run", data).found
    with pytest.raises(DataError, match="class 'b' has no training images") as refusal:
        run_recipe(recipe, loaded, Silent(), tmp_path / "out", dataset=data)
    assert of(found, "classes", "FAIL") == str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_pool_that_only_guesses_is_noted_and_one_that_has_learned_is_not(
    tiny_recipe: Callable[..., Any],
    loaded: Plugins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    recipe = tiny_recipe(proxies=TINY_POOL, regularizers=[{"name": "cmi", "weight": 0.1}])
    found = plan(recipe, loaded, tmp_path / "out", "run").found
    assert "2 of them to train" in of(found, "proxies", "ok")
    for accuracy, level in ((0.112, "note"), (0.9, "ok")):
        monkeypatch.setattr(ProxyPool, "missing", lambda self: [])
        monkeypatch.setattr(ProxyPool, "cached", lambda self, a=accuracy: {0: a, 1: 0.95})
        found = plan(recipe, loaded, tmp_path / "out", "run").found
        assert f"the worst {100 * accuracy:.1f} %" in of(found, "proxies", level)
    assert "guessing" not in of(found, "proxies", "ok")


def test_cached_networks_of_other_data_are_told_from_those_that_are_missing(
    tiny_recipe: Callable[..., Any],
    loaded: Plugins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    recipe = tiny_recipe(proxies=TINY_POOL, regularizers=[{"name": "cmi", "weight": 0.1}])
    monkeypatch.setattr(ProxyPool, "missing", lambda self: [1])
    monkeypatch.setattr(ProxyPool, "cached", lambda self: {})
    found = plan(recipe, loaded, tmp_path / "out", "run").found
    assert "1 cached networks are damaged or of other data" in of(found, "proxies", "note")


def test_a_full_disk_is_refused_in_the_words_of_the_run(
    tiny_recipe: Callable[..., Any],
    loaded: Plugins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(preflight, "disk_free", lambda path: 1000)
    found = plan(tiny_recipe(), loaded, tmp_path / "out", "run").found
    with pytest.raises(CheckpointError, match="1000 B free") as refusal:
        run_recipe(tiny_recipe(), loaded, Silent(), tmp_path / "out")
    assert of(found, "disk", "FAIL") == str(refusal.value)


def test_tiles_of_a_few_pixels_are_noted(
    tiny_recipe: Callable[..., Any], loaded: Plugins, tmp_path: Path
):
    recipe = tiny_recipe(synthetic={"ipc": 1, "factor": 2})
    found = plan(recipe, loaded, tmp_path / "out", "run").found
    assert "4 tiles of 4x4" in of(found, "set", "note")


def test_the_first_refusal_is_raised_and_notes_are_none():
    refuse([Finding("note", "a", "odd")])
    with pytest.raises(DataError, match="bad"):
        refuse(
            [
                Finding("note", "a", "odd"),
                failed("b", DataError("bad")),
                failed("c", CheckpointError("x")),
            ]
        )


def test_a_pool_knows_the_accuracy_of_its_cached_networks_without_loading_them(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path))
    spec = ProxySpec(Part("stand-in"), count=2, epochs=1, batch_size=12)

    def pool(data: Dataset) -> ProxyPool:
        return ProxyPool(spec, lambda: stand_in(data.info), data, Runtime(torch.device("cpu")), 0)

    assert pool(tiny).cached() == {}
    kept = pool(tiny)
    kept.prepare(Silent())
    assert pool(tiny).cached() == pytest.approx(kept.accuracies)
    first = sorted(kept.folder.glob("*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:50])
    assert list(pool(tiny).cached()) == [1]
    other = pool(tiny_dataset(seed=1))
    other.folder = kept.folder
    assert other.cached() == {}
