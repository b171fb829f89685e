"""Recipe files, found and read: by path, or those that ship with the package."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ddkit import paths
from ddkit.errors import RecipeError, near, shown

PROTOCOLS = "protocols"
LARGEST = 2**20  # bytes of a recipe; those that ship have three thousand
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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
    path = paths.expanded(name_or_path, RecipeError)
    found = paths.look(path, RecipeError)
    if found is not None and stat.S_ISREG(found.st_mode):
        return path
    names = recipes()
    if str(name_or_path) in names:
        return names[str(name_or_path)]
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise RecipeError(f"{path}: is a folder; give a recipe file")
    if found is not None:
        raise RecipeError(f"{path}: is a pipe or a device; give a recipe file")
    hint = near(path.stem, names) or "; `ddkit recipes list` shows the shipped ones"
    raise RecipeError(f"{name_or_path}: no such file, and no shipped recipe of that name{hint}")


def read(path: Path, name: str) -> tuple[str, dict[str, Any]]:
    """Return the text of the recipe file at `path`, which goes by `name`, and its table.

    Raises:
        RecipeError: it cannot be read, is too large, no UTF-8 or no TOML.
    """
    name = shown(name)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise RecipeError(f"{name}: cannot be read: {error.strerror}") from None
    if len(raw) > LARGEST:
        raise RecipeError(f"{name}: not a TOML recipe: it has more than {LARGEST:,} bytes")
    import tomllib  # as above

    text = _decoded(raw, name)
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name}: not a TOML recipe: {error}") from None
    except RecursionError:
        raise RecipeError(f"{name}: not a TOML recipe: it is nested too deeply") from None
    except ValueError:  # which Python raises at 4300 digits
        raise RecipeError(f"{name}: not a TOML recipe: a number has too many digits") from None


def _decoded(raw: bytes, name: str) -> str:
    """Return the text of a file with any line ends, and with a byte-order mark or without."""
    if raw.startswith(_UTF16) or b"\0" in raw:
        kind = "UTF-16" if raw.startswith(_UTF16) else "not UTF-8"
        raise RecipeError(f"{name}: not a TOML recipe: it is {kind}; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"{name}: not a TOML recipe: line {line} is not UTF-8; save the file as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
