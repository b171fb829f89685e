"""Random real images beside a set, as many of them; and data that a set is not for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
    counts, formation = per_class(syn), syn.formation
    yield "random", lambda k: random_set(real, counts, Formation(), k)
    if formation.factor > 1:
        name = f"random {formation.factor}x{formation.factor}"
        yield name, lambda k: random_set(real, counts, formation, k)


def per_class(syn: SyntheticSet) -> Tensor:
    """Return how many images `syn` stores of each class, int64 [K]."""
    return torch.bincount(syn.labels, minlength=syn.info.num_classes)


def random_set(real: RealImages, counts: Tensor, formation: Formation, k: int) -> SyntheticSet:
    """Return draw number `k` of as many random real images (or mosaics of them) as `counts` says.

    `counts`, int64 [K] on the CPU, are those of each class. Every image, every tile of a mosaic, is
    another one.
    """
    labels = torch.arange(real.info.num_classes).repeat_interleave(counts)
    most = int(counts.max()) * formation.pieces
    drawn = real.choose(most, k, "baseline")  # class-major; of a class fewer than that, all
    images = real.fetch(drawn[_tiles(torch.tensor(real.counts).clamp_max(most), counts, formation)])
    return SyntheticSet(nn.Parameter(formation.compose(images)), labels, real.info, formation)


def _tiles(drawn: Tensor, counts: Tensor, formation: Formation) -> Tensor:
    """Return the rows that mosaics take, piece-major, of images of which `drawn` are of each class.

    Both int64 [K]; of a class the first ``counts * pieces`` rows are taken.
    """
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    within = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels]
    first = (drawn.cumsum(0) - drawn)[labels] + within
    pieces = torch.arange(formation.pieces)[:, None] * counts[labels]
    return (first + pieces).flatten()


def no_baseline(syn: SyntheticSet, counts: Sequence[int]) -> str | None:
    """Return why there are no random sets beside `syn`, given the images per class, or None."""
    need = (per_class(syn) * syn.formation.pieces).tolist()
    lacking = [c for c, (n, has) in enumerate(zip(need, counts, strict=True)) if n > has]
    if not lacking:
        return None
    first = lacking[0]
    return (
        f"the random baseline needs {need[first]} images of class "
        f"{syn.info.classes[first]!r}, but {syn.info.name} has {counts[first]}"
    )


def check_data(syn: SyntheticSet, data: Dataset) -> None:
    """Refuse data that the set was not made for; other images of its classes are welcome.

    Raises:
        IncompatibleError: other shape or classes, or classes in another order.
    """
    if syn.info.classes != data.info.classes and set(syn.info.classes) == set(data.info.classes):
        pairs = zip(syn.info.classes, data.info.classes, strict=True)
        label, (ours, theirs) = next((k, p) for k, p in enumerate(pairs) if p[0] != p[1])
        raise IncompatibleError(
            f"the test data {data.info.name} has the classes of the set in another order: label "
            f"{label} is {ours!r} in the set, {theirs!r} in the data; give it in the set's order"
        )
    for what in ("shape", "classes"):
        ours, theirs = getattr(syn.info, what), getattr(data.info, what)
        if ours != theirs:
            raise IncompatibleError(
                f"the set was made for {shown(syn.info.name)} with {what} {_short(ours)}, but the "
                f"test data {shown(data.info.name)} has {_short(theirs)}"
            )


def other_statistics(syn: SyntheticSet, data: Dataset) -> str | None:
    """Return in words how the data's own statistics differ from the set's, which are used."""
    for what in ("mean", "std"):
        ours, theirs = getattr(syn.info, what), getattr(data.info, what)
        if ours != theirs:
            return (
                f"the test images have the {what} {_short(theirs)} of their own; they are "
                f"normalised by the set's, {_short(ours)}, as what networks learn from is"
            )
    return None


def _short(value: tuple[Any, ...]) -> str:
    text = shown(", ".join(map(str, value[:4])))
    return f"({text}, … {len(value)} in all)" if len(value) > 4 else f"({text})"
