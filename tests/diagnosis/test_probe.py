"""A few steps of a recipe are tried, and nothing of them is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_POOL, tree

from ddkit.diagnosis import probe
from ddkit.diagnosis.probe import probe_run
from ddkit.distillation.preflight import plan
from ddkit.findings import Finding
from ddkit.plugins import Plugins
from ddkit.runtime import memory

NCFM = {
    "method": {"name": "ncfm", "iterations": 7, "batch_real": 8, "num_freqs": 32, "pool_size": 2}
    | {"pool_epochs": 1},
    "synthetic": {"ipc": 1, "space": "pixel"},
}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDKIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def probed(recipe: Any, loaded: Plugins) -> dict[str, Finding]:
    planned = plan(recipe, loaded, None, "run")
    found = probe_run(planned.parts, loaded, planned.runtime, planned.folder.path)
    return {f.subject: f for f in found}


@pytest.mark.parametrize(
    ("changes", "subjects"),
    [
        ({}, {"steps", "memory", "checkpoint", "judges", "time"}),
        (
            {"proxies": TINY_POOL, "regularizers": [{"name": "cmi", "weight": 0.1}]},
            {"steps", "memory", "checkpoint", "pool", "judges", "time"},
        ),
        (NCFM, {"steps", "memory", "checkpoint", "pool", "judges", "time"}),
    ],
    ids=["plain", "recipe's pool", "method's pool"],
)
def test_every_cost_is_told_and_neither_pool_nor_run_folder_is_written(
    changes: dict[str, Any],
    subjects: set[str],
    tiny_recipe: Callable[..., Any],
    loaded: Plugins,
    own_home: Path,
):
    found = probed(tiny_recipe(**changes), loaded)
    assert set(found) == subjects
    assert {f.level for f in found.values()} == {"ok"}
    if "pool" in found:
        assert found["pool"].text.startswith("2 x convnet")
    assert tree(own_home) == {}


def test_a_step_that_does_not_fit_the_memory_says_what_to_lower(
    tiny_recipe: Callable[..., Any], loaded: Plugins, monkeypatch: pytest.MonkeyPatch
):
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr(probe, "_steps", too_large)
    found = probed(tiny_recipe(), loaded)["steps"]
    assert (found.level, found.exit_code) == ("FAIL", 1)
    assert "80 GiB" in found.text
    assert "method.batch_real" in found.text


def test_a_run_that_diverges_at_once_is_refused(tiny_recipe: Callable[..., Any], loaded: Plugins):
    recipe = tiny_recipe(method={"name": "dm", "lr_images": 1e38, "batch_real": 8})
    found = probed(recipe, loaded)["steps"]
    assert found.level == "FAIL"
    assert "lr_images" in found.text


def test_memory_near_its_end_is_noted(
    tiny_recipe: Callable[..., Any], loaded: Plugins, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(probe, "physical", lambda device: 1 << 20)
    found = probed(tiny_recipe(), loaded)["memory"]
    assert found.level == "note"
    assert "of 1 MiB" in found.text


def test_a_limit_of_the_control_group_is_the_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "CGROUP_LIMIT", tmp_path / "limit")
    whole = memory.physical(cpu)
    (tmp_path / "limit").write_text("max\n")
    assert memory.physical(cpu) == whole
    if whole:
        (tmp_path / "limit").write_text("4096\n")
        assert memory.physical(cpu) == 4096
