"""``ddkit merge``."""

from __future__ import annotations

from pathlib import Path

import click

from ddkit.cli import options, screen


@click.command()
@click.argument("sets", metavar="SET SET...", nargs=-1, required=True, type=options.PATH)
@click.option("--out", type=options.PATH, required=True, help="The file to write.")
def merge(sets: tuple[Path, ...], out: Path) -> None:
    """Join sets, files or run folders, by the names of their classes.

    Shape, space and mosaics must be the same. Classes come in the order in which they first
    appear; one that several sets have gets the images of all. `ddkit eval OUT --data` judges it.

    \b
    Example:
      ddkit merge runs/first runs/second --out both.safetensors
    """
    from ddkit.errors import CheckpointError
    from ddkit.images.synthetic import SyntheticSet
    from ddkit.paths import look
    from ddkit.runs.folder import set_file
    from ddkit.runtime.storage import digest
    from ddkit.sets.merge import merged

    if len(sets) < 2:
        raise click.UsageError("name two sets at least")
    if look(out, CheckpointError) is not None:
        raise CheckpointError(f"{out}: exists; choose another file")
    files = [set_file(path) for path in sets]
    loaded = [SyntheticSet.load(path) for path in files]
    names = [str(path) for path in sets]
    made = merged(loaded, names, [digest(path) for path in files], screen.note)
    made.save(out)
    screen.result(f"{len(made)} images of {made.info.num_classes} classes in {out}")
