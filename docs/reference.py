"""Write docs/reference/*.md from the docstrings and signatures of what is installed."""

from pathlib import Path

from ddkit import plugins
from ddkit.recipes import keys, reference

FOLDER = Path(__file__).parent / "reference"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind, text in pages().items():
        (FOLDER / f"{kind}.md").write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the page of every kind, of built-in components only, and that of a recipe's keys."""
    loaded = plugins.load()
    own = {"recipe": keys.page()}
    for kind in plugins.KINDS:
        registry = getattr(loaded, kind)
        parts = {n: c for n, c in registry.items() if c.distribution == plugins.BUILTIN}
        own[kind] = reference.page(kind, plugins.Registry(kind, parts, []))
    return own


if __name__ == "__main__":
    main()
