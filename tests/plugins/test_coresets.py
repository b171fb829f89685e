"""Coresets: sets of real images, whatever a set would start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddkit.data import Dataset
from ddkit.distillation.loop import run_recipe
from ddkit.errors import RecipeError
from ddkit.reporter import Silent


@pytest.mark.parametrize("init", ["real", "first", "noise"])
@pytest.mark.parametrize("name", ["random", "herding", "kmeans"])
def test_more_images_than_there_are_are_refused_with_advice_that_helps(
    name: str, init: str, loaded: Any, tiny: Dataset, tiny_recipe: Any, tmp_path: Path
):
    recipe = tiny_recipe(method={"name": name}, synthetic={"ipc": 13, "init": init})
    with pytest.raises(RecipeError, match=r"synthetic.*ipc.*has 12; lower ipc$") as refusal:
        run_recipe(recipe, loaded, Silent(), tmp_path / "out", dataset=tiny)
    assert "noise" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_method_that_learns_may_start_from_noise_instead(
    loaded: Any, tiny: Dataset, tiny_recipe: Any, tmp_path: Path
):
    with pytest.raises(RecipeError, match='use init = "noise"'):
        run_recipe(
            tiny_recipe(synthetic={"ipc": 13}), loaded, Silent(), tmp_path / "out", dataset=tiny
        )
    recipe = tiny_recipe(synthetic={"ipc": 13, "init": "noise"})
    run_recipe(recipe, loaded, Silent(), tmp_path / "out", dataset=tiny)
