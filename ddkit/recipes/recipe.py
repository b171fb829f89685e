"""A recipe: TOML to frozen dataclasses, with every mistake named by file and line."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path, PurePath
from typing import Any

from ddkit.errors import RecipeError, near, shown
from ddkit.options import Whole
from ddkit.recipes import catalog
from ddkit.recipes.binding import checked, convert
from ddkit.recipes.place import Place, Source, told
from ddkit.recipes.protocol import eval_spec, eval_table
from ddkit.recipes.sections import (
    EvalSpec,
    Part,
    ProxySpec,
    RuntimeSpec,
    SyntheticSpec,
    TermKeys,
    as_part,
    as_table,
    own_keys,
    part_table,
    plain_table,
    section,
)

Overrides = Sequence[str] | Mapping[str, Any]
TABLE = "overrides"  # what a table of them goes by in messages
DEEPEST = 32  # tables in tables; recipes have four
REQUIRED = ("dataset", "backbone", "method")
SECTIONS = (
    *("seed", "dataset", "backbone", "synthetic", "method"),
    *("proxies", "regularizers", "eval", "runtime"),
)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a distilled set and its verdict.

    Attributes:
        seed: of every draw that makes the set; judges have seeds of their own.
        dataset: the real images: a name, or a table with the dataset's options.
        backbone: the network that the method looks through: a name, or a table with its options.
        method: what is matched and how: a name, or a table with the method's options.
        synthetic: how the synthetic images start and are stored.
        regularizers: a list of tables, each a name, a weight and options.
        proxies: a pool of networks trained on the real data, for whatever looks through one.
        eval: who judges the set, and how.
        runtime: the machine's side.
        source: where the recipe was read, for messages; no key.
    """

    dataset: Part
    backbone: Part
    method: Part
    eval: EvalSpec
    synthetic: SyntheticSpec = SyntheticSpec()
    regularizers: tuple[tuple[float, Part], ...] = ()
    proxies: ProxySpec | None = None
    runtime: RuntimeSpec = RuntimeSpec()
    seed: Whole = 0
    source: Source = field(default=Source("recipe"), compare=False, repr=False)

    @classmethod
    def load(cls, path: Path | str, overrides: Overrides = ()) -> Recipe:
        """Read a recipe from a path or by its shipped name, then apply overrides.

        They are ``key=value`` texts, or a table with nested or dotted keys.

        Raises:
            RecipeError: no such file or name, not TOML, an unknown key, a wrong type or range.
        """
        text, table = catalog.read(catalog.find_recipe(path), str(path))
        return cls.parse(table, overrides, Source(str(path), text))

    @classmethod
    def parse(
        cls,
        table: Mapping[str, Any],
        overrides: Overrides = (),
        source: Source = Source("recipe"),  # noqa: B008 - frozen
    ) -> Recipe:
        """Build a recipe from an already parsed table; errors as in `load`."""
        tree = copied(table, source.name)
        source = _overridden(tree, overrides, source)
        top, there_are = Place(source), f"; there are: {', '.join(SECTIONS)}"
        problems = [
            f"{top / key}: unknown section{near(key, SECTIONS) or there_are}"
            for key in tree
            if key not in SECTIONS
        ]
        problems += [
            f"{top}: the section {key!r} is missing" for key in REQUIRED if key not in tree
        ]
        if problems:
            raise RecipeError("\n".join(problems))
        return cls(
            dataset=as_part(tree["dataset"], top / "dataset"),
            backbone=as_part(tree["backbone"], top / "backbone"),
            method=as_part(tree["method"], top / "method"),
            synthetic=section(SyntheticSpec, tree.get("synthetic", {}), top / "synthetic"),
            regularizers=_regularizers(tree.get("regularizers", []), top / "regularizers"),
            proxies=_proxies(tree.get("proxies"), top / "proxies"),
            eval=eval_spec(tree.get("eval", {}), top / "eval", tree["backbone"]),
            runtime=section(RuntimeSpec, tree.get("runtime", {}), top / "runtime"),
            seed=convert(tree.get("seed", 0), Whole, top / "seed"),
            source=source,
        )

    def place(self, path: str) -> Place:
        """Return where the dotted `path` stands in this recipe, for error messages."""
        return Place(self.source, path)

    def table(self) -> dict[str, Any]:
        """Return the resolved recipe as a plain table that `parse` reads back to an equal one."""
        table: dict[str, Any] = {"seed": self.seed}
        table |= {key: part_table(getattr(self, key)) for key in ("dataset", "backbone")}
        table["synthetic"] = plain_table(self.synthetic)
        table["method"] = part_table(self.method)
        if self.proxies is not None:
            table["proxies"] = plain_table(self.proxies)
        if self.regularizers:
            table["regularizers"] = [
                {"name": part.name, "weight": weight, **part.options}
                for weight, part in self.regularizers
            ]
        table["eval"] = eval_table(self.eval)
        table["runtime"] = plain_table(self.runtime)
        return table


def _overridden(tree: dict[str, Any], overrides: Overrides, source: Source) -> Source:
    """Apply `overrides` to `tree`; return `source` with what they replaced."""
    given: dict[str, str | None] = {}
    if isinstance(overrides, Mapping):
        for path, value in leaves(copied(overrides, TABLE), TABLE):
            put(tree, path, value, f"{TABLE} {path}")
            given[path] = None
        return dataclasses.replace(source, overridden=given, by=TABLE)
    if isinstance(overrides, str):
        raise RecipeError(f"overrides must be a list or a table, not the string {told(overrides)}")
    for item in overrides:
        path = override(tree, item)
        given = {p: text for p, text in given.items() if not p.startswith(f"{path}.")}
        given[path] = typed(item)
    return dataclasses.replace(source, overridden=given)


def leaves(table: Mapping[str, Any], name: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of everything in `table` that is no table itself."""
    for key, value in table.items():
        path = f"{above}{key}"
        if not all(part.strip() for part in path.split(".")):
            raise RecipeError(f"{name}: a name is empty between the dots of {told(path)}")
        if isinstance(value, Mapping) and value:
            yield from leaves(value, name, f"{path}.")
        else:
            yield path, value


def _regularizers(value: Any, place: Place) -> tuple[tuple[float, Part], ...]:
    if not isinstance(value, list):
        raise RecipeError(f"{place}: must be a list of tables, not {told(value)}")
    result = []
    for i, item in enumerate(value):
        part, here = as_part(item, place / str(i)), place / str(i)
        own, options = own_keys(TermKeys, part.options)
        if "weight" not in own:
            raise RecipeError(f"{here}: regularizer {part.name!r} needs a weight")
        weight = checked(TermKeys, own, here)["weight"]
        result.append((weight, Part(part.name, options)))
    return tuple(result)


def _proxies(value: Any, place: Place) -> ProxySpec | None:
    if value is None:
        return None
    table = as_table(value, place)
    if "backbone" in table:
        table["backbone"] = as_part(table["backbone"], place / "backbone")
    return section(ProxySpec, table, place)


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
    if isinstance(value, PurePath):
        return _whole(str(value), name)
    many = isinstance(value, list | tuple)
    return [copied(v, name, depth + 1) for v in value] if many else value


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
    if not all(key.strip() for key in path.split(".")):
        raise RecipeError(f"{here}: a name is empty between the dots of {told(path)}")
    if path.count(".") > DEEPEST:
        raise RecipeError(f"{here}: leads more than {DEEPEST} tables deep")
    put(tree, path, _value(typed(item), here), here)
    return path


def put(tree: dict[str, Any], path: str, value: Any, here: str) -> None:
    """Set what the dotted `path` leads to in `tree`; `here` stands before errors.

    Raises:
        RecipeError: it leads through something that is not a table.
    """
    *parents, last = path.split(".")
    node: Any = tree
    for key in parents:
        node = _descend(node, key, here)
    if isinstance(node, list):
        node[_position(node, last, here)] = value
    else:
        node[last] = value


def parse_part(text: str, said: str) -> Part:
    """Read ``name`` or ``name:option=value,option=value``, as typed after the option `said`.

    Raises:
        RecipeError: it has no name, or what follows the colon is not of that form.
    """
    if text.startswith("python:"):  # the name of an object that was given from Python
        return Part(text)
    name, colon, rest = (piece.strip() for piece in text.partition(":"))
    options: dict[str, Any] = {}
    for item in rest.split(",") if colon else ():
        key, _, value = (piece.strip() for piece in item.partition("="))
        if not (name and key and value):
            raise RecipeError(
                f"{said}: {told(text)} must look like name:option=value,option=value, "
                f"as in convnet:depth=4,width=64"
            )
        override(options, item)
    return Part(name, options)


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
