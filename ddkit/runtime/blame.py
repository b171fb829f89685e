"""Whose fault an error is: told in one line where a third party's plugin is to blame."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from ddkit.errors import BrokenPluginError, ContractError, DDKitError, PluginError
from ddkit.plugins import BUILTIN, Component, Plugins, Registry
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import judging
from ddkit.recipes.sections import EvalSpec, Part

Used = tuple[str, str, Component]
"""Kind, name and component of a part that a recipe names."""


@contextmanager
def blamed(used: Iterable[Used]) -> Iterator[None]:
    """Tell in one line what a third party's plugin does wrong inside the block.

    Raises:
        BrokenPluginError: naming part, plugin and package.
    """
    try:
        yield
    except DDKitError:
        raise
    except Exception as error:
        broken = told(error, used)
        if broken is None:
            raise
        raise broken from error


def told(error: BaseException, used: Iterable[Used]) -> DDKitError | None:
    """Return `error` as its plugin's, in one line, where a third party's plugin is to blame."""
    found = _culprit(error, used)
    if found is None:
        return None
    kind, name, component = found
    what = f": {error}" if isinstance(error, ContractError) else f" raised {first_line(error)}"
    rest = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    return BrokenPluginError(
        f"the {kind} {name!r} of plugin {component.plugin} ({release(component)}){what}{rest}"
    )


def _culprit(error: BaseException, parts: Iterable[Used]) -> Used | None:
    """Return the part of the recipe whose contract is broken.

    Else the one whose package the innermost frame of a third party is in.
    """
    theirs = [used for used in parts if used[2].distribution != BUILTIN]
    if isinstance(error, ContractError):
        own = (u for u in theirs if u[0] == error.kind and error.name in ("", u[1]))
        return next(own, None)
    found: Used | None = None
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = _package(frame.f_globals.get("__name__"))
        for used in theirs:
            factory = used[2].factory
            if _package(getattr(factory, "__module__", None)) != package:
                continue
            if isinstance(factory, type) and isinstance(frame.f_locals.get("self"), factory):
                return used if found is None or found[2].plugin == used[2].plugin else found
            found = found or used  # of several in a package, the one whose method it was
    return found


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def release(component: Component) -> str:
    """Return the package that a component comes from, with its version where that is known."""
    try:
        return f"{component.distribution} {version(component.distribution)}"
    except PackageNotFoundError:
        return component.distribution


def used_parts(recipe: Recipe, plugins: Plugins, judges: bool = True) -> Iterator[Used]:
    """Yield kind, name and component of all that a recipe names, its pool and judges included."""
    named = [("method", plugins.methods, recipe.method)]
    named += [("regularizer", plugins.regularizers, part) for _, part in recipe.regularizers]
    networks = [recipe.backbone]
    networks += [] if recipe.proxies is None else [recipe.proxies.backbone]
    named += [("backbone", plugins.backbones, part) for part in networks]
    named.append(("dataset", plugins.datasets, recipe.dataset))
    for kind, registry, part in named:
        yield from used_part(kind, registry, part)
    if judges:
        yield from used_judges(recipe.eval, plugins)


def used_judges(spec: EvalSpec, plugins: Plugins) -> Iterator[Used]:
    """Yield the same of the judges, and of a teacher."""
    for _, part in judging(spec):
        yield from used_part("backbone", plugins.backbones, part)


def used_part(kind: str, registry: Registry, part: Part) -> Iterator[Used]:
    """Yield the same of one part; nothing where no one plugin provides its name."""
    try:
        yield kind, part.name, registry.resolve(part.name)[0]
    except PluginError:  # told where it was looked for
        return


def first_line(error: BaseException) -> str:
    """Return an error's kind and the first line of what it says."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
