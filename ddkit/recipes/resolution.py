"""Names and options of a recipe against the registries; every option stated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddkit.errors import DDKitError, PluginError, RecipeError
from ddkit.plugins import BUILTIN, Component, Plugins, Registry, only_builtin
from ddkit.recipes.binding import Described, checked, defaults
from ddkit.recipes.place import Place
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import BackboneKeys, DatasetKeys, EvalSpec, Part, own_keys


def check_names(recipe: Recipe, plugins: Plugins) -> None:
    """Check all names and options against the registries, and report every problem at once."""
    given: list[tuple[Registry, Part, str, tuple[str, ...]]] = [
        (
            plugins.datasets,
            split_dataset(recipe.dataset, recipe.place("dataset"))[0],
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
            if registry is plugins.backbones:
                part, _ = split_backbone(part, recipe.place(path))
            component, options = resolve(registry, part, recipe.place(path))
            check_options(component, options, recipe.place(path), own)
        except (PluginError, RecipeError) as error:
            problems.append(error)
    if problems:
        lines = dict.fromkeys(line for p in problems for line in str(p).splitlines())
        raise type(problems[0])("\n".join(lines))


def shipped_components() -> Plugins:
    """Return the built-in components as `components.json` describes them: their options alone.

    That file is made by ``python docs/reference.py`` and held to the code by a test.
    """
    text = (Path(__file__).parent / "components.json").read_text(encoding="utf-8")
    kinds = {
        kind: {name: Component(Described(d), BUILTIN, BUILTIN) for name, d in parts.items()}
        for kind, parts in json.loads(text).items()
    }
    registries = {kind: Registry(kind, parts, []) for kind, parts in kinds.items()}
    return Plugins(**registries, failures=[])


def check_early(recipe: Recipe) -> None:
    """Tell mistakes that need no plugin to be loaded, and with it torch: in seconds less.

    Only where the built-in plugins are all there are; `check_names` looks again in any case.

    Raises:
        RecipeError, PluginError: as `check_names`.
    """
    if only_builtin():
        check_names(recipe, shipped_components())


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
    except PluginError as error:
        raise PluginError(f"{place}: plugin {component.plugin} {error}") from error


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


def split_backbone(part: Part, place: Place) -> tuple[Part, BackboneKeys]:
    """Return a backbone's part without the options that ddkit itself reads, and those options."""
    own, options = own_keys(BackboneKeys, part.options)
    return Part(part.name, options), BackboneKeys(**checked(BackboneKeys, own, place))


def split_dataset(part: Part, place: Place) -> tuple[Part, DatasetKeys]:
    """Return a dataset's part without the options that ddkit itself reads, and those options."""
    own, options = own_keys(DatasetKeys, part.options)
    return Part(part.name, options), DatasetKeys(**checked(DatasetKeys, own, place))
