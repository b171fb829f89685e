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

from ddkit.errors import PluginError, RecipeError, near
from ddkit.options import Range
from ddkit.paths import check_text, expanded
from ddkit.recipes.place import Place, told

LARGEST: dict[Any, tuple[str, float]] = {  # what tensors of float32 and int64 hold
    float: ("a finite number", 3.4e38),
    int: ("an integer that 64 bits hold", 2**63 - 1),
}
_NAMES: dict[Any, tuple[str, str]] = {  # in our words, and in those of JSON Schema
    int: ("an integer", "integer"),
    float: ("a number", "number"),
    str: ("a string", "string"),
    bool: ("true or false", "boolean"),
    Path: ("a path", "string"),
    type(None): ("none", "null"),
}
_BOUNDS = {"min": "minimum", "max": "maximum", "above": "exclusiveMinimum"}
_BOUNDS |= {"below": "exclusiveMaximum"}
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


class Described:
    """Stands for a factory of which only its options are known, from `json_schema`."""

    def __init__(self, described: Mapping[str, Any]):
        optional = {k for k in described["properties"] if k not in described["required"]}
        self.options = {
            k: Option(k, _hint(v), v.get("default") if k in optional else _MISSING)
            for k, v in described["properties"].items()
        }

    def __call__(self, *given: Any, **options: Any) -> Any:
        raise TypeError("only the options of this component are known")


def schema(factory: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of `factory` by name, positional-only given parameters left out.

    Raises:
        PluginError: its signature or the types in it cannot be read, whatever a stranger's are.
    """
    if isinstance(factory, Described):
        return factory.options
    target = factory.__init__ if inspect.isclass(factory) else factory
    holder = factory if dataclasses.is_dataclass(factory) else target
    try:
        hints = get_type_hints(holder, include_extras=True)
        parameters = inspect.signature(factory).parameters.values()
    except NameError as error:
        why = f"types that cannot be read ({error})"
        mend = "must import them where the module is loaded"
        raise PluginError(f"has {why}; its author {mend}") from error
    except Exception as error:
        why = f"a signature that cannot be read ({str(error).partition(chr(10))[0][:200]})"
        raise PluginError(
            f"has {why}; its author must give a factory with typed options"
        ) from error
    options = {}
    for parameter in parameters:
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
    if place.typed is not None and not isinstance(value, str) and _takes_text(hint):
        value = place.typed  # --set dataset.path=100: a folder may be called so
    kind = float if isinstance(value, float) else hint
    if isinstance(value, int | float) and kind in (int, float):
        words, largest = LARGEST[kind]
        if not abs(value) <= largest:  # nor is NaN
            raise RecipeError(f"{place}: must be {words}, at most {largest:g}, not {told(value)}")
    if isinstance(value, str):
        check_text(value, RecipeError, str(place))  # a recipe is UTF-8, and could not say it
    result, fits = _as(value, hint, place)
    if not fits:
        raise RecipeError(f"{place}: must be {describe(hint)}, not {told(value)}")
    if bound is not None and result is not None and result not in bound:
        raise RecipeError(f"{place}: must be {bound}, not {told(value)}")
    return result


def _takes_text(hint: Any) -> bool:
    """Whether an option may be any string, so that what looks like a number is one as well."""
    if get_origin(hint) in (Union, types.UnionType):
        arms = [a for a in get_args(hint) if a is not type(None)]
        return all(map(_takes_text, arms))
    return hint in (str, Path)


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
        fits = isinstance(value, str | Path)
        return (expanded(value, RecipeError, str(place)) if fits else value), fits
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
    return _NAMES[hint][0] if hint in _NAMES else getattr(hint, "__name__", str(typing.Any))


def json_schema(factory: Callable[..., Any], given: int = 0) -> dict[str, Any]:
    """Return the JSON Schema of the options of `factory`, the first `given` parameters left out."""
    known = list(schema(factory).values())[given:]
    return {
        "type": "object",
        "properties": {
            o.name: _json_type(o.hint) | ({} if o.required else {"default": plain(o.default)})
            for o in known
        },
        "required": [o.name for o in known if o.required],
        "additionalProperties": False,
    }


def plain(value: Any) -> Any:
    """Return a default as JSON has it."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _json_type(hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = next((e for e in args[1:] if isinstance(e, Range)), Range())
        kept = {v: getattr(bounds, k) for k, v in _BOUNDS.items()}
        return _json_type(args[0]) | {k: v for k, v in kept.items() if v is not None}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_json_type(a) for a in args]}
    if origin in (list, tuple):
        return {"type": "array", "items": _json_type(args[0])}
    if hint is Path:
        return {"type": "string", "format": "path"}
    return {"type": _NAMES[hint][1]} if hint in _NAMES else {}


def _hint(described: Mapping[str, Any]) -> Any:
    """Return the type that `_json_type` wrote; what JSON Schema has no word for is left open."""
    if "enum" in described:
        return Literal[tuple(described["enum"])]
    if "anyOf" in described:
        return Union[tuple(_hint(d) for d in described["anyOf"])]  # noqa: UP007 - made at run time
    if "items" in described:
        return list[_hint(described["items"])]  # type: ignore[misc]
    if described.get("format") == "path":
        return Path
    hint = next((h for h, (_, name) in _NAMES.items() if name == described.get("type")), Any)
    bounds = {k: described[v] for k, v in _BOUNDS.items() if v in described}
    return Annotated[hint, Range(**bounds)] if bounds else hint
