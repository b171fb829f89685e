"""The outer loop: from a recipe to a set in a run folder, resumable after every step."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from ddkit.data import Dataset
from ddkit.distillation.checkpoint import interval, restore, save
from ddkit.distillation.compose import Composition
from ddkit.distillation.folder import GRID, RunFolder
from ddkit.distillation.identity import identity
from ddkit.distillation.preflight import brief, check_checkpoints, plan
from ddkit.errors import DivergedError, Interrupted
from ddkit.findings import refuse
from ddkit.images import pictures
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet, initial
from ddkit.networks.fresh import Networks
from ddkit.networks.pool import ProxyPool
from ddkit.plugins import Plugins
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import ProxySpec
from ddkit.reporter import Reporter
from ddkit.run import Run
from ddkit.runtime import randomness
from ddkit.runtime.device import Runtime
from ddkit.runtime.divergence import Divergence
from ddkit.runtime.progress import JsonLines, Tee

CHECK_SECONDS = 2.0  # between looks at the device's flag of non-finite values


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    folder: RunFolder
    synthetic: SyntheticSet
    dataset: Dataset
    already: bool = False
    """Whether the folder held this very run, finished before."""


def run_recipe(
    recipe: Recipe,
    plugins: Plugins,
    reporter: Reporter,
    out: Path | None = None,
    name: str = "run",
    dataset: Dataset | None = None,
) -> Outcome:
    """Distill `recipe` into `out`, or into a new folder under ``runs/`` called after `name`.

    An unfinished run of the same recipe and data in `out` is continued; a finished one is left
    as it is.

    Raises:
        DDKitError: as `compose`; `CheckpointError` for the folder; `DivergedError`; `Interrupted`.
    """
    runtime, parts, folder, found = plan(recipe, plugins, out, name, dataset)
    refuse(found)
    recipe = parts.recipe
    key = identity(recipe, parts.dataset.fingerprint())
    with folder.claimed(key, recipe, reporter.note) as finished:
        if finished:
            return Outcome(folder, SyntheticSet.load(folder.set), parts.dataset, already=True)
        for line in brief(parts, runtime, found):
            reporter.note(line)
        return _made(parts, runtime, folder, key, reporter)


def _made(
    parts: Composition, runtime: Runtime, folder: RunFolder, key: str, reporter: Reporter
) -> Outcome:
    """Take the run from where it is to its end, and write what it made."""
    recipe = parts.recipe
    run = prepare(parts, runtime, reporter)
    check_checkpoints(run, parts.method, folder.path)
    _loop(run, parts, folder, key, reporter)
    syn = run.synthetic
    syn.recipe = recipe.table()
    syn.provenance = provenance(recipe, parts.dataset)
    syn.save(folder.set)
    pictures.write_grid(syn, folder.path / GRID)
    folder.finish(
        seconds=round(run.seconds, 2),
        device=str(runtime.device),
        threads=torch.get_num_threads(),
        peak_memory=runtime.memory(),
        images=run.real.drawn,
        chunk=run.chunk,
        **syn.provenance,
    )
    return Outcome(folder, syn, parts.dataset)


def prepare(
    parts: Composition,
    runtime: Runtime,
    reporter: Reporter,
    pools: Callable[[ProxySpec], ProxyPool] | None = None,
) -> Run:
    """Build the run: the initial set, the pool of proxies, and whatever the method sets up.

    `pools` makes the pools that the method asks for; by default those of the recipe's backbone.
    """
    recipe = parts.recipe
    if parts.proxies is not None:
        parts.proxies.prepare(reporter)

    def trained(spec: ProxySpec) -> ProxyPool:
        spec = replace(spec, backbone=recipe.backbone)
        return ProxyPool(spec, parts.make, parts.dataset, runtime, recipe.seed, parts.cache)

    real = RealImages(parts.dataset, recipe.seed, runtime.device)
    run = Run(
        real=real,
        synthetic=initial(recipe.synthetic, real, recipe.seed),
        nets=Networks(parts.make, recipe.seed, runtime.device, pools or trained),
        runtime=runtime,
        reporter=reporter,
        seed=recipe.seed,
        terms=parts.terms,
        proxies=parts.proxies,
    )
    parts.method.setup(run)
    return run


def _loop(run: Run, parts: Composition, folder: RunFolder, key: str, reporter: Reporter) -> None:
    """Take the steps that are left, with checkpoints between them."""
    method, total = parts.method, parts.method.steps(run)
    done = restore(folder.checkpoint, run, method, key, folder.metrics)
    if done:
        reporter.note(f"continuing {folder.path} at step {done} of {total}")
    lines = JsonLines(folder.metrics)
    both = Tee(lines, reporter)
    both.begin("distill", total, done)
    asked, cost = parts.recipe.runtime.checkpoint_seconds, 0.0
    saved = checked = time.monotonic()
    started = saved - run.seconds  # of this session and those before it
    try:
        for i in range(done, total):
            before, run.at = run.real.drawn, i
            with randomness.global_generator(run.seed, "layers", i, device=run.runtime.device):
                metrics = method.step(run, i)
            try:  # an interrupt inside of a step leaves nothing to save
                both.advance(metrics, run.real.drawn - before)
            except Interrupted:
                _refuse_non_finite(run, folder, lines)
                run.seconds = time.monotonic() - started
                save(folder.checkpoint, run, method, i + 1, key, lines)
                raise Interrupted(_stopped(i + 1, total, folder)) from None
            now = time.monotonic()
            run.seconds = now - started
            if now - checked > CHECK_SECONDS or i + 1 == total:
                _refuse_non_finite(run, folder, lines)
                checked = now
            if checked == now and now - saved > interval(asked, cost):
                cost = save(folder.checkpoint, run, method, i + 1, key, lines)
                saved = now
        method.finish(run)
        run.seconds = time.monotonic() - started
    finally:
        both.end()


def _stopped(step: int, total: int, folder: RunFolder) -> str:
    return (
        f"stopped after step {step} of {total}, state saved; the same command with "
        f"--out {folder.path} goes on"
    )


def _refuse_non_finite(run: Run, folder: RunFolder, lines: JsonLines) -> None:
    """Stop a run that has diverged; the gradient that showed it was not applied.

    Raises:
        DivergedError: naming step, terms and classes as far as losses and gradients show them.
    """
    lines.flush()
    found = run.watch.found()
    rows = ~torch.isfinite(run.synthetic.images).flatten(1).all(1)
    what = "the gradient"
    if found is None and bool(rows.any()):
        found = Divergence(run.at, tuple(run.synthetic.labels[rows.cpu()].unique().tolist()))
        what = "the images"
    elif found is None and lines.not_finite:
        found = Divergence(min(lines.not_finite), ())
    if found is None:
        return
    terms = ", ".join(lines.not_finite.get(found.step, [what]))
    classes = found.told(run.synthetic.info.classes)
    kept = "the last checkpoint is kept. " if folder.checkpoint.is_file() else ""
    raise DivergedError(
        f"{folder.path}: step {found.step}: {terms}{classes and f' of {classes}'} is no longer "
        f"finite; {kept}Lower method.lr_images or the weights"
    )


def provenance(recipe: Recipe, dataset: Dataset) -> dict[str, str | int]:
    """Return what a set should say of its making; nothing that changes from run to run."""
    return {
        "seed": recipe.seed,
        "data": dataset.fingerprint(),
        "ddkit": version("ddkit"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
