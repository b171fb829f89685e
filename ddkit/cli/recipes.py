"""``ddkit recipes``: the recipes that ship with ddkit. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from ddkit.cli import options, screen
from ddkit.errors import RecipeError, near
from ddkit.paths import is_folder, look
from ddkit.recipes import catalog

FILES = {"recipes": catalog.recipes, "protocols": catalog.protocols}
"""What ships as files, by the word that ``ddkit list`` knows it by."""


@click.group()
def recipes() -> None:
    """List, show and copy the shipped recipes.

    \b
    Example:
      ddkit recipes copy dm-digits-ipc10 mine.toml
    """


@recipes.command("list")
@click.argument("words", nargs=-1)
@click.option("--method", metavar="NAME", help="Only recipes of this method.")
@click.option("--dataset", metavar="NAME", help="Only recipes on this dataset.")
@click.option("--ipc", type=int, metavar="N", help="Only recipes of N images per class.")
@click.option("--regularizer", metavar="NAME", help='Only those with this one; "none": with none.')
@options.as_json
def list_(words: tuple[str, ...], as_json: bool, **filters: str | int | None) -> None:
    """List the shipped recipes, with the first line of each.

    Options go by what a recipe says; each of WORDS must occur in its name or first line.

    \b
    Example:
      ddkit recipes list cifar10 --method dm --ipc 10
    """
    files = catalog.recipes()
    titles = {name: catalog.title(path) for name, path in files.items()}
    given = {key: value for key, value in filters.items() if value is not None}
    # Reading 200 files costs 30 ms, which names and titles do without.
    facts = {n: catalog.facts(path) for n, path in files.items()} if given or as_json else {}
    met = _with_words(titles, words) | _with_values(facts, given)
    chosen = [name for name in titles if all(name in names for names in met.values())]
    if not chosen:
        screen.note(_how_to_loosen(met, titles))
    if as_json:
        rows = [{"name": n, "title": titles[n], **facts[n]._asdict()} for n in chosen]
        screen.data(rows)
    else:
        _print_titles({name: titles[name] for name in chosen})


def list_protocols(as_json: bool) -> None:
    """List the evaluation protocols, with the first line of each."""
    titles = {name: catalog.title(path) for name, path in catalog.protocols().items()}
    if as_json:
        rows = [{"name": name, "title": title} for name, title in titles.items()]
        screen.data(rows)
    else:
        _print_titles(titles)


def show_one(kind: str, name: str, as_json: bool) -> None:
    """Print what the file of one recipe or protocol says; as JSON, the row of a list of one."""
    path = _find(name, kind)
    if not as_json:
        screen.result(path.read_text(encoding="utf-8"), end="")
        return
    row: dict[str, Any] = {"name": name, "title": catalog.title(path)}
    if kind == "recipes":
        row |= catalog.facts(path)._asdict()
    screen.data([row | {"settings": catalog.settings(path)}])


def _print_titles(titles: Mapping[str, str]) -> None:
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        screen.result(f"{name:<{width}}  {title}")


def _with_words(titles: Mapping[str, str], words: Iterable[str]) -> dict[str, set[str]]:
    """Return for every word the names of the recipes in whose name or title it occurs."""
    texts = {name: f"{name}\n{title}".casefold() for name, title in titles.items()}
    return {w: {name for name, text in texts.items() if w.casefold() in text} for w in words}


def _with_values(
    facts: Mapping[str, catalog.Facts], given: Mapping[str, str | int]
) -> dict[str, set[str]]:
    """Return for every option given, as typed, the names of the recipes that meet it.

    Raises:
        RecipeError: no recipe has that value.
    """
    met = {}
    for key, value in given.items():
        values = {name: _values(row, key) for name, row in facts.items()}
        met[f"--{key} {value}"] = {name for name, own in values.items() if value in own}
        if not met[f"--{key} {value}"]:
            known = [str(v) for v in sorted(set[Any]().union(*values.values()))]
            hint = near(str(value).casefold(), known)
            raise RecipeError(
                f"--{key}: no shipped recipe has {value!r}{hint}; there are: {', '.join(known)}"
            )
    return met


def _values(facts: catalog.Facts, key: str) -> set[str | int]:
    if key == "regularizer":
        return set(facts.regularizers) or {"none"}
    return {getattr(facts, key)}


def _how_to_loosen(met: Mapping[str, set[str]], titles: Mapping[str, str]) -> str:
    """Return the line for conditions that no recipe meets together."""
    for word, names in met.items():
        if not names:
            parts = {part for name in titles for part in name.split("-")}
            hint = near(word.casefold(), parts) or "; leave it out"
            return f"no shipped recipe has {word!r} in its name or first line{hint}"
    ways = []
    for left_out in met:
        others = (names for condition, names in met.items() if condition != left_out)
        if count := len(set(titles).intersection(*others)):
            ways.append(f"without {left_out}: {count}")
    hint = ", ".join(ways) or "leave out more than one"
    return f"no shipped recipe meets all of {', '.join(met)}; {hint}"


@recipes.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a shipped recipe.

    \b
    Example:
      ddkit recipes show dm-digits-ipc1
    """
    show_one("recipes", name, as_json=False)


@recipes.command()
@click.argument("name")
@click.argument("dest", required=False, type=options.PATH)
@click.option("--force", is_flag=True, help="Overwrite DEST.")
def copy(name: str, dest: Path | None, force: bool) -> None:
    """Copy a shipped recipe to DEST (default: NAME.toml here), to be changed.

    \b
    Example:
      ddkit recipes copy dm-digits-ipc10 mine.toml
    """
    from ddkit.runtime.storage import write_text

    source = _find(name)
    target = dest or Path(source.name)
    target = target / source.name if is_folder(target, RecipeError) else target
    if look(target, RecipeError) and not force:
        raise RecipeError(f"{target}: exists; give another name, or --force")
    write_text(target, source.read_text(encoding="utf-8"))
    screen.result(target)


def _find(name: str, kind: str = "recipes") -> Path:
    files = FILES[kind]()
    if name not in files:
        few = f"there are: {', '.join(files)}"
        rest = few if kind == "protocols" else "`ddkit recipes list` shows them"
        hint = near(name, files) or f"; {rest}"
        raise RecipeError(f"no shipped {kind.removesuffix('s')} is called {name!r}{hint}")
    return files[name]
