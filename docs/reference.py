"""Write docs/reference/*.md from the docstrings and signatures of what is installed."""

import json
from pathlib import Path

from ddkit import plugins
from ddkit.recipes import keys, reference, resolution
from ddkit.recipes.binding import json_schema

FOLDER = Path(__file__).parent / "reference"
COMPONENTS = Path(resolution.__file__).parent / "components.json"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind, text in pages().items():
        (FOLDER / f"{kind}.md").write_text(text, encoding="utf-8")
    COMPONENTS.write_text(components(), encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the page of every kind, of built-in components only, and that of a recipe's keys."""
    own = {"recipe": keys.page()}
    own |= {kind: reference.page(kind, registry) for kind, registry in builtin().items()}
    return own


def components() -> str:
    """Return the options of the built-in components as JSON, for checks that load no plugin."""
    told = {
        kind: {n: json_schema(c.factory, reference.GIVEN[kind]) for n, c in registry.items()}
        for kind, registry in builtin().items()
    }
    return json.dumps(told, indent=1) + "\n"


def builtin() -> dict[str, plugins.Registry]:
    """Return the built-in components by kind, whatever else is installed."""
    loaded = plugins.load()
    found = {}
    for kind in plugins.KINDS:
        parts = getattr(loaded, kind).items()
        own = {n: c for n, c in parts if c.distribution == plugins.BUILTIN}
        found[kind] = plugins.Registry(kind, own, [])
    return found


if __name__ == "__main__":
    main()
