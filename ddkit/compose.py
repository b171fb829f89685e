"""Recipe and registries to live parts, with every check that needs no training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddkit import home
from ddkit.backbone import embed
from ddkit.data import DataInfo, Dataset
from ddkit.errors import DDKitError, IncompatibleError, PluginError, RecipeError
from ddkit.method import Method
from ddkit.nets import Build, ProxyPool
from ddkit.options import bind, checked, convert, defaults
from ddkit.place import Place
from ddkit.plugins import Component, Plugins, Registry
from ddkit.recipe import Recipe
from ddkit.regularizer import FIELDS, Regularizer
from ddkit.run import Term
from ddkit.runtime import Runtime
from ddkit.specs import EvalSpec, Part
from ddkit.synthetic import check_ipc
from ddkit.whitening import whitened


@dataclass(frozen=True)
class Composition:
    """The live parts of a recipe, which states every option; nothing has trained yet."""

    recipe: Recipe
    dataset: Dataset
    make: Build
    method: Method
    terms: tuple[Term, ...]
    proxies: ProxyPool | None


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
    check_ipc(recipe.synthetic, counts, data.info, recipe.place("synthetic"))
    make = backbone_maker(recipe.backbone, plugins, recipe.place("backbone"), data.info)
    check_method(recipe, method, data.info, probe(make, data.info, recipe.place("backbone")))
    for path, part in judging(recipe.eval):
        place = recipe.place(f"eval.{path}")
        probe(backbone_maker(part, plugins, place, data.info), data.info, place)
    proxies = _proxies(recipe, plugins, runtime, data, method, terms)
    return Composition(recipe, data, make, method, terms, proxies)


def check_names(recipe: Recipe, plugins: Plugins) -> None:
    """Check all names and options against the registries, and report every problem at once."""
    given: list[tuple[Registry, Part, str, tuple[str, ...]]] = [
        (
            plugins.datasets,
            split_zca(recipe.dataset, recipe.place("dataset"))[0],
            "dataset",
            ("root",),
        ),
        (plugins.backbones, recipe.backbone, "backbone", ("info",)),
        (plugins.methods, recipe.method, "method", ()),
    ]
    for i, (_, part) in enumerate(recipe.regularizers):
        given.append((plugins.regularizers, part, f"regularizers.{i}", ()))
    if recipe.proxies is not None:
        given.append((plugins.backbones, recipe.proxies.backbone, "proxies.backbone", ("info",)))
    for path, part in judging(recipe.eval):
        if part != recipe.backbone:  # which is checked, and which judges and teachers default to
            given.append((plugins.backbones, part, f"eval.{path}", ("info",)))
    problems: list[DDKitError] = []
    for registry, part, path, own in given:
        try:
            component, options = resolve(registry, part, recipe.place(path))
            check_options(component, options, recipe.place(path), own)
        except (PluginError, RecipeError) as error:
            problems.append(error)
    if problems:
        lines = dict.fromkeys(line for p in problems for line in str(p).splitlines())
        raise type(problems[0])("\n".join(lines))


def check_options(
    component: Component, options: Mapping[str, Any], place: Place, own: tuple[str, ...]
) -> None:
    """Check options by the signature of a component's factory; `own` are given by ddkit.

    Raises:
        RecipeError: options that do not fit.
        PluginError: the factory's own types cannot be read.
    """
    try:
        checked(component.factory, options, place, dict.fromkeys(own))
    except NameError as error:
        raise PluginError(
            f"{place}: plugin {component.plugin} has types that cannot be read ({error}); "
            f"its author must import them where the module is loaded"
        ) from error


def resolved(recipe: Recipe, plugins: Plugins) -> Recipe:
    """Return `recipe` with every option of every part stated, so that no default is left open.

    The parts' names and options must have been checked.
    """

    def backbone(part: Part) -> Part:
        return full(part, plugins.backbones)

    terms = [(w, full(p, plugins.regularizers)) for w, p in recipe.regularizers]
    pool, judges, teacher = recipe.proxies, recipe.eval, recipe.eval.teacher
    return replace(
        recipe,
        dataset=full(recipe.dataset, plugins.datasets),
        backbone=backbone(recipe.backbone),
        method=full(recipe.method, plugins.methods),
        regularizers=tuple(terms),
        proxies=pool and replace(pool, backbone=backbone(pool.backbone)),
        eval=replace(
            judges,
            archs=tuple(map(backbone, judges.archs)),
            teacher=teacher and replace(teacher, backbone=backbone(teacher.backbone)),
        ),
    )


def judging(spec: EvalSpec) -> Iterator[tuple[str, Part]]:
    """Yield the networks of an evaluation, with where they stand in ``[eval]``."""
    for i, arch in enumerate(spec.archs):
        yield f"archs.{i}", arch
    if spec.teacher is not None:
        yield "teacher.backbone", spec.teacher.backbone


def full(part: Part, registry: Registry) -> Part:
    """Return `part` with every option stated, apart from what its name carries."""
    component, carried = registry.resolve(part.name)
    stated = {k: v for k, v in defaults(component.factory).items() if v is not None}
    return Part(part.name, _without({**stated, **part.options}, carried))


def plain(part: Part, registry: Registry) -> Part:
    """Return `part` without the options that are defaults anyway: its shortest name."""
    component, _ = registry.resolve(part.name)
    given = defaults(component.factory)
    options = {k: v for k, v in part.options.items() if k not in given or given[k] != v}
    return Part(part.name, dict(sorted(options.items())))


def _without(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k not in names}


def resolve(registry: Registry, part: Part, place: Place) -> tuple[Component, Mapping[str, Any]]:
    """Return the component that `part` names and all its options.

    Raises:
        PluginError: no plugin provides it.
    """
    try:
        component, carried = registry.resolve(part.name)
    except PluginError as error:
        raise PluginError(f"{place}: {error}") from None
    return component, {**carried, **part.options}


def make_dataset(part: Part, plugins: Plugins, place: Place, root: Path | None = None) -> Dataset:
    """Read the dataset that `part` names, under `root` (default: ddkit's data folder).

    ``zca = true`` is an option of every dataset: images are whitened after normalisation.
    """
    part, zca = split_zca(part, place)
    component, options = resolve(plugins.datasets, part, place)
    data: Dataset = bind(component.factory, options, place, root=root or home.data_root())
    return whitened(data) if zca else data


def split_zca(part: Part, place: Place) -> tuple[Part, bool]:
    """Return a dataset's part without the option that ddkit itself reads, and that option."""
    options = dict(part.options)
    zca = convert(options.pop("zca", False), bool, place / "zca")
    return Part(part.name, options), zca


def make_method(recipe: Recipe, plugins: Plugins) -> Method:
    place = recipe.place("method")
    component, options = resolve(plugins.methods, recipe.method, place)
    return bind(component.factory, options, place)


def make_terms(recipe: Recipe, plugins: Plugins) -> tuple[Term, ...]:
    """Build the regularizers; one that appears twice is numbered, so that its metrics are apart."""
    terms: list[Term] = []
    for i, (weight, part) in enumerate(recipe.regularizers):
        place = recipe.place(f"regularizers.{i}")
        component, options = resolve(plugins.regularizers, part, place)
        regularizer: Regularizer = bind(component.factory, options, place)
        unknown = regularizer.requires - FIELDS
        if unknown:
            raise PluginError(
                f"regularizer {part.name!r} of {component.plugin} requires "
                f"{', '.join(sorted(unknown))}, which no Match has; it has {', '.join(FIELDS)}"
            )
        taken = sum(t.name.partition("#")[0] == part.name for t in terms)
        name = f"{part.name}#{taken + 1}" if taken else part.name
        terms.append(Term(name, weight, regularizer))
    return tuple(terms)


def backbone_maker(part: Part, plugins: Plugins, place: Place, info: DataInfo) -> Build:
    """Return a function that builds a new network of `part` for `info`."""
    component, options = resolve(plugins.backbones, part, place)
    return partial(bind, component.factory, options, place, info=info)


def check_requirements(recipe: Recipe, method: Method, terms: tuple[Term, ...]) -> None:
    """Refuse a regularizer that the method, or the lack of ``[proxies]``, cannot supply.

    Raises:
        IncompatibleError: saying what is needed and what there is.
    """
    for term in terms:
        needs = term.regularizer.requires
        lacking = needs - method.provides - {"proxy"}
        if lacking:
            raise IncompatibleError(
                f"{recipe.place('regularizers')}: {term.name!r} needs {_and(needs)}; method "
                f"{recipe.method.name!r} provides {_and(method.provides) or 'nothing'}. "
                f"Remove it or choose another method."
            )
        if "proxy" in needs and recipe.proxies is None:
            raise IncompatibleError(
                f"{recipe.place('regularizers')}: {term.name!r} needs a pool of trained networks; "
                f'add proxies = {{ backbone = "resnet18", count = 3, epochs = 5 }}'
            )
    if method.reads_proxies and recipe.proxies is None:
        raise IncompatibleError(
            f"{recipe.place('method')}: this setting of {recipe.method.name!r} needs a pool of "
            f'trained networks; add proxies = {{ backbone = "convnet", count = 1, epochs = 20 }}'
        )


def check_synthetic(recipe: Recipe) -> None:
    """Refuse what does not go together: whitened pixels in [0, 1], a bound that binds nothing.

    Raises:
        IncompatibleError: both are asked for.
    """
    spec = recipe.synthetic
    if spec.bound is not None and spec.kind != "bound":
        raise IncompatibleError(
            f'{recipe.place("synthetic.bound")}: belongs to kind = "bound", not to '
            f"{spec.kind!r}; drop it"
        )
    if recipe.dataset.options.get("zca") and recipe.synthetic.space == "pixel":
        raise IncompatibleError(
            f'{recipe.place("synthetic.space")}: "pixel" does not go with dataset.zca; '
            f'choose space = "normalized"'
        )


def check_method(recipe: Recipe, method: Method, info: DataInfo, net: nn.Module) -> None:
    """Let the method refuse what it cannot do, and say where the recipe asks for it."""
    try:
        method.check(recipe.synthetic, info, net)
    except (RecipeError, IncompatibleError) as error:
        raise type(error)(f"{recipe.place('method')}: {error}") from error


def probe(make: Build, info: DataInfo, place: Place) -> nn.Module:
    """Build a network and pass two blank images through it, to see that the shapes fit.

    Raises:
        IncompatibleError: they do not, or its parts do not follow the backbone contract.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            net = make().eval()
        except IncompatibleError as error:
            raise IncompatibleError(f"{place}: {error}") from error
        images = torch.zeros(2, *info.shape)
        try:
            logits, features = net(images), embed(net, images)
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            shape = "x".join(map(str, info.shape))
            raise IncompatibleError(
                f"{place}: this network does not take {shape} images: {reason}"
            ) from error
    if logits.shape != (2, info.num_classes) or features.ndim != 2:
        raise IncompatibleError(
            f"{place}: gives {list(logits.shape)} logits and {list(features.shape)} features for "
            f"2 images of {info.num_classes} classes"
        )
    return net


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


def _and(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
