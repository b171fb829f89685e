"""How steep each regularizer is at the images, against the method itself: a rule for its weight.

    python benchmarks/slopes.py RECIPE centralize covariance cmi [--set key=value] [--steps N]

Prints the norm of the gradient at the synthetic images, the mean over the first N steps with the
images held still: of the method alone, and of each regularizer at weight 1. The weight printed
beside it makes the term a third as steep as the method at the start; see docs/methods/cmi.md.
No accuracy is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from ddkit import plugins
from ddkit.distillation.compose import compose
from ddkit.distillation.start import prepare
from ddkit.recipes.recipe import Recipe
from ddkit.reporter import Silent
from ddkit.runtime.device import open_runtime

POOL = 'proxies={backbone={name="resnet18",width=16},count=3,epochs=5,weight_decay=5e-4}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("terms", nargs="+", help="names of regularizers")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    if Recipe.load(options.recipe, options.settings).proxies is None:
        options.settings.append(POOL)
    own = gradients(options.recipe, [*options.settings, "regularizers=[]"], options.steps)
    print(f"{options.recipe}: {size(own):.4g}", flush=True)
    for name in options.terms:
        term = f'regularizers=[{{name="{name}",weight=1.0}}]'
        both = gradients(options.recipe, [*options.settings, term], options.steps)
        steep = size([a - b for a, b in zip(both, own, strict=True)])  # the draws are the same
        weight = size(own) / steep / 3 if steep else float("inf")
        print(f"{name}: {steep:.4g} at weight 1; a third of the method: {weight:.3g}", flush=True)


def gradients(recipe: str, settings: Sequence[str], steps: int) -> list[Tensor]:
    """Return the images' gradients in the matching phase of the first steps."""
    loaded = Recipe.load(recipe, settings)
    runtime = open_runtime(loaded.runtime)
    parts = compose(loaded, plugins.load(), runtime)
    run = prepare(parts, runtime, Silent())
    images, apply = run.synthetic.images, run.apply
    start, seen = images.detach().clone(), list[Tensor]()

    def hold() -> None:
        """Note the gradient, and let the optimizers step without it."""
        grad = torch.zeros_like(images) if images.grad is None else images.grad
        seen.append(grad.detach().clone())
        images.grad = torch.zeros_like(images)
        apply()

    run.apply = hold  # type: ignore[method-assign]
    first = []
    for i in range(steps):
        seen.clear()
        parts.method.step(run, i)
        first.append(seen[0])  # NCFM's second phase has no regularizers
        with torch.no_grad():
            images.copy_(start)
    return first


def size(of: list[Tensor]) -> float:
    """Return the mean norm."""
    return float(torch.stack([x.norm() for x in of]).mean())


if __name__ == "__main__":
    main()
