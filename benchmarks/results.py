"""Measure the rows of benchmarks/results.toml and write docs/results.md; resumable.

    python benchmarks/results.py [--only GROUP] [--data DIR] [--minutes N] [--workers N]

Each (row, seed) is distilled and judged once, on one thread; its line in docs/results.jsonl is the
record, and the page is made from the lines alone. In a group with `seconds`, a row gets as many
iterations as fit into these seconds of one core, from a short timed run, and keeps that number for
all its seeds; pools of trained networks are not counted. Nothing is chosen on test accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from results_page import Lines, page

import ddkit
from ddkit.recipes.recipe import Recipe

HERE = Path(__file__).parent
PLAN = HERE / "results.toml"
RECORD = HERE.parent / "docs" / "results.jsonl"
PAGE = HERE.parent / "docs" / "results.md"
TIMED, WARM = 22, 2  # steps of a timed run, and how many of them are not counted


@dataclass(frozen=True)
class Row:
    """One line of a table: a recipe with overrides."""

    group: str
    name: str
    recipe: str
    overrides: tuple[str, ...]

    def key(self, seed: int) -> tuple[str, str, int]:
        return self.group, self.name, seed

    @property
    def iterates(self) -> bool:
        """Whether the row's method takes as many iterations as it is told."""
        return "iterations" in Recipe.load(self.recipe, self.overrides).method.options


Job = tuple[Row, int, dict[str, Any], int | None]
"""A row, the seed, its group, and the iterations if the group's time decides them."""


class Clock:
    """A reporter that only remembers when steps ended, in seconds that this process had a core.

    On a shared machine the time on the wall says more of the neighbours than of the method.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.task = ""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self.task = task
        if task == "distill":
            self.ends = [time.process_time()]

    def advance(self, metrics: Any, images: int = 0) -> None:
        if self.task == "distill":
            self.ends.append(time.process_time())

    def each(self, warm: int) -> float:
        """Return the seconds of one step, the first `warm` left out."""
        return (self.ends[-1] - self.ends[warm]) / (len(self.ends) - 1 - warm)

    def note(self, text: str) -> None:
        print("   ", text, flush=True)

    def end(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a group; may be given again")
    parser.add_argument("--data", help="the folder of images for rows on a folder")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--workers", type=int, default=2, help="sets side by side, a thread each")
    options = parser.parse_args()
    plan = tomllib.loads(PLAN.read_text(encoding="utf-8"))["groups"]
    chosen = [g for g in plan if not options.only or g["name"] in options.only]
    deadline = time.monotonic() + 60 * options.minutes
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers, which start anew
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as workers:
        jobs = (job for group in chosen for job in missing(group, options.data, workers))
        for line in side_by_side(workers, jobs, options.workers, deadline):
            with RECORD.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            PAGE.write_text(page(plan, record()), encoding="utf-8")
    PAGE.write_text(page(plan, record()), encoding="utf-8")


def missing(group: dict[str, Any], data: str | None, workers: Executor) -> Iterator[Job]:
    """Yield what the record lacks of a group, seed by seed so that rows stay paired."""
    done = record()
    lacking = [
        (row, seed)
        for seed in range(group["sets"])
        for row in rows(group, data)
        if row.key(seed) not in done
    ]
    fits: dict[str, int | None] = {row.name: None for row, _ in lacking}
    if "seconds" in group:
        fits |= {x["row"]: x["iterations"] for x in done.values() if x["group"] == group["name"]}
        timed = {r.name: r for r, _ in lacking if fits[r.name] is None and r.iterates}
        counts = workers.map(fitting, timed.values(), [group["seconds"]] * len(timed))
        fits |= dict(zip(timed, counts, strict=True))
    for row, seed in lacking:
        yield row, seed, group, fits[row.name]


def side_by_side(
    workers: Executor, jobs: Iterator[Job], count: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """Run jobs, `count` at a time; begin none after the deadline. Yield lines as they come.

    After a failure what runs is still finished and yielded; then the failure is raised.
    """
    running: set[Future[dict[str, Any]]] = set()
    failed: list[BaseException] = []
    while True:
        while not failed and len(running) < count and time.monotonic() < deadline:
            job = next(jobs, None)
            if job is None:
                break
            running.add(workers.submit(one, *job))
        if not running:
            break
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                failed.append(error)
    if failed:
        raise failed[0]


def rows(group: dict[str, Any], data: str | None) -> Iterator[Row]:
    for row in group["rows"]:
        extra = [f'dataset.path="{data}"'] if data and group.get("folder") else []
        overrides = (*group.get("set", []), *row.get("set", []), *extra)
        yield Row(group["name"], row["name"], row["recipe"], overrides)


def one(row: Row, seed: int, group: dict[str, Any], iterations: int | None) -> dict[str, Any]:
    """Distill and judge one set; return its line of the record."""
    print(f"{row.group}: {row.name}, seed {seed}", flush=True)
    overrides = [*row.overrides, f"seed={seed}"]
    if iterations is not None:
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
        "core_seconds": round(clock.ends[-1] - clock.ends[0], 1),
        "seconds_in_all": round(time.perf_counter() - start, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": str(torch.__version__),
        "ddkit": ddkit.__version__,
    }


def fitting(row: Row, seconds: float) -> int:
    """Return how many iterations take `seconds`, from a short timed run."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        overrides = [*row.overrides, f"method.iterations={TIMED}"]
        ddkit.distill(row.recipe, overrides, f"{folder}/run", clock)
    return max(1, int(seconds / clock.each(WARM)))


def record() -> Lines:
    """Return all lines measured so far, by group, row and seed."""
    if not RECORD.exists():
        return {}
    lines = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    return {(line["group"], line["row"], line["seed"]): line for line in lines}


if __name__ == "__main__":
    main()
