"""Where runs start: from a set that exists, and where another run has come to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ddkit, recipe_table, tree

from ddkit.data import Dataset
from ddkit.distillation.loop import Outcome, run_recipe
from ddkit.distillation.start import extend
from ddkit.errors import CheckpointError, IncompatibleError, Interrupted
from ddkit.images.synthetic import SyntheticSet
from ddkit.recipes.recipe import Recipe
from ddkit.reporter import Metrics, Silent
from ddkit.runs.folder import RunFolder


class Stopping(Silent):
    """Stops the distillation after so many steps."""

    def __init__(self, steps: int):
        self.left = steps

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted("stop")


@pytest.fixture
def run(loaded: Any, tiny: Dataset) -> Callable[..., Outcome]:
    return lambda recipe, out, reporter=None: run_recipe(
        recipe, loaded, reporter or Silent(), out, dataset=tiny
    )


def dm(iterations: int, **changes: Any) -> Recipe:
    method = {"name": "dm", "iterations": iterations, "batch_real": 8, "momentum": 0.9}
    return Recipe.parse(recipe_table(method=method, **changes))


def from_set(path: Path, iterations: int = 2, **changes: Any) -> Recipe:
    return dm(iterations, synthetic={"ipc": 2, "init": "set", "path": str(path), **changes})


def test_a_run_starts_from_the_images_of_a_set_and_says_which(run: Any, tmp_path: Path):
    first = run(dm(2), tmp_path / "first")
    method = {"name": "dm", "iterations": 1, "batch_real": 8, "lr_images": 1e-30}
    spec = {"ipc": 2, "init": "set", "path": str(tmp_path / "first")}
    second = run(Recipe.parse(recipe_table(method=method, synthetic=spec)), tmp_path / "second")
    assert torch.equal(second.synthetic.images, first.synthetic.images)
    assert second.synthetic.recipe["synthetic"]["path"] == str(first.folder.set)
    assert second.synthetic.provenance["start"] == second.folder.status()["start"]
    assert "start" not in first.synthetic.provenance


def test_the_set_that_a_run_starts_from_is_known_by_its_content(run: Any, tmp_path: Path):
    run(dm(2), tmp_path / "first")
    run(from_set(tmp_path / "first"), tmp_path / "out")
    (tmp_path / "first").rename(tmp_path / "moved")
    assert run(from_set(tmp_path / "moved"), tmp_path / "out").already
    run(dm(3), tmp_path / "other")
    with pytest.raises(CheckpointError, match="another recipe"):
        run(from_set(tmp_path / "other"), tmp_path / "out")


def test_pixels_and_normalised_images_start_from_each_other(run: Any, tmp_path: Path):
    first = run(dm(2), tmp_path / "first").synthetic
    method = {"name": "dm", "iterations": 1, "batch_real": 8, "lr_images": 1e-30}
    spec = {"ipc": 2, "init": "set", "path": str(tmp_path / "first"), "space": "pixel"}
    second = run(Recipe.parse(recipe_table(method=method, synthetic=spec)), tmp_path / "second")
    pixels = first.info.denormalize(first.images.detach())
    torch.testing.assert_close(second.synthetic.images.detach(), pixels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ipc": 3}, "images per class"),
        ({"factor": 2}, "factor = 1"),
        ({"init": "noise"}, "give both or neither"),
        ({"path": None}, "give both or neither"),
    ],
)
def test_a_set_that_does_not_fit_is_refused_before_anything_is_written(
    changes: dict[str, Any], words: str, run: Any, tmp_path: Path
):
    run(dm(2), tmp_path / "first")
    spec = {"ipc": 2, "init": "set", "path": str(tmp_path / "first"), **changes}
    recipe = dm(2, synthetic={k: v for k, v in spec.items() if v is not None})
    with pytest.raises(IncompatibleError, match=words):
        run(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_recipes_that_start_from_no_set_say_nothing_of_one():
    assert "path" not in dm(2).table()["synthetic"]


def test_an_unfinished_run_is_extended_exactly(
    run: Any, loaded: Any, tiny: Dataset, tmp_path: Path
):
    with pytest.raises(Interrupted):
        run(dm(4), tmp_path / "out", Stopping(2))
    before = tree(tmp_path / "out")
    folder = extend(dm(7), loaded, Silent(), RunFolder(tmp_path / "out"), tiny)
    assert folder.path == tmp_path / "out-to-7"
    run(dm(7), folder.path)
    run(dm(7), tmp_path / "whole")
    ours, whole = (
        SyntheticSet.load(p / "synthetic.safetensors") for p in (folder.path, tmp_path / "whole")
    )
    assert torch.equal(ours.images, whole.images)
    assert folder.metrics.read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert tree(tmp_path / "out") == before


def test_a_finished_run_is_extended_from_its_set_as_a_run_of_its_own(
    run: Any, loaded: Any, tiny: Dataset, tmp_path: Path
):
    first = run(dm(4), tmp_path / "out")
    before = tree(tmp_path / "out")
    folder = extend(dm(6), loaded, Silent(), RunFolder(tmp_path / "out"), tiny)
    with pytest.raises(Interrupted):
        run(dm(6), folder.path, Stopping(1))
    second = run(dm(6), folder.path)
    status, old = folder.status(), first.folder.status()
    assert (status["continues"], status["from_step"]) == (old["identity"], 4)
    assert status["identity"] != old["identity"]
    steps = [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()]
    assert steps == list(range(6))
    assert not torch.equal(second.synthetic.images, first.synthetic.images)
    assert run(dm(6), folder.path).already
    assert tree(tmp_path / "out") == before
    again = extend(dm(8), loaded, Silent(), folder, tiny)  # and so on
    assert run(dm(8), again.path).folder.status()["from_step"] == 6


@pytest.mark.parametrize("told", [{"continues": 3, "from_step": 4}, {"continues": "x"}])
def test_a_folder_that_does_not_say_what_it_continues_is_refused(
    run: Any, told: dict[str, Any], tmp_path: Path
):
    done = run(dm(4), tmp_path / "out")
    done.folder.write_status(**told)
    with pytest.raises(CheckpointError, match="does not say what run it continues"):
        run(dm(4), tmp_path / "out")


def test_more_than_iterations_makes_another_run(
    run: Any, loaded: Any, tiny: Dataset, tmp_path: Path
):
    run(dm(4), tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"more method\.iterations alone"):
        extend(dm(6, seed=1), loaded, Silent(), RunFolder(tmp_path / "out"), tiny)
    assert not (tmp_path / "out-to-6").exists()


def test_resume_with_more_iterations_goes_on_beside_the_run(
    recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert ddkit("distill", recipe_file(), "--out", "out", "-q").code == 0
    more = ("distill", "--resume", "out", "--set", "method.iterations=6", "-q")
    assert ddkit(*more, "--dry-run").code == 0
    assert not Path("out-to-6").exists()
    for _ in range(2):  # the second time it is finished
        said = ddkit(*more)
        assert (said.code, said.out) == (0, "out-to-6/synthetic.safetensors\n"), said.err
    assert ddkit("distill", "--resume", "out-to-6", "-q").code == 0
    said = ddkit("distill", "--resume", "out", "--set", "method.iterations=3", "-q")
    assert said.code == 1
    assert "another recipe" in said.err
