"""``ddkit recipes``: the recipes that ship with ddkit. Nothing here imports torch."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ddkit.cli import options
from ddkit.errors import CheckpointError, RecipeError, near
from ddkit.recipes import catalog


@click.group()
def recipes() -> None:
    """List, show and copy the shipped recipes.

    \b
    Example:
      ddkit recipes copy dm-digits-ipc10 mine.toml
    """


@recipes.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List the shipped recipes, with the first line of each.

    \b
    Example:
      ddkit recipes list
    """
    titles = {name: _title(path) for name, path in catalog.recipes().items()}
    if as_json:
        rows = [{"name": name, "title": title} for name, title in titles.items()]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        click.echo(f"{name:<{width}}  {title}")


@recipes.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a shipped recipe.

    \b
    Example:
      ddkit recipes show dm-digits-ipc1
    """
    click.echo(_find(name).read_text(encoding="utf-8"), nl=False)


@recipes.command()
@click.argument("name")
@click.argument("dest", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite DEST.")
def copy(name: str, dest: Path | None, force: bool) -> None:
    """Copy a shipped recipe to DEST (default: NAME.toml here), to be changed.

    \b
    Example:
      ddkit recipes copy dm-digits-ipc10 mine.toml
    """
    source = _find(name)
    target = dest or Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists() and not force:
        raise RecipeError(f"{target}: exists; give another name, or --force")
    try:
        target.write_bytes(source.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror}") from None
    click.echo(target)


def _find(name: str) -> Path:
    files = catalog.recipes()
    if name not in files:
        hint = near(name, files) or "; `ddkit recipes list` shows them"
        raise RecipeError(f"no shipped recipe is called {name!r}{hint}")
    return files[name]


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()
