"""Entry points to registries: one plugin at a time, so that a broken one costs only itself.

What reads the records of packages is imported where it is used: commands that load no plugin start
in a tenth of a second, of which it would take a fifth.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ddkit.errors import PluginError, near

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

    import pluggy

GROUP = "ddkit"
KINDS = ("methods", "regularizers", "backbones", "datasets")
BUILTIN = "ddkit"
OBJECT = "python:"  # begins the name of what is no plugin's, but an object given from Python
UNKNOWN = "unknown"  # stands for the name of a distribution that cannot say its own


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
    """The components of one kind by recipe name; a miss names near names and failed plugins.

    `clashes` are names that several plugins provide, and which: they are no one's, and only a
    recipe that uses one is refused.
    """

    def __init__(
        self,
        kind: str,
        parts: Mapping[str, Component],
        failures: list[Failure],
        clashes: Mapping[str, list[str]] | None = None,
    ):
        self.kind = kind
        self.clashes = clashes or {}
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
            PluginError: no plugin provides the name, or more than one does.
        """
        family, slash, model = name.partition("/")
        for own in (name, f"{family}/"):
            if own in self.clashes:
                raise PluginError(self.clash(own))
        if name in self._parts:
            return self._parts[name], {}
        if slash and model and f"{family}/" in self._parts:
            return self._parts[f"{family}/"], {"model": model}
        one = self.kind[:-1]
        if name.startswith(OBJECT):
            raise PluginError(
                f"the {one} {name!r} is an object that was given from Python; give it again there, "
                f"to ddkit.distill (dataset=, backbone=, proxies=) or ddkit.evaluate (dataset=, "
                f"archs=)"
            )
        hint = near(name, self._parts) or f"; there are: {', '.join(self._parts) or 'none'}"
        failed = "".join(f"\nplugin {f.plugin} did not load: {f.reason}" for f in self._failures)
        raise PluginError(f"no {one} is called {name!r}{hint}{failed}")

    def clash(self, name: str) -> str:
        """Return the words for a name that several plugins provide."""
        owners = " and ".join(self.clashes[name])
        return (
            f"the {self.kind[:-1]} {name!r} is provided by both {owners}; uninstall one of them, "
            f"or name the distributions that may load in DDKIT_LOAD_PLUGINS"
        )


@dataclass(frozen=True)
class Plugins:
    """Everything that loaded, by kind, and everything that did not."""

    methods: Registry
    regularizers: Registry
    backbones: Registry
    datasets: Registry
    failures: list[Failure] = field(default_factory=list)


def load() -> Plugins:
    """Load every installed plugin; what one prints goes to standard error.

    ``DDKIT_LOAD_PLUGINS=a,b`` limits third-party plugins to those distributions (empty: built-ins
    only); ``DDKIT_STRICT_PLUGINS=1`` turns a failing plugin, or a clash of names, into an error.

    Raises:
        PluginError: if strict, a plugin fails or two provide one name.
    """
    import pluggy

    from ddkit import hookspecs

    manager = pluggy.PluginManager("ddkit")
    manager.add_hookspecs(hookspecs)
    failures: list[Failure] = []
    with contextlib.redirect_stdout(sys.stderr):
        for distribution, entry in _entries(failures):
            name = f"{distribution}:{entry.name}"
            try:
                manager.register(entry.load(), name)
                manager.check_pending()
            except (Exception, SystemExit) as error:  # whatever a stranger's import may raise
                if manager.has_plugin(name):
                    manager.unregister(name=name)
                failures.append(Failure(name, _reason(error)))
        registries = {kind: _collect(manager, kind, failures) for kind in KINDS}
    if os.environ.get("DDKIT_STRICT_PLUGINS") == "1":
        if failures:
            raise PluginError(f"plugin {failures[0].plugin} did not load: {failures[0].reason}")
        for registry in registries.values():
            for name in registry.clashes:
                raise PluginError(registry.clash(name))
    return Plugins(**registries, failures=failures)


def _collect(manager: pluggy.PluginManager, kind: str, failures: list[Failure]) -> Registry:
    """Ask every registered plugin for its components of one kind."""
    owners: dict[str, list[Component]] = {}
    for impl in getattr(manager.hook, f"register_{kind}").get_hookimpls():
        try:
            provided = _provided(impl.function(), kind)
        except (Exception, SystemExit) as error:
            failures.append(Failure(impl.plugin_name, _reason(error)))
            continue
        distribution = impl.plugin_name.rpartition(":")[0]
        for name, factory in provided.items():
            owners.setdefault(name, []).append(Component(factory, impl.plugin_name, distribution))
    parts = {name: own[0] for name, own in owners.items() if len(own) == 1}
    clashes = {n: [c.plugin for c in own] for n, own in sorted(owners.items()) if len(own) > 1}
    return Registry(kind, parts, failures, clashes)


def only_builtin() -> bool:
    """Whether no plugin of another package would be loaded, nor fail; loads none."""
    failures: list[Failure] = []
    return all(name == BUILTIN for name, _ in _entries(failures)) and not failures


def _provided(value: Any, kind: str) -> dict[str, Callable[..., Any]]:
    """Return what a hook gave, if it is what a hook must give.

    Raises:
        PluginError: it is not.
    """
    must = f"register_{kind} must return a dict of names to factories"
    if not isinstance(value, Mapping):
        raise PluginError(f"{must}, not a value of type {type(value).__name__}")
    provided = dict(value)
    for name, factory in provided.items():
        if not isinstance(name, str) or not name or not callable(factory):
            raise PluginError(f"{must}, not {name!r} to a value of type {type(factory).__name__}")
    return provided


def _entries(failures: list[Failure]) -> list[tuple[str, EntryPoint]]:
    """Return the plugins that may load, each with its distribution's name.

    A module that is named twice counts once: an interrupted upgrade leaves a second record of a
    distribution behind. A record that cannot be read is a failure, of its distribution alone.
    """
    from importlib.metadata import distributions

    found: dict[str, tuple[str, EntryPoint]] = {}
    nameless = []
    for distribution in distributions():
        try:
            entries = list(distribution.entry_points.select(group=GROUP))
        except Exception as error:  # whatever a stranger's file may hold
            if _may_load(name := _name(distribution)):
                reason = f"its entry_points.txt cannot be read: {_reason(error)}"
                failures.append(Failure(name or UNKNOWN, reason))
            continue
        name = _name(distribution) if entries else ""
        if not name:
            nameless += entries
        elif _may_load(name):
            for entry in entries:
                found.setdefault(entry.value, (name, entry))
    if _may_load(""):
        reason = "its distribution's METADATA cannot be read"
        lost = sorted({e.name for e in nameless if e.value not in found})
        failures += [Failure(f"{UNKNOWN}:{name}", reason) for name in lost]
    chosen = {f"{name}:{entry.name}": (name, entry) for name, entry in reversed(found.values())}
    return sorted(chosen.values(), key=lambda own: (own[0], own[1].name))


def _name(distribution: Distribution) -> str:
    """Return a distribution's name; of one that cannot say it, nothing."""
    try:
        name: object = distribution.metadata["Name"]
    except Exception:  # as above
        return ""
    return name if isinstance(name, str) else ""


def _may_load(distribution: str) -> bool:
    allowed = os.environ.get("DDKIT_LOAD_PLUGINS")
    names = [BUILTIN, *(n.strip() for n in (allowed or "").split(",") if n.strip())]
    return allowed is None or distribution in names


def _reason(error: BaseException) -> str:
    """Return one line on what a stranger's code raised."""
    kind = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
    try:
        said = str(error)
    except Exception:  # an error that cannot say itself
        said = ""
    return f"{kind}{said}".splitlines()[0].rstrip(": ")[:300]
