"""Where a run starts: from new images, from a set that exists, or where another run has come to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from ddkit.data import Dataset
from ddkit.distillation.checkpoint import restore, save
from ddkit.distillation.compose import Composition, compose, make_method
from ddkit.errors import CheckpointError
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet, initial
from ddkit.networks.fresh import Networks
from ddkit.networks.pool import ProxyPool
from ddkit.paths import expanded
from ddkit.plugins import Plugins
from ddkit.recipes.recipe import Recipe
from ddkit.recipes.sections import ProxySpec
from ddkit.reporter import Reporter
from ddkit.run import Run
from ddkit.runs.folder import RECIPE, RunFolder
from ddkit.runs.identity import identity
from ddkit.runtime import storage
from ddkit.runtime.device import Runtime, open_runtime, own_settings
from ddkit.runtime.storage import digest


def started(parts: Composition, real: RealImages) -> SyntheticSet:
    """Return the set that is learned, as it is before the first step."""
    spec, seed = parts.recipe.synthetic, parts.recipe.seed
    if parts.start is None:
        return initial(spec, real, seed)
    syn, made = initial(replace(spec, init="noise"), real, seed), parts.start.synthetic
    images = made.images.detach().to(real.device)
    if made.space != syn.space or made.info != syn.info:
        info = made.info.to(real.device)
        images = images if made.space == "pixel" else info.denormalize(images)
        images = images if syn.space == "pixel" else syn.info.normalize(images)
    with torch.no_grad():
        syn.images.copy_(images)
    return syn


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
        synthetic=started(parts, real),
        nets=Networks(parts.make, recipe.seed, runtime.device, pools or trained),
        runtime=runtime,
        reporter=reporter,
        seed=recipe.seed,
        terms=parts.terms,
        proxies=parts.proxies,
    )
    parts.method.setup(run)
    return run


@dataclass(frozen=True)
class Origin:
    """The run that another one continues to more iterations."""

    identity: str
    step: int

    @classmethod
    def of(cls, folder: RunFolder) -> Origin | None:
        """Return what the run in `folder` continues, as its ``run.json`` says.

        Raises:
            CheckpointError: the state that it took over is no longer there, or not as it was told.
        """
        status = folder.status() if folder.path.is_dir() else {}
        if "continues" not in status:
            return None
        if not status.get("finished") and not folder.checkpoint.is_file():
            raise CheckpointError(
                f"{folder.path}: lacks the state of the run that it continues; remove it and "
                f"extend that run anew"
            )
        identity, step = status["continues"], status.get("from_step")
        if not isinstance(identity, str) or type(step) is not int:
            raise CheckpointError(
                f"{folder.path}: its run.json does not say what run it continues; remove it and "
                f"extend that run anew"
            )
        return cls(identity, step)


def run_identity(parts: Composition, origin: Origin | None = None) -> str:
    """Return the hash of what determines the set, a set to start from by its content included."""
    recipe, data = parts.recipe, parts.dataset.fingerprint()
    if parts.start is not None:
        spec = replace(recipe.synthetic, path=parts.start.digest)
        recipe = replace(recipe, synthetic=spec)
    data = " ".join([data, *(f"{k} {v}" for k, v in weights_of(recipe).items())])
    return identity(recipe, data if origin is None else f"{data} {origin.identity} {origin.step}")


def weights_of(recipe: Recipe) -> dict[str, str]:
    """Return the hashes of the files of weights that networks of a run start from, if any do.

    Such networks are not random: a set's provenance says so.
    """
    parts = {"backbone": recipe.backbone}
    if recipe.proxies is not None:
        parts["proxies.backbone"] = recipe.proxies.backbone
    given = {
        f"{k}.weights": p.options["weights"] for k, p in parts.items() if "weights" in p.options
    }
    return {name: digest(expanded(path)) for name, path in given.items()}


def iterations(recipe: Recipe) -> int:
    """Return the method's iterations, 0 where it has no such option stated."""
    count = recipe.method.options.get("iterations", 0)
    return count if isinstance(count, int) else 0


def with_iterations(recipe: Recipe, count: int) -> Recipe:
    """Return `recipe` with other iterations."""
    options = {**recipe.method.options, "iterations": count}
    return replace(recipe, method=replace(recipe.method, options=options))


def extends(longer: Recipe, kept: Recipe) -> bool:
    """Whether `longer` has more iterations than `kept`."""
    return iterations(longer) > iterations(kept) > 0


def extension(run: RunFolder, longer: Recipe) -> RunFolder:
    """Return the folder in which `run` is continued to more iterations: beside it."""
    return RunFolder(run.path.with_name(f"{run.path.resolve().name}-to-{iterations(longer)}"))


@own_settings()
def extend(
    longer: Recipe,
    plugins: Plugins,
    reporter: Reporter,
    run: RunFolder,
    dataset: Dataset | None = None,
) -> RunFolder:
    """Make the folder in which the run in `run` goes on to the iterations of `longer`.

    An unfinished run goes on from its checkpoint, exactly; a finished one, which keeps its set
    alone, from that set and the number of its steps. `run` stays as it is.

    Raises:
        DDKitError: as `compose`; `CheckpointError` where more than the iterations differs, or no
            step was taken yet.
    """
    runtime = open_runtime(longer.runtime)
    parts = compose(longer, plugins, runtime, dataset)
    folder = extension(run, parts.recipe)
    if folder.path.is_dir() and folder.status():
        return folder  # made before: it goes on
    kept = Recipe.load(run.path / RECIPE)
    before = with_iterations(parts.recipe, iterations(kept))
    named = run_identity(replace(parts, recipe=before), Origin.of(run))
    if run.status().get("identity") != named:
        raise CheckpointError(
            f"{run.path}: a run is continued with more method.iterations alone, on the same data; "
            f"what else differs makes another run: give --out instead of --resume"
        )
    live = prepare(parts, runtime, reporter)
    if run.status().get("finished"):
        step = make_method(before, plugins).steps(live)
        _take_up(live, run)
    else:
        step = restore(run.checkpoint, live, parts.method, named)
    if step == 0:
        raise CheckpointError(f"{run.path}: no step is saved to go on from; start the run anew")
    origin = Origin(named, step)
    key = run_identity(parts, origin)
    folder.check(key, parts.recipe)
    folder.write_status(identity=key, finished=False, continues=named, from_step=step)
    folder.write_recipe(parts.recipe)
    if run.metrics.is_file():
        storage.write_atomically(folder.metrics, partial(shutil.copyfile, run.metrics))
    save(folder.checkpoint, live, parts.method, step, key)
    return folder


def _take_up(live: Run, run: RunFolder) -> None:
    """Give a new run the images and the counts of a finished one."""
    made, status = SyntheticSet.load(run.set), run.status()
    with torch.no_grad():
        live.synthetic.images.copy_(made.images)
    live.synthetic.soft = made.soft
    live.real.drawn, live.seconds = int(status.get("images", 0)), float(status.get("seconds", 0))
