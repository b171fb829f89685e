"""What a run says of itself when it fails: divergence, memory, a plugin that raised."""

from __future__ import annotations

import traceback

import torch

from ddkit.distillation.checkpoint import tensors
from ddkit.errors import (
    CheckpointError,
    DivergedError,
    OutOfMemoryError,
)
from ddkit.method import Method
from ddkit.recipes.recipe import Recipe
from ddkit.run import Run
from ddkit.runs.folder import RunFolder
from ddkit.runtime.blame import first_line
from ddkit.runtime.divergence import Divergence
from ddkit.runtime.progress import JsonLines
from ddkit.runtime.storage import write_text

ERROR = "error.txt"


def diverged(run: Run, lines: JsonLines) -> Divergence | None:
    """Return what is no longer finite, if anything is; waits for the device."""
    lines.flush()
    found = run.watch.found()
    rows = ~torch.isfinite(run.synthetic.images).flatten(1).all(1)
    if found is None and bool(rows.any()):
        return Divergence(run.at, tuple(run.synthetic.labels[rows.cpu()].unique().tolist()))
    if found is None and lines.not_finite:
        return Divergence(min(lines.not_finite), ())
    return found


def refuse_non_finite(
    run: Run, recipe: Recipe, method: Method, folder: RunFolder, lines: JsonLines
) -> None:
    """Stop a run that has diverged; the gradient that showed it was not applied.

    Raises:
        DivergedError: naming step, terms and classes as far as losses and gradients show them.
    """
    found = diverged(run, lines)
    if found is None:
        return
    seen = run.watch.found() is not None
    terms = ", ".join(lines.not_finite.get(found.step, ["the gradient" if seen else "the images"]))
    classes = found.told(run.synthetic.info.classes)
    kept = "the last checkpoint is kept. " if folder.checkpoint.is_file() else ""
    raise DivergedError(
        f"{folder.path}: step {found.step}: {terms}{classes and f' of {classes}'} is no longer "
        f"finite; {kept}{_advice(recipe, method)}"
    )


def _advice(recipe: Recipe, method: Method) -> str:
    """Return which rates to lower: the networks' where a network of the method's is not finite."""
    names = [n for n in recipe.method.options if n.startswith("lr") or n.endswith("_lr")]
    rates = [f"method.{n}" for n in names if not n.startswith("pool_")]
    of_images = [r for r in rates if r.endswith("lr_images")]
    of_networks = [r for r in rates if r not in of_images]
    broken = any(not bool(torch.isfinite(t).all()) for t in tensors(method.state_dict()))
    if broken and of_networks:
        return f"A network that the method trains has diverged: lower {' or '.join(of_networks)}"
    chosen = [*of_images, *of_networks] or ["the method's rate"]
    return f"Lower {' or '.join(chosen)} or the weights"


def too_large(recipe: Recipe, run: Run | None, error: BaseException) -> OutOfMemoryError:
    """Return in words what to make smaller, and to which size, where memory does not suffice."""
    options, sizes = recipe.method.options, dict[str, int]()
    if run is None:
        if recipe.proxies is not None:
            sizes["proxies.batch_size"] = recipe.proxies.batch_size
        sizes |= {f"method.{n}": options[n] for n in ("pool_batch",) if n in options}
    elif run.chunk is not None and run.chunk > 1:
        sizes["runtime.chunk"] = run.chunk
    if not sizes:
        names = ("batch_real", "batch_train", "train_batch")
        sizes = {f"method.{n}": options[n] for n in names if n in options}
    sizes = sizes or {"synthetic.ipc": recipe.synthetic.ipc}
    advice = " or ".join(f"--set {name}={size // 2}" for name, size in sizes.items() if size > 1)
    when = "before the first step" if run is None else f"in step {run.at}"
    reason = first_line(error)
    smaller = advice or "take a smaller backbone"
    return OutOfMemoryError(f"out of memory {when} ({reason}); {smaller}")


def leave_traceback(folder: RunFolder, error: BaseException) -> None:
    """Keep the traceback in the folder, where there is one."""
    if folder.path.is_dir():
        text = "".join(traceback.format_exception(error))
        try:
            write_text(folder.path / ERROR, text)
        except CheckpointError:
            return  # what stopped the run is told, not that this could not be written
        error.add_note(f"the traceback is in {folder.path / ERROR}")
