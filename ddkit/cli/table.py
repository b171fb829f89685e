"""The table of a verdict; in a terminal too narrow for it, the same in lines."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ddkit.cli import screen
from ddkit.errors import shown

if TYPE_CHECKING:
    from ddkit.evaluation.verdict import Verdict

NAMES = 2  # the first columns hold names, which may be wrapped; the rest figures, which may not
WORD = 30  # columns that a name's longest word is given before it is wrapped itself
GLUE = "\xa0"  # between the parts of a figure
SPREAD = "± is the sample standard deviation over n networks; each random network has its own draw."
BEST = "best*: the best of several tests, selected on the test data; not a result."


def print_verdict(verdict: Verdict) -> None:
    """Print the table of an evaluation on standard output; no figure of it is ever cut."""
    console = Console(
        width=None if sys.stdout.isatty() else 120, markup=False, emoji=False, highlight=False
    )
    best = any(result.best for result in verdict.results)
    heads, *rows = (
        [screen.carried(shown(cell), console.encoding) for cell in row]
        for row in _cells(verdict, best)
    )
    title = f"test accuracy, %, last epoch; protocol {shown(verdict.protocol)}"
    widths = _least_widths(heads, rows)
    if sum(widths) + 3 * len(widths) + 1 <= console.width:
        console.print(_table(title, heads, rows, widths))
    else:
        screen.result(_wrapped(title, console.width))
        for row in rows:
            screen.result(_wrapped(_sentence(heads, row), console.width))
    screen.result(_wrapped(SPREAD, console.width))
    for failure in verdict.failures:
        screen.result(_wrapped(f"no figure: {shown(failure)}", console.width))
    if best:
        screen.result(_wrapped(BEST, console.width))


def _cells(verdict: Verdict, best: bool) -> list[list[str]]:
    """Return the heads and the rows of the table."""
    heads = ["network", "trained on", "accuracy", *(["best*"] if best else []), "n", "seconds"]
    rows = [heads]
    for result in verdict.results:
        preset = ", ".join(f"{k} {v}" for k, v in result.preset.items())
        of = f" of {result.n + len(result.failures)}" if result.failures else ""
        rows.append(
            [
                f"{result.arch} [{preset}]" if preset else result.arch,
                result.subject,
                percent(result.accuracies),
                *([percent(result.best)] if best else []),
                f"{result.n}{of}",
                f"{result.seconds:.0f}",
            ]
        )
    return rows


def _least_widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return what each column needs: figures their length, names their longest word."""
    widths = []
    for i, cells in enumerate(zip(heads, *rows, strict=True)):
        words = [w for cell in cells for w in (cell.split() if i < NAMES else [cell])]
        longest = max(map(len, words))
        widths.append(min(longest, WORD) if i < NAMES else longest)
    return widths


def _table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]
) -> Table:
    table = Table(title=Text(title, style="italic"), title_justify="left")
    for i, (head, width) in enumerate(zip(heads, widths, strict=True)):
        if i < NAMES:
            table.add_column(Text(head), overflow="fold", min_width=width)
        else:
            table.add_column(Text(head), justify="right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _sentence(heads: Sequence[str], row: Sequence[str]) -> str:
    facts = []
    for head, cell in list(zip(heads, row, strict=True))[NAMES:]:
        between = GLUE if len(cell) < 5 else " "  # a long figure may stand on a line of its own
        facts.append(f"{head}{between}{cell.replace(' ', GLUE)}")
    return f"{row[0]}, {row[1]}: {', '.join(facts)}"


def _wrapped(text: str, width: int) -> str:
    lines = textwrap.wrap(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(GLUE, " ")


def percent(accuracies: Sequence[float]) -> str:
    """Return ``48.9 ± 0.6``, or ``none``."""
    if not accuracies:
        return "none"
    spread = f" ± {100 * stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{100 * mean(accuracies):.1f}{spread}"
