"""The command line: click wires commands; heavy imports happen inside them."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from ddkit import __version__
from ddkit.cli import screen
from ddkit.cli.cache import cache
from ddkit.cli.components import list_, plugins
from ddkit.cli.distill import distill
from ddkit.cli.doctor import doctor
from ddkit.cli.evaluate import evaluate
from ddkit.cli.merge import merge
from ddkit.cli.recipes import recipes
from ddkit.cli.sets import export, show
from ddkit.errors import DDKitError, Interrupted


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    screen.result(f"ddkit {__version__}")
    if context.params.get("verbose"):
        import platform

        import torch

        cuda = torch.version.cuda or "none"
        screen.result(f"torch {torch.__version__}, CUDA {cuda}, Python {platform.python_version()}")
    context.exit()


class _Group(click.Group):
    """With ``-v``, what led to a mistake's words is shown before them."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except DDKitError as error:
            if context.params["verbose"]:
                import traceback

                cause = error if error.__cause__ else error.__context__ or error
                screen.note("".join(traceback.format_exception(cause)).rstrip())
            raise


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    *("-v", "--verbose"),
    is_flag=True,
    is_eager=True,
    help="Show where an error came from; with --version, more of it.",
)
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


for command in (distill, evaluate, show, export, merge, recipes, list_, plugins, cache, doctor):
    cli.add_command(command)


def main() -> None:
    """Run the command line; a user's mistake becomes one or two lines and an exit code."""
    with screen.guarded() as out:
        code = _run()
        out.flush()
        if code == 0 and out.lost is not None:
            code = 1
            if out.words:
                screen.note(f"Error: standard output cannot be written: {out.words}")
    sys.exit(code)


def _run() -> int:
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        screen.note(said.getvalue().rstrip("\n"))
        return error.exit_code
    except click.Abort as stopped:
        if isinstance(stopped.__cause__, EOFError):  # no answer to a question: a bug
            raise stopped.__cause__ from None
        screen.note("stopped")
        return 130
    except KeyboardInterrupt:
        screen.note("stopped")
        return 130
    except DDKitError as error:
        screen.note(error if isinstance(error, Interrupted) else f"Error: {error}")
        return error.exit_code
    return code if isinstance(code, int) else 0
