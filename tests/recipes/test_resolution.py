"""Names and options are checked twice: at once by description, and by the components themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import recipe_table

from ddkit import plugins
from ddkit.errors import DDKitError
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import check_early, check_names, shipped_components

MISTAKES = [
    ["method.iteration=5"],
    ["method=dmm"],
    ["method.iterations=0", "method.lr_images=-1", "backbone.width=x"],
    ["method.momentum=1.0"],
    ["backbone=convnett"],
    ["backbone=timm/"],
    ["dataset.resolution=2.5", "dataset.reslution=8"],
    ["dataset={name='folder'}"],
    ["dataset={name='folder', path=3}"],
    ["regularizers=[{name='cm', weight=1}]"],
    ["regularizers=[{name='cmi', weight=1, margn=3}]"],
    ["proxies={backbone={name='resnet18', norm='layr'}}"],
    ["eval.archs=['convnet', {name='vgg11', widht=3}]"],
    ["method={name='ncfm', frequency='gauss'}"],
    ["method={name='idc', pad=1}"],
]


def refusal(check: Any, *parts: Any) -> str:
    with pytest.raises(DDKitError) as refused:
        check(*parts)
    return f"{type(refused.value).__name__}: {refused.value}"


@pytest.mark.parametrize("overrides", MISTAKES, ids=lambda o: o[0])
def test_a_mistake_is_told_in_the_same_words_before_and_after_plugins_load(
    overrides: list[str], loaded: Any
):
    recipe = Recipe.parse(recipe_table(), overrides)
    assert refusal(check_early, recipe) == refusal(check_names, recipe, loaded)


def test_what_is_right_passes_both():
    check_early(Recipe.parse(recipe_table(backbone="timm/vit_tiny_patch16_224")))


def test_what_another_package_may_provide_is_left_to_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddkit.recipes.resolution.only_builtin", lambda: False)
    check_early(Recipe.parse(recipe_table(), ["method=theirs"]))


def test_other_packages_are_seen_without_loading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    info = tmp_path / "ddkit_theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: ddkit-theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ddkit]\ntheirs = no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("DDKIT_LOAD_PLUGINS")
    assert not plugins.only_builtin()
    monkeypatch.setenv("DDKIT_LOAD_PLUGINS", "")
    assert plugins.only_builtin()


def test_the_early_check_loads_no_torch():
    script = (
        "import sys; from ddkit.recipes.recipe import Recipe;"
        "from ddkit.recipes.resolution import check_early;"
        "check_early(Recipe.load('dm-digits-ipc1')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_described_components_are_all_that_load(loaded: Any):
    described = shipped_components()
    for kind in plugins.KINDS:
        assert set(getattr(described, kind)) == set(getattr(loaded, kind))
