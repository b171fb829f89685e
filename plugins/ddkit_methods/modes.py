"""Options that belong to one value of another option, as momentum does to SGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddkit.errors import RecipeError

Modes = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Of an option, by value: the options that go with that value, and their defaults there."""


def check_modes(holder: Any, modes: Modes) -> None:
    """Refuse options of `holder` that were given (are not None) for a mode it is not in.

    Raises:
        RecipeError: naming the option and where it belongs.
    """
    for option, values in modes.items():
        chosen = getattr(holder, option)
        for name in sorted({name for own in values.values() for name in own}):
            owners = [value for value, own in values.items() if name in own]
            if getattr(holder, name) is not None and chosen not in owners:
                raise RecipeError(
                    f"{name} belongs to {option} = {' or '.join(map(repr, owners))}, "
                    f"not to {chosen!r}; drop it"
                )


def of_mode(holder: Any, modes: Modes, name: str) -> float:
    """Return the option `name` of `holder`: as given, else its default in the chosen mode, or 0."""
    given = getattr(holder, name)
    chosen = (values[getattr(holder, option)] for option, values in modes.items())
    return next((own[name] for own in chosen if name in own), 0.0) if given is None else given
