"""Options that several commands share, and what they open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddkit.cli import screen
from ddkit.errors import RecipeError
from ddkit.paths import expanded

if TYPE_CHECKING:
    from ddkit.plugins import Plugins
    from ddkit.reporter import Reporter

quiet = click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
seed = click.option("--seed", type=click.IntRange(min=0), help="Of every draw that makes the set.")
precision = click.option(
    "--precision", type=click.Choice(["float32", "bfloat16"]), help="Of forward passes."
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    callback=lambda _, __, count: _use(count),
    expose_value=False,
    help="Processor threads; default: as many as there are cores.",
)
device = click.option("--device", help='"cpu", "cuda", "cuda:1"; default: a GPU if there is one.')


def _use(count: int | None) -> None:
    """Let torch work with `count` threads, for the rest of this process."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


class UserPath(click.Path):
    """A path with ``~`` expanded, which shells leave alone in ``--out=~/x``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        what = "" if param is None else param.human_readable_name.strip("[]")
        return expanded(
            value, RecipeError, f"--{what}" if isinstance(param, click.Option) else what
        )


PATH = UserPath()


def settings(example: str) -> Callable[[Any], Any]:
    """Return the repeatable ``--set key=value``."""
    return click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help=f"Override, as in {example}."
    )


def open_reporter(quiet: bool) -> Reporter:
    """Return the reporter that draws on standard error; that it cannot costs no work.

    Called once by each command that trains: the process's memory is set up for that, too.
    """
    from ddkit.cli.progress import Terminal
    from ddkit.runtime.memory import keep_freed_memory
    from ddkit.runtime.progress import Guarded

    keep_freed_memory()
    return Guarded(Terminal(quiet))


def load_plugins() -> Plugins:
    """Load plugins; each that fails costs one line on standard error."""
    from ddkit import plugins

    loaded = plugins.load()
    for failure in loaded.failures:
        screen.note(
            f"warning: plugin {failure.plugin} did not load ({failure.reason}); "
            f"mend or uninstall its distribution"
        )
    return loaded
