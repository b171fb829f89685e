"""Networks given as factories or classes, under names by which recipes and sets know them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from ddkit.data import DataInfo, Dataset
from ddkit.errors import IncompatibleError, RecipeError
from ddkit.networks.digest import build_digest
from ddkit.networks.fresh import probe
from ddkit.plugins import OBJECT, Component, Plugins, Registry
from ddkit.recipes.place import Place, Source, told

Factory = Callable[..., nn.Module]
FILLED = ("info", "num_classes")  # parameters that are given what their name says


@dataclass
class Given:
    """Objects by the names that stand for them, in the order in which they were given."""

    networks: dict[str, Factory] = field(default_factory=dict)
    dataset: Dataset | None = None

    def network(self, factory: Any, what: str) -> str:
        """Return the name of `factory`; `what` is the argument that gave it.

        Raises:
            RecipeError: it makes no networks.
        """
        if isinstance(factory, nn.Module):
            kind = type(factory).__name__
            raise RecipeError(
                f"{what}: is one network; give what makes a new one, {kind} itself or a function "
                f"that returns one, since a run takes several of different random weights"
            )
        if not callable(factory):
            raise RecipeError(
                f"{what}: must be a name, a class or a function that returns a network, not "
                f"{told(factory)}"
            )
        name = plain = OBJECT + _name(factory)
        number = 2
        while self.networks.setdefault(name, factory) is not factory:
            name, number = f"{plain}#{number}", number + 1
        return name

    def plugins(self, loaded: Plugins, info: DataInfo | None = None) -> Plugins:
        """Return `loaded` with the objects among it.

        With `info` networks are built for it and known by what they compute; without, recipes that
        name them can be checked alone.

        Raises:
            IncompatibleError: a network does not take the images, or is no backbone.
        """
        networks = {
            name: Component(_maker(name, factory, info), "python", "python")
            for name, factory in self.networks.items()
        }
        datasets = {}
        if self.dataset is not None:
            name = OBJECT + self.dataset.info.name
            datasets[name] = Component(_giver(self.dataset), "python", "python")
        return replace(
            loaded,
            backbones=_extended(loaded.backbones, networks, loaded),
            datasets=_extended(loaded.datasets, datasets, loaded),
        )


def _extended(registry: Registry, parts: Mapping[str, Component], loaded: Plugins) -> Registry:
    return Registry(registry.kind, {**registry, **parts}, loaded.failures, registry.clashes)


def _name(factory: Factory) -> str:
    """Return ``module.Name``."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    named = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{named.__module__}.{named.__qualname__}"


def _maker(name: str, factory: Factory, info: DataInfo | None) -> Factory:
    """Return the factory as a plugin would have it, with the digest of what it builds an option.

    A recipe then records the digest, and one that records another is refused.
    """
    arguments = _arguments(factory, name)

    def build(info: DataInfo) -> nn.Module:
        net = factory(**{k: getattr(info, k, info) for k in arguments})
        if not isinstance(net, nn.Module):
            raise IncompatibleError(f"{name} returned {told(net)}, which is no nn.Module")
        return net

    known = ""
    if info is not None:
        bound = functools.partial(build, info)
        probe(bound, info, Place(Source(name)))
        known = build_digest(bound, info)

    def make(info: DataInfo, digest: str = known) -> nn.Module:
        if known and digest != known:
            raise IncompatibleError(
                f"{name} is another network than the one recorded: its digest is {known}, there "
                f"it is {digest}"
            )
        return build(info)

    make.__doc__ = factory.__doc__
    return make


def _arguments(factory: Factory, name: str) -> list[str]:
    """Return the parameters that are given: by name, or the only one without a default."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [p for p in parameters if p.kind in kinds]
    required = [p.name for p in named if p.default is p.empty]
    given = [p.name for p in named if p.name in FILLED]
    left = [n for n in required if n not in given]
    if len(left) == 1 and not given:
        return left
    if left:
        raise RecipeError(
            f"{name}: its parameters {', '.join(left)} have no default; take info, a DataInfo, or "
            f"num_classes"
        )
    return given


def _giver(data: Dataset) -> Callable[..., Dataset]:
    known = data.fingerprint()

    def give(root: Path, fingerprint: str = known) -> Dataset:
        """Data that was given as an object."""
        if fingerprint != known:
            raise IncompatibleError(
                f"the dataset {data.info.name} is not the one recorded: its fingerprint is "
                f"{known}, there it is {fingerprint}"
            )
        return data

    return cast("Callable[..., Dataset]", give)
