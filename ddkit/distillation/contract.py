"""What methods and regularizers must do: looked at in every step, and on a bench before a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ddkit.data import DataInfo
from ddkit.distillation.bench import CPU, Bench, tiny_dataset, tiny_match, witnesses
from ddkit.distillation.compose import make_method, make_terms
from ddkit.errors import ContractError, DDKitError
from ddkit.findings import Finding, looked
from ddkit.method import Method
from ddkit.plugins import BUILTIN, Plugins
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import SyntheticSpec
from ddkit.regularizer import Term, check_scalar
from ddkit.reporter import Metrics
from ddkit.run import Run
from ddkit.runtime.blame import release, told, used_parts
from ddkit.runtime.randomness import generator, global_generator

SIDE = 32  # pixels of the images that plugins are tried on, at most
TRIED = 2  # steps


def take_step(method: Method, run: Run, i: int) -> Metrics:
    """Take step `i` of `method`, layers drawing at random as seed and step say.

    Raises:
        ContractError: what it returns are no metrics.
    """
    with global_generator(run.seed, "layers", i, device=run.runtime.device):
        return watched_step(method, run, i)


def watched_step(method: Method, run: Run, i: int) -> Metrics:
    """Take step `i` of `method`; errors as `take_step`."""
    run.at = i
    metrics = method.step(run, i)
    if not isinstance(metrics, dict):
        kind = type(metrics).__name__
        problem = f"step must return a dict of names to scalar tensors, not a value of type {kind}"
        raise ContractError("method", problem)
    for name, value in metrics.items():
        check_scalar(value, "method", f"step must return under {name!r}")
    return metrics


def count_steps(method: Method, run: Run) -> int:
    """Return how many steps the method takes.

    Raises:
        ContractError: no whole number of them.
    """
    count = method.steps(run)
    if type(count) is not int or count < 0:
        raise ContractError("method", f"steps must return a whole number, not {count!r}")
    return count


def tried(recipe: Recipe, plugins: Plugins, info: DataInfo) -> list[Finding]:
    """Try what third parties wrote on a few tiny images, before anything long begins.

    A promise that is not kept is refused. What else is raised is a note: it may be the images.
    """
    theirs = [u for u in used_parts(recipe, plugins, judges=False) if u[2].distribution != BUILTIN]
    methods = [u for u in theirs if u[0] == "method"]
    names = {name for kind, name, _ in theirs if kind == "regularizer"}
    if not methods and not names:
        return []
    return looked("plugins", lambda: _tried(recipe, plugins, info, bool(methods), names))


def _tried(
    recipe: Recipe, plugins: Plugins, info: DataInfo, method: bool, names: set[str]
) -> Iterator[Finding]:
    terms = make_terms(recipe, plugins)  # others than the run's, which may remember
    try:
        for term in terms:
            if term.name.partition("#")[0] in names:
                _try_term(term)
        if method:
            _try_method(make_method(recipe, plugins), recipe.synthetic, info, terms)
    except DDKitError as error:
        yield Finding("note", "plugins", f"could not be tried on tiny images: {error}")
    except Exception as error:
        words = told(error, used_parts(recipe, plugins))
        if words is None:
            raise
        if isinstance(error, ContractError):
            raise words from error
        yield Finding("note", "plugins", f"tried on tiny images: {words}")
    else:
        used = used_parts(recipe, plugins, judges=False)
        packages = sorted({release(part) for _, _, part in used if part.distribution != BUILTIN})
        yield Finding("ok", "plugins", f"{', '.join(packages)}: tried on tiny images")


def _try_term(term: Term) -> None:
    """Ask a regularizer for its loss of six images, two of each class."""
    data, labels = tiny_dataset(), torch.arange(6) // 2
    images: Tensor = torch.randn(6, *data.info.shape, generator=generator(0, "try-regularizer"))
    term.penalty(tiny_match(data, images.requires_grad_(), labels, term.regularizer.requires))


def _try_method(
    method: Method, spec: SyntheticSpec, info: DataInfo, terms: tuple[Term, ...]
) -> None:
    """Take steps with a term for every field that the method provides beside the recipe's own."""
    small = replace(spec, ipc=min(spec.ipc, 2))
    if spec.init == "set":
        small = replace(small, init="real", path=None)
    count = max(12, 2 * spec.factor**2)
    side = min(SIDE, *info.shape[1:])
    data = tiny_dataset(per_class=count, size=side, channels=info.channels)
    bench = Bench(data, synthetic=small, terms=(*terms, *witnesses(method.provides)))
    with TemporaryDirectory(prefix="ddkit-trial-") as name:
        with global_generator(0, "try-method", device=CPU):
            run = bench.run(method, Path(name), hurried=True)
        for i in range(min(TRIED, count_steps(method, run))):
            take_step(method, run, i)
