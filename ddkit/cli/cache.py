"""``ddkit cache``: what ddkit keeps and can make again. Nothing here imports torch."""

from __future__ import annotations

import time
from pathlib import Path
from stat import S_ISREG

import click

from ddkit.cli import options, screen
from ddkit.errors import CheckpointError
from ddkit.paths import is_folder, look, reason


@click.group()
def cache() -> None:
    """List and prune what ddkit keeps: decoded images and trained networks.

    Datasets that were downloaded are not part of it.

    \b
    Example:
      ddkit cache list
    """


@cache.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List what is cached, with its size and the days since it was last written.

    \b
    Example:
      ddkit cache list --json
    """
    from ddkit.runtime import storage

    rows = [(name, _bytes(path), round(_days(path), 1)) for name, path in entries().items()]
    if as_json:
        listed = [{"name": n, "bytes": size, "days": days} for n, size, days in rows]
        screen.data({"folder": str(storage.cache("")), "entries": listed})
        return
    screen.result(f"{storage.cache('')}: {sum(size for _, size, _ in rows) / 2**20:,.1f} MiB")
    for name, size, days in rows:
        screen.result(f"{size / 2**20:>10,.1f} MiB  {days:>6} days  {name}")


@cache.command()
@click.argument("names", nargs=-1)
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only those.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(names: tuple[str, ...], older_than: float | None, yes: bool) -> None:
    """Remove what is cached: all of it, or what NAMES and --older-than leave.

    A running distillation that uses an entry makes it again.

    \b
    Example:
      ddkit cache prune --older-than 30 --yes
    """
    known = entries()
    unknown = [n for n in names if n not in known]
    if unknown:
        raise click.UsageError(f"nothing cached is called {unknown[0]!r}; see `ddkit cache list`")
    chosen = {
        name: path
        for name, path in known.items()
        if (not names or name in names) and (older_than is None or _days(path) > older_than)
    }
    size = sum(map(_bytes, chosen.values())) / 2**20
    if chosen and not yes:
        click.confirm(f"remove {len(chosen)} entries, {size:,.1f} MiB?", abort=True, err=True)
    for path in chosen.values():
        _remove(path)
    screen.result(f"removed {len(chosen)} entries, {size:,.1f} MiB")


def _remove(path: Path) -> None:
    import shutil

    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except FileNotFoundError:  # another process was quicker
        pass
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be removed: {reason(error)}") from None


def entries() -> dict[str, Path]:
    """Return what is cached by name, ``networks/…`` or ``images/…``."""
    from ddkit.runtime import storage

    folder = storage.cache("")
    found = sorted(folder.glob("*/*")) if is_folder(folder, CheckpointError) else []
    return {path.relative_to(folder).as_posix(): path for path in found}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(
        found.st_size
        for f in files
        if (found := look(f, CheckpointError)) and S_ISREG(found.st_mode)
    )


def _days(path: Path) -> float:
    found = look(path, CheckpointError)
    return 0.0 if found is None else (time.time() - found.st_mtime) / 86400
