"""A factory's typed signature is its option schema: read it, check against it, call it."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ddkit.errors import RecipeError, near
from ddkit.recipes.place import Place

LARGEST: dict[Any, tuple[str, float]] = {  # what tensors of float32 and int64 hold
    float: ("a finite number", 3.4e38),
    int: ("an integer that 64 bits hold", 2**63 - 1),
}
_MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """One option of a factory."""

    name: str
    hint: Any
    default: Any = _MISSING

    @property
    def required(self) -> bool:
        return self.default is _MISSING


def schema(factory: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of `factory` by name, positional-only given parameters left out."""
    target = factory.__init__ if inspect.isclass(factory) else factory
    holder = factory if dataclasses.is_dataclass(factory) else target
    hints = get_type_hints(holder, include_extras=True)
    options = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        field = getattr(factory, "__dataclass_fields__", {}).get(parameter.name)
        if field is not None and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        options[parameter.name] = Option(parameter.name, hints.get(parameter.name, Any), default)
    return options


def bind(
    factory: Callable[..., Any], options: Mapping[str, Any], place: Place, **given: Any
) -> Any:
    """Call `factory` with the user's `options` and what ddkit itself has `given`.

    Raises:
        RecipeError: an unknown, missing, mistyped or out-of-range option; one line for each.
    """
    return factory(**given, **checked(factory, options, place, given=given))


def checked(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    place: Place,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return `options` checked and converted by the signature of `factory`, without calling it."""
    known = {k: o for k, o in schema(factory).items() if k not in (given or {})}
    problems, values = [], {}
    for name, value in options.items():
        if name not in known:
            hint = near(name, known) or f"; there are: {', '.join(known) or 'none'}"
            problems.append(f"{place / name}: unknown option{hint}")
            continue
        try:
            values[name] = convert(value, known[name].hint, place / name)
        except RecipeError as error:
            problems.append(str(error))
    for name, option in known.items():
        if option.required and name not in options:
            problems.append(f"{place / name}: missing; give {describe(option.hint)}")
    if problems:
        raise RecipeError("\n".join(problems))
    return values


def defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the default value of every optional option."""
    return {k: o.default for k, o in schema(factory).items() if not o.required}


def convert(value: Any, hint: Any, place: Place) -> Any:
    """Return `value` as `hint` wants it.

    Raises:
        RecipeError: it is of another type or out of range.
    """
    bound: Any = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        bound = next((e for e in extras if hasattr(e, "__contains__")), None)
    kind = float if isinstance(value, float) else hint
    if isinstance(value, int | float) and kind in (int, float):
        words, largest = LARGEST[kind]
        if not abs(value) <= largest:  # nor is NaN
            raise RecipeError(f"{place}: must be {words}, at most {largest:g}, not {value!r}")
    result, fits = _as(value, hint, place)
    if not fits:
        raise RecipeError(f"{place}: must be {describe(hint)}, not {value!r}")
    if bound is not None and result is not None and result not in bound:
        raise RecipeError(f"{place}: must be {bound}, not {value!r}")
    return result


def _as(value: Any, hint: Any, place: Place) -> tuple[Any, bool]:
    origin = get_origin(hint)
    if hint is Any:
        return value, True
    if origin is Literal:
        return value, any(value == a and type(value) is type(a) for a in get_args(hint))
    if origin in (Union, types.UnionType):
        return _as_union(value, hint, place)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return value, False
        item = get_args(hint)[0]
        return origin(convert(v, item, place / str(i)) for i, v in enumerate(value)), True
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return (float(value) if fits else value), fits
    if hint is int:
        return value, isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return (Path(value) if isinstance(value, str | Path) else value), isinstance(
            value, str | Path
        )
    if origin is not None:
        return value, isinstance(value, origin)
    return value, isinstance(value, hint)


def _as_union(value: Any, hint: Any, place: Place) -> tuple[Any, bool]:
    arms = get_args(hint)
    if value is None and type(None) in arms:
        return None, True
    arms = tuple(a for a in arms if a is not type(None))
    for arm in arms:
        try:
            return convert(value, arm, place), True
        except RecipeError:
            if len(arms) == 1:
                raise
    return value, False


def describe(hint: Any) -> str:
    """Return words for a type: ``an integer, at least 1``."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        bounds = [str(e) for e in extras if hasattr(e, "__contains__")]
        return ", ".join([describe(inner), *bounds])
    if get_origin(hint) is Literal:
        return " or ".join(repr(a) for a in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(a) for a in get_args(hint) if a is not type(None))
    if get_origin(hint) in (list, tuple):
        return f"a list of: {describe(get_args(hint)[0])}"
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    names[Path] = "a path"
    return names.get(hint, getattr(hint, "__name__", str(typing.Any)))
