"""Measure which share of a run's time its checkpoints take, at the default interval.

    python benchmarks/trust/cost.py [--seconds 150] [RECIPE ...]

Each recipe runs until its last step but one, or for so many seconds; then it is stopped as Ctrl-C
stops it, which saves. What counts as cost: writing checkpoints, parts and read-back included, one
in every interval of 60 s; and copying states in memory, for steps that break off. Prints the share
of each; the exit code is 1 where both take more than 2 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddkit import plugins
from ddkit.distillation import loop
from ddkit.errors import Interrupted
from ddkit.plugins import Plugins
from ddkit.recipes import catalog
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import RuntimeSpec
from ddkit.reporter import Metrics, Silent

RECIPES = ("dm-digits-ipc10", "ncfm-digits-ipc10", "idm-digits-ipc10")
MOST = 0.02  # of a run's time
INTERVAL = RuntimeSpec.checkpoint_seconds


class Limited(Silent):
    """Stops a run after so many seconds of distilling; counts its steps."""

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.total = seconds, 0, 0
        self.began = self.ended = 0.0

    def begin(self, task: str, total: int, done: int = 0) -> None:
        self.total, self.began = total, time.monotonic()

    def advance(self, metrics: Metrics, images: int = 0) -> None:
        self.steps += 1
        self.ended = time.monotonic()
        if self.ended - self.began > self.seconds or self.steps == self.total - 1:
            raise Interrupted("so much was asked for")


class Timed:
    """Adds up the time that a function takes."""

    def __init__(self, call: Callable[..., Any]):
        self.call, self.seconds, self.count = call, 0.0, 0

    def __call__(self, *given: Any) -> Any:
        start = time.monotonic()
        try:
            return self.call(*given)
        finally:
            self.seconds += time.monotonic() - start
            self.count += 1


def measured(name: str, seconds: float, loaded: Plugins) -> float:
    """Run a recipe for a while; print what its checkpoints cost, and return their share."""
    saves, copies = Timed(loop.save), Timed(loop.Kept.look)
    before = loop.save, loop.Kept.look
    loop.save = saves
    loop.Kept.look = lambda *given: copies(*given)  # type: ignore[method-assign]
    reporter = Limited(seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="cost-") as place:
            recipe = Recipe.load(catalog.find_recipe(name))
            loop.run_recipe(recipe, loaded, reporter, Path(place) / "run")
    except Interrupted:
        pass
    finally:
        loop.save, loop.Kept.look = before  # type: ignore[method-assign]
    took = reporter.ended - reporter.began
    each = saves.seconds / saves.count
    written, copied = each / INTERVAL, copies.seconds / took
    print(
        f"{name}: {took:.0f} s, {reporter.steps} steps; a checkpoint {1000 * each:.0f} ms, "
        f"{100 * written:.2f} % of the time; copies in memory {100 * copied:.2f} %",
        flush=True,
    )
    return written + copied


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seconds", type=float, default=150)
    given = parser.parse_args()
    loaded = plugins.load()
    shares = [measured(name, given.seconds, loaded) for name in given.recipes]
    return 1 if max(shares) > MOST else 0


if __name__ == "__main__":
    sys.exit(main())
