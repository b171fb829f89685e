"""What determines a set, as one hash, and in words where two runs differ in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from ddkit.recipes.recipe import Recipe

FREE = ("device", "checkpoint_seconds")  # of [runtime], what changes no result
NAMED = 4  # differing keys that are told


def identity(recipe: Recipe, data: str) -> str:
    """Return the hash of what determines the set: the resolved recipe and the data.

    The data is known by its own hash, wherever it lies now.
    """
    text = json.dumps([_deciding(recipe.table()), data], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def differing(kept: Mapping[str, Any], recipe: Recipe) -> str:
    """Return what a run whose recipe is the table `kept` has other than one of `recipe`."""
    table = recipe.table()
    what, found = "another recipe", list(_differences(_deciding(kept), _deciding(table)))
    if not found:
        what = "other data"
        found = list(_differences(kept.get("dataset"), table["dataset"], "dataset"))
    more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return what + (f" ({'; '.join(found[:NAMED] + more)})" if found else "")


def _deciding(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines the set, given the data, of a recipe's table."""
    kept = {k: v for k, v in table.items() if k not in ("eval", "dataset")}  # judges come after
    return kept | {"runtime": {k: v for k, v in table["runtime"].items() if k not in FREE}}


def _differences(theirs: Any, ours: Any, at: str = "") -> Iterator[str]:
    """Yield what differs between two tables, as ``key is this there, that here``."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in {**ours, **theirs}:
            here = f"{at}.{key}" if at else key
            yield from _differences(theirs.get(key), ours.get(key), here)
    elif theirs != ours:
        there, here = ("absent" if v is None else _short(v) for v in (theirs, ours))
        yield f"{at} is {there} there, {here} here"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
