"""``ddkit show`` and ``ddkit export``: what a set file holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddkit.cli import options, screen
from ddkit.errors import DataError, shown

if TYPE_CHECKING:
    from ddkit.images.synthetic import SyntheticSet
    from ddkit.sets.export import Exported


@click.command()
@click.argument("set_", metavar="SET", type=options.PATH)
@click.option("--png", type=options.PATH, help="Draw the images as a grid, too.")
@options.as_json
def show(set_: Path, png: Path | None, as_json: bool) -> None:
    """Print what SET, a file or a run folder, holds.

    \b
    Example:
      ddkit show runs/dm-digits-ipc1/synthetic.safetensors --png grid.png
    """
    from ddkit.images.synthetic import SyntheticSet
    from ddkit.runs.folder import set_file

    syn = SyntheticSet.load(set_file(set_))
    facts = describe(syn)
    if as_json:
        screen.data(facts | {"recipe": syn.recipe})
    else:
        _print(facts, syn.recipe)
    if png is not None:
        _draw(syn, png)


def _print(facts: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Print facts by name, then the recipe; what acts on a terminal is shown, not sent."""
    width = max(map(len, facts))
    for name, value in facts.items():
        screen.result(shown(f"{name:<{width}}  {value}"))
    if recipe:
        import tomli_w

        screen.result("")
        for line in tomli_w.dumps(recipe).split("\n")[:-1]:
            screen.result(shown(line))


def _draw(syn: SyntheticSet, png: Path) -> None:
    """Write the grid; over another picture, but never over anything else, such as the set.

    Raises:
        DataError: there is something else.
        CheckpointError: it cannot be written.
    """
    from ddkit.sets.grid import is_png, write_grid

    if os.path.lexists(png) and not is_png(png):
        raise DataError(f"{png}: exists and is not a PNG picture; choose another file")
    write_grid(syn, png)


def describe(syn: SyntheticSet) -> dict[str, Any]:
    """Return the facts of a set, by name."""
    info = syn.info
    names = ", ".join(info.classes[:10]) + (" …" if info.num_classes > 10 else "")
    kind = "soft" if syn.soft is not None else "hard"
    fewest = min(syn.per_class)
    per_class = f"{syn.ipc}" if fewest == syn.ipc else f"{fewest} to {syn.ipc}"
    bits = 8 * syn.stored_bytes / info.num_classes
    facts: dict[str, Any] = {
        "images": f"{len(syn)} of {'x'.join(map(str, info.shape))}, {per_class} per class",
        "classes": f"{info.num_classes}: {names}",
        "labels": kind,
        "space": syn.space,
        "mean": ", ".join(map(str, info.mean)),
        "std": ", ".join(map(str, info.std)),
        "size": f"{syn.stored_bytes:,} bytes, {bits:,.0f} bits per class",
    }
    if syn.formation.factor > 1:
        facts["formation"] = f"{syn.formation.factor} x {syn.formation.factor} mosaics"
    facts = {"dataset": info.name} | facts
    return facts | {k: v for k, v in syn.provenance.items() if k not in facts}


@click.command()
@click.argument("set_", metavar="SET", type=options.PATH)
@click.argument("folder", metavar="DIR", type=options.PATH)
def export(set_: Path, folder: Path) -> None:
    """Write the images of SET into DIR, a folder for each class, as 8-bit PNG.

    Folder names are safe on every system; where their alphabetical order is not that of the
    labels, they begin with the label. classes.json has the names, labels and statistics.

    \b
    Example:
      ddkit export runs/dm-digits-ipc1/synthetic.safetensors digits-images
    """
    from ddkit.images.synthetic import SyntheticSet
    from ddkit.runs.folder import set_file
    from ddkit.sets.export import export as write_folder

    syn = SyntheticSet.load(set_file(set_))
    done = write_folder(syn, folder)
    screen.result(f"{done.images} images in {folder}")
    for line in lost(syn, done):
        screen.result(line)


def lost(syn: SyntheticSet, done: Exported) -> list[str]:
    """Return what the folder does not show of the set, a line each."""
    lines = []
    if done.numbered:
        lines.append(
            "folders begin with the label: in the order of their names alone, which readers of "
            "folders go by, classes would get other labels"
        )
    if done.clipped:
        lines.append(
            f"{done.clipped:,} of {done.values:,} values ({done.clipped / done.values:.1%}) were "
            "clipped: darker than black or lighter than white"
        )
    empty = syn.per_class.count(0)
    if empty:
        lines.append(f"{empty} of {syn.info.num_classes} classes have no images")
    if syn.soft is not None:
        lines.append("the soft labels are left out: folders say classes alone")
    if syn.formation.factor > 1:
        tiles = f"{syn.formation.factor} x {syn.formation.factor}"
        lines.append(f"images are mosaics as stored, of {tiles} tiles, not what networks train on")
    return lines
