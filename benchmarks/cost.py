"""What recipes cost on this machine: a few steps of each on noise of the right shape.

``python benchmarks/cost.py [NAME …]`` prints a Markdown table, by default of the recipes below; it
is the probe of ``ddkit doctor``, whose steps cost the same whatever the images show. Nothing is
downloaded or kept. `docs/cost.md` holds a table made so.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import torch
from torch import Tensor

from ddkit import plugins
from ddkit.data import DataInfo, Dataset
from ddkit.diagnosis.probe import probe_run
from ddkit.distillation.compose import compose
from ddkit.recipes.recipe import Recipe
from ddkit.runtime.device import open_runtime
from ddkit.runtime.memory import keep_freed_memory

NAMES = (
    *("dm-digits-ipc10", "idm-digits-ipc10", "ncfm-digits-ipc10", "dsa-digits-ipc10"),
    *("idc-digits-ipc10", "dm-cifar10-jpeg-cpu", "ncfm-cifar10-jpeg-cpu"),
    *("dm-cifar10-ipc10", "dm-iid-cifar10-ipc10", "idm-cifar10-ipc10", "ncfm-cifar10-ipc10"),
    *("dsa-cifar10-ipc10", "idc-cifar10-ipc10", "dm-cifar100-ipc10"),
)
SHAPES = {"digits": (1, 16, 10, 140), "cifar100": (3, 32, 100, 500)}
CIFAR10 = (3, 32, 10, 5000)


class Noise:
    """Images that show nothing, the same for the same number."""

    def __init__(self, info: DataInfo, per_class: int):
        self.info = info
        self.labels = torch.arange(info.num_classes).repeat_interleave(per_class)

    def fetch(self, index: Tensor) -> Tensor:
        first = int(index[0]) if len(index) else 0
        rng = torch.Generator().manual_seed(first)
        return torch.randint(256, (len(index), *self.info.shape), generator=rng).to(torch.uint8)

    def to(self, device: torch.device) -> Noise:
        return self

    def fingerprint(self) -> str:
        return f"noise {self.info.shape} {len(self.labels)}"


def noise(recipe: Recipe) -> Dataset:
    """Return noise of the shape and number of the recipe's dataset."""
    channels, side, classes, per_class = SHAPES.get(recipe.dataset.name, CIFAR10)
    names = tuple(f"class {i}" for i in range(classes))
    info = DataInfo("noise", channels, side, side, names, (0.5,) * channels, (0.25,) * channels)
    return Dataset(info, Noise(info, per_class), Noise(info, per_class // 5))


def row(name: str, loaded: plugins.Plugins) -> list[str]:
    """Return the cells of one recipe: steps, seconds of each, and what all takes."""
    recipe = Recipe.load(name)
    runtime = open_runtime(recipe.runtime)
    parts = compose(recipe, loaded, runtime, noise(recipe))
    found = probe_run(parts, loaded, runtime, Path())
    said = {f.subject: f.text for f in found}
    if "time" not in said:
        raise SystemExit(f"{name}: {'; '.join(f.text for f in found)}")
    each, total = re.match(r"(\S+ s) each; ([\d,]+) take about", said["steps"]).groups()
    pool = re.search(r"about (.+?), once", said.get("pool", ""))
    times = re.match(r"about (.+?) in all(?:, and (.+?) for --eval)?$", said["time"])
    return [f"`{name}`", total, each, pool[1] if pool else "", times[1], times[2] or ""]


def main() -> None:
    keep_freed_memory()
    loaded = plugins.load()
    threads, version = torch.get_num_threads(), torch.__version__
    print(f"{platform.machine()}, {threads} threads, torch {version}\n")
    print("| recipe | steps | s each | pool, once | in all | judging |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or NAMES:
        print("|", " | ".join(row(name, loaded)), "|", flush=True)


if __name__ == "__main__":
    main()
