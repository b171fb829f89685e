"""The lines of validate.py as a table: what was reached, beside what is reported and reproduced."""

from __future__ import annotations

from typing import Any

from ddkit.cli.table import percent

Line = dict[str, Any]
HEAD = ("recipe", "judge", "on", "last epoch", "best*", "n", "s/iteration", "memory")


def table(lines: list[Line]) -> str:
    """Return a table of all recipes and judges, with the figures known of each recipe below it."""
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        key = line["recipe"], line["precision"], line["machine"], line["arch"]
        groups.setdefault(key, []).append(line)
    rows = [row for same in groups.values() for row in rows_of(same)]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    printed = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [HEAD, *rows]
    ]
    known = {x["recipe"]: (x["reported"], x["reproduced"]) for x in lines}
    for recipe, (reported, reproduced) in known.items():
        printed.append(f"{recipe}: reported {reported or 'nothing'}")
        if reproduced:
            printed.append(f"{recipe}: reproduced {reproduced}")
    return "\n".join([*printed, "best*: of several tests, selected on the test data; no result."])


def rows_of(same: list[Line]) -> list[tuple[str, ...]]:
    """Return a row for each thing that the networks of one judge were trained on."""
    first, rows = same[0], list[tuple[str, ...]]()
    for subject in (r["subject"] for r in first["results"]):
        own = [r for line in same for r in line["results"] if r["subject"] == subject]
        rows.append(
            (
                first["recipe"] if first["precision"] == "float32" else f"{first['recipe']}, bf16",
                first["arch"],
                subject,
                percent([a for r in own for a in r["accuracies"]]),
                percent([a for r in own for a in r["best"]]),
                str(len(own)),
                f"{first['seconds_per_step']:.3f}",
                f"{first['peak_memory'] / 2**30:.1f} GiB",
            )
        )
    return rows
