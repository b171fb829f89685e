"""The 21 published configurations of NCFM, value by value (methods/ncfm, section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ddkit.recipes import catalog
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import resolved
from ddkit.recipes.sections import TrainSpec
from ddkit_methods.modes import of_mode
from ddkit_methods.ncfm import MODES, NCFM

SUBSETS = ("imagenette", "imagewoof", "imagefruit", "imageyellow", "imagemeow", "imagesquawk")
CONFIGURATIONS = [
    *((f"cifar10-ipc{i}", 3, 60, 2000) for i in (1, 10, 50)),
    *((f"cifar100-ipc{i}", 3, 60, 2000) for i in (1, 10, 50)),
    *((f"tiny-imagenet-ipc{i}", 4, 60, e) for i, e in ((1, 2000), (10, 300), (50, 40))),
    *((f"{name}-ipc{i}", 5, 80, 2000) for name in SUBSETS for i in (1, 10)),
]
COMMON: Mapping[str, Any] = {
    "iterations": 20000,
    "batch_real": 1024,
    "real_batch": "random",  # the published fixed ones are an option
    "frequency": "gaussian",
    "num_freqs": 4096,
    "amplitude": 0.5,
    "phase": 0.5,
    "scale": 300.0,
    "calibrations": 1,
    "calibration": 1.0,
    "patience": 500,
    "fall": 0.5,
    "augmentation": "chain:color_crop_cutout",
    "pool_size": 20,
    "pool_batch": 128,
    "pool_lr": 0.01,
    "pool_weight_decay": 5e-4,
    "pool_cutmix": 0.5,
}


@pytest.mark.parametrize(("name", "depth", "pool_epochs", "epochs"), CONFIGURATIONS)
def test_every_published_configuration_is_shipped(
    name: str, depth: int, pool_epochs: int, epochs: int, loaded: Any
):
    recipe = resolved(Recipe.load(f"ncfm-{name}"), loaded)
    method = NCFM(**recipe.method.options)
    assert {k: getattr(method, k) for k in COMMON} == COMMON
    assert method.pool_epochs == pool_epochs
    rate, kept = {"adamw": (1e-3, "weight_decay"), "sgd": (0.01, "momentum")}[method.optimizer]
    assert (method.optimizer == "sgd") == (name == "cifar100-ipc10")
    assert of_mode(method, MODES, "lr_images") == rate
    assert of_mode(method, MODES, kept) == {"weight_decay": 5e-4, "momentum": 0.5}[kept]
    assert recipe.backbone.options.items() >= {"depth": depth, "width": 128}.items()
    syn = recipe.synthetic
    assert (syn.factor, syn.kind, syn.init, syn.init_resize, syn.space) == (
        *(2, "single", "first", "nearest", "pixel"),
    )
    assert syn.ipc == int(name.rpartition("ipc")[2])
    assert (recipe.eval.seeds, recipe.eval.archs) == (10, (recipe.backbone,))
    assert recipe.eval.training == TrainSpec(
        epochs=epochs,
        batch_size=128,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.01,
        schedule="steps",
        gamma=0.5,
        milestones=(0.2, 0.4, 0.6, 0.8),
        augmentation="chain:color_crop_flip_scale_rotate",
        cutmix=0.5,
    )


def test_there_are_21():
    assert len(CONFIGURATIONS) == 21
    assert {f"ncfm-{name}" for name, *_ in CONFIGURATIONS} <= set(catalog.recipes())
