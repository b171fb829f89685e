"""Random real images beside a set, as many of them; and data that a set is not for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ddkit.data import Dataset
from ddkit.errors import IncompatibleError, shown
from ddkit.images.formation import Formation
from ddkit.images.real import RealImages
from ddkit.images.synthetic import SyntheticSet

Draw = Callable[[int], SyntheticSet]
"""What network number k trains on."""


def baselines(syn: SyntheticSet, real: RealImages) -> Iterable[tuple[str, Draw]]:
    """Yield the random sets that `syn` is compared with, each as a function of a number."""
    lacking = no_baseline(syn, real.counts)
    if lacking:
        raise IncompatibleError(f"{lacking}; use --no-baseline")
    yield "random", lambda k: random_set(real, syn.ipc, Formation(), k)
    if syn.formation.factor > 1:
        formation = syn.formation
        name = f"random {formation.factor}x{formation.factor}"
        yield name, lambda k: random_set(real, syn.ipc, formation, k)


def random_set(real: RealImages, ipc: int, formation: Formation, k: int) -> SyntheticSet:
    """Return draw number `k` of `ipc` random real images (or mosaics of them) per class."""
    info = real.info
    labels = torch.arange(info.num_classes).repeat_interleave(ipc)
    images = torch.empty(len(labels), *info.shape, device=real.device)
    made = SyntheticSet(nn.Parameter(images), labels, info, formation)
    classes = torch.arange(info.num_classes)
    drawn, _ = real.sample(classes, ipc * formation.pieces, k, stream="baseline")
    made.fill(drawn)
    return made


def no_baseline(syn: SyntheticSet, counts: Sequence[int]) -> str | None:
    """Return why there are no random sets beside `syn`, given the images per class, or None."""
    need = syn.ipc * syn.formation.pieces
    if need <= min(counts):
        return None
    return (
        f"the random baseline needs {need} images per class, but a class of {syn.info.name} has "
        f"{min(counts)}"
    )


def check_data(syn: SyntheticSet, data: Dataset) -> None:
    """Refuse data that the set was not made for.

    Raises:
        IncompatibleError: other shape, classes or normalisation.
    """
    for what in ("shape", "classes", "mean", "std"):
        ours, theirs = getattr(syn.info, what), getattr(data.info, what)
        if ours != theirs:
            raise IncompatibleError(
                f"the set was made for {shown(syn.info.name)} with {what} {_short(ours)}, but the "
                f"test data {shown(data.info.name)} has {_short(theirs)}"
            )


def _short(value: tuple[Any, ...]) -> str:
    text = shown(", ".join(map(str, value[:4])))
    return f"({text}, … {len(value)} in all)" if len(value) > 4 else f"({text})"
