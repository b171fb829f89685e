"""Every registered component keeps the rules of `ddkit.testing`; every pair works or says no."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from conftest import TINY_POOL, recipe_table
from PIL import Image

from ddkit import plugins, testing
from ddkit.distillation import bench
from ddkit.distillation.bench import stand_in, tiny_dataset
from ddkit.distillation.compose import compose
from ddkit.distillation.start import prepare
from ddkit.errors import IncompatibleError, RecipeError
from ddkit.recipes.binding import schema
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import SyntheticSpec
from ddkit.regularizer import Match
from ddkit.reporter import Silent
from ddkit.runtime.device import open_runtime

LOADED = plugins.load()

SMALL: dict[str, Any] = {
    "iterations": 4,
    "batch_real": 6,
    "width": 8,
    "outer_steps": 2,
    "inner_steps": 2,
    "batch_train": 8,
    "batch_syn": 4,
    "train_images": 12,
    "pool_size": 2,
    "pool_interval": 2,
    "pool_epochs": 1,
    "pool_batch": 12,
    "num_freqs": 32,
    "train_networks": 1,
    "train_steps": 2,
    "train_batch": 12,
}
"""Values that make any component small, by the name of the option."""

SPACES: dict[str, Literal["normalized", "pixel"]] = {"ncfm": "pixel"}
"""Methods that learn in one space alone."""

VARIANTS = {"herding": [{"features": "trained"}], "kmeans": [{"features": "trained"}]}
"""Further options under which a method is another one."""

DOWNLOADED = {
    *("cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "tiny_imagenet"),
    *("imagenet", "imagenette", "imagewoof", "imagefruit", "imagemeow", "imagesquawk"),
    "imageyellow",
}
"""Datasets that need a download, which tests do not make; tests/plugins reads imitations."""


def small(factory: Any) -> dict[str, Any]:
    return {name: SMALL[name] for name in schema(factory) if name in SMALL}


METHODS = [
    pytest.param(name, options, id="-".join([name, *map(str, options.values())]))
    for name in LOADED.methods
    for options in [{}, *VARIANTS.get(name, [])]
]


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_every_method_is_finite_deterministic_and_resumable(name: str, options: dict[str, Any]):
    factory = LOADED.methods[name].factory
    spec = SyntheticSpec(ipc=2, space=SPACES.get(name, "normalized"))
    testing.check_method(factory, testing.Bench(synthetic=spec), **{**small(factory), **options})


@pytest.mark.parametrize("name", LOADED.methods)
def test_every_method_learns_mosaics_in_pixel_space(name: str):
    factory = LOADED.methods[name].factory
    spec = SyntheticSpec(ipc=2, factor=2, space="pixel")
    testing.check_method(factory, testing.Bench(synthetic=spec), **small(factory))


@pytest.mark.parametrize("name", LOADED.regularizers)
def test_every_regularizer_is_a_sum_over_classes_with_a_finite_gradient(name: str):
    factory = LOADED.regularizers[name].factory
    testing.check_regularizer(factory, **small(factory))


@pytest.mark.parametrize("name", LOADED.backbones)
def test_every_backbone_keeps_the_contract(name: str):
    factory = LOADED.backbones[name].factory
    options = small(factory)
    if name == "timm/":
        options["model"] = "test_vit"
    testing.check_backbone(factory, tiny_dataset(size=32).info, **options)


@pytest.mark.parametrize("name", [n for n in LOADED.datasets if n not in DOWNLOADED])
def test_every_dataset_at_hand_is_what_it_says(name: str, tmp_path: Path):
    options: dict[str, Any] = {}
    if name == "folder":
        options["path"] = picture_folder(tmp_path)
    testing.check_dataset(LOADED.datasets[name].factory(tmp_path, **options))


def picture_folder(base: Path) -> Path:
    """Write six pictures of each of two classes, and return their folder."""
    for label, name in enumerate(("cat", "dog")):
        (base / "pictures" / name).mkdir(parents=True)
        for i in range(6):
            shade = (40 * i, 120 * label, 9 * i)
            Image.new("RGB", (16, 16), shade).save(base / "pictures" / name / f"{i}.png")
    return base / "pictures"


PAIRS = list(product(LOADED.methods, LOADED.regularizers))


@pytest.mark.parametrize(("method", "regularizer"), PAIRS)
def test_every_pair_takes_two_steps_or_is_refused_in_words(
    method: str, regularizer: str, tiny: Any, monkeypatch: pytest.MonkeyPatch
):
    options = small(LOADED.methods[method].factory)
    table = recipe_table(
        method={"name": method, **options},
        synthetic={"ipc": 2, "space": SPACES.get(method, "normalized")},
        regularizers=[{"name": regularizer, "weight": 0.01}],
        proxies=TINY_POOL,
    )
    recipe = Recipe.parse(table)
    runtime = open_runtime(recipe.runtime)
    lacking = LOADED.regularizers[regularizer].factory.requires - {"proxy"}
    lacking -= LOADED.methods[method].factory.provides
    if lacking:
        with pytest.raises(IncompatibleError, match=regularizer) as refusal:
            compose(recipe, LOADED, runtime, tiny)
        assert method in str(refusal.value)
        assert all(name in str(refusal.value) for name in lacking)
        return
    parts = compose(recipe, LOADED, runtime, tiny)
    run = prepare(parts, runtime, Silent())
    for i in range(min(2, parts.method.steps(run))):
        metrics = parts.method.step(run, i)
        assert regularizer in metrics
        assert all(torch.isfinite(value) for value in metrics.values())
    assert run.watch.found() is None
    assert torch.isfinite(run.synthetic.images).all()


# The checks themselves can fail.


def test_check_method_finds_a_method_that_draws_from_the_global_generator():
    dm = LOADED.methods["dm"].factory

    class Global(dm):
        def step(self, run: Any, i: int) -> Any:
            with torch.no_grad():
                run.synthetic.images.add_(torch.randn_like(run.synthetic.images))
            return super().step(run, i)

    with pytest.raises(AssertionError, match=r"Run\.stream"):
        testing.check_method(Global, iterations=2, batch_real=4)


def test_check_method_finds_a_method_that_forgets_state_on_resume():
    dm = LOADED.methods["dm"].factory

    class Forgetful(dm):
        count = 0

        def step(self, run: Any, i: int) -> Any:
            self.count += 1
            with torch.no_grad():
                run.synthetic.images.mul_(1 + 0.1 * self.count)
            return super().step(run, i)

    with pytest.raises(AssertionError, match="checkpoint"):
        testing.check_method(Forgetful, iterations=4, batch_real=4)


def test_check_method_finds_a_field_that_is_promised_and_not_supplied():
    dm = LOADED.methods["dm"].factory

    class Boasting(dm):
        def step(self, run: Any, i: int) -> Any:
            original = run.backward
            run.backward = lambda loss, m: original(loss, Match(**{**vars(m), "real_maps": None}))
            try:
                return super().step(run, i)
            finally:
                run.backward = original

    with pytest.raises(AssertionError, match="real_maps"):
        testing.check_method(Boasting, iterations=2, batch_real=4)


@pytest.mark.parametrize(
    ("loss", "rule"),
    [
        (lambda m: m.syn.square().mean(), "add up"),
        (lambda m: m.syn.square().sum((1, 2, 3)), "scalar"),
        (lambda m: m.syn.detach().sum().requires_grad_(), "gradient"),
        (lambda m: m.syn.sum() * torch.inf, "finite"),
        (lambda m: m.groups.mean(m.syn)[0, 0].sum() * 0, "zero"),
        (lambda m: m.syn.sum((1, 2, 3)).diff().square().sum(), "add up|order"),
    ],
)
def test_check_regularizer_finds_what_is_wrong(loss: Any, rule: str):
    class Wrong(testing.Regularizer):
        requires = frozenset({"syn", "labels"})

        def loss(self, m: Any) -> Any:
            return loss(m)

    with pytest.raises(AssertionError, match=rule):
        testing.check_regularizer(Wrong)


def test_a_regularizer_may_require_the_groups_themselves():
    class Weighed(testing.Regularizer):
        requires = frozenset({"syn", "groups", "real_groups"})

        def loss(self, m: Any) -> Any:
            squares = m.groups.mean(m.syn).flatten(1).square().sum(1)
            return (squares * m.real_groups.sizes(m.syn)).sum()

    testing.check_regularizer(Weighed)
    supplied = [m for m, c in LOADED.methods.items() if Weighed.requires <= c.factory.provides]
    assert {"dm", "idm", "ncfm", "dc", "dsa", "idc"} <= set(supplied)


def test_check_backbone_finds_an_embedding_that_is_not_the_input_of_the_classifier():
    def wrong(info: Any) -> Any:
        net = stand_in(info)
        net.forward_head = lambda x, pre_logits=False: (  # type: ignore[method-assign]
            net.pool(x).neg() if pre_logits else net.classifier(net.pool(x))
        )
        return net

    with pytest.raises(AssertionError, match="get_classifier"):
        testing.check_backbone(wrong)


def test_checks_take_options_as_recipes_do_and_refuse_them_in_the_same_words():
    dm = LOADED.methods["dm"].factory
    with pytest.raises(RecipeError, match=r"options of DM: iterations: must be an integer"):
        testing.check_method(dm, iterations="4")
    convnet = LOADED.backbones["convnet"].factory
    with pytest.raises(RecipeError, match=r"options of convnet: widht: unknown option"):
        testing.check_backbone(convnet, widht=8)


def test_check_method_tries_a_term_of_every_kind(monkeypatch: pytest.MonkeyPatch):
    seen: set[str] = set()
    loss = bench.Witness.loss

    def look(self: bench.Witness, m: Match) -> torch.Tensor:
        seen.update(self.requires)
        assert all(getattr(m, name) is not None for name in self.requires)
        return loss(self, m)

    monkeypatch.setattr(bench.Witness, "loss", look)
    dm = LOADED.methods["dm"].factory
    testing.check_method(dm, iterations=2, batch_real=4)
    assert seen == dm.provides | {"groups", "proxy"}


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (3.0, r"the method: step must return a dict of names to scalar tensors"),
        ({"loss": 3.0}, r"the method: step must return under 'loss' a scalar tensor"),
        ({"loss": torch.tensor(torch.nan)}, r"'loss' is nan"),
    ],
)
def test_check_method_speaks_in_rules(value: Any, rule: str):
    dm = LOADED.methods["dm"].factory

    class Odd(dm):
        def step(self, run: Any, i: int) -> Any:
            super().step(run, i)
            return value

    with pytest.raises(AssertionError, match=rule):
        testing.check_method(Odd, iterations=2, batch_real=4)
