"""Write docs/reference/*.md from the docstrings and signatures of what is installed."""

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

from ddkit import plugins
from ddkit.data import DataInfo, Dataset, ImageSource
from ddkit.images.groups import Groups
from ddkit.method import Method
from ddkit.recipes import keys, reference, resolution
from ddkit.recipes.binding import json_schema
from ddkit.regularizer import Match, Regularizer
from ddkit.run import Run

FOLDER = Path(__file__).parent / "reference"
COMPONENTS = Path(resolution.__file__).parent / "components.json"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind, text in pages().items():
        (FOLDER / f"{kind}.md").write_text(text, encoding="utf-8")
    COMPONENTS.write_text(components(), encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the page of every kind, of built-in components only, and that of a recipe's keys."""
    own = {"recipe": keys.page(), "plugin-seam": seam()}
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


SEAM = (Method, Run, Match, Groups, Regularizer, DataInfo, Dataset, ImageSource)


def seam() -> str:
    """Return the page of the classes that plugins derive from or are handed."""
    lines = ["# The plugin seam", "", "Made from the docstrings by `python docs/reference.py`.", ""]
    for one in SEAM:
        lines += _class(one)
    return "\n".join(lines).rstrip() + "\n"


def _class(one: type) -> Iterator[str]:
    """Yield the section of a class: what it is, its fields, its methods; as its source has them."""
    (node,) = ast.parse(inspect.getsource(one)).body
    assert isinstance(node, ast.ClassDef)
    summary, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
    yield from (f"## `{one.__module__}.{one.__name__}`", "", _line(summary), "")
    text = "" if rest.startswith("Attributes:") else rest.partition("\n\nAttributes:")[0]
    text = "" if text.startswith("Raises:") else text.partition("\n\nRaises:")[0]
    if text:
        yield from (_line(text), "")
    fields = list(_fields(node, keys.meanings(one)))
    if fields:
        yield from ("| field | type | meaning |", "|---|---|---|")
        yield from (f"| `{n}` | `{t.replace('|', chr(92) + '|')}` | {m} |" for n, t, m in fields)
        yield ""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and _public(part) and "property" not in _marks(part):
            yield from _method(part)


def _fields(node: ast.ClassDef, told: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and meaning of each field and property of a class."""
    for part, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            name, written = part.target.id, ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                written = _line(str(after.value.value))
            yield name, ast.unparse(part.annotation), written or _line(told.get(name, ""))
        elif isinstance(part, ast.FunctionDef) and _public(part) and "property" in _marks(part):
            returns = "" if part.returns is None else ast.unparse(part.returns)
            yield part.name, returns, _line(ast.get_docstring(part) or "")


def _method(node: ast.FunctionDef) -> Iterator[str]:
    mark = "abstract " if "abstractmethod" in _marks(node) else ""
    returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    yield from (f"### {mark}`{node.name}({ast.unparse(node.args)}){returns}`", "")
    text = ast.get_docstring(node)
    if text:
        yield from ("```text", text, "```", "")


def _public(node: ast.FunctionDef) -> bool:
    return not node.name.startswith("_")


def _marks(node: ast.FunctionDef) -> set[str]:
    return {ast.unparse(mark) for mark in node.decorator_list}


def _line(text: str) -> str:
    """Return a text on one line, in Markdown, its first letter a capital."""
    line = " ".join(text.split()).replace("``", "`")
    return line[:1].upper() + line[1:]


if __name__ == "__main__":
    main()
