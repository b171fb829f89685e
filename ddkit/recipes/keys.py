"""The sections and keys of a recipe that core itself reads, described from what reads them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ddkit.errors import RecipeError, near
from ddkit.recipes.binding import describe, schema
from ddkit.recipes.protocol import SEEDS
from ddkit.recipes.recipe import SECTIONS, Recipe
from ddkit.recipes.sections import (
    BackboneKeys,
    DatasetKeys,
    EvalSpec,
    Part,
    ProxySpec,
    RuntimeSpec,
    SyntheticSpec,
    TeacherSpec,
    TermKeys,
    TrainSpec,
    toml_value,
)


class Key(NamedTuple):
    """One key: its type and default in words, and what it means."""

    name: str
    type: str
    default: str
    meaning: str


PARTS: Mapping[str, str] = {
    "dataset": "ddkit list datasets",
    "backbone": "ddkit list backbones",
    "method": "ddkit list methods",
    "regularizers": "ddkit list regularizers",
}
"""Sections that choose a component, and the command that lists them with their options."""

READ: Mapping[str, tuple[type, ...]] = {
    "dataset": (DatasetKeys,),
    "backbone": (BackboneKeys,),
    "synthetic": (SyntheticSpec,),
    "proxies": (ProxySpec,),
    "regularizers": (TermKeys,),
    "eval": (EvalSpec, TrainSpec),
    "eval.teacher": (TeacherSpec,),
    "runtime": (RuntimeSpec,),
}
"""By section, what it is read into."""

OUTSIDE = ("training",)  # its settings are keys of [eval] themselves
LEFT_OPEN = {
    "eval.protocol": '"dm"',
    "eval.archs": "the recipe's backbone",
    "eval.seeds": str(SEEDS),
    "eval.presets": "the protocol's",
    "eval.teacher": "the protocol's, if it has one",
    "eval.teacher.backbone": "the recipe's backbone",
}
"""Defaults that reading `[eval]` fills in; those of its training are the protocol's."""


def sections() -> tuple[str, ...]:
    """Return the names of all sections, dotted; the recipe itself is the empty one."""
    own = [name for name in SECTIONS if name != "seed"]
    return ("", *(n for s in own for n in ([s, "eval.teacher"] if s == "eval" else [s])))


def summary(section: str) -> str:
    """Return one sentence on a section.

    Raises:
        RecipeError: there is none of that name.
    """
    if section not in sections():
        hint = near(section, sections()) or f"; there are: {', '.join(sections()[1:])}"
        raise RecipeError(f"no section is called {section!r}{hint}")
    if section in PARTS:
        return _sentence(meanings(Recipe)[section])
    spec = READ[section][0] if section else Recipe
    return " ".join((inspect.getdoc(spec) or "").partition("\n\n")[0].split())


def keys(section: str) -> list[Key]:
    """Return the keys of a section that core reads, in the order of the code."""
    if not section:
        described = meanings(Recipe)
        rows = [Key(s, "a table", "", described[s]) for s in SECTIONS if s != "seed"]
        return [_key("seed", "", Recipe, described), *rows]
    found = [_key(n, section, spec, meanings(spec)) for spec, n in _fields(section)]
    if section in PARTS:
        found.insert(0, Key("name", "a string", "required", f"which one: `{PARTS[section]}`"))
    return found


def _fields(section: str) -> Iterator[tuple[type, str]]:
    for spec in READ.get(section, ()):
        yield from ((spec, f.name) for f in dataclasses.fields(spec) if f.name not in OUTSIDE)


def _key(name: str, section: str, spec: type, described: Mapping[str, str]) -> Key:
    option = schema(spec)[name]
    path = f"{section}.{name}"
    default = LEFT_OPEN.get(path)
    if default is None and spec is TrainSpec:
        default = "the protocol's"
    if default is None:
        default = "required" if option.required else shown(option.default)
    return Key(name, _words(option.hint), default, described[name])


def _words(hint: Any) -> str:
    """Return words for a type; a component is given by name, or as a table."""
    text = describe(hint).replace("TeacherSpec", "a table").replace("Mapping", "a table")
    return text.replace("Part", "a name, or a table with a name")


def shown(value: Any) -> str:
    """Return a default as TOML has it."""
    if isinstance(value, Part) and not value.options:
        value = value.name
    value = toml_value(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else "none" if value is None else str(value)


def meanings(spec: type) -> dict[str, str]:
    """Return what the docstrings of `spec` and its bases say of each attribute."""
    found: dict[str, str] = {}
    for cls in reversed(inspect.getmro(spec)):
        text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
        for name, meaning in re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", text, re.MULTILINE):
            found[name] = " ".join(meaning.split())
    return found


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def page() -> str:
    """Return the Markdown page of all sections."""
    lines = ["# What a recipe holds", "", _INTRODUCTION, ""]
    for section in sections():
        title = f"[{section}]" if section else "The recipe itself"
        lines += [f"## {title}", "", summary(section).replace("``", "`"), ""]
        rows = keys(section)
        if rows:
            lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
            lines += map(_row, rows)
            lines.append("")
        if section in PARTS:
            lines += [f"The other keys are options of the component: `{PARTS[section]} NAME`.", ""]
    return "\n".join(lines).rstrip() + "\n"


_INTRODUCTION = (
    "Made from the code that reads recipes by `python docs/reference.py`; in a terminal,\n"
    "`ddkit list sections` and `ddkit list sections NAME`. `--set section.key=value` overrides any "
    "of them."
)


def _row(key: Key) -> str:
    cells = (f"`{key.name}`", key.type.replace("|", "\\|"), _code(key), _markdown(key.meaning))
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return _sentence(text.replace("``", "`"))


def _code(key: Key) -> str:
    words = key.default in ("", "required", "none") or key.default in LEFT_OPEN.values()
    words = words or key.default.startswith("the ")
    return key.default if words and not key.default.startswith('"') else f"`{key.default}`"
