"""Measure the rows of benchmarks/results.toml and write docs/results.md; resumable.

    python benchmarks/results.py [--only GROUP] [--data DIR] [--minutes N]

Each (row, seed) is distilled and judged once; its line in docs/results.jsonl is the record, and the
page is made from the lines alone. A row with the group's `seconds` gets as many iterations as fit,
from a short timed run, and keeps that number for all its seeds. Nothing is chosen on test accuracy.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import ddkit
from ddkit.recipe import Recipe

HERE = Path(__file__).parent
PLAN = HERE / "results.toml"
RECORD = HERE.parent / "docs" / "results.jsonl"
PAGE = HERE.parent / "docs" / "results.md"
TIMED = 12  # steps of a timed run, the first two of which warm up


@dataclass(frozen=True)
class Row:
    """One line of a table: a recipe with overrides."""

    group: str
    name: str
    recipe: str
    overrides: tuple[str, ...]

    def key(self, seed: int) -> tuple[str, str, int]:
        return self.group, self.name, seed


class Clock:
    """A reporter that only remembers when steps ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.task = ""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self.task = task

    def advance(self, metrics: Any, images: int = 0) -> None:
        if self.task == "distill":
            self.ends.append(time.perf_counter())

    def note(self, text: str) -> None:
        print("   ", text, flush=True)

    def end(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a group; may be given again")
    parser.add_argument("--data", help="the folder of images for rows on a folder")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    options = parser.parse_args()
    plan = tomllib.loads(PLAN.read_text(encoding="utf-8"))["groups"]
    deadline = time.monotonic() + 60 * options.minutes
    for group in plan:
        if not options.only or group["name"] in options.only:
            measure(group, options.data, deadline)
            PAGE.write_text(page(plan, record()), encoding="utf-8")
    PAGE.write_text(page(plan, record()), encoding="utf-8")


def measure(group: dict[str, Any], data: str | None, deadline: float) -> None:
    """Measure what the record lacks of one group, seed by seed so that rows stay paired."""
    for seed in range(group["sets"]):
        for row in rows(group, data):
            done = record()
            if row.key(seed) in done:
                continue
            if time.monotonic() > deadline:
                return
            print(f"{row.group}: {row.name}, seed {seed}", flush=True)
            line = one(row, seed, group, done)
            with RECORD.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def rows(group: dict[str, Any], data: str | None) -> Iterator[Row]:
    for row in group["rows"]:
        extra = [f'dataset.path="{data}"'] if data and group.get("folder") else []
        overrides = (*group.get("set", []), *row.get("set", []), *extra)
        yield Row(group["name"], row["name"], row["recipe"], overrides)


def one(row: Row, seed: int, group: dict[str, Any], done: dict[Any, Any]) -> dict[str, Any]:
    """Distill and judge one set; return its line of the record."""
    overrides = [*row.overrides, f"seed={seed}"]
    iterations = None
    if "seconds" in group and "iterations" in row_options(row):
        earlier = [v["iterations"] for k, v in done.items() if k[:2] == (row.group, row.name)]
        iterations = earlier[0] if earlier else fitting(row, group["seconds"])
        overrides.append(f"method.iterations={iterations}")
    with tempfile.TemporaryDirectory() as folder:
        clock, start = Clock(), time.perf_counter()
        outcome = ddkit.distill(row.recipe, overrides, f"{folder}/run", clock)
        seconds = outcome.folder.status()["seconds"]
        verdict = ddkit.evaluate(
            outcome.synthetic,
            seeds=group["networks"],
            baseline=False,
            dataset=outcome.dataset,
            settings=group.get("judge", []),
        )
    return {
        "group": row.group,
        "row": row.name,
        "seed": seed,
        "recipe": row.recipe,
        "overrides": [o for o in overrides if not o.startswith("dataset.path")],
        "iterations": iterations,
        "accuracies": verdict.results[0].accuracies,
        "protocol": verdict.protocol,
        "seconds": seconds,
        "seconds_in_all": round(time.perf_counter() - start, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": str(torch.__version__),
        "ddkit": ddkit.__version__,
    }


def row_options(row: Row) -> set[str]:
    """Return the names of the method's options in the row's recipe."""
    return set(Recipe.load(row.recipe, row.overrides).method.options)


def fitting(row: Row, seconds: float) -> int:
    """Return how many iterations take `seconds`, from a short timed run."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        overrides = [*row.overrides, f"method.iterations={TIMED}"]
        ddkit.distill(row.recipe, overrides, f"{folder}/run", clock)
    each = (clock.ends[-1] - clock.ends[1]) / (len(clock.ends) - 2)
    return max(1, int(seconds / each))


def record() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return all lines measured so far, by group, row and seed."""
    if not RECORD.exists():
        return {}
    lines = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    return {(line["group"], line["row"], line["seed"]): line for line in lines}


def page(plan: list[dict[str, Any]], done: dict[Any, Any]) -> str:
    """Return the whole page."""
    lines = [
        "# Results",
        "",
        "Measured by `python benchmarks/results.py`, from the lines of `results.jsonl`. CPU-sized; "
        "test accuracy in %, last epoch. ± is the sample standard deviation over sets, of the mean "
        "over each set's networks; a difference is paired by seed, ± its standard error. "
        "No setting was chosen on test accuracy.",
        "",
    ]
    for group in plan:
        lines += section(group, done)
    return "\n".join(lines).rstrip() + "\n"


def section(group: dict[str, Any], done: dict[Any, Any]) -> list[str]:
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
            f"| {got[0]['iterations'] or 'recipe'} | {mean(x['seconds'] for x in got):.0f} |"
        )
    machines = sorted({x["machine"] for k, x in done.items() if k[0] == group["name"]})
    return [*lines, "", f"Machine: {'; '.join(machines) or 'none yet'}.", ""]


def found(group: dict[str, Any], name: str, done: dict[Any, Any]) -> list[dict[str, Any]]:
    seeds = range(group["sets"])
    return [done[group["name"], name, s] for s in seeds if (group["name"], name, s) in done]


def score(line: dict[str, Any]) -> float:
    return 100 * mean(line["accuracies"])


def spread(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference(
    group: dict[str, Any], got: list[dict[str, Any]], base: str | None, done: dict[Any, Any]
) -> str:
    """Return the mean difference to the base row, paired by seed, with its standard error."""
    beside = {x["seed"]: score(x) for x in found(group, base, done)} if base else {}
    pairs = [score(x) - beside[x["seed"]] for x in got if x["seed"] in beside]
    if not pairs or got[0]["row"] == base:
        return ""
    error = f" ± {stdev(pairs) / len(pairs) ** 0.5:.1f}" if len(pairs) > 1 else ""
    named = f" ({base})" if base != group.get("base") else ""
    return f"{mean(pairs):+.1f}{error}{named}"


if __name__ == "__main__":
    main()
