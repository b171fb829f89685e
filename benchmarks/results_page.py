"""The page docs/results.md, from the lines that results.py measured and from nothing else."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

Lines = dict[tuple[str, str, int], dict[str, Any]]
"""The record: lines by group, row and seed."""


def page(plan: list[dict[str, Any]], done: Lines) -> str:
    """Return the whole page."""
    lines = [
        "# Results",
        "",
        "Measured by `python benchmarks/results.py`, from the lines of `results.jsonl`. CPU-sized; "
        "test accuracy in %, last epoch. ± is the sample standard deviation over sets, of the mean "
        "over each set's networks; a difference is paired by seed, ± its standard error "
        "over sets (judges and test images are the same, so their own chance is not in it). "
        "No setting was chosen on test accuracy.",
        "",
    ]
    for group in plan:
        lines += section(group, done)
    return "\n".join(lines).rstrip() + "\n"


def section(group: dict[str, Any], done: Lines) -> list[str]:
    base = group.get("base")
    lines = [f"## {group['title']}", "", group["about"], ""]
    lines += [
        f"| | accuracy | sets x networks | minus {base or '–'} | iterations | s per set |",
        "|---|---|---|---|---|---|",
    ]
    for row in group["rows"]:
        got = found(group, row["name"], done)
        if not got:
            lines.append(f"| {row['name']} | not measured | | | | |")
            continue
        against = row.get("base", base)
        lines.append(
            f"| {row['name']} | {spread([score(x) for x in got])} "
            f"| {len(got)} x {group['networks']} | {difference(group, got, against, done)} "
            f"| {got[0]['iterations'] or 'recipe'} | {mean(map(took, got)):.0f} |"
        )
    machines = sorted({x["machine"] for k, x in done.items() if k[0] == group["name"]})
    return [*lines, "", f"Machine: {'; '.join(machines) or 'none yet'}.", ""]


def found(group: dict[str, Any], name: str, done: Lines) -> list[dict[str, Any]]:
    seeds = range(group["sets"])
    return [done[group["name"], name, s] for s in seeds if (group["name"], name, s) in done]


def score(line: dict[str, Any]) -> float:
    return 100 * mean(line["accuracies"])


def took(line: dict[str, Any]) -> float:
    """Return the seconds of the steps: of one core, or on the wall where only these are known."""
    return float(line.get("core_seconds", line["seconds"]))


def spread(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference(
    group: dict[str, Any], got: list[dict[str, Any]], base: str | None, done: Lines
) -> str:
    """Return the mean difference to the base row, paired by seed, with its standard error."""
    beside = {x["seed"]: score(x) for x in found(group, base, done)} if base else {}
    pairs = [score(x) - beside[x["seed"]] for x in got if x["seed"] in beside]
    if not pairs or got[0]["row"] == base:
        return ""
    error = f" ± {stdev(pairs) / len(pairs) ** 0.5:.2f}" if len(pairs) > 1 else ""
    named = f" ({base})" if base != group.get("base") else ""
    return f"{mean(pairs):+.2f}{error}{named}"
