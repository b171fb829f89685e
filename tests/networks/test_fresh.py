"""Weights of one's own: loaded strictly, and said in the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import recipe_table
from safetensors.torch import save_file

import ddkit
from ddkit.data import Dataset
from ddkit.errors import IncompatibleError
from ddkit.networks.fresh import backbone_maker
from ddkit.recipes.place import Place, Source
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import Part

NET = {"width": 8, "depth": 2}
HERE = Place(Source("recipe"), "backbone")


def weights(path: Path, info: Any, loaded: Any, **changes: Any) -> Path:
    """Write the weights of a convnet of other width, or changed, to `path`."""
    net = backbone_maker(Part("convnet", NET), loaded, HERE, info)()
    state = {k: torch.full_like(v, 0.5) for k, v in net.state_dict().items()} | changes
    save_file({k: v for k, v in state.items() if v is not None}, path)
    return path


def test_networks_start_from_the_weights_that_are_given(tmp_path: Path, tiny: Dataset, loaded: Any):
    path = weights(tmp_path / "w.safetensors", tiny.info, loaded)
    part = Part("convnet", {**NET, "weights": str(path)})
    net = backbone_maker(part, loaded, HERE, tiny.info)()
    assert all(bool((v == 0.5).all()) for v in net.state_dict().values())


def test_weights_that_do_not_fit_are_refused_with_names_and_shapes(
    tmp_path: Path, tiny: Dataset, loaded: Any
):
    net = backbone_maker(Part("convnet", NET), loaded, HERE, tiny.info)()
    first, second = list(net.state_dict())[:2]
    changes: dict[str, Any] = {first: None, second: torch.zeros(3), "head.odd": torch.zeros(1)}
    path = weights(tmp_path / "w.safetensors", tiny.info, loaded, **changes)
    make = backbone_maker(Part("convnet", {**NET, "weights": str(path)}), loaded, HERE, tiny.info)
    with pytest.raises(IncompatibleError) as refused:
        make()
    said = str(refused.value)
    assert f"it lacks {first}; this network has no head.odd; other shapes: {second} is [3]" in said


@pytest.mark.parametrize("content", [None, b"", b"no tensors at all"])
def test_a_file_that_holds_no_weights_costs_one_line(
    tmp_path: Path, tiny: Dataset, loaded: Any, content: bytes | None
):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IncompatibleError, match=r"backbone\.weights: .*not a readable") as refused:
        backbone_maker(Part("convnet", {"weights": str(path)}), loaded, HERE, tiny.info)
    assert "\n" not in str(refused.value)


def test_a_run_whose_networks_are_not_random_says_so_and_is_another_run(
    tmp_path: Path, loaded: Any, tiny: Dataset
):
    backbone = {"name": "convnet", **NET}
    plain = ddkit.distill(Recipe.parse(recipe_table()), out=tmp_path / "plain")
    path = weights(tmp_path / "w.safetensors", plain.dataset.info, loaded)
    table = recipe_table(backbone=backbone | {"weights": str(path)})
    made = ddkit.distill(Recipe.parse(table), out=tmp_path / "given")
    assert "backbone.weights" in made.synthetic.provenance
    assert "backbone.weights" not in plain.synthetic.provenance
    assert made.folder.status()["identity"] != plain.folder.status()["identity"]
    verdict = ddkit.evaluate(
        made.folder.set,
        seeds=1,
        settings=["epochs=1", f'archs=[{{name="convnet", width=8, depth=2, weights="{path}"}}]'],
        baseline=False,
    )
    assert "not from scratch where weights are given" in verdict.protocol
    assert "weights=" in verdict.results[0].arch
