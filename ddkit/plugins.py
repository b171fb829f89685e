"""Entry points to registries: one plugin at a time, so that a broken one costs only itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

import pluggy

from ddkit import hookspecs
from ddkit.errors import PluginError, near

GROUP = "ddkit"
KINDS = ("methods", "regularizers", "backbones", "datasets")
BUILTIN = "ddkit"


class Component(NamedTuple):
    """One thing a plugin provides: how to make it, and whose it is."""

    factory: Callable[..., Any]
    plugin: str
    distribution: str


class Failure(NamedTuple):
    """A plugin that did not load, and why."""

    plugin: str
    reason: str


class Registry(Mapping[str, Component]):
    """The components of one kind by recipe name; a miss names near names and failed plugins."""

    def __init__(self, kind: str, parts: Mapping[str, Component], failures: list[Failure]):
        self.kind = kind
        self._parts = dict(sorted(parts.items()))
        self._failures = failures

    def __getitem__(self, name: str) -> Component:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def resolve(self, name: str) -> tuple[Component, dict[str, str]]:
        """Return the component for `name`, and the options that the name itself carries.

        ``timm/resnet18`` belongs to the family ``timm/`` and carries ``model="resnet18"``.

        Raises:
            PluginError: no plugin provides the name.
        """
        if name in self._parts:
            return self._parts[name], {}
        family, slash, model = name.partition("/")
        if slash and model and f"{family}/" in self._parts:
            return self._parts[f"{family}/"], {"model": model}
        one = self.kind[:-1]
        hint = near(name, self._parts) or f"; there are: {', '.join(self._parts) or 'none'}"
        failed = "".join(f"\nplugin {f.plugin} did not load: {f.reason}" for f in self._failures)
        raise PluginError(f"no {one} is called {name!r}{hint}{failed}")


@dataclass(frozen=True)
class Plugins:
    """Everything that loaded, by kind, and everything that did not."""

    methods: Registry
    regularizers: Registry
    backbones: Registry
    datasets: Registry
    failures: list[Failure] = field(default_factory=list)


def load() -> Plugins:
    """Load every installed plugin.

    ``DDKIT_LOAD_PLUGINS=a,b`` limits third-party plugins to those distributions (empty: built-ins
    only); ``DDKIT_STRICT_PLUGINS=1`` turns a failing plugin into an error.

    Raises:
        PluginError: two plugins provide one name; or, if strict, a plugin fails.
    """
    manager = pluggy.PluginManager("ddkit")
    manager.add_hookspecs(hookspecs)
    failures: list[Failure] = []
    for entry in _wanted(entry_points(group=GROUP)):
        name = f"{_distribution(entry)}:{entry.name}"
        try:
            manager.register(entry.load(), name)
            manager.check_pending()
        except (Exception, SystemExit) as error:  # whatever a stranger's import may raise
            if manager.has_plugin(name):
                manager.unregister(name=name)
            failures.append(Failure(name, _reason(error)))
    loaded = collect(manager, failures)
    if failures and os.environ.get("DDKIT_STRICT_PLUGINS") == "1":
        raise PluginError(f"plugin {failures[0].plugin} did not load: {failures[0].reason}")
    return loaded


def collect(manager: pluggy.PluginManager, failures: list[Failure]) -> Plugins:
    """Ask every registered plugin for its components.

    Raises:
        PluginError: two plugins provide one name.
    """
    registries = {kind: _collect_kind(manager, kind, failures) for kind in KINDS}
    return Plugins(**registries, failures=failures)


def _collect_kind(manager: pluggy.PluginManager, kind: str, failures: list[Failure]) -> Registry:
    parts: dict[str, Component] = {}
    for impl in getattr(manager.hook, f"register_{kind}").get_hookimpls():
        try:
            provided = dict(impl.function())
        except Exception as error:
            failures.append(Failure(impl.plugin_name, _reason(error)))
            continue
        for name, factory in provided.items():
            if name in parts:
                raise PluginError(
                    f"the {kind[:-1]} {name!r} is provided by both {parts[name].plugin} and "
                    f"{impl.plugin_name}; uninstall one of them"
                )
            distribution = impl.plugin_name.partition(":")[0]
            parts[name] = Component(factory, impl.plugin_name, distribution)
    return Registry(kind, parts, failures)


def only_builtin() -> bool:
    """Whether no plugin of another package would be loaded; loads none."""
    return all(_distribution(e) == BUILTIN for e in _wanted(entry_points(group=GROUP)))


def _wanted(entries: Any) -> list[EntryPoint]:
    allowed = os.environ.get("DDKIT_LOAD_PLUGINS")
    chosen = sorted(entries, key=lambda e: (_distribution(e), e.name))
    if allowed is None:
        return chosen
    names = {n.strip() for n in allowed.split(",") if n.strip()} | {BUILTIN}
    return [e for e in chosen if _distribution(e) in names]


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
