"""Recipe and registries to live parts, with every check that needs no training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddkit.data import Dataset
from ddkit.distillation.requirements import (
    Start,
    check_method,
    check_part,
    check_requirements,
    check_synthetic,
)
from ddkit.images.real import make_dataset
from ddkit.images.synthetic import check_ipc
from ddkit.method import Method
from ddkit.networks.fresh import Build, backbone_maker, probe
from ddkit.networks.pool import ProxyPool
from ddkit.plugins import Plugins
from ddkit.recipes.binding import bind
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import check_names, judging, resolve, resolved
from ddkit.regularizer import Regularizer, Term
from ddkit.runtime.device import Runtime


@dataclass(frozen=True)
class Composition:
    """The live parts of a recipe, which states every option; nothing has trained yet."""

    recipe: Recipe
    dataset: Dataset
    make: Build
    method: Method
    terms: tuple[Term, ...]
    proxies: ProxyPool | None
    cache: Path | None = None
    """Where pools of networks are kept; by default in ddkit's cache."""
    start: Start | None = None


def compose(
    recipe: Recipe, plugins: Plugins, runtime: Runtime, dataset: Dataset | None = None
) -> Composition:
    """Build every part of `recipe` and refuse what cannot work.

    Names and options are checked before the dataset is read, so that a typo costs no download.
    `dataset` replaces the recipe's.

    Raises:
        PluginError: a name that no plugin provides.
        RecipeError: options that do not fit, or more images per class than there are.
        IncompatibleError: parts that do not fit each other.
        DataError: the data is missing or damaged.
    """
    check_names(recipe, plugins)
    recipe = resolved(recipe, plugins)
    method = make_method(recipe, plugins)
    terms = make_terms(recipe, plugins)
    check_requirements(recipe, method, terms)
    check_synthetic(recipe)
    data = dataset or make_dataset(recipe.dataset, plugins, recipe.place("dataset"))
    data = data.to(runtime.device)
    counts = torch.bincount(data.train.labels, minlength=data.info.num_classes).tolist()
    check_ipc(recipe.synthetic, counts, data.info, recipe.place("synthetic"), method.chooses)
    start = Start.read(recipe.synthetic, data.info, recipe.place("synthetic"))
    if start is not None:
        recipe = replace(recipe, synthetic=replace(recipe.synthetic, path=str(start.path)))
    make = backbone_maker(recipe.backbone, plugins, recipe.place("backbone"), data.info)
    check_method(recipe, method, data.info, probe(make, data.info, recipe.place("backbone")))
    for path, part in judging(recipe.eval):
        place = recipe.place(f"eval.{path}")
        probe(backbone_maker(part, plugins, place, data.info), data.info, place)
    proxies = _proxies(recipe, plugins, runtime, data, method, terms)
    return Composition(recipe, data, make, method, terms, proxies, start=start)


def make_method(recipe: Recipe, plugins: Plugins) -> Method:
    place = recipe.place("method")
    component, options = resolve(plugins.methods, recipe.method, place)
    method: Method = bind(component.factory, options, place)
    check_part(method, "method", recipe.method.name)
    return method


def make_terms(recipe: Recipe, plugins: Plugins) -> tuple[Term, ...]:
    """Build the regularizers; one that appears twice is numbered, so that its metrics are apart."""
    terms: list[Term] = []
    for i, (weight, part) in enumerate(recipe.regularizers):
        place = recipe.place(f"regularizers.{i}")
        component, options = resolve(plugins.regularizers, part, place)
        regularizer: Regularizer = bind(component.factory, options, place)
        check_part(regularizer, "regularizer", part.name)
        taken = sum(t.name.partition("#")[0] == part.name for t in terms)
        name = f"{part.name}#{taken + 1}" if taken else part.name
        terms.append(Term(name, weight, regularizer))
    return tuple(terms)


def _proxies(
    recipe: Recipe,
    plugins: Plugins,
    runtime: Runtime,
    data: Dataset,
    method: Method,
    terms: tuple[Term, ...],
) -> ProxyPool | None:
    spec = recipe.proxies
    read = method.reads_proxies or any("proxy" in t.regularizer.requires for t in terms)
    if spec is None or not read:
        return None
    place = recipe.place("proxies.backbone")
    make = backbone_maker(spec.backbone, plugins, place, data.info)
    probe(make, data.info, place)
    return ProxyPool(spec, make, data, runtime, recipe.seed)
