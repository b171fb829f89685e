"""Presets: architectures that need other settings than the protocol's get them, and say so."""

import pytest

from ddkit.errors import RecipeError
from ddkit.evaluation.compose import stored_spec
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import Part

PRESET = 'eval.presets={"timm/vit_*"={optimizer="adamw",lr=1e-3}}'


def test_the_last_matching_pattern_departs_from_the_protocol():
    spec = Recipe.load("dm-digits-ipc1", [PRESET]).eval
    assert spec.training_of(Part("timm/vit_tiny_patch16_224")).optimizer == "adamw"
    assert spec.training_of(Part("convnet")) == spec.training


def test_what_the_recipe_gives_goes_before_the_protocols_presets():
    shipped = Recipe.load("dm-digits-ipc1", ["eval.protocol=cross"]).eval
    own = Recipe.load("dm-digits-ipc1", ["eval.protocol=cross", "eval.lr=0.5"]).eval
    assert any("lr" in v for v in shipped.presets.values())
    assert not any("lr" in v for v in own.presets.values())
    assert all(own.training_of(Part(p.replace("*", "x"))).lr == 0.5 for p in own.presets)


def test_what_the_caller_of_an_evaluation_gives_goes_before_stored_presets(trained_set):
    spec = stored_spec(trained_set, settings=["lr=0.25"])
    assert spec.presets
    assert all(spec.training_of(Part(p.replace("*", "x"))).lr == 0.25 for p in spec.presets)


def test_a_preset_with_an_unknown_setting_is_refused():
    with pytest.raises(RecipeError, match="unknown option"):
        Recipe.load("dm-digits-ipc1", ['eval.presets={"timm/*"={rate=1}}'])


@pytest.fixture
def trained_set(tiny):
    import torch

    from ddkit.images.synthetic import SyntheticSet

    recipe = Recipe.load("dm-digits-ipc1", ["eval.protocol=cross"])
    images = torch.nn.Parameter(torch.zeros(3, *tiny.info.shape))
    return SyntheticSet(images, torch.arange(3), tiny.info, recipe=recipe.table())
