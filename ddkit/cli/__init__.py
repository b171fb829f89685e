"""The command line: click wires commands; heavy imports happen inside them."""

from __future__ import annotations

import sys

import click

from ddkit import __version__
from ddkit.cli.cache import cache
from ddkit.cli.components import list_, plugins
from ddkit.cli.distill import distill
from ddkit.cli.evaluate import evaluate
from ddkit.cli.recipes import recipes
from ddkit.cli.sets import export, show
from ddkit.errors import DDKitError, Interrupted


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"ddkit {__version__}")
    if context.params.get("verbose"):
        import platform

        import torch

        cuda = torch.version.cuda or "none"
        click.echo(f"torch {torch.__version__}, CUDA {cuda}, Python {platform.python_version()}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, is_eager=True, help="With --version: more of it.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli(verbose: bool) -> None:
    """Distill datasets: from a recipe to a small set, and to an honest verdict on it.

    \b
    Example:
      ddkit distill dm-digits-ipc1 --eval
    """


for command in (distill, evaluate, show, export, recipes, list_, plugins, cache):
    cli.add_command(command)


def main() -> None:
    """Run the command line; a user's mistake becomes one or two lines and an exit code."""
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        code = 130
    except DDKitError as error:
        click.echo(error if isinstance(error, Interrupted) else f"Error: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:  # the reader of a pipe went away
        sys.stderr.close()
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
