"""``ddkit show`` and ``ddkit export``: what a set file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddkit.cli import options

if TYPE_CHECKING:
    from ddkit.images.synthetic import SyntheticSet


@click.command()
@click.argument("set_", metavar="SET", type=click.Path(path_type=Path))
@click.option("--png", type=click.Path(path_type=Path), help="Default: SET with the ending .png.")
@options.as_json
def show(set_: Path, png: Path | None, as_json: bool) -> None:
    """Print what SET, a file or a run folder, holds; draw its images as a PNG grid.

    \b
    Example:
      ddkit show runs/dm-digits-ipc1/synthetic.safetensors
    """
    from ddkit.distillation.folder import set_file
    from ddkit.images.pictures import write_grid
    from ddkit.images.synthetic import SyntheticSet

    path = set_file(set_)
    syn = SyntheticSet.load(path)
    target = png or path.with_suffix(".png")
    write_grid(syn, target)
    facts = describe(syn) | {"picture": str(target)}
    if as_json:
        click.echo(json.dumps(facts | {"recipe": syn.recipe}, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")
    if syn.recipe:
        import tomli_w

        click.echo("\n" + tomli_w.dumps(syn.recipe), nl=False)


def describe(syn: SyntheticSet) -> dict[str, Any]:
    """Return the facts of a set, by name."""
    info = syn.info
    names = ", ".join(info.classes[:10]) + (" …" if info.num_classes > 10 else "")
    kind = "soft" if syn.soft is not None else "hard"
    bits = 8 * syn.stored_bytes / info.num_classes
    facts: dict[str, Any] = {
        "images": f"{len(syn)} of {'x'.join(map(str, info.shape))}, {syn.ipc} per class",
        "classes": f"{info.num_classes}: {names}",
        "labels": kind,
        "space": syn.space,
        "mean": ", ".join(map(str, info.mean)),
        "std": ", ".join(map(str, info.std)),
        "size": f"{syn.stored_bytes:,} bytes, {bits:,.0f} bits per class",
    }
    if syn.formation.factor > 1:
        facts["formation"] = f"{syn.formation.factor} x {syn.formation.factor} mosaics"
    return {"dataset": info.name} | facts | syn.provenance


@click.command()
@click.argument("set_", metavar="SET", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def export(set_: Path, folder: Path) -> None:
    """Write the images of SET into DIR, a folder for each class, as 8-bit PNG.

    \b
    Example:
      ddkit export runs/dm-digits-ipc1/synthetic.safetensors digits-images
    """
    from ddkit.distillation.folder import set_file
    from ddkit.images import pictures
    from ddkit.images.synthetic import SyntheticSet

    count = pictures.export(SyntheticSet.load(set_file(set_)), folder)
    click.echo(f"{count} images in {folder}")
