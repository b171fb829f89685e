"""Components described from their own docstrings and signatures: for `ddkit list` and the docs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ddkit.plugins import Component, Registry
from ddkit.recipes.binding import Option, describe, plain, schema

GIVEN = {"methods": 0, "regularizers": 0, "backbones": 1, "datasets": 1}
"""Leading parameters that ddkit gives itself: `info` to backbones, `root` to datasets."""


def options(kind: str, component: Component) -> list[Option]:
    """Return the options that a recipe may give."""
    return list(schema(component.factory).values())[GIVEN[kind] :]


def summary(component: Component) -> str:
    """Return the first sentence of the factory's docstring, on one line."""
    text = inspect.getdoc(component.factory) or ""
    return " ".join(text.partition("\n\n")[0].split())


def details(component: Component) -> str:
    """Return the docstring after its first paragraph."""
    return (inspect.getdoc(component.factory) or "").partition("\n\n")[2]


def facts(kind: str, name: str, component: Component) -> dict[str, Any]:
    """Return everything of one component, for JSON."""
    given = options(kind, component)
    return {
        "name": name,
        "plugin": component.plugin,
        "summary": summary(component),
        "options": [
            {"name": o.name, "type": describe(o.hint), "required": o.required}
            | ({} if o.required else {"default": plain(o.default)})
            for o in given
        ],
    } | _contract(component)


def _contract(component: Component) -> dict[str, list[str]]:
    """Return the class attributes by which methods and regularizers find each other."""
    names = ("provides", "requires")
    found = {n: getattr(component.factory, n, None) for n in names}
    return {n: sorted(v) for n, v in found.items() if isinstance(v, frozenset | set)}


def page(kind: str, registry: Registry) -> str:
    """Return the Markdown page of one kind."""
    lines = [f"# {kind.capitalize()}", "", _INTRODUCTION, ""]
    for name, component in registry.items():
        lines += _section(kind, name, component)
    return "\n".join(lines).rstrip() + "\n"


_INTRODUCTION = "Made from the components' own docstrings by `python docs/reference.py`."


def _section(kind: str, name: str, component: Component) -> Iterator[str]:
    title = f"{name}<model>" if name.endswith("/") else name
    yield from (f"## `{title}`", "", summary(component), "")
    text = details(component)
    if text:
        yield from ("```text", text, "```", "")
    for word, fields in _contract(component).items():
        yield from (f"{word.capitalize()}: {', '.join(fields) or 'nothing'}.", "")
    given = options(kind, component)
    if given:
        yield from ("| option | type | default |", "|---|---|---|")
        for o in given:
            default = "required" if o.required else f"`{_toml(o.default)}`"
            yield f"| `{o.name}` | {describe(o.hint).replace('|', chr(92) + '|')} | {default} |"
        yield ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else "none" if value is None else str(value)
