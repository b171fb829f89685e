"""The order of the house, checked on the syntax tree of every file; see docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "errors",
        "paths",
        "options hookspecs backbone reporter findings",
        "plugins data",
        "recipes",
        "runtime",
        "runs",
        "images",
        "sets",
        "networks",
        "regularizer",
        "run",
        "method",
        "distillation evaluation",
        "diagnosis",
        "python",
        "api",
        "testing",
        "cli",
        "__main__",
    )
)
"""Doors and rooms from the ground up; a file imports lower floors, and its own room."""

ROOMS = (
    *("recipes", "runtime", "runs", "images", "sets", "networks", "distillation", "evaluation"),
    *("diagnosis", "python"),
)
TOOLBOX = {
    *("images.augment", "images.groups", "images.optimizers", "networks.fresh", "networks.pool"),
    *("networks.training", "networks.gradients", "recipes.sections", "runtime.storage"),
}
"""What plugins may import from rooms, apart from doors; `docs/plugins.md` lists it."""

CORE = sorted(p for p in (ROOT / "ddkit").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py")) + sorted((ROOT / "examples").glob("*/**/*.py"))
HEAVY = {"torchvision", "timm", "sklearn"}
VAGUE = {"utils", "helpers", "common", "misc", "base"}


def key(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """Return a core file's dotted name after ``ddkit.``; of a package's face, ``room.__init__``."""
    return ".".join(path.relative_to(ROOT / "ddkit").with_suffix("").parts)


def home(name: str) -> str:
    """Return the door or room that a dotted name of the house belongs to."""
    return name.split(".")[0]


def floor(name: str) -> int:
    """Return the floor of a door or room, from 0."""
    return next(i for i, names in enumerate(FLOORS) if name in names)


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


MODULES = {module(p) for p in CORE}


def house(names: Iterator[str]) -> Iterator[str]:
    """Yield the modules of the house among imported names; of a face's own names, its face."""
    for name in names:
        parts = name.split(".")
        if parts[0] != "ddkit":
            continue
        candidates = (".".join(parts[1:n]) for n in range(len(parts), 1, -1))
        found = next((c for c in candidates if c in MODULES), "")
        yield found or ".".join([*parts[1:-1], "__init__"])


def test_every_core_file_has_a_floor():
    doors = {home(module(p)) for p in CORE} - {"__init__"}
    known = frozenset().union(*FLOORS)
    assert doors == known, f"not in FLOORS: {doors - known}; not there: {known - doors}"


@pytest.mark.parametrize("path", [p for p in CORE if module(p) != "__init__"], ids=key)
def test_a_core_file_imports_lower_floors_and_its_own_room_alone(path: Path):
    own = home(module(path))
    for name in house(imports(parsed(path))):
        if name == "__init__":
            assert own in ("cli", "__main__"), "only the command line asks the face"
            continue
        theirs = home(name)
        assert theirs == own or floor(theirs) < floor(own), f"{module(path)} imports {name}"


def test_no_import_runs_in_a_circle():
    graph = {module(p): set(house(imports(parsed(p)))) - {module(p)} for p in CORE}
    graph.pop("__init__")
    tuple(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_three_to_nine_files_and_its_face_is_one_docstring(room: str):
    files = [p for p in (ROOT / "ddkit" / room).glob("*.py") if p.name != "__init__.py"]
    assert 3 <= len(files) <= 9, [p.name for p in files]
    (only,) = parsed(ROOT / "ddkit" / room / "__init__.py").body
    assert isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)


def test_at_most_sixteen_files_at_the_front_and_no_vague_names():
    front = list((ROOT / "ddkit").glob("*.py"))
    assert len(front) <= 16, sorted(p.name for p in front)
    assert not {p.stem for p in CORE} & VAGUE


@pytest.mark.parametrize(
    "name",
    [
        *("ddkit", "ddkit.errors", "ddkit.paths", "ddkit.options", "ddkit.hookspecs"),
        *("ddkit.plugins", "ddkit.findings", "ddkit.diagnosis.environment"),
        *(f"ddkit.{module(p)}" for p in CORE if home(module(p)) in ("recipes", "cli")),
    ],
)
def test_what_reads_recipes_and_commands_loads_no_torch(name: str):
    if name == "ddkit.cli.progress":
        pytest.skip("draws what torch computed; loaded with the first task")
    script = (
        "import sys, importlib as i; i.import_module(sys.argv[1]); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, name.removesuffix(".__init__")]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


@pytest.mark.parametrize("room", [*ROOMS, "cli"])
def test_tests_mirror_the_rooms(room: str):
    files = {p.stem for p in (ROOT / "ddkit" / room).glob("*.py")} | {room}
    tested = {p.stem.removeprefix("test_") for p in (ROOT / "tests" / room).glob("test_*.py")}
    assert tested and tested <= files, f"no such file in the room: {tested - files}"


@pytest.mark.parametrize("path", CORE, ids=key)
def test_core_never_imports_a_plugin(path: Path):
    taken = {name for name in imports(parsed(path)) if name.startswith("ddkit_")}
    assert not taken


@pytest.mark.parametrize("path", CORE, ids=key)
def test_progress_and_the_table_alone_import_rich_and_the_screen_alone_prints(path: Path):
    if key(path) not in ("ddkit/cli/progress.py", "ddkit/cli/table.py"):
        assert not {n for n in imports(parsed(path)) if n.split(".")[0] == "rich"}
    if key(path) != "ddkit/cli/screen.py":
        called = {ast.unparse(n.func) for n in ast.walk(parsed(path)) if isinstance(n, ast.Call)}
        assert not called & {"print", "click.echo", "click.secho", "sys.stdout.write"}


@pytest.mark.parametrize("path", PLUGINS, ids=key)
def test_plugins_import_doors_the_toolbox_and_their_own_package(path: Path):
    own, doors = path.parent.name, {p.stem for p in (ROOT / "ddkit").glob("*.py")}
    doors -= {"__main__", "api", "plugins", "testing"}
    tree = parsed(path)
    for name in house(imports(tree)):
        assert name in doors | TOOLBOX, f"{name} is neither door nor toolbox"
    for name in imports(tree):
        package = name.split(".")[0]
        assert not package.startswith("ddkit_") or package == own, f"{name} is another plugin's"


def test_the_docs_list_the_toolbox():
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `ddkit.")]
    assert {row.removeprefix("ddkit.") for row in rows} == TOOLBOX


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
