"""The order of the house, checked on the syntax tree of every file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

ORDER = (
    *("errors", "hookspecs", "__init__", "plugins", "place", "options", "reference", "shipped"),
    *("home", "streams", "data", "whitening", "groups", "augment", "specs", "recipe"),
    *("resolution", "report", "runtime", "real", "formation", "synthetic", "backbone", "fresh"),
    *("train", "nets", "regularizer", "method", "divergence", "run", "gradients", "sweep"),
    *("requirements", "checkpoint", "compose", "plan", "pictures", "distillation", "teacher"),
    *("evaluation", "api", "tiny", "testing", "cli", "__main__"),
)
"""Every module imports only modules before it."""

CORE = sorted((ROOT / "ddkit").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py")) + sorted((ROOT / "examples").rglob("*.py"))
HEAVY = {"torchvision", "timm", "sklearn"}


def key(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """Return the module of the house that a core file belongs to; `cli` is one."""
    first = path.relative_to(ROOT / "ddkit").parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, late: bool = True) -> Iterator[str]:
    """Yield the dotted names that a module imports, those for type checkers left out.

    With `late`, also what functions import. ``from a import b`` yields ``a.b``.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(ast.Module(node.orelse, []), late)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, late)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def house(names: Iterator[str]) -> Iterator[str]:
    """Yield the modules of the house among imported names."""
    for name in names:
        parts = name.split(".")
        if parts[0] == "ddkit":
            yield parts[1] if len(parts) > 1 and parts[1] in ORDER else "__init__"


def test_every_core_file_has_its_place_in_the_order():
    unknown = {module(p) for p in CORE} - set(ORDER)
    assert not unknown, f"put into ORDER: {unknown}"


@pytest.mark.parametrize("path", [p for p in CORE if module(p) != "cli"], ids=key)
def test_core_imports_only_what_stands_above_it(path: Path):
    own = ORDER.index(module(path))
    late = module(path) not in ("api", "__init__")
    below = {m for m in house(imports(parsed(path), late)) if ORDER.index(m) >= own}
    assert not below, f"{module(path)} imports {below}, which stand below it"


@pytest.mark.parametrize("path", CORE, ids=key)
def test_core_never_imports_a_plugin(path: Path):
    taken = {name for name in imports(parsed(path)) if name.startswith("ddkit_")}
    assert not taken


@pytest.mark.parametrize("path", CORE, ids=key)
def test_only_the_progress_display_imports_rich(path: Path):
    if key(path) != "ddkit/cli/progress.py":
        assert not {n for n in imports(parsed(path)) if n.split(".")[0] == "rich"}


@pytest.mark.parametrize("path", PLUGINS, ids=key)
def test_plugins_import_public_core_and_their_own_package(path: Path):
    own = path.parent.name
    for name in imports(parsed(path)):
        parts = name.split(".")
        assert parts[:2] != ["ddkit", "cli"]
        if parts[0] == "ddkit":
            private = [p for p in parts[1:] if p.startswith("_") and p != "__version__"]
            assert not private, f"{name} is private"
        if parts[0].startswith("ddkit_"):
            assert parts[0] == own, f"{name} belongs to another plugin package"


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=key)
def test_large_libraries_are_imported_inside_the_factories_that_need_them(path: Path):
    taken = {n.split(".")[0] for n in imports(parsed(path), late=False)}
    assert not taken & HEAVY


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=key)
def test_nothing_is_unpickled_evaluated_or_seeded_by_the_clock(path: Path):
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("eval", "exec", "exit", "quit", "os._exit", "pickle.load")
        assert called not in ("pickle.loads", "torch.manual_seed", "torch.seed", "random.seed")
        if called == "torch.load":
            safe = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert safe.get("weights_only") == "True", f"line {node.lineno}"


@pytest.mark.parametrize("path", CORE, ids=key)
def test_core_asserts_nothing(path: Path):
    lines = [n.lineno for n in ast.walk(parsed(path)) if isinstance(n, ast.Assert)]
    assert not lines, "raise an error that says where, what and what to do"
