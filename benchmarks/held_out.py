"""Compare settings of a recipe on training images that are held out; test images are never read.

    python benchmarks/held_out.py RECIPE --try method.lr_images=0.2,1.0 [--try …] [--set key=value]

A quarter of the training images (``--share``) is drawn once, at random, and kept from distilling,
from pools of networks and from judges; every combination of the values tried is distilled on the
rest and judged on that quarter. Choose by this, then report on the test images once.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from statistics import stdev
from tempfile import TemporaryDirectory

import torch

import ddkit
from ddkit import plugins
from ddkit.data import Dataset, MemoryImages
from ddkit.distillation import loop
from ddkit.images.real import make_dataset
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.resolution import split_dataset
from ddkit.reporter import Silent
from ddkit.runtime.randomness import generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--try", dest="tried", action="append", required=True, metavar="KEY=A,B")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--share", type=float, default=0.25, help="of the training images")
    parser.add_argument("--seeds", type=int, default=1, help="judges of each set")
    options = parser.parse_args()
    loaded = plugins.load()
    recipe = Recipe.load(options.recipe, options.settings)
    part, _ = split_dataset(recipe.dataset, recipe.place("dataset"))
    data = without_test(make_dataset(part, loaded, recipe.place("dataset")), options.share)
    for values in product(*map(choices, options.tried)):
        recipe = Recipe.load(options.recipe, [*options.settings, *values])
        with TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            outcome = loop.run_recipe(recipe, loaded, Silent(), out, "run", data)
        verdict = ddkit.evaluate(
            outcome.synthetic, seeds=options.seeds, baseline=False, dataset=outcome.dataset
        )
        result = verdict.results[0]
        spread = f" ± {100 * stdev(result.accuracies):.2f}" if result.n > 1 else ""
        print(f"{', '.join(values)}: {100 * result.mean:.2f}{spread}, n = {result.n}", flush=True)


def choices(text: str) -> list[str]:
    """Return ``KEY=A`` and ``KEY=B`` of ``KEY=A,B``."""
    key, _, values = text.partition("=")
    return [f"{key}={value}" for value in values.split(",")]


def without_test(data: Dataset, share: float) -> Dataset:
    """Return the training images of `data` as a dataset of its own, `share` of them for testing."""
    labels = data.train.labels
    order = torch.randperm(len(labels), generator=generator(0, "held-out"))
    held, kept = (rows.sort().values for rows in order.tensor_split([int(share * len(labels))]))
    train, test = (MemoryImages(data.train.fetch(rows), labels[rows]) for rows in (kept, held))
    return Dataset(data.info, train, test)


if __name__ == "__main__":
    main()
