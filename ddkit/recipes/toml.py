"""What users write in TOML, to tables: recipe files, and ``key=value`` overrides."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

from ddkit.errors import RecipeError, shown
from ddkit.recipes.place import told

LARGEST = 2**20  # bytes; recipes that ship have three thousand
DEEPEST = 32  # tables in tables; recipes have four
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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


def copied(value: Any, name: str, depth: int = 0) -> Any:
    """Return a copy of a table; `name` is what it goes by in errors.

    Raises:
        RecipeError: it is nested too deeply, has a key that is no string, or no whole text.
    """
    if depth > DEEPEST:
        raise RecipeError(f"{name}: tables and lists are nested more than {DEEPEST} deep")
    if isinstance(value, Mapping):
        odd = next((k for k in value if not isinstance(k, str)), None)
        if odd is not None:
            raise RecipeError(f"{name}: the key {odd!r} must be a string")
        return {_whole(k, name): copied(v, name, depth + 1) for k, v in value.items()}
    if isinstance(value, str):
        return _whole(value, name)
    return [copied(v, name, depth + 1) for v in value] if isinstance(value, list) else value


def _whole(text: str, name: str) -> str:
    """Return `text`, which a recipe must be able to hold, and so a run folder and a set."""
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character: how Python reads names that are no UTF-8
        raise RecipeError(f"{name}: {told(text)} is not UTF-8, which recipes are") from None
    return text


def override(tree: dict[str, Any], item: str) -> str:
    """Apply ``key=value`` to `tree` and return the key, dotted; the value is TOML, else a string.

    Raises:
        RecipeError: it is not of that form, or leads through something that is not a table.
    """
    here = f"--set {shown(item if len(item) < 120 else f'{item[:100]} …')}"
    path, equals, _ = _whole(item, "--set").partition("=")
    path = path.strip()
    if not equals or not path:
        raise RecipeError(f"{here}: must look like key=value, as in seed=1")
    *parents, last = path.split(".")
    if not all(key.strip() for key in (*parents, last)):
        raise RecipeError(f"{here}: a name is empty between the dots of {told(path)}")
    if len(parents) > DEEPEST:
        raise RecipeError(f"{here}: leads more than {DEEPEST} tables deep")
    value = _value(typed(item), here)
    node: Any = tree
    for key in parents:
        node = _descend(node, key, here)
    if isinstance(node, list):
        node[_position(node, last, here)] = value
    else:
        node[last] = value
    return path


def typed(item: str) -> str:
    """Return the value of ``key=value`` as the user typed it."""
    return item.partition("=")[2].strip()


def _value(text: str, here: str) -> Any:
    """Return what `text` means: no option is a date, so that what looks like one is a string."""
    try:
        read = tomllib.loads(f"value = {text}")
    except RecursionError:
        raise RecipeError(f"{here}: is nested too deeply") from None
    except ValueError:
        return text
    value = read.pop("value")
    if read or isinstance(value, date | time):  # `read`: the text went on after a line end
        return text
    return copied(value, here)


def _descend(node: Any, key: str, here: str) -> Any:
    place: Any = key
    if isinstance(node, list):
        place = _position(node, key, here)
    else:
        node.setdefault(key, {})
    if isinstance(node[place], str):  # dataset = "digits", then --set dataset.resolution=8
        node[place] = {"name": node[place]}
    if not isinstance(node[place], dict | list):
        raise RecipeError(f"{here}: {told(key)} is not a table")
    return node[place]


def _position(node: list[Any], key: str, here: str) -> int:
    number = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else len(node)
    if number >= len(node):
        raise RecipeError(f"{here}: {told(key)} is no position in the list")
    return number
