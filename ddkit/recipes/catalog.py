"""The recipes and protocols that ship with the package, found installed or in a checkout."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ddkit.errors import RecipeError, near

PROTOCOLS = "protocols"


class Facts(NamedTuple):
    """What a shipped recipe is told apart by, as its file says."""

    method: str
    dataset: str
    ipc: int
    regularizers: tuple[str, ...]


def folder() -> Path:
    """Return the folder of shipped recipes.

    A wheel holds it as ``ddkit/recipes/shipped``; an editable install does not see force-included
    files, so there it is ``recipes/`` beside the package.
    """
    inside = Path(__file__).parent / "shipped"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


def recipes() -> dict[str, Path]:
    """Return the shipped recipes by name, the file name without its ending.

    Each lies in the folder of its method; the folder of protocols is none.
    """
    return _by_name(p for p in folder().glob("*/*.toml") if p.parent.name != PROTOCOLS)


def protocols() -> dict[str, Path]:
    """Return the evaluation protocols by name."""
    return _by_name((folder() / PROTOCOLS).glob("*.toml"))


def _by_name(files: Iterable[Path]) -> dict[str, Path]:
    found = {p.stem: p for p in files}
    return {name: found[name] for name in sorted(found)}


def title(path: Path) -> str:
    """Return the first line of a recipe or protocol, without its mark."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def facts(path: Path) -> Facts:
    """Return what the shipped recipe at `path` is told apart by. Its parts are not checked."""
    table = settings(path)
    return Facts(
        _name(table["method"]),
        _name(table["dataset"]),
        table["synthetic"]["ipc"],
        tuple(_name(r) for r in table.get("regularizers", ())),
    )


def settings(path: Path) -> dict[str, Any]:
    """Return what a shipped file says, parsed but not checked."""
    import tomllib  # most listings need no more than names and titles

    return tomllib.loads(path.read_text(encoding="utf-8"))


def _name(part: str | dict[str, Any]) -> str:
    return part if isinstance(part, str) else part["name"]


def find_recipe(name_or_path: Path | str) -> Path:
    """Return the file for a path or a shipped name.

    Raises:
        RecipeError: there is neither; near names are suggested.
    """
    path = Path(name_or_path)
    if os.path.isfile(path):  # noqa: PTH113 - raises nothing where a parent may not be read
        return path
    names = recipes()
    if str(name_or_path) in names:
        return names[str(name_or_path)]
    if os.path.isdir(path):  # noqa: PTH112
        raise RecipeError(f"{path}: is a folder; give a recipe file")
    if os.path.exists(path):  # noqa: PTH110
        raise RecipeError(f"{path}: is a pipe or a device; give a recipe file")
    hint = near(path.stem, names) or "; `ddkit recipes list` shows the shipped ones"
    raise RecipeError(f"{name_or_path}: no such file, and no shipped recipe of that name{hint}")
