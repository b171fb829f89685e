"""``ddkit list`` and ``ddkit plugins``: what there is to compose."""

from __future__ import annotations

from itertools import chain
from typing import Any

import click

from ddkit.cli import options, screen
from ddkit.cli.recipes import FILES, list_protocols, show_one
from ddkit.cli.recipes import list_ as list_recipes
from ddkit.errors import PluginError
from ddkit.plugins import KINDS


@click.command("list")
@click.argument("kind", type=click.Choice([*KINDS, "sections", *FILES]))
@click.argument("name", required=False)
@options.as_json
@click.pass_context
def list_(context: click.Context, kind: str, name: str | None, as_json: bool) -> None:
    """List what can stand in a recipe; with NAME, its options.

    Sections are those of a recipe that ddkit itself reads, with their keys. Recipes and protocols
    are listed as well; with NAME, what its file says.

    \b
    Example:
      ddkit list methods dm
    """
    if kind in FILES:
        if name is not None:
            show_one(kind, name, as_json)
        elif kind == "recipes":
            context.invoke(list_recipes, as_json=as_json)
        else:
            list_protocols(as_json)
        return
    if kind == "sections":
        _list_sections(name, as_json)
        return
    from ddkit.recipes import reference

    registry = getattr(options.load_plugins(), kind)
    chosen = registry
    if name is not None:
        component, _ = registry.resolve(name)
        chosen = {name: component}
    rows = []
    for own, part in chosen.items():
        try:
            rows.append(reference.facts(kind, own, part))
        except PluginError as error:
            words = f"{own!r} of plugin {part.plugin} {error}"
            if name is not None:
                raise PluginError(words) from error
            screen.note(f"warning: {words}")
    if as_json:
        screen.data(rows)
    elif name is not None:
        _print_one(rows[0], reference.details(chosen[name]))
    else:
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            screen.result(f"{row['name']:<{width}}  {row['summary']}")


def _list_sections(name: str | None, as_json: bool) -> None:
    """List the sections of a recipe, or the keys of one; nothing here imports torch."""
    from ddkit.recipes import keys

    chosen = keys.sections() if name is None else (name,)
    rows = [{"name": n, "summary": keys.summary(n)} for n in chosen]
    if as_json:
        told = [row | {"keys": [k._asdict() for k in keys.keys(row["name"])]} for row in rows]
        screen.data(told)
    elif name is None:
        for row in rows[1:]:
            screen.result(f"{row['name']:<14}{row['summary']}")
    else:
        screen.result(f"{name}: {rows[0]['summary']}\n\nkeys:")
        for key in keys.keys(name):
            default = key.default if key.default == "required" else f"default {key.default}"
            screen.result(f"  {key.name}: {key.type}; {default}\n      {key.meaning}")
        if name in keys.PARTS:
            screen.result(f"\nand the options of the component: {keys.PARTS[name]} NAME")


def _print_one(row: dict[str, Any], details: str) -> None:
    screen.result(f"{row['name']}: {row['summary']}  ({row['plugin']})")
    if details:
        screen.result(f"\n{details}")
    for word in ("provides", "requires"):
        if word in row:
            screen.result(f"\n{word}: {', '.join(row[word]) or 'nothing'}")
    screen.result("\noptions:" if row["options"] else "\nno options")
    for option in row["options"]:
        default = "required" if option["required"] else f"default {option['default']!r}"
        screen.result(f"  {option['name']}: {option['type']}; {default}")


@click.command()
@options.as_json
def plugins(as_json: bool) -> None:
    """List the installed plugins: distribution, version, status and what each provides.

    \b
    Example:
      ddkit plugins --json
    """
    loaded = options.load_plugins()
    rows: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        for name, part in getattr(loaded, kind).items():
            row = rows.setdefault(part.plugin, {"status": "loaded", "provides": {}})
            row["provides"].setdefault(kind, []).append(name)
        for plugin in chain(*getattr(loaded, kind).clashes.values()):
            rows.setdefault(plugin, {"status": "loaded", "provides": {}})
    for failure in loaded.failures:
        rows[failure.plugin] = {"status": f"failed: {failure.reason}", "provides": {}}
    listed = []
    for plugin, row in sorted(rows.items()):
        version = _version(plugin.partition(":")[0])
        listed.append({"plugin": plugin, "version": version, **row})
    for registry in (getattr(loaded, kind) for kind in KINDS):
        for name in registry.clashes:
            screen.note(f"warning: {registry.clash(name)}")
    if as_json:
        screen.data(listed)
        return
    names = [f"{row['plugin']} {row['version']}" for row in listed]
    width = max(map(len, names), default=0)
    for name, row in zip(names, listed, strict=True):
        provides = "; ".join(f"{k}: {', '.join(v)}" for k, v in row["provides"].items())
        screen.result(f"{name:<{width}}  {provides or row['status']}")


def _version(distribution: str) -> str:
    """Return the version of a distribution, as far as its records tell."""
    from importlib import metadata

    try:
        return metadata.version(distribution) or "?"
    except (metadata.PackageNotFoundError, KeyError, TypeError, ValueError):  # damaged records
        return "?"
